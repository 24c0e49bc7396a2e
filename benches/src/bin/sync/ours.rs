//! This project's own.

use std::error::Error;

use billiard::sync::{Mutex, Semaphore};
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

impl Permits for Semaphore {
    fn acquire(&self) {
        Semaphore::acquire(self).expect("it is this process's");
    }

    fn release(&self) {
        Semaphore::release(self).expect("there is room for a permit");
    }
}
