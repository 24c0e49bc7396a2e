//! What handles and guards do in copies of the process: alone in this program, since it forks.

use std::time::Duration;

use billiard_sync::{Barrier, BarrierError, Error, Event, Lock, LockError, Mutex, RLock, Semaphore, Value};
use billiard_wire::generation::Heritage;

/// Runs `check` in a copy of this process; whether it returned true.
fn in_a_copy(check: impl Fn() -> bool) -> bool {
    // SAFETY: no other thread of this program is in the middle of anything that the child uses.
    match unsafe { libc::fork() } {
        0 => {
            let code = match std::panic::catch_unwind(std::panic::AssertUnwindSafe(&check)) {
                Ok(true) => 0,
                _ => 1,
            };
            // SAFETY: always.
            unsafe { libc::_exit(code) }
        }
        child => {
            let mut status = 0;
            // SAFETY: the place is valid, and the child this function's own.
            assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
            status == 0
        }
    }
}

fn panics(work: impl FnOnce()) -> bool {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).is_err()
}

#[test]
fn copies_forked_by_hand_refuse_and_children_go_on() {
    let (lock, mutex, event) = (Lock::new().unwrap(), Mutex::new(1_u32).unwrap(), Event::new().unwrap());
    let (semaphore, value, large) =
        (Semaphore::new(2).unwrap(), Value::new(5_u8).unwrap(), Value::new([1_u64; 4]).unwrap());
    let (barrier, rlock) = (Barrier::new(1).unwrap(), RLock::new().unwrap());

    let twice = [rlock.lock().unwrap(), rlock.lock().unwrap()];
    let guard = std::cell::RefCell::new(Some((
        lock.lock().unwrap(),
        mutex.lock().unwrap(),
        semaphore.permit().unwrap(),
        twice,
    )));
    assert!(in_a_copy(|| {
        let unusable = |error| matches!(error, LockError::Unusable(_));
        unusable(lock.try_lock().unwrap_err().forget())
            && unusable(mutex.try_lock().unwrap_err().forget())
            && unusable(rlock.lock_timeout(Duration::ZERO).unwrap_err().forget())
            && unusable(rlock.try_lock().unwrap_err().forget())
            && matches!(event.set(), Err(Error::Forked(_)))
            && matches!(event.wait(), Err(Error::Forked(_)))
            && matches!(semaphore.release(), Err(Error::Forked(_)))
            && semaphore.try_permit().is_err()
            && matches!(barrier.wait(), Err(BarrierError::Unusable(_)))
            && barrier.reset().is_err()
            && panics(|| _ = value.get())
            && panics(|| value.set(1))
            && large.update(|_| ()).is_err()
    }));
    // Guards that are dropped in a copy free nothing; one that is used there is a mistake.
    let heritage = Heritage::note();
    assert!(in_a_copy(|| {
        heritage.accept();
        let guards = guard.take().unwrap();
        let used = panics(|| _ = *guards.1 + 1);
        drop(guards);
        let held = matches!(lock.try_lock(), Err(LockError::WouldBlock)) && mutex.is_locked() && semaphore.value() == 1;
        // The thread is a copy of the one that has it, and has it not.
        let held = held && matches!(rlock.try_lock(), Err(LockError::WouldBlock));
        used && held && value.get() == 5
    }));
    let (held, whole, permit, [outer, inner]) = guard.take().unwrap();
    drop((held, whole, permit, outer));
    assert!(!lock.is_locked() && semaphore.value() == 2 && rlock.is_locked());
    drop(inner);
    assert!(!rlock.is_locked());

    // The child of a `Context::fork` is a participant of its own: what it dies with comes back.
    assert!(in_a_copy(|| {
        heritage.accept();
        *mutex.lock().unwrap() = 2;
        large.set([3; 4]);
        event.set().unwrap();
        std::mem::forget((lock.lock().unwrap(), semaphore.permit().unwrap()));
        std::mem::forget([rlock.lock().unwrap(), rlock.lock().unwrap()]);
        barrier.wait().is_ok()
    }));
    assert!(event.is_set() && *mutex.lock().unwrap() == 2 && large.get() == [3; 4]);
    assert!(matches!(lock.lock(), Err(LockError::OwnerDied(_))));
    assert!(!lock.is_locked());
    // The same thread number, the same depth: and yet another's.
    let Err(LockError::OwnerDied(once)) = rlock.lock() else { panic!("its owner died") };
    drop(once);
    assert!(!rlock.is_locked());
    assert_eq!(semaphore.value(), 1);
    let both = (semaphore.permit().unwrap(), semaphore.permit().unwrap());
    drop(both);
    assert_eq!(semaphore.value(), 2);
}
