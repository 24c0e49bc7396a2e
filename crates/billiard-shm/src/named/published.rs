//! Descriptors under a name, for processes that have no connection with each other.
//!
//! A sealed segment has no name, which is its strength. To give it one all the same, its owner publishes a note: named memory that says
//! which process has it open, and under which number. Who finds the note opens that descriptor of that process anew, by
//! [`/proc/PID/fd`](https://man7.org/linux/man-pages/man5/proc_pid_fd.5.html): the same memory, as if it had come in a message. So the owner has to live, and to be of
//! the same user, while others come; those who have come do not need it any more.

use std::{
    fmt,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use super::{NamedError, NamedMemory, names};
use crate::sys;

/// What every note begins with.
const MAGIC: u64 = u64::from_ne_bytes(*b"billnote");

/// The most descriptors that a note names.
const MAX: usize = 64;

/// Descriptors under a name, until this is dropped.
///
/// If its process is killed, the note stays, and is of no use to anybody: [`find_published`] says so, and the next one who publishes
/// under the name takes its place.
#[must_use = "the name is removed when this is dropped"]
pub struct Published(NamedMemory);

impl Published {
    /// The name, without a slash.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.name()
    }
}

impl fmt::Debug for Published {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Published").field(&self.name()).finish()
    }
}

/// Lets every process of this user find these descriptors by `name`, in this order. They have to stay open for as long as the
/// name is there; the caller keeps their owners.
///
/// # Errors
///
/// [`NamedError::Exists`] when another process that lives has published under that name, or it is somebody else's; otherwise as
/// [`NamedMemory::create_named`].
///
/// # Panics
///
/// For more than 64 descriptors, or none.
pub fn publish(name: &str, fds: &[BorrowedFd<'_>]) -> Result<Published, NamedError> {
    assert!((1..=MAX).contains(&fds.len()), "a note names 1 to {MAX} descriptors");
    let pid = sys::pid();
    let started = sys::start_time(pid)?.ok_or_else(|| NamedError::OwnerGone(name.to_owned()))?;
    let mut note = Vec::new();
    for number in [MAGIC, u64::from(pid), started, fds.len() as u64] {
        note.extend(number.to_ne_bytes());
    }
    for fd in fds {
        note.extend(u64::from(fd.as_raw_fd().unsigned_abs()).to_ne_bytes());
    }
    let make = || NamedMemory::create_with(name, &note);
    match make() {
        // What a dead owner has left.
        Err(NamedError::Exists(bare)) if is_note(&bare) && names::sweep_one(&bare) => make().map(Published),
        made => made.map(Published),
    }
}

fn is_note(name: &str) -> bool {
    let magic = NamedMemory::open_read_only(name).and_then(|memory| number(&memory, 0));
    magic.is_ok_and(|magic| magic == MAGIC)
}

fn number(memory: &NamedMemory, index: usize) -> Result<u64, NamedError> {
    let mut bytes = [0; 8];
    memory.read(8 * index, &mut bytes)?;
    Ok(u64::from_ne_bytes(bytes))
}

/// The descriptors that another process, or this one, has published under that name; close-on-exec, to read and write.
///
/// # Errors
///
/// [`NamedError::NotFound`]; [`NamedError::NotPublished`] for named memory of another use; [`NamedError::OwnerGone`] when the process
/// that has published them has ended; [`NamedError::Io`] when it is another user's, or this process may open no more files.
pub fn find_published(name: &str) -> Result<Vec<OwnedFd>, NamedError> {
    let memory = NamedMemory::open_read_only(name)?;
    let other = |_| NamedError::NotPublished(name.to_owned());
    let number = |index| number(&memory, index).map_err(other);
    let (magic, pid, started, count) = (number(0)?, number(1)?, number(2)?, number(3)?);
    let (MAGIC, Ok(pid), Ok(count @ 1..=MAX)) = (magic, u32::try_from(pid), usize::try_from(count)) else {
        return Err(NamedError::NotPublished(name.to_owned()));
    };
    let gone = || NamedError::OwnerGone(name.to_owned());
    let mut fds = Vec::new();
    for index in 4..4 + count {
        match sys::descriptor_of(pid, number(index)?)? {
            Some(fd) => fds.push(fd),
            None => return Err(gone()),
        }
    }
    // Looked at last: what was opened is what that process had. It has let go of the note's lock if it became another program since, whose descriptors these are.
    let is_owned = match sys::open_name(memory.name(), false)? {
        Some(note) => !sys::try_own(note.as_fd())?,
        None => false,
    };
    if is_owned && sys::start_time(pid)? == Some(started) { Ok(fds) } else { Err(gone()) }
}
