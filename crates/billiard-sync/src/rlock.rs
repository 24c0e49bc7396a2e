//! A lock that its owner may take again.

use std::{
    cell::Cell,
    fmt,
    marker::PhantomData,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use billiard_shm::{Kind, Place};
use billiard_wire::generation::Generation;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{
    Error, LockError,
    home::{self, Home, Housed},
    words::{
        Owner, Wait,
        lock::{LockWord, Taken},
        rlock::{Holder, RLockWords, TooDeep},
    },
};

const KIND: Kind = Kind::new("rlock", 1);

/// A lock that one thread at a time has, across processes, as often as it likes.
///
/// Every clone, in every process, is of the same lock. Whoever has it gets another guard at once; all others wait,
/// the other threads of the same process too. It is free when the last of the guards is dropped, whatever their
/// order.
///
/// Like [`Lock`](crate::Lock) it is robust, and not fair: when a process dies with it, however often it had it, the
/// next owner is told [`LockError::OwnerDied`] within about 50 ms, and has it once. A process that is *stopped* with
/// it keeps it. A thread that ends without dropping its guards leaves it held until its process ends; no other thread
/// is taken for that one.
///
/// It travels as `Lock` does. The child of a `Context::fork` uses it on, and does not own what its parent owns; a
/// copy of the process that was forked by hand cannot use it.
///
/// The same as Python's `multiprocessing.RLock`. Where nothing has to be taken twice, a `Lock` says more.
///
/// ```
/// use billiard_sync::{LockError, RLock};
///
/// fn deposit(lock: &RLock) -> Result<(), LockError> {
///     let _held = lock.lock().map_err(LockError::forget)?;
///     // …
///     Ok(())
/// }
///
/// let lock = RLock::new()?;
/// let all = lock.lock().map_err(LockError::forget)?;
/// deposit(&lock)?; // the same thread has it already
/// deposit(&lock.clone())?;
/// let other = std::thread::scope(|scope| scope.spawn(|| lock.try_lock().is_ok()).join());
/// assert!(matches!(other, Ok(false)));
/// drop(all);
/// assert!(!lock.is_locked());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct RLock {
    home: Home,
    words: Place<RLockWords>,
}

/// The number of this thread: from 1, of no other thread of this process before or after it.
#[inline]
fn thread() -> u64 {
    /// How many there were. Copied by a fork, like the numbers: a copy is another owner.
    static COUNT: AtomicU64 = AtomicU64::new(0);
    thread_local! {
        static NUMBER: Cell<u64> = const { Cell::new(0) };
    }
    NUMBER.with(|number| {
        if number.get() == 0 {
            number.set(COUNT.fetch_add(1, Ordering::Relaxed) + 1); // no pair: it is a number, no more
        }
        number.get()
    })
}

impl RLock {
    /// A free lock.
    ///
    /// # Errors
    ///
    /// As [`Lock::new`](crate::Lock::new).
    pub fn new() -> Result<Self, Error> {
        Self::at(Home::create(KIND, size_of::<RLockWords>())?)
    }

    fn at(home: Home) -> Result<Self, Error> {
        Ok(Self { words: home.place(0)?, home })
    }

    /// Takes the lock, however long that takes.
    ///
    /// # Errors
    ///
    /// [`LockError::OwnerDied`] with the guard; [`LockError::Unusable`], with [`Error::TooDeep`] where this thread
    /// has it 2³² - 1 times.
    // Always: its large result, handed over in memory, would cost twice what the lock does.
    #[inline(always)]
    pub fn lock(&self) -> Result<RLockGuard<'_>, LockError<RLockGuard<'_>>> {
        match self.take_quickly() {
            Some(me) => Ok(self.guard(me)),
            None => self.acquire(|word, me| word.lock(me, self.home.peers(), Wait::ForEver), LockError::TimedOut),
        }
    }

    /// Takes the lock if this thread has it, or nobody, or a dead process.
    ///
    /// # Errors
    ///
    /// [`LockError::WouldBlock`] when another thread holds it; otherwise as [`lock`](Self::lock).
    // Always: its large result, handed over in memory, would cost twice what the lock does.
    #[inline(always)]
    pub fn try_lock(&self) -> Result<RLockGuard<'_>, LockError<RLockGuard<'_>>> {
        match self.take_quickly() {
            Some(me) => Ok(self.guard(me)),
            None => self.acquire(|word, me| word.try_lock(me, self.home.peers()), LockError::WouldBlock),
        }
    }

    /// Takes the lock, waiting for it no longer than `timeout` (by the clock that nobody sets); in any case one that
    /// is free, or this thread's.
    ///
    /// # Errors
    ///
    /// [`LockError::TimedOut`]; otherwise as [`lock`](Self::lock).
    pub fn lock_timeout(&self, timeout: Duration) -> Result<RLockGuard<'_>, LockError<RLockGuard<'_>>> {
        self.acquire(|word, me| word.lock(me, self.home.peers(), Wait::at_most(timeout)), LockError::TimedOut)
    }

    /// Whether somebody has it, in any process; a dead one included, as long as nobody has taken it over.
    #[must_use]
    #[inline]
    pub fn is_locked(&self) -> bool {
        self.words.owner().is_some()
    }

    /// The short way: once more, or free, for a process that takes part already. For whom it was taken.
    #[inline]
    fn take_quickly(&self) -> Option<Holder> {
        let me = Holder::new(Owner::from(self.home.me_if_known()?), thread())?;
        let take_free = |word: &LockWord| word.take_free(me.owner()).ok().map(|()| Taken::Free);
        self.words.take(me, take_free).ok()??;
        Some(me)
    }

    /// The long way. Its result is large, and the short way would pay for that too.
    #[cold]
    #[inline(never)]
    fn acquire<'a>(
        &'a self,
        take: impl FnOnce(&LockWord, Owner) -> Option<Taken>,
        otherwise: LockError<RLockGuard<'a>>,
    ) -> Result<RLockGuard<'a>, LockError<RLockGuard<'a>>> {
        let me = self.me()?;
        let taken = self.words.take(me, |word| take(word, me.owner())).map_err(|TooDeep| Error::TooDeep)?;
        match taken {
            Some(Taken::Free) => Ok(self.guard(me)),
            Some(Taken::FromTheDead) => Err(LockError::OwnerDied(self.guard(me))),
            None => Err(otherwise),
        }
    }

    /// This thread.
    fn me(&self) -> Result<Holder, Error> {
        Holder::new(Owner::from(self.home.me()?), thread()).ok_or(Error::TooManyThreads)
    }

    /// The caller has taken it.
    #[inline]
    fn guard(&self, me: Holder) -> RLockGuard<'_> {
        RLockGuard { words: &self.words, me, generation: Generation::current(), not_send: PhantomData }
    }
}

impl fmt::Debug for RLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let me = self.home.me_if_known().and_then(|me| Holder::new(Owner::from(me), thread()));
        let owner = match me {
            Some(me) if self.words.is_held_by(me) => "this thread",
            _ => self.home.name_of(self.words.owner()),
        };
        f.debug_struct("RLock").field("owner", &owner).finish()
    }
}

impl Serialize for RLock {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.home.serialize(serializer)
    }
}

impl Housed for RLock {
    fn home(&self) -> &Home {
        &self.home
    }

    fn kinds() -> Vec<Kind> {
        vec![KIND]
    }

    fn housed(home: Home) -> Result<Self, Error> {
        Self::at(home)
    }
}

impl<'de> Deserialize<'de> for RLock {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        home::deserialize(deserializer)
    }
}

/// The lock, or one of the times that this thread has it, as long as this lives. The last one frees it, whichever
/// that is.
///
/// One that is never dropped leaves the lock held until the process ends, not the thread: see
/// [`LockGuard`](crate::LockGuard#a-guard-that-is-never-dropped). One that was copied by a fork is not the copy's:
/// dropping it there does nothing. It stays in its thread:
///
/// ```compile_fail,E0277
/// let lock = billiard_sync::RLock::new().unwrap();
/// std::thread::scope(|scope| {
///     let held = lock.lock().unwrap();
///     scope.spawn(move || drop(held));
/// });
/// ```
#[must_use = "the lock is freed when this is dropped"]
pub struct RLockGuard<'a> {
    words: &'a RLockWords,
    me: Holder,
    generation: Generation,
    /// The thread that has taken it frees it.
    not_send: PhantomData<*mut ()>,
}

impl Drop for RLockGuard<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.generation.is_current() {
            self.words.release(self.me);
        }
    }
}

impl fmt::Debug for RLockGuard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RLockGuard").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_thread_has_the_number_of_another() {
        let here = thread();
        let number = || std::thread::spawn(thread).join().expect("it ends");
        let (one, two) = (number(), number()); // the second may well have the first one's memory
        assert!(here == thread() && here != 0 && one != here && two != here && one < two, "{here}, {one}, {two}");
    }
}
