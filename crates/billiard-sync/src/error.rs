//! What can go wrong.

use billiard_shm::{NamedError, SegmentError, participants::RegistryError};
use billiard_wire::generation::Forked;
use thiserror::Error;

use crate::words::rlock::Holder;

/// Why a primitive could not be made, attached to, or used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The handle was copied by a fork.
    #[error(transparent)]
    Forked(#[from] Forked),
    /// Its memory could not be made or attached to.
    #[error(transparent)]
    Segment(#[from] SegmentError),
    /// This process could not be entered into the registry of those who share the primitive.
    #[error(transparent)]
    Participants(#[from] RegistryError),
    /// What came as a primitive is the memory of one with the registry of another.
    #[error("the memory of the primitive and the registry that came with it do not belong together")]
    NotTogether,
    /// It could not be published under a name, or found by it.
    #[error(transparent)]
    Named(#[from] NamedError),
    /// One thread has a recursive lock as often as can be counted: it was not taken again.
    #[error("this thread has the recursive lock {max} times already", max = u32::MAX)]
    TooDeep,
    /// More threads of this process have used recursive locks than can be told apart.
    #[error("recursive locks tell {max} threads of a process apart: this is one too many", max = Holder::MAX_THREADS)]
    TooManyThreads,
    /// A semaphore would have more permits than it may: those released are not added.
    #[error("the semaphore may have {bound} permits at the most: more were released than acquired")]
    OverRelease {
        /// The most that it may have.
        bound: u32,
    },
    /// A semaphore was asked for with more permits than there can be.
    #[error("a semaphore with {0} permits was asked for: there can be {max} at the most", max = i32::MAX)]
    TooManyPermits(u32),
    /// A barrier was asked for that nobody, or more than there can be, would wait at.
    #[error("a barrier for {0} parties was asked for: there can be 1 to {max}", max = crate::barrier::MAX_PARTIES)]
    BadParties(usize),
}

/// Why a lock was not taken in the usual way.
///
/// `G` is the guard. To pass the error on with `?` beyond the handle that it borrows, [`forget`](Self::forget) the guard first.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LockError<G = ()> {
    /// The lock is taken, and its last owner died with it: what it guards may be half changed. Whoever is told decides: repair it and
    /// go on, or give up. The next one is not told again, unless this owner dies as well.
    #[error("the last owner died with the lock: what it guards may be half changed")]
    OwnerDied(G),
    /// Somebody has it; the call was not to wait.
    #[error("the lock is held")]
    WouldBlock,
    /// Somebody had it for the whole time.
    #[error("the lock was held until the time was over")]
    TimedOut,
    /// It cannot be used here.
    #[error(transparent)]
    Unusable(#[from] Error),
}

impl<G> LockError<G> {
    /// The error without the guard, which frees the lock if there is one.
    ///
    /// ```
    /// # use billiard_sync::{Lock, LockError};
    /// fn careful(lock: &Lock) -> Result<(), Box<dyn std::error::Error>> {
    ///     let _held = lock.lock().map_err(LockError::forget)?;
    ///     Ok(())
    /// }
    /// # careful(&Lock::new()?)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn forget(self) -> LockError {
        match self {
            Self::OwnerDied(_guard) => LockError::OwnerDied(()),
            Self::WouldBlock => LockError::WouldBlock,
            Self::TimedOut => LockError::TimedOut,
            Self::Unusable(error) => LockError::Unusable(error),
        }
    }

    /// The guard, if the lock is taken all the same: for those to whom a dead owner makes no difference.
    ///
    /// ```
    /// # use billiard_sync::{Lock, LockError};
    /// let lock = Lock::new()?;
    /// let held = lock.lock().or_else(LockError::accept)?;
    /// # drop(held);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Those without a guard.
    pub fn accept(self) -> Result<G, LockError> {
        match self {
            Self::OwnerDied(guard) => Ok(guard),
            other => Err(other.forget()),
        }
    }
}

/// Why a wait at a barrier failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BarrierError {
    /// The barrier is broken, or broke or was reset while this one waited.
    #[error("the barrier is broken")]
    Broken,
    /// Not all came in time, and so the barrier is broken now.
    #[error("not all parties came to the barrier in time: it is broken now")]
    TimedOut,
    /// A participant died while it waited, and so the barrier is broken now.
    #[error("a participant died while it waited at the barrier: it is broken now")]
    ParticipantDied,
    /// It cannot be used here.
    #[error(transparent)]
    Unusable(#[from] Error),
}
