//! Locks, semaphores, events, barriers and values that processes share.
//!
//! Each is a few words in memory of its own. A handle can be cloned, sent in any message (over a `Connection`, as an argument of a
//! process, out of a job), and used by whoever has it: all handles are of the same primitive.
//!
//! * [`Lock`] and [`Mutex<T>`](Mutex): one owner at a time, with what it guards. Robust: when an owner dies, the next is told.
//! * [`RLock`]: a lock that the thread which has it may take again.
//! * [`Semaphore`], [`BoundedSemaphore`]: permits. Those taken as a [`Permit`] come back when their process dies.
//! * [`Value<T>`](Value): a small value, read and written without waiting.
//! * [`Event`]: a flag to wait for. [`Barrier`]: a place to wait for each other.
//!
//! ```
//! use billiard_sync::{LockError, Mutex};
//!
//! let hits = Mutex::new(0_u64)?;
//! let there = hits.clone(); // or in another process
//! *there.lock().map_err(LockError::forget)? += 1;
//! assert_eq!(*hits.lock().map_err(LockError::forget)?, 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! **Deaths.** Nobody waits for the dead: who waits looks every 50 ms whether those live that it waits for, and takes over what
//! they had. A process that is *stopped* is not dead; timeouts help there. Nothing is polled where nobody waits.
//!
//! **Forks.** Handles work on in the child of a `Context::fork`. In a copy of the process that was forked by hand they refuse
//! ([`Error::Forked`]). Guards are never the copy's.
//!
//! **Names.** Processes without any connection find a primitive by its name: [`Named`].
//!
//! **Time.** Timeouts are counted by the clock that nobody sets.
//!
//! The protocols, and what is found after a death or a stop between any two steps: `docs/design/locks.md` in the repository.

#[cfg(not(loom))]
mod barrier;
#[cfg(not(loom))]
mod error;
#[cfg(not(loom))]
mod event;
#[cfg(not(loom))]
mod home;
#[cfg(not(loom))]
mod lock;
#[cfg(not(loom))]
mod mutex;
#[cfg(not(loom))]
mod named;
#[cfg(not(loom))]
mod rlock;
#[cfg(not(loom))]
mod semaphore;
#[cfg(not(loom))]
mod value;
#[cfg_attr(loom, allow(dead_code, reason = "the handles are not there under loom"))]
mod words;

#[cfg(not(loom))]
pub use self::{
    barrier::Barrier,
    error::{BarrierError, Error, LockError},
    event::Event,
    lock::{Lock, LockGuard},
    mutex::{Mutex, MutexGuard},
    named::{Named, Published},
    rlock::{RLock, RLockGuard},
    semaphore::{BoundedSemaphore, Permit, Semaphore},
    value::Value,
};

#[cfg(not(loom))]
pub use billiard_shm::Plain;
