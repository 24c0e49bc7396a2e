//! The C library's semaphore, shared between processes.

use std::{cell::UnsafeCell, error::Error, io, mem};

use billiard_benches::{
    frame::{self, Answer, Request},
    shared::Shared,
};

use crate::{
    other,
    permits::{Permits, PingPong, uncontended, wake_latency},
};

/// A `sem_t`.
struct Semaphore(UnsafeCell<libc::sem_t>);

// SAFETY: it is made to be used by many.
unsafe impl Sync for Semaphore {}

/// Each case.
pub(crate) fn run(request: &Request) -> Result<Answer, Box<dyn Error>> {
    match request.case.as_str() {
        "sync/semaphore_uncontended" => {
            let semaphore = Shared::new(Semaphore::unset())?;
            semaphore.set_up(1)?;
            uncontended(request, &*semaphore)
        }
        "sync/wake_latency" => {
            let shared = Shared::new(PingPong::new(Semaphore::unset(), Semaphore::unset()))?;
            shared.there.set_up(0)?;
            shared.back.set_up(0)?;
            wake_latency(request, &shared, other::forked)
        }
        _ => Err(frame::unknown_case()),
    }
}

impl Semaphore {
    /// One that is not set up yet.
    fn unset() -> Self {
        // SAFETY: `sem_t` is plain bytes.
        Self(UnsafeCell::new(unsafe { mem::zeroed() }))
    }

    /// Gives it its permits, once it has its place in shared memory.
    fn set_up(&self, permits: u32) -> io::Result<()> {
        // SAFETY: nobody uses the semaphore yet.
        let failed = unsafe { libc::sem_init(self.0.get(), 1, permits) };
        if failed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

impl Permits for Semaphore {
    fn acquire(&self) {
        loop {
            // SAFETY: the semaphore is set up and stays where it is.
            let failed = unsafe { libc::sem_wait(self.0.get()) };
            if failed == 0 {
                return;
            }
            let error = io::Error::last_os_error();
            assert_eq!(error.kind(), io::ErrorKind::Interrupted, "{error}");
        }
    }

    fn release(&self) {
        // SAFETY: as above.
        let failed = unsafe { libc::sem_post(self.0.get()) };
        assert_eq!(failed, 0, "{}", io::Error::last_os_error());
    }
}
