//! Any file as a part of a message.

use std::{
    fmt,
    ops::{Deref, DerefMut},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};

use crate::attachments;

/// A file, socket or other owner of a descriptor that may be part of a message.
///
/// Encoding attaches a duplicate: the sender keeps its own, and both refer to the same open file
/// (one position, one set of flags), as after `dup(2)`. What arrives is close-on-exec. A message
/// that is never received closes its duplicate.
///
/// ```
/// use std::fs::File;
///
/// use billiard_wire::{Fd, codec};
///
/// let log = Fd::new(File::open("/dev/null")?);
/// let message = codec::encode(&("log to this", &log))?;
/// assert_eq!(message.attachments().len(), 1);
/// let file: File = log.into_inner();
/// # drop(file);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Fd<T = OwnedFd>(T);

impl<T> Fd<T> {
    /// Makes `file` a part of messages.
    pub fn new(file: T) -> Self {
        Self(file)
    }

    /// The file itself.
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T> From<T> for Fd<T> {
    fn from(file: T) -> Self {
        Self(file)
    }
}

impl<T> Deref for Fd<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for Fd<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T: AsFd> AsFd for Fd<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl<T: fmt::Debug> fmt::Debug for Fd<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Fd").field(&self.0).finish()
    }
}

impl<T: AsFd> Serialize for Fd<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let duplicate = self.0.as_fd().try_clone_to_owned().map_err(|error| {
            ser::Error::custom(attachments::refuse(format_args!("a descriptor cannot be duplicated: {error}")))
        })?;
        attachments::attach(Arc::new(duplicate)).map_err(ser::Error::custom)?.serialize(serializer)
    }
}

impl<'de, T: From<OwnedFd>> Deserialize<'de> for Fd<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = u32::deserialize(deserializer)?;
        Ok(Self(attachments::take(number).map_err(de::Error::custom)?.into()))
    }
}
