//! A task that captures a variable could not be called in another process.

fn main() {
    billiard::init();
    let pool = billiard::Pool::new().unwrap();
    let factor = 3;
    let _ = pool.apply(|n: u32| n * factor, 14);
}
