//! Something that has happened, or not.

use std::{fmt, time::Duration};

use billiard_shm::{Kind, Place};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{
    Error,
    home::{self, Home, Housed},
    words::{Wait, event::EventWord},
};

const KIND: Kind = Kind::new("event", 1);

/// A flag that processes wait for.
///
/// Every clone, in every process, is of the same event. Whoever waits when it is set wakes up and is told so, even if it is
/// cleared at once. Nobody owns it, so the death of a process does nothing to it: an event that it would have set is not set.
///
/// The same as Python's `multiprocessing.Event`. It travels as [`Lock`](crate::Lock) does.
///
/// ```
/// use std::time::Duration;
///
/// use billiard_sync::Event;
///
/// let event = Event::new()?;
/// assert!(!event.wait_timeout(Duration::from_millis(1))?);
/// event.clone().set()?;
/// event.wait()?;
/// event.clear()?;
/// assert!(!event.is_set());
/// # Ok::<(), billiard_sync::Error>(())
/// ```
#[derive(Clone)]
pub struct Event {
    home: Home,
    word: Place<EventWord>,
}

impl Event {
    /// One that is not set.
    ///
    /// # Errors
    ///
    /// As [`Lock::new`](crate::Lock::new).
    pub fn new() -> Result<Self, Error> {
        Self::at(Home::create(KIND, size_of::<EventWord>())?)
    }

    fn at(home: Home) -> Result<Self, Error> {
        Ok(Self { word: home.place(0)?, home })
    }

    /// Sets it: everybody who waits goes on, and nobody waits until it is cleared.
    ///
    /// # Errors
    ///
    /// [`Error::Forked`].
    #[inline]
    pub fn set(&self) -> Result<(), Error> {
        self.home.check()?;
        self.word.set();
        Ok(())
    }

    /// Clears it: whoever comes waits.
    ///
    /// # Errors
    ///
    /// [`Error::Forked`].
    pub fn clear(&self) -> Result<(), Error> {
        self.home.check()?;
        self.word.clear();
        Ok(())
    }

    /// Whether it is set.
    #[must_use]
    #[inline]
    pub fn is_set(&self) -> bool {
        self.word.is_set()
    }

    /// Waits until it is set.
    ///
    /// # Errors
    ///
    /// [`Error::Forked`].
    pub fn wait(&self) -> Result<(), Error> {
        self.home.check()?;
        self.word.wait(self.home.peers(), Wait::ForEver);
        Ok(())
    }

    /// Waits until it is set, but no longer than `timeout`; whether it was set meanwhile.
    ///
    /// # Errors
    ///
    /// [`Error::Forked`].
    pub fn wait_timeout(&self, timeout: Duration) -> Result<bool, Error> {
        self.home.check()?;
        Ok(self.word.wait(self.home.peers(), Wait::at_most(timeout)))
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event").field("is_set", &self.is_set()).finish()
    }
}

impl Serialize for Event {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.home.serialize(serializer)
    }
}

impl Housed for Event {
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

impl<'de> Deserialize<'de> for Event {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        home::deserialize(deserializer)
    }
}
