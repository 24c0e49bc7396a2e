//! Permits that processes share.

use std::{fmt, marker::PhantomData, sync::Arc, time::Duration};

use billiard_shm::{
    Kind, Place,
    participants::{Ledger, MAX_COUNT, Member},
    prim::{AtomicU32, AtomicU64, Ordering},
};
use billiard_wire::generation::Generation;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{
    Error,
    home::{self, Home, Housed},
    words::{
        NextLook, Wait,
        semaphore::{self as words, Bell, Full},
    },
};

const KIND: Kind = Kind::new("sema", 1);
const BOUNDED: Kind = Kind::new("sema-bnd", 1);

/// The words in front of the holdings, of which there is one for each participant.
///
/// # Peers
///
/// `bound` is written by the maker, before anybody else has it; `count` and the holdings as [`Ledger`] says, `bell` as [`Bell`].
#[repr(C)]
struct Words {
    count: AtomicU64,
    bell: Bell,
    bound: AtomicU32,
}

// SAFETY: atomics, `repr(C)`, without padding.
unsafe impl billiard_shm::Words for Words {}

/// A number of permits, which processes take and give.
///
/// Every clone, in every process, is of the same semaphore. A permit that is [acquired](Self::acquire) belongs to nobody: any process may
/// [release](Self::release) it, and if nobody does, it is gone. One that is taken as a [`Permit`] belongs to its process, and comes back when it is dropped, or
/// within about 50 ms after that process died.
///
/// The same as Python's `multiprocessing.Semaphore`. It travels as [`Lock`](crate::Lock) does.
///
/// ```
/// use billiard_sync::Semaphore;
///
/// let slots = Semaphore::new(2)?;
/// let permit = slots.permit()?; // back at the end of the scope, or of the process
/// slots.acquire()?;
/// assert!(!slots.clone().try_acquire()?);
/// slots.release()?;
/// drop(permit);
/// assert_eq!(slots.value(), 2);
/// # Ok::<(), billiard_sync::Error>(())
/// ```
#[derive(Clone)]
pub struct Semaphore {
    home: Home,
    words: Place<Words>,
    holdings: Place<[AtomicU64]>,
    /// Shared by the clones that this process makes of it.
    look: Arc<NextLook>,
}

/// A [`Semaphore`] that never has more permits than it began with.
///
/// To release one that was not acquired is an error, and changes nothing. The same as Python's `multiprocessing.BoundedSemaphore`, where two
/// who release at once may both succeed. Whoever expects a [`Semaphore`] may receive one, and it stays bounded.
///
/// ```
/// use billiard_sync::{BoundedSemaphore, Error};
///
/// let slots = BoundedSemaphore::new(1)?;
/// slots.acquire()?;
/// slots.release()?;
/// assert!(matches!(slots.release(), Err(Error::OverRelease { bound: 1 })));
/// assert_eq!(slots.value(), 1);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Serialize)]
#[serde(transparent)]
pub struct BoundedSemaphore(Semaphore);

impl Semaphore {
    /// One with that many permits: `i32::MAX` (`SEM_VALUE_MAX` of POSIX) at the most.
    ///
    /// # Errors
    ///
    /// [`Error::TooManyPermits`]; otherwise as [`Lock::new`](crate::Lock::new).
    pub fn new(permits: u32) -> Result<Self, Error> {
        Self::make(KIND, permits, MAX_COUNT)
    }

    fn make(kind: Kind, permits: u32, bound: u32) -> Result<Self, Error> {
        if permits > MAX_COUNT {
            return Err(Error::TooManyPermits(permits));
        }
        let seats = Home::capacity_here()?;
        let semaphore = Self::at(Home::create(kind, size_of::<Words>() + seats * size_of::<AtomicU64>())?)?;
        // Relaxed: nobody else has it yet.
        semaphore.words.bound.store(bound, Ordering::Relaxed);
        semaphore.words.count.store(Ledger::initial(permits), Ordering::Relaxed);
        Ok(semaphore)
    }

    fn at(home: Home) -> Result<Self, Error> {
        let holdings = home.places(size_of::<Words>(), home.capacity())?;
        Ok(Self { words: home.place(0)?, holdings, home, look: Arc::default() })
    }

    /// Takes a permit that nobody will own, however long that takes.
    ///
    /// # Errors
    ///
    /// [`Error::Forked`].
    #[inline]
    pub fn acquire(&self) -> Result<(), Error> {
        self.home.check()?;
        self.words().acquire(self.home.peers(), Wait::ForEver);
        Ok(())
    }

    /// Takes a permit that nobody will own, if there is one; whether there was.
    ///
    /// # Errors
    ///
    /// [`Error::Forked`].
    #[inline]
    pub fn try_acquire(&self) -> Result<bool, Error> {
        self.home.check()?;
        Ok(self.words().try_acquire(self.home.peers()))
    }

    /// As [`acquire`](Self::acquire), waiting no longer than `timeout`; whether there was one.
    ///
    /// # Errors
    ///
    /// [`Error::Forked`].
    pub fn acquire_timeout(&self, timeout: Duration) -> Result<bool, Error> {
        self.home.check()?;
        Ok(self.words().acquire(self.home.peers(), Wait::at_most(timeout)))
    }

    /// Adds a permit, whoever acquired one.
    ///
    /// # Errors
    ///
    /// [`Error::OverRelease`] beyond the most that there may be, [`Error::Forked`].
    #[inline]
    pub fn release(&self) -> Result<(), Error> {
        self.release_many(1)
    }

    /// Adds that many permits, or none.
    ///
    /// # Errors
    ///
    /// As [`release`](Self::release).
    #[inline]
    pub fn release_many(&self, permits: u32) -> Result<(), Error> {
        self.home.check()?;
        self.words().release(permits).map_err(|Full| Error::OverRelease { bound: self.bound() })
    }

    /// Takes a permit for this process, however long that takes. One process has about a million at the most: beyond that it
    /// waits until it gives one back.
    ///
    /// # Errors
    ///
    /// [`Error::Forked`], [`Error::Participants`].
    #[inline]
    pub fn permit(&self) -> Result<Permit<'_>, Error> {
        let me = self.home.me()?;
        self.words().take(me, self.home.peers(), Wait::ForEver);
        Ok(Permit::new(self, me))
    }

    /// Takes a permit for this process, if there is one.
    ///
    /// # Errors
    ///
    /// As [`permit`](Self::permit).
    #[inline]
    pub fn try_permit(&self) -> Result<Option<Permit<'_>>, Error> {
        let me = self.home.me()?;
        let taken = self.words().try_take(me, self.home.peers());
        Ok(taken.then(|| Permit::new(self, me)))
    }

    /// As [`permit`](Self::permit), waiting no longer than `timeout`.
    ///
    /// # Errors
    ///
    /// As [`permit`](Self::permit).
    pub fn permit_timeout(&self, timeout: Duration) -> Result<Option<Permit<'_>>, Error> {
        let me = self.home.me()?;
        let taken = self.words().take(me, self.home.peers(), Wait::at_most(timeout));
        Ok(taken.then(|| Permit::new(self, me)))
    }

    /// How many permits there are at the moment. What a dead process held counts once somebody has waited for it.
    #[must_use]
    pub fn value(&self) -> u32 {
        self.words().ledger.free()
    }

    fn words(&self) -> words::Semaphore<'_> {
        let ledger = Ledger::new(&self.words.count, &self.holdings).bounded(self.bound());
        words::Semaphore { ledger, bell: &self.words.bell, look: &self.look }
    }

    /// The most permits that there may be.
    fn bound(&self) -> u32 {
        self.words.bound.load(Ordering::Relaxed)
    }
}

impl BoundedSemaphore {
    /// One with that many permits, and no more ever.
    ///
    /// # Errors
    ///
    /// As [`Semaphore::new`].
    pub fn new(permits: u32) -> Result<Self, Error> {
        Semaphore::make(BOUNDED, permits, permits).map(Self)
    }
}

/// It does what a semaphore does; what it refuses, [`Semaphore::release`] refuses.
impl std::ops::Deref for BoundedSemaphore {
    type Target = Semaphore;

    fn deref(&self) -> &Semaphore {
        &self.0
    }
}

impl fmt::Debug for Semaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Semaphore").field("value", &self.value()).finish()
    }
}

impl fmt::Debug for BoundedSemaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoundedSemaphore").field("value", &self.value()).field("bound", &self.bound()).finish()
    }
}

impl Serialize for Semaphore {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.home.serialize(serializer)
    }
}

impl Housed for Semaphore {
    fn home(&self) -> &Home {
        &self.home
    }

    fn kinds() -> Vec<Kind> {
        vec![KIND, BOUNDED]
    }

    fn housed(home: Home) -> Result<Self, Error> {
        Self::at(home)
    }
}

impl<'de> Deserialize<'de> for Semaphore {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        home::deserialize(deserializer)
    }
}

impl Housed for BoundedSemaphore {
    fn home(&self) -> &Home {
        &self.0.home
    }

    fn kinds() -> Vec<Kind> {
        vec![BOUNDED]
    }

    fn housed(home: Home) -> Result<Self, Error> {
        Semaphore::at(home).map(Self)
    }
}

impl<'de> Deserialize<'de> for BoundedSemaphore {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        home::deserialize(deserializer)
    }
}

/// A permit of this process. Dropping it gives it back; so does the end of the process.
///
/// One that was copied by a fork is not the copy's: dropping it there does nothing.
#[must_use = "the permit goes back when this is dropped"]
pub struct Permit<'a> {
    semaphore: &'a Semaphore,
    me: Member,
    generation: Generation,
    not_send: PhantomData<*mut ()>,
}

impl<'a> Permit<'a> {
    fn new(semaphore: &'a Semaphore, me: Member) -> Self {
        Self { semaphore, me, generation: Generation::current(), not_send: PhantomData }
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if self.generation.is_current() {
            self.semaphore.words().give(self.me);
        }
    }
}

impl fmt::Debug for Permit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").finish_non_exhaustive()
    }
}
