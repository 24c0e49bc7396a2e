//! Primitives under a name, for processes that have no connection with each other.

use std::fmt;

use billiard_shm::named;

use crate::{
    Error,
    home::{self, Home, Housed},
};

/// What can be published under a name, and found by other processes: every primitive of this crate.
///
/// Handles are best sent in a message. Where there is none, since the processes were not started by each other, whoever makes the primitive
/// publishes it, and the others open it by its name, as long as the first one lives and keeps it published. They have to be of the same
/// user, and in the same container. What they are checked for is the same as for a handle in a message.
///
/// ```
/// use billiard_sync::{Named, Semaphore};
///
/// let slots = Semaphore::new(3)?;
/// # let name = format!("doc-slots-{}", std::process::id());
/// # let name = name.as_str();
/// let published = slots.publish(name)?;
/// // … and in any other process of this user:
/// let there = Semaphore::open(name)?;
/// there.acquire()?;
/// assert_eq!(slots.value(), 2);
/// drop(published);
/// assert!(Semaphore::open(name).is_err());
/// # Ok::<(), billiard_sync::Error>(())
/// ```
pub trait Named: Housed {
    /// Lets other processes of this user find it by `name`, until what this returns is dropped.
    ///
    /// If this process is killed, the name stays, of no use to anybody: opening it is an error that says so, and the next to
    /// publish under it takes its place.
    ///
    /// # Errors
    ///
    /// [`Error::Named`] when the name is in use, or is none.
    fn publish(&self, name: &str) -> Result<Published, Error> {
        let published = home::publish(self.home(), name)?;
        Ok(Published { published, _home: self.home().clone() })
    }

    /// The primitive that a process has published under that name.
    ///
    /// # Errors
    ///
    /// [`Error::Named`] when there is none, or its process has ended; [`Error::Segment`] when it is of another kind or type.
    fn open(name: &str) -> Result<Self, Error> {
        home::find(name)
    }
}

impl<P: Housed> Named for P {}

/// A primitive under a name, until this is dropped.
#[must_use = "the name is removed when this is dropped"]
pub struct Published {
    published: named::Published,
    /// Whose descriptors are to stay open.
    _home: Home,
}

impl Published {
    /// The name, without a slash.
    #[must_use]
    pub fn name(&self) -> &str {
        self.published.name()
    }
}

impl fmt::Debug for Published {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Published").field(&self.name()).finish()
    }
}
