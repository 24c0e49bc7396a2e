//! A lock that guards nothing in particular.

use std::{fmt, marker::PhantomData, time::Duration};

use billiard_shm::{Kind, Place};
use billiard_wire::generation::Generation;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{
    Error, LockError,
    home::{self, Home, Housed},
    words::{
        Owner, Wait,
        lock::{LockWord, Taken},
    },
};

const KIND: Kind = Kind::new("lock", 1);

/// What one owner at a time has, across processes.
///
/// Every clone, in every process, is of the same lock. It is robust: when a process dies with it, the next owner is
/// told [`LockError::OwnerDied`] within about 50 ms, and has it. A process that is *stopped* with it keeps it, and so
/// does one that has [forgotten the guard](LockGuard#a-guard-that-is-never-dropped). It is not recursive (a thread
/// that locks twice waits for itself), and not fair (who comes may overtake who sleeps).
///
/// It travels as a part of any message, in the argument of a process, and works on in the child of a `Context::fork`; a copy of the process that was forked by hand cannot use it.
///
/// The same as Python's `multiprocessing.Lock`, except that only its owner can release it: what anybody may release is a [`Semaphore`](crate::Semaphore).
///
/// ```
/// use billiard_sync::{Lock, LockError};
///
/// let lock = Lock::new()?;
/// let held = lock.lock().map_err(LockError::forget)?;
/// assert!(matches!(lock.clone().try_lock(), Err(LockError::WouldBlock)));
/// drop(held);
/// assert!(!lock.is_locked());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Lock {
    home: Home,
    word: Place<LockWord>,
}

impl Lock {
    /// A free lock.
    ///
    /// # Errors
    ///
    /// [`Error::Segment`] when the process may open no more files; [`Error::Participants`] when it cannot take part.
    pub fn new() -> Result<Self, Error> {
        Self::at(Home::create(KIND, size_of::<LockWord>())?)
    }

    fn at(home: Home) -> Result<Self, Error> {
        Ok(Self { word: home.place(0)?, home })
    }

    /// Takes the lock, however long that takes.
    ///
    /// # Errors
    ///
    /// [`LockError::OwnerDied`] with the guard, [`LockError::Unusable`].
    // Always: its large result, handed over in memory, would cost twice what the lock does.
    #[inline(always)]
    pub fn lock(&self) -> Result<LockGuard<'_>, LockError<LockGuard<'_>>> {
        match Held::take_free(&self.home, &self.word) {
            Some(held) => Ok(LockGuard { _held: held }),
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
    pub fn try_lock(&self) -> Result<LockGuard<'_>, LockError<LockGuard<'_>>> {
        match Held::take_free(&self.home, &self.word) {
            Some(held) => Ok(LockGuard { _held: held }),
            None => self.acquire(|me| self.word.try_lock(me, self.home.peers()), LockError::WouldBlock),
        }
    }

    /// Takes the lock, waiting for it no longer than `timeout` (by the clock that nobody sets); a free one in any case.
    ///
    /// # Errors
    ///
    /// [`LockError::TimedOut`]; otherwise as [`lock`](Self::lock).
    pub fn lock_timeout(&self, timeout: Duration) -> Result<LockGuard<'_>, LockError<LockGuard<'_>>> {
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
        otherwise: LockError<LockGuard<'a>>,
    ) -> Result<LockGuard<'a>, LockError<LockGuard<'a>>> {
        Held::acquire(&self.home, &self.word, take, otherwise, |held| LockGuard { _held: held })
    }
}

impl fmt::Debug for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lock").field("owner", &self.home.name_of(self.word.owner())).finish()
    }
}

impl Serialize for Lock {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.home.serialize(serializer)
    }
}

impl Housed for Lock {
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

impl<'de> Deserialize<'de> for Lock {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        home::deserialize(deserializer)
    }
}

/// The lock, as long as this lives.
///
/// One that was copied by a fork is not the copy's: dropping it there does nothing.
///
/// # A guard that is never dropped
///
/// After [`std::mem::forget`], or when a thread ends without unwinding (`pthread_exit`), the lock stays held until the
/// process has ended, not the thread: the process owns it. Until then nobody gets it, nor does another thread of that
/// process, and nobody is told. Then the next owner is told [`LockError::OwnerDied`], as after any death with the lock. So it is
/// when the process lives on, but has dropped its last handle of all that was made where this lock was: it takes no part any more.
#[must_use = "the lock is freed when this is dropped"]
pub struct LockGuard<'a> {
    _held: Held<'a>,
}

impl fmt::Debug for LockGuard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockGuard").finish_non_exhaustive()
    }
}

/// A word that this thread has taken. Not `Send`: the thread that has taken it frees it.
pub(crate) struct Held<'a> {
    word: &'a LockWord,
    me: Owner,
    generation: Generation,
    not_send: PhantomData<*mut ()>,
}

impl<'a> Held<'a> {
    /// The caller has taken it.
    #[inline]
    pub(crate) fn new(word: &'a LockWord, me: Owner) -> Self {
        Self { word, me, generation: Generation::current(), not_send: PhantomData }
    }

    /// The short way: takes a word that is free, for a process that takes part already.
    #[inline]
    pub(crate) fn take_free(home: &Home, word: &'a LockWord) -> Option<Self> {
        let me = Owner::from(home.me_if_known()?);
        word.take_free(me).ok()?;
        Some(Self::new(word, me))
    }

    /// The long way, to a guard: takes part if need be, then the word by `take`, or fails with `otherwise`.
    #[inline]
    pub(crate) fn acquire<G>(
        home: &Home,
        word: &'a LockWord,
        take: impl FnOnce(Owner) -> Option<Taken>,
        otherwise: LockError<G>,
        guard: impl FnOnce(Self) -> G,
    ) -> Result<G, LockError<G>> {
        let me = Owner::from(home.me()?);
        match take(me) {
            Some(Taken::Free) => Ok(guard(Self::new(word, me))),
            Some(Taken::FromTheDead) => Err(LockError::OwnerDied(guard(Self::new(word, me)))),
            None => Err(otherwise),
        }
    }

    /// Whether this is the process that has taken it, not a copy.
    #[inline]
    pub(crate) fn is_ours(&self) -> bool {
        self.generation.is_current()
    }
}

impl Drop for Held<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.is_ours() {
            self.word.unlock(self.me);
        }
    }
}
