//! The thread that has taken a lock frees it.

fn main() {
    let lock = billiard::sync::Lock::new().unwrap();
    let mutex = billiard::sync::Mutex::new(1_u32).unwrap();
    let semaphore = billiard::sync::Semaphore::new(1).unwrap();
    std::thread::scope(|scope| {
        let held = lock.lock().unwrap();
        scope.spawn(move || drop(held));
        let guard = mutex.lock().unwrap();
        scope.spawn(move || drop(guard));
        let permit = semaphore.permit().unwrap();
        scope.spawn(move || drop(permit));
    });
}
