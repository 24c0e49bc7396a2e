//! This project's own.

use std::{cell::UnsafeCell, error::Error};

use billiard::sync::{Mutex, RLock, Semaphore};
use billiard_benches::{
    frame::{self, Answer, Request},
    shared::Shared,
};

use crate::{
    lock::{Counter, Race, between_processes},
    other,
    permits::{Permits, PingPong, uncontended, wake_latency},
};

/// Each case.
pub(crate) fn run(request: &Request) -> Result<Answer, Box<dyn Error>> {
    match request.case.as_str() {
        "sync/lock_uncontended" | "sync/lock_contended2" => {
            between_processes(request, &Shared::new(Race::new(Mutex::new(0)?)?)?, other::ours)
        }
        "sync/rlock_uncontended" => {
            let recursive = Recursive { lock: RLock::new()?, counter: UnsafeCell::new(0) };
            between_processes(request, &Shared::new(Race::new(recursive)?)?, other::ours)
        }
        "sync/semaphore_uncontended" => uncontended(request, &Semaphore::new(1)?),
        "sync/wake_latency" => {
            let shared = Shared::new(PingPong::new(Semaphore::new(0)?, Semaphore::new(0)?))?;
            wake_latency(request, &shared, other::ours)
        }
        _ => Err(frame::unknown_case()),
    }
}

impl Counter for Mutex<u64> {
    fn update<R>(&self, f: impl FnOnce(&mut u64) -> R) -> R {
        f(&mut self.lock().expect("nobody dies while holding it"))
    }
}

/// A recursive lock around a counter.
struct Recursive {
    lock: RLock,
    counter: UnsafeCell<u64>,
}

// SAFETY: the counter is used under the lock alone.
unsafe impl Sync for Recursive {}

impl Counter for Recursive {
    fn update<R>(&self, f: impl FnOnce(&mut u64) -> R) -> R {
        let _held = self.lock.lock().expect("nobody dies while holding it");
        // SAFETY: this thread has the lock, and no function that is given the counter takes it again.
        f(unsafe { &mut *self.counter.get() })
    }
}

impl Permits for Semaphore {
    fn acquire(&self) {
        Semaphore::acquire(self).expect("it is this process's");
    }

    fn release(&self) {
        Semaphore::release(self).expect("there is room for a permit");
    }
}
