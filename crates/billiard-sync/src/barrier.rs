//! A place where processes wait for each other.

use std::{fmt, time::Duration};

use billiard_shm::{Kind, Place, prim::AtomicU64};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{
    BarrierError, Error,
    home::{self, Home, Housed},
    words::{
        Owner, Wait,
        barrier::{self as words, Failed, Phases},
    },
};

const KIND: Kind = Kind::new("barrier", 1);

/// The most parties of one barrier.
pub(crate) const MAX_PARTIES: usize = 1 << 16;

/// Where a fixed number of parties wait until all are there, again and again.
///
/// Every clone, in every process, is of the same barrier. A party is a thread of any process that calls [`wait`](Self::wait).
/// If one of them dies while it waits, the barrier breaks within about 50 ms: everybody who waits or comes is told, until it
/// is [reset](Self::reset). A process that dies before it has come is not missed by the barrier: give
/// [`wait_timeout`](Self::wait_timeout) a limit, or wait for the process itself.
///
/// The same as Python's `multiprocessing.Barrier`. It travels as [`Lock`](crate::Lock) does.
///
/// ```
/// use billiard_sync::Barrier;
///
/// let barrier = Barrier::new(2)?;
/// let other = barrier.clone();
/// let thread = std::thread::spawn(move || other.wait());
/// let mut places = [barrier.wait()?, thread.join().unwrap()?];
/// places.sort();
/// assert_eq!(places, [0, 1]);
/// # Ok::<(), billiard_sync::BarrierError>(())
/// ```
#[derive(Clone)]
pub struct Barrier {
    home: Home,
    phases: Place<Phases>,
    cells: Place<[AtomicU64]>,
}

impl Barrier {
    /// A barrier for that many parties, 65,536 at the most.
    ///
    /// # Errors
    ///
    /// [`Error::BadParties`]; otherwise as [`Lock::new`](crate::Lock::new).
    pub fn new(parties: usize) -> Result<Self, Error> {
        if !(1..=MAX_PARTIES).contains(&parties) {
            return Err(Error::BadParties(parties));
        }
        let barrier = Self::at(Home::create(KIND, size_of::<Phases>() + parties * size_of::<AtomicU64>())?)?;
        barrier.phases.begin();
        Ok(barrier)
    }

    fn at(home: Home) -> Result<Self, Error> {
        let cells = home.segment().len().saturating_sub(size_of::<Phases>()) / size_of::<AtomicU64>();
        if !(1..=MAX_PARTIES).contains(&cells) {
            return Err(Error::BadParties(cells));
        }
        Ok(Self { phases: home.place(0)?, cells: home.places(size_of::<Phases>(), cells)?, home })
    }

    /// Waits until all parties wait; this one's place among them, from 0 in the order in which they came.
    ///
    /// # Errors
    ///
    /// [`BarrierError::Broken`], [`BarrierError::ParticipantDied`]; [`BarrierError::Unusable`] where this process cannot take part.
    pub fn wait(&self) -> Result<usize, BarrierError> {
        self.wait_for(Wait::ForEver, None::<fn()>)
    }

    /// As [`wait`](Self::wait); and if this party is the last to come, it does `action` before anybody goes on. Where one is to be done in any
    /// case, all parties have to give it.
    ///
    /// If the action panics, or its process dies, the barrier is broken.
    ///
    /// ```
    /// # use billiard_sync::Barrier;
    /// let barrier = Barrier::new(1)?;
    /// let mut swapped = false;
    /// barrier.wait_and(|| swapped = true)?;
    /// assert!(swapped);
    /// # Ok::<(), billiard_sync::BarrierError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`wait`](Self::wait).
    pub fn wait_and(&self, action: impl FnOnce()) -> Result<usize, BarrierError> {
        self.wait_for(Wait::ForEver, Some(action))
    }

    /// As [`wait`](Self::wait), but no longer than `timeout`: after that, the barrier is broken for everybody.
    ///
    /// # Errors
    ///
    /// [`BarrierError::TimedOut`]; otherwise as [`wait`](Self::wait).
    pub fn wait_timeout(&self, timeout: Duration) -> Result<usize, BarrierError> {
        self.wait_for(Wait::at_most(timeout), None::<fn()>)
    }

    /// Breaks it: everybody who waits or comes gets [`BarrierError::Broken`], until it is reset.
    ///
    /// # Errors
    ///
    /// [`Error::Forked`].
    pub fn abort(&self) -> Result<(), Error> {
        self.home.check()?;
        self.words().abort();
        Ok(())
    }

    /// Makes it whole and empty. Whoever waits gets [`BarrierError::Broken`].
    ///
    /// # Errors
    ///
    /// [`Error::Forked`].
    pub fn reset(&self) -> Result<(), Error> {
        self.home.check()?;
        self.words().reset();
        Ok(())
    }

    /// How many parties it is for.
    #[must_use]
    pub fn parties(&self) -> usize {
        self.cells.len()
    }

    /// How many wait at the moment.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.words().arrived()
    }

    /// Whether it is broken.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.words().is_broken()
    }

    fn words(&self) -> words::Barrier<'_> {
        words::Barrier { phases: &self.phases, cells: &self.cells }
    }

    fn wait_for(&self, wait: Wait, action: Option<impl FnOnce()>) -> Result<usize, BarrierError> {
        let me = Owner::from(self.home.me()?);
        self.words().wait(me, self.home.peers(), wait, action).map_err(|failed| match failed {
            Failed::Broken => BarrierError::Broken,
            Failed::TimedOut => BarrierError::TimedOut,
            Failed::Died => BarrierError::ParticipantDied,
        })
    }
}

impl fmt::Debug for Barrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Barrier")
            .field("parties", &self.parties())
            .field("waiting", &self.waiting())
            .field("is_broken", &self.is_broken())
            .finish()
    }
}

impl Serialize for Barrier {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.home.serialize(serializer)
    }
}

impl Housed for Barrier {
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

impl<'de> Deserialize<'de> for Barrier {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        home::deserialize(deserializer)
    }
}
