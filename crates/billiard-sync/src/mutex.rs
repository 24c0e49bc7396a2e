//! A lock together with what it guards.

use std::{
    fmt,
    ops::{Deref, DerefMut},
    ptr::NonNull,
    time::Duration,
};

use billiard_shm::{Kind, Place, Plain};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{
    Error, LockError,
    home::{self, Home, Housed},
    lock::Held,
    words::{
        Owner, Wait,
        lock::{LockWord, Taken},
    },
};

const KIND: Kind = Kind::new("mutex", 1);

/// A value in shared memory that one owner at a time reads and writes, across processes.
///
/// Every clone, in every process, is of the same value. Like [`Lock`](crate::Lock) it is robust, not recursive and not
/// fair, and stays held when a guard is [never dropped](crate::LockGuard#a-guard-that-is-never-dropped). When a
/// process dies with it, the value is whatever that process left; the next owner gets [`LockError::OwnerDied`] with
/// the guard inside, and decides: it repairs the value, or trusts it, or gives up.
///
/// It travels as `Lock` does. Who receives it must expect the same `T`; anything else is an error.
///
/// ```
/// use billiard_sync::{LockError, Mutex};
///
/// let histogram = Mutex::new([0_u64; 256])?;
/// let mut guard = match histogram.lock() {
///     Ok(guard) => guard,
///     Err(LockError::OwnerDied(mut guard)) => {
///         *guard = [0; 256]; // half counted: begin anew
///         guard
///     }
///     Err(other) => return Err(other.forget().into()),
/// };
/// guard[7] += 1;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Mutex<T> {
    home: Home,
    word: Place<LockWord>,
    value: NonNull<T>,
}

// SAFETY: it lends the value to one owner at a time, of whatever thread, and a plain value has no thread.
unsafe impl<T: Plain> Send for Mutex<T> {}
// SAFETY: as above.
unsafe impl<T: Plain> Sync for Mutex<T> {}

impl<T: Plain> Mutex<T> {
    /// A free one with this value.
    ///
    /// # Errors
    ///
    /// As [`Lock::new`](crate::Lock::new).
    pub fn new(value: T) -> Result<Self, Error> {
        let mutex = Self::at(Home::create_aligned(KIND.of::<T>(), Self::OFFSET + size_of::<T>(), align_of::<T>())?)?;
        // SAFETY: the place was checked to be the segment's, and to be large and aligned enough; nobody else has it yet.
        unsafe { mutex.value.write(value) };
        Ok(mutex)
    }

    /// Where the value is: behind the word.
    const OFFSET: usize = size_of::<LockWord>().next_multiple_of(align_of::<T>());

    fn at(home: Home) -> Result<Self, Error> {
        let value = home.segment().address(Self::OFFSET, size_of::<T>(), align_of::<T>())?.cast();
        Ok(Self { word: home.place(0)?, home, value })
    }

    /// Takes the lock, however long that takes.
    ///
    /// # Errors
    ///
    /// [`LockError::OwnerDied`] with the guard, [`LockError::Unusable`].
    // Always: its large result, handed over in memory, would cost twice what the lock does.
    #[inline(always)]
    pub fn lock(&self) -> Result<MutexGuard<'_, T>, LockError<MutexGuard<'_, T>>> {
        match Held::take_free(&self.home, &self.word) {
            Some(held) => Ok(MutexGuard { held, value: self.value }),
            None => self.acquire(|me| self.word.lock(me, self.home.peers(), Wait::ForEver), LockError::TimedOut),
        }
    }

    /// Takes the lock if nobody has it, or a dead process.
    ///
    /// # Errors
    ///
    /// [`LockError::WouldBlock`] when it is held; otherwise as [`lock`](Self::lock).
    // Always: its large result, handed over in memory, would cost twice what the lock does.
    #[inline(always)]
    pub fn try_lock(&self) -> Result<MutexGuard<'_, T>, LockError<MutexGuard<'_, T>>> {
        match Held::take_free(&self.home, &self.word) {
            Some(held) => Ok(MutexGuard { held, value: self.value }),
            None => self.acquire(|me| self.word.try_lock(me, self.home.peers()), LockError::WouldBlock),
        }
    }

    /// Takes the lock, waiting for it no longer than `timeout`; a free one in any case.
    ///
    /// # Errors
    ///
    /// [`LockError::TimedOut`]; otherwise as [`lock`](Self::lock).
    pub fn lock_timeout(&self, timeout: Duration) -> Result<MutexGuard<'_, T>, LockError<MutexGuard<'_, T>>> {
        self.acquire(|me| self.word.lock(me, self.home.peers(), Wait::at_most(timeout)), LockError::TimedOut)
    }

    /// Whether somebody has it, in any process; a dead one included, as long as nobody has taken it over.
    #[must_use]
    #[inline]
    pub fn is_locked(&self) -> bool {
        self.word.owner().is_some()
    }

    /// The long way. Its result is large, and the short way would pay for that too.
    #[cold]
    #[inline(never)]
    fn acquire<'a>(
        &'a self,
        take: impl FnOnce(Owner) -> Option<Taken>,
        otherwise: LockError<MutexGuard<'a, T>>,
    ) -> Result<MutexGuard<'a, T>, LockError<MutexGuard<'a, T>>> {
        Held::acquire(&self.home, &self.word, take, otherwise, |held| MutexGuard { held, value: self.value })
    }
}

impl<T> Clone for Mutex<T> {
    fn clone(&self) -> Self {
        Self { home: self.home.clone(), word: self.word.clone(), value: self.value }
    }
}

impl<T> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mutex").field("owner", &self.home.name_of(self.word.owner())).finish_non_exhaustive()
    }
}

impl<T> Serialize for Mutex<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.home.serialize(serializer)
    }
}

impl<T: Plain> Housed for Mutex<T> {
    fn home(&self) -> &Home {
        &self.home
    }

    fn kinds() -> Vec<Kind> {
        vec![KIND.of::<T>()]
    }

    fn housed(home: Home) -> Result<Self, Error> {
        Self::at(home)
    }
}

impl<'de, T: Plain> Deserialize<'de> for Mutex<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        home::deserialize(deserializer)
    }
}

/// The value, as long as this lives.
///
/// One that is never dropped leaves the value locked until the process ends, not the thread; the next owner gets
/// [`LockError::OwnerDied`] then: see [`LockGuard`](crate::LockGuard#a-guard-that-is-never-dropped). In a copy of the
/// process made by a fork it belongs to the parent: using it there is a panic, dropping it does nothing.
#[must_use = "the lock is freed when this is dropped"]
pub struct MutexGuard<'a, T> {
    held: Held<'a>,
    value: NonNull<T>,
}

// SAFETY: a shared guard lends `&T` alone.
unsafe impl<T: Sync> Sync for MutexGuard<'_, T> {}

impl<T> MutexGuard<'_, T> {
    #[inline]
    fn check(&self) {
        assert!(self.held.is_ours(), "a guard was used in a copy of the process that has the lock");
    }
}

impl<T: Plain> Deref for MutexGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        self.check();
        // SAFETY: the place is the segment's, which the mutex keeps mapped; any bytes are a `T`; and nobody else has the lock.
        unsafe { self.value.as_ref() }
    }
}

impl<T: Plain> DerefMut for MutexGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        self.check();
        // SAFETY: as above.
        unsafe { self.value.as_mut() }
    }
}

impl<T: Plain + fmt::Debug> fmt::Debug for MutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MutexGuard").field(&**self).finish()
    }
}
