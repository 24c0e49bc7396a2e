//! The C library's mutex, shared between processes: the normal one and the robust one; recursive where that is asked for.

use std::{cell::UnsafeCell, error::Error, io, mem::MaybeUninit};

use billiard_benches::{
    frame::{Answer, Request},
    shared::Shared,
};

use crate::{
    lock::{Counter, Race, between_processes},
    other,
};

/// A mutex around a counter.
struct Mutex {
    raw: UnsafeCell<libc::pthread_mutex_t>,
    counter: UnsafeCell<u64>,
}

// SAFETY: the counter is used under the mutex alone, and the mutex is made to be used by many.
unsafe impl Sync for Mutex {}

/// The normal one.
pub(crate) fn normal(request: &Request) -> Result<Answer, Box<dyn Error>> {
    run(request, libc::PTHREAD_MUTEX_STALLED)
}

/// The robust one.
pub(crate) fn robust(request: &Request) -> Result<Answer, Box<dyn Error>> {
    run(request, libc::PTHREAD_MUTEX_ROBUST)
}

/// Each case.
fn run(request: &Request, robustness: libc::c_int) -> Result<Answer, Box<dyn Error>> {
    let race = Shared::new(Race::new(Mutex {
        raw: UnsafeCell::new(libc::PTHREAD_MUTEX_INITIALIZER),
        counter: UnsafeCell::new(0),
    })?)?;
    let kind = match request.case.as_str() {
        "sync/rlock_uncontended" => libc::PTHREAD_MUTEX_RECURSIVE,
        _ => libc::PTHREAD_MUTEX_NORMAL,
    };
    race.counter().set_up(robustness, kind)?;
    between_processes(request, &race, other::forked)
}

impl Mutex {
    /// Makes it what it is to be, once it has its place in shared memory.
    fn set_up(&self, robustness: libc::c_int, kind: libc::c_int) -> io::Result<()> {
        let mut attributes = MaybeUninit::uninit();
        // SAFETY: the place is there to be initialised.
        done(unsafe { libc::pthread_mutexattr_init(attributes.as_mut_ptr()) })?;
        // SAFETY: it was initialised just now.
        let mut attributes = unsafe { attributes.assume_init() };
        // SAFETY: the attributes are initialised.
        done(unsafe { libc::pthread_mutexattr_setpshared(&raw mut attributes, libc::PTHREAD_PROCESS_SHARED) })?;
        // SAFETY: as above.
        done(unsafe { libc::pthread_mutexattr_setrobust(&raw mut attributes, robustness) })?;
        // SAFETY: as above.
        done(unsafe { libc::pthread_mutexattr_settype(&raw mut attributes, kind) })?;
        // SAFETY: nobody uses the mutex yet.
        done(unsafe { libc::pthread_mutex_init(self.raw.get(), &raw const attributes) })
    }
}

impl Counter for Mutex {
    fn update<R>(&self, f: impl FnOnce(&mut u64) -> R) -> R {
        // SAFETY: the mutex is initialised and stays where it is.
        let locked = unsafe { libc::pthread_mutex_lock(self.raw.get()) };
        assert_eq!(locked, 0, "nobody dies while holding it");
        // SAFETY: whoever holds the mutex alone uses the counter.
        let result = f(unsafe { &mut *self.counter.get() });
        // SAFETY: this thread holds the mutex.
        let unlocked = unsafe { libc::pthread_mutex_unlock(self.raw.get()) };
        assert_eq!(unlocked, 0, "it is held");
        result
    }
}

/// The error that a function of the C library's threads returns.
fn done(error: libc::c_int) -> io::Result<()> {
    if error == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(error)) }
}
