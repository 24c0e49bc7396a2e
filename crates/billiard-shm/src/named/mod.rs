//! Memory with a name, for other programs to find: POSIX shared memory, as
//! [shm_overview(7)](https://man7.org/linux/man-pages/man7/shm_overview.7.html) and Python's `multiprocessing.shared_memory` have it.
//!
//! It is plain bytes, without a header and without seals, so that it means the same to every program: whoever may open it may write it, and
//! cut it short. Between processes of one program, [`Segment`](crate::Segment) and [`SharedBuffer`](crate::SharedBuffer) are safer and leave
//! nothing behind.
//!
//! A name is what stays when a process is killed. So each has an owner, which holds a lock on the file for as long as it
//! lives, and the next [`NamedMemory::create`] of the same user removes those whose owner is gone ([`sweep`]). A process that
//! outlives the owner can do better: `billiard-context` has one, which removes them at once, chosen names too.

mod names;
mod published;

use std::{fmt, io, os::fd::AsFd};

use billiard_wire::{
    fault,
    generation::{Forked, Generation},
};
use thiserror::Error;

pub use names::sweep;
pub use published::{Published, find_published, publish};

use self::names::Name;
use crate::{
    Words,
    mapping::{Manner, Mapping},
    sys,
};

/// Why named memory cannot be made, opened or used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum NamedError {
    /// Nothing is not enough.
    #[error("named memory of no bytes was asked for: ask for one at least")]
    ZeroLength,
    /// More than an address space holds.
    #[error("named memory of {0} bytes does not fit into the address space")]
    TooLarge(usize),
    /// It cannot be the name of a file in one folder, or looks like a random one of ours.
    #[error(
        "{0:?} cannot be the name of shared memory: it has to be 1 to 255 bytes without a slash inside, and not of the form of a random name"
    )]
    BadName(String),
    /// There is memory of that name.
    #[error("there is shared memory of the name {0:?} already: open it, or choose another name")]
    Exists(String),
    /// There is no memory of that name.
    #[error("there is no shared memory of the name {0:?}")]
    NotFound(String),
    /// It has a name and no bytes: its maker has not finished it, or died before it was done.
    #[error("the shared memory of the name {0:?} is empty: its maker is still at work, or died before it was done")]
    Unfinished(String),
    /// Memory of that name is something else.
    #[error("the shared memory of the name {0:?} names no published descriptors")]
    NotPublished(String),
    /// Who has published under that name is gone.
    #[error("the process that has published under the name {0:?} has ended, or has let go of what it published")]
    OwnerGone(String),
    /// A place outside.
    #[error("{len} bytes at {offset} are not inside shared memory of {size} bytes, or are not aligned")]
    OutOfBounds {
        /// Where.
        offset: usize,
        /// How many bytes.
        len: usize,
        /// What there is.
        size: usize,
    },
    /// It was opened for reading.
    #[error("the shared memory was opened for reading alone")]
    ReadOnly,
    /// The handle was copied by a fork.
    #[error(transparent)]
    Forked(#[from] Forked),
    /// The kernel refuses: no room is left in `/dev/shm`, or the memory is another user's.
    #[error("{call} failed")]
    Io {
        /// The system call.
        call: &'static str,
        /// Its error.
        source: io::Error,
    },
}

impl From<sys::Failed> for NamedError {
    fn from(sys::Failed { call, source }: sys::Failed) -> Self {
        Self::Io { call, source }
    }
}

/// Shared memory that other programs find by its name.
///
/// Who creates it owns its name: dropping that handle removes the name, unless [`keep_name`](Self::keep_name) was called. Dropping any
/// other handle unmaps the memory and nothing more. Whoever has it mapped keeps it, with a name or without.
///
/// Its bytes are copied in and out. What another process writes meanwhile comes old, new or mixed. If another process cuts the
/// memory short, which no program should, touching what is gone ends this one (SIGBUS).
///
/// If its owner is killed, or ends without dropping it, the name stays until the next [`create`](Self::create) of the same user removes it, where the name was a random
/// one. A name that was chosen stays until somebody unlinks it. In a program that has started processes through `billiard-context`, both are
/// removed at once when the program ends.
///
/// ```
/// use billiard_shm::NamedMemory;
///
/// let memory = NamedMemory::create(100)?;
/// memory.write(0, b"hello")?;
/// // In any program of the same user: `SharedMemory(name=…)` in Python.
/// let other = NamedMemory::open(memory.name())?;
/// let mut bytes = [0; 5];
/// other.read(0, &mut bytes)?;
/// assert_eq!(&bytes, b"hello");
/// # Ok::<(), billiard_shm::NamedError>(())
/// ```
pub struct NamedMemory {
    mapping: Mapping,
    name: Name,
    writable: bool,
    generation: Generation,
}

impl NamedMemory {
    /// New memory of `len` zeroed bytes under a random name. Removes the random names whose owners were killed, first.
    ///
    /// # Errors
    ///
    /// [`NamedError::ZeroLength`], [`NamedError::TooLarge`]; [`NamedError::Io`] when there is no room.
    pub fn create(len: usize) -> Result<Self, NamedError> {
        check_len(len)?;
        sweep(); // what cannot be removed now is removed by the next
        loop {
            match Self::create_as(names::random()?, len, &[]) {
                Err(NamedError::Exists(_)) => continue,
                result => return result,
            }
        }
    }

    /// New memory under this name, which begins with a slash or not.
    ///
    /// # Errors
    ///
    /// [`NamedError::BadName`], [`NamedError::Exists`]; otherwise as [`create`](Self::create).
    pub fn create_named(name: &str, len: usize) -> Result<Self, NamedError> {
        Self::create_chosen(name, len, &[])
    }

    /// New memory under this name with these bytes, of which nobody finds a part.
    pub(crate) fn create_with(name: &str, bytes: &[u8]) -> Result<Self, NamedError> {
        Self::create_chosen(name, bytes.len(), bytes)
    }

    fn create_chosen(name: &str, len: usize, bytes: &[u8]) -> Result<Self, NamedError> {
        check_len(len)?;
        let checked = names::checked(name)?;
        if names::is_random(&checked) {
            return Err(NamedError::BadName(name.to_owned()));
        }
        Self::create_as(checked, len, bytes)
    }

    /// The file has its size, its room and its owner's lock before it has its name: nobody finds one that is half made.
    fn create_as(name: String, len: usize, bytes: &[u8]) -> Result<Self, NamedError> {
        let fd = sys::nameless_file()?;
        if !sys::try_own(fd.as_fd())? {
            return Err(sys::Failed { call: "flock", source: io::ErrorKind::WouldBlock.into() }.into());
        }
        sys::set_len(fd.as_fd(), len as u64)?;
        sys::reserve(fd.as_fd(), len as u64)?;
        fault::point("shm.named.made");
        let mapping = map(&fd, len, true)?;
        mapping.copy_in(0, bytes);
        let name = Name::give(name, fd)?;
        fault::point("shm.named.linked");
        Ok(Self { mapping, name, writable: true, generation: Generation::current() })
    }

    /// The memory of that name, to read and write. Its length is what it really has.
    ///
    /// # Errors
    ///
    /// [`NamedError::NotFound`], [`NamedError::Unfinished`], [`NamedError::BadName`]; [`NamedError::Io`] when it is another user's.
    pub fn open(name: &str) -> Result<Self, NamedError> {
        Self::open_for(name, true)
    }

    /// The same, to read alone.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn open_read_only(name: &str) -> Result<Self, NamedError> {
        Self::open_for(name, false)
    }

    fn open_for(name: &str, writable: bool) -> Result<Self, NamedError> {
        let (name, fd) = Name::find(names::checked(name)?, writable)?;
        let len = usize::try_from(sys::info(fd.as_fd())?.len).unwrap_or(usize::MAX);
        if len == 0 {
            return Err(NamedError::Unfinished(name.as_str().to_owned()));
        }
        check_len(len)?;
        let mapping = map(&fd, len, writable)?;
        Ok(Self { mapping, name, writable, generation: Generation::current() })
    }

    /// Its name, without a slash.
    #[must_use]
    pub fn name(&self) -> &str {
        self.name.as_str()
    }

    /// How many bytes it has; or had, when it was opened.
    #[must_use]
    pub fn len(&self) -> usize {
        self.mapping.len()
    }

    /// False: it has at least one byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Removes the name; whoever has the memory mapped keeps it. That an opener may do so too is as Python has it.
    ///
    /// # Errors
    ///
    /// [`NamedError::NotFound`] when it is removed already.
    pub fn unlink(&mut self) -> Result<(), NamedError> {
        self.generation.check_current()?;
        self.name.remove()
    }

    /// Leaves the name behind when this handle is dropped, until somebody [unlinks](Self::unlink) it. A random name has no owner then, and
    /// is removed by the next [`create`](Self::create) of the same user.
    pub fn keep_name(&mut self) {
        self.name.keep();
    }

    /// Copies bytes out.
    ///
    /// # Errors
    ///
    /// [`NamedError::OutOfBounds`], [`NamedError::Forked`].
    pub fn read(&self, offset: usize, into: &mut [u8]) -> Result<(), NamedError> {
        self.generation.check_usable()?;
        self.bounds(offset, into.len())?;
        self.mapping.copy_out(offset, into);
        Ok(())
    }

    /// Copies bytes in.
    ///
    /// # Errors
    ///
    /// [`NamedError::OutOfBounds`], [`NamedError::ReadOnly`], [`NamedError::Forked`].
    pub fn write(&self, offset: usize, from: &[u8]) -> Result<(), NamedError> {
        self.generation.check_usable()?;
        self.writable()?;
        self.bounds(offset, from.len())?;
        self.mapping.copy_in(offset, from);
        Ok(())
    }

    /// The words at `offset`, which another program may use too.
    ///
    /// # Errors
    ///
    /// [`NamedError::OutOfBounds`], also when they would not be aligned; [`NamedError::ReadOnly`], [`NamedError::Forked`].
    pub fn words<T: Words>(&self, offset: usize) -> Result<&T, NamedError> {
        self.generation.check_usable()?;
        self.writable()?;
        self.bounds(offset, size_of::<T>())?;
        // SAFETY: inside the mapping, as was just checked.
        let place = unsafe { self.mapping.base().byte_add(offset) }.cast::<T>();
        if !place.is_aligned() {
            return Err(NamedError::OutOfBounds { offset, len: size_of::<T>(), size: self.len() });
        }
        // SAFETY: the place is inside the mapping, aligned and writable, and is mapped as long as `self` lives; `T: Words` may be
        // referred to while others write it, whatever its bytes.
        Ok(unsafe { place.as_ref() })
    }

    fn writable(&self) -> Result<(), NamedError> {
        if self.writable { Ok(()) } else { Err(NamedError::ReadOnly) }
    }

    fn bounds(&self, offset: usize, len: usize) -> Result<(), NamedError> {
        match offset.checked_add(len) {
            Some(end) if end <= self.len() => Ok(()),
            _ => Err(NamedError::OutOfBounds { offset, len, size: self.len() }),
        }
    }
}

fn check_len(len: usize) -> Result<(), NamedError> {
    match len {
        0 => Err(NamedError::ZeroLength),
        len if len > isize::MAX as usize - crate::MAX_ALIGN => Err(NamedError::TooLarge(len)),
        _ => Ok(()),
    }
}

fn map(fd: &impl AsFd, len: usize, writable: bool) -> Result<Mapping, NamedError> {
    Mapping::new(fd.as_fd(), (len, 1), writable, Manner::default()).map_err(|error| match error {
        crate::SegmentError::Io { call, source } => NamedError::Io { call, source },
        _ => NamedError::TooLarge(len), // mapping fails in no other way
    })
}

impl fmt::Debug for NamedMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NamedMemory").field("name", &self.name()).field("len", &self.len()).finish()
    }
}
