//! The buffer with one owner.

use std::{
    fmt,
    marker::PhantomData,
    ops::Deref,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    ptr::NonNull,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use billiard_wire::{
    attachments::{self, Attachment},
    fault,
    generation::Generation,
};
use rustix::{fs::SealFlags, io::Errno};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};
use thiserror::Error;

use super::{
    BufferError, FrozenBuffer, KIND, count,
    lending::{Lending, Refused, Settled},
};
use crate::{Plain, Segment, SegmentError, header, prim::Ordering, sys};

/// An array in shared memory, with one owner at any time.
///
/// The owner reads and writes it as a slice. When it is sent, inside a message or as the argument or value of a job, its memory is the
/// receiver's and not one byte is copied; here, every later use is [`BufferError::Moved`]. If the message cannot be sent, the
/// buffer stays. A message with a buffer can be opened once, however often it was duplicated.
///
/// If a process dies, what it owns is freed; and so is what is on its way to it, or was sent and is never received. In a copy of the
/// process by a fork, of whatever kind, the memory is not there and the handle refuses.
///
/// ```
/// use billiard_shm::SharedBuffer;
///
/// let mut image = SharedBuffer::<u8>::zeroed(1 << 20)?;
/// image.as_mut_slice()[7] = 250;
/// for pixel in image.as_mut_slice() {
///     *pixel = pixel.saturating_add(10);
/// }
/// assert_eq!(image.as_slice()[7], 255);
/// assert_eq!(image.as_slice()[8], 10);
/// # Ok::<(), billiard_shm::BufferError>(())
/// ```
pub struct SharedBuffer<T> {
    handle: Arc<Handle>,
    marker: PhantomData<T>,
}

/// Without its type, since a message knows none.
struct Handle {
    lending: Lending,
    count: usize,
    generation: Generation,
    body: Mutex<Body>,
}

/// The memory. It changes hands only while the lending is seized; lent means mapped, and that it stays.
struct Body {
    /// Where the values begin; of no meaning while the memory is not mapped.
    begin: NonNull<u8>,
    memory: Memory,
}

// SAFETY: an address, which is used under the protocol of `Lending` alone.
unsafe impl Send for Body {}

enum Memory {
    Mapped(Segment),
    /// Not mapped, so that the receiver can freeze it. The number is that of its message.
    Away(OwnedFd, u64),
    Gone,
}

impl Handle {
    fn new(segment: Segment, count: usize) -> Self {
        let begin = segment.base();
        let body = Mutex::new(Body { begin, memory: Memory::Mapped(segment) });
        Self { lending: Lending::idle(), count, generation: Generation::current(), body }
    }

    /// The lock is for the compiler: the lending says who may do what. A panic leaves nothing half-done.
    fn body(&self) -> MutexGuard<'_, Body> {
        self.body.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check(&self) -> Result<(), BufferError> {
        Ok(self.generation.check_current().map_err(SegmentError::from)?)
    }

    /// Lends it, mapped, and says where the values are.
    fn lend(&self) -> Result<NonNull<u8>, BufferError> {
        self.check()?;
        loop {
            match self.lending.lend() {
                Ok(()) => return Ok(self.body().begin),
                Err(Refused::Away) => self.come_back()?,
                Err(refused) => return Err(refused.into()),
            }
        }
    }

    /// Maps what came back unsent. If somebody else is doing so, or sends it again, the next look tells.
    fn come_back(&self) -> Result<(), BufferError> {
        match self.lending.seize() {
            Ok(true) => {}
            Ok(false) => {
                self.lending.settle(Settled::Idle);
                return Ok(());
            }
            Err(Refused::Lent) => return Ok(()),
            Err(refused) => return Err(refused.into()),
        }
        self.restore()
    }

    /// Maps it again if that is needed, and ends the seizure.
    fn restore(&self) -> Result<(), BufferError> {
        let (settled, result) = self.map_again();
        self.lending.settle(settled);
        result
    }

    /// Has it for oneself, mapped.
    fn seize(&self) -> Result<(), BufferError> {
        self.check()?;
        if self.lending.seize()? {
            let (settled, result) = self.map_again();
            if result.is_err() {
                self.lending.settle(settled);
            }
            return result;
        }
        Ok(())
    }

    /// To be called while seized. In a copy of the process it does nothing: the copy of a message is not the message.
    fn map_again(&self) -> (Settled, Result<(), BufferError>) {
        if let Err(error) = self.check() {
            return (Settled::Away, Err(error));
        }
        let mut body = self.body();
        let Memory::Away(fd, nonce) = &body.memory else { return (Settled::Idle, Ok(())) };
        let nonce = *nonce;
        let mapped =
            sys::duplicate(fd.as_fd()).map_err(SegmentError::from).and_then(|fd| super::left_out_of_forks().attach(fd));
        match mapped {
            Err(error) => (Settled::Away, Err(error.into())), // it is here, and can be tried again
            // The message was dropped, and yet somebody has received it: it is his.
            Ok(segment) if nonce != 0 && !take_ownership(&segment, nonce) => {
                body.memory = Memory::Gone;
                (Settled::Moved, Err(BufferError::Moved))
            }
            Ok(segment) => {
                body.begin = segment.base();
                body.memory = Memory::Mapped(segment);
                (Settled::Idle, Ok(()))
            }
        }
    }

    /// Takes the memory off this process, but for its descriptor. To be called while seized.
    fn unmap(&self, nonce: u64) {
        let mut body = self.body();
        body.memory = match std::mem::replace(&mut body.memory, Memory::Gone) {
            Memory::Mapped(segment) => {
                // Release: pairs with the Acquire in `take_ownership`: who opens the message sees what was written.
                segment.header_word(header::OWNER).store(nonce, Ordering::Release);
                fault::point("shm.buffer.named");
                match segment.into_fd() {
                    Ok(fd) => Memory::Away(fd, nonce),
                    Err(segment) => Memory::Mapped(segment), // nobody else has clones of it: does not happen
                }
            }
            other => other,
        };
    }
}

/// The owner's word in the header: zero while somebody owns the buffer, else the number of the message that it is in. Whoever opens the
/// message swaps it for zero: one of them succeeds.
fn take_ownership(segment: &Segment, nonce: u64) -> bool {
    if !segment.is_writable() {
        return false; // another has opened it, and frozen it since
    }
    // AcqRel: the Acquire pairs with the Release in `unmap`; the Release lets the sender see that it was taken.
    segment.header_word(header::OWNER).compare_exchange(nonce, 0, Ordering::AcqRel, Ordering::Relaxed).is_ok()
}

impl From<Refused> for BufferError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Lent => Self::Lent,
            Refused::Moving | Refused::Away => Self::Moving,
            Refused::Moved => Self::Moved,
        }
    }
}

impl<T: Plain> SharedBuffer<T> {
    /// A buffer of `len` values of zero bytes. Memory is used as it is first touched.
    ///
    /// # Errors
    ///
    /// [`SegmentError::ZeroLength`], [`SegmentError::TooLarge`], [`SegmentError::BadAlign`]; [`SegmentError::Io`] when the
    /// process may open no more files or map no more memory.
    pub fn zeroed(len: usize) -> Result<Self, BufferError> {
        let bytes = len.checked_mul(size_of::<T>()).ok_or(SegmentError::TooLarge(usize::MAX))?;
        let options = super::left_out_of_forks().align(align_of::<T>().max(header::LEN));
        let segment = options.create(KIND.of::<T>(), bytes)?;
        Ok(Self { handle: Arc::new(Handle::new(segment, len)), marker: PhantomData })
    }

    /// A buffer with a copy of these values.
    ///
    /// # Errors
    ///
    /// As [`zeroed`](Self::zeroed).
    pub fn from_slice(values: &[T]) -> Result<Self, BufferError> {
        let mut buffer = Self::zeroed(values.len())?;
        buffer.try_as_mut_slice()?.copy_from_slice(values);
        Ok(buffer)
    }

    /// How many values it has, or had.
    #[must_use]
    pub fn len(&self) -> usize {
        self.handle.count
    }

    /// False: a buffer has at least one value.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Lends the values for reading. As long as one such guard lives, the buffer cannot be sent.
    ///
    /// # Panics
    ///
    /// When the buffer is not here: it was sent, or this is a copy of its process. [`try_as_slice`](Self::try_as_slice) is an
    /// error instead.
    #[must_use]
    #[track_caller]
    pub fn as_slice(&self) -> Borrowed<'_, T> {
        self.try_as_slice().unwrap_or_else(|error| panic!("cannot read a shared buffer: {error}"))
    }

    /// Lends the values for reading.
    ///
    /// # Errors
    ///
    /// [`BufferError::Moved`] after it was sent, [`BufferError::Moving`] while a message with it is on its way;
    /// [`SegmentError::Forked`] in a copy of its process; [`SegmentError::Io`] when it came back unsent and cannot be mapped again.
    pub fn try_as_slice(&self) -> Result<Borrowed<'_, T>, BufferError> {
        let begin = self.handle.lend()?;
        Ok(Borrowed { values: NonNull::slice_from_raw_parts(begin.cast(), self.handle.count), buffer: self })
    }

    /// The values, for reading and writing.
    ///
    /// # Panics
    ///
    /// As [`as_slice`](Self::as_slice).
    #[must_use]
    #[track_caller]
    pub fn as_mut_slice(&mut self) -> &mut [T] {
        self.try_as_mut_slice().unwrap_or_else(|error| panic!("cannot write a shared buffer: {error}"))
    }

    /// The values, for reading and writing.
    ///
    /// # Errors
    ///
    /// As [`try_as_slice`](Self::try_as_slice).
    pub fn try_as_mut_slice(&mut self) -> Result<&mut [T], BufferError> {
        // Lent and given back: it is mapped then, and nobody can send it while this handle is borrowed.
        let begin = self.handle.lend()?;
        self.handle.lending.give_back();
        let mut values = NonNull::slice_from_raw_parts(begin.cast(), self.handle.count);
        // SAFETY: the range is mapped, aligned, as long as the count says, and any bytes are values. Nobody else has a reference
        // into it: guards borrow the handle, messages with it are gone or there are none, and other processes are not its owner.
        // It stays mapped, since only the borrowed handle could unmap it.
        Ok(unsafe { values.as_mut() })
    }

    /// Makes it a buffer that nobody can write any more, this process included, and that any number of processes may read.
    ///
    /// # Errors
    ///
    /// The buffer comes back in the error: with [`BufferError::Lent`] when a guard was leaked, [`BufferError::StillWritable`] when
    /// another process has kept it mapped, or otherwise as [`try_as_slice`](Self::try_as_slice).
    pub fn freeze(self) -> Result<FrozenBuffer<T>, FreezeError<T>> {
        match self.try_freeze() {
            Ok(frozen) => Ok(frozen),
            Err(error) => Err(FreezeError { buffer: self, error }),
        }
    }

    fn try_freeze(&self) -> Result<FrozenBuffer<T>, BufferError> {
        self.handle.seize()?;
        self.handle.unmap(0); // the kernel counts our own mapping too
        let frozen = self.seal();
        match &frozen {
            Ok(_) => self.handle.lending.settle(Settled::Moved),
            Err(_) => drop(self.handle.restore()), // where that fails, the next access says so
        }
        frozen
    }

    fn seal(&self) -> Result<FrozenBuffer<T>, BufferError> {
        let mut body = self.handle.body();
        let Memory::Away(fd, _) = &body.memory else { return Err(BufferError::Moved) };
        match sys::add_seals(fd.as_fd(), SealFlags::WRITE) {
            Err(failed) if failed.source.raw_os_error() == Some(Errno::BUSY.raw_os_error()) => {
                return Err(BufferError::StillWritable);
            }
            result => result?,
        }
        fault::point("shm.buffer.frozen");
        let frozen = FrozenBuffer::attach(sys::duplicate(fd.as_fd())?)?;
        body.memory = Memory::Gone;
        Ok(frozen)
    }

    fn open(fd: OwnedFd, nonce: u64) -> Result<Self, BufferError> {
        let segment = super::left_out_of_forks().attach(fd)?;
        segment.check_type::<T>(KIND)?;
        let count = count::<T>(&segment)?;
        let begin = segment.address(0, segment.len(), align_of::<T>())?;
        debug_assert_eq!(begin, segment.base());
        if !segment.is_writable() {
            return Err(SegmentError::ReadOnly.into());
        }
        if nonce == 0 || !take_ownership(&segment, nonce) {
            return Err(BufferError::AlreadyOpened);
        }
        fault::point("shm.buffer.opened");
        Ok(Self { handle: Arc::new(Handle::new(segment, count)), marker: PhantomData })
    }
}

/// A buffer that could not be frozen, and why.
#[derive(Debug, Error)]
#[error("the buffer could not be frozen")]
pub struct FreezeError<T> {
    /// The buffer, as it was.
    pub buffer: SharedBuffer<T>,
    /// Why.
    #[source]
    pub error: BufferError,
}

/// The values of a buffer, lent for reading.
pub struct Borrowed<'a, T> {
    values: NonNull<[T]>,
    buffer: &'a SharedBuffer<T>,
}

// SAFETY: it is a `&[T]` that gives itself back.
unsafe impl<T: Sync> Send for Borrowed<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for Borrowed<'_, T> {}

impl<T> Deref for Borrowed<'_, T> {
    type Target = [T];

    /// # Panics
    ///
    /// In a copy of the process by a fork, where the memory is not.
    fn deref(&self) -> &[T] {
        assert!(self.buffer.handle.generation.is_current(), "a slice of a shared buffer was copied by a fork");
        // SAFETY: the range is mapped, aligned, as long as the count says, and any bytes are values; it stays mapped while it is
        // lent; nobody writes, since that takes the handle exclusively, and other processes are not its owner.
        unsafe { self.values.as_ref() }
    }
}

impl<T> Drop for Borrowed<'_, T> {
    fn drop(&mut self) {
        self.buffer.handle.lending.give_back();
    }
}

impl<T: fmt::Debug> fmt::Debug for Borrowed<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T> fmt::Debug for SharedBuffer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedBuffer")
            .field("len", &self.handle.count)
            .field("state", &self.handle.lending.now())
            .finish()
    }
}

/// A buffer inside a message.
struct Moving {
    handle: Arc<Handle>,
    /// The same as the handle's, to lend it without a lock.
    fd: OwnedFd,
}

impl AsFd for Moving {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Attachment for Moving {
    fn sent(&self) {
        fault::point("shm.buffer.sent");
        self.handle.body().memory = Memory::Gone;
        self.handle.lending.settle(Settled::Moved);
    }

    fn kept(&self) {
        fault::point("shm.buffer.kept");
        let _ = self.handle.restore(); // where that fails, the next access says so
    }
}

impl<T: Plain> SharedBuffer<T> {
    /// Takes the buffer off this process, for a message.
    fn begin_to_move(&self) -> Result<(Arc<Moving>, u64), BufferError> {
        let nonce = sys::random()? | 1; // never zero
        self.handle.seize()?;
        fault::point("shm.buffer.seized");
        self.handle.unmap(nonce);
        let fd = match &self.handle.body().memory {
            Memory::Away(fd, _) => sys::duplicate(fd.as_fd()).map_err(BufferError::from),
            _ => Err(BufferError::Moved),
        };
        match fd {
            Ok(fd) => Ok((Arc::new(Moving { handle: self.handle.clone(), fd }), nonce)),
            Err(error) => {
                let _ = self.handle.restore();
                Err(error)
            }
        }
    }
}

impl<T: Plain> Serialize for SharedBuffer<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let moving = self.begin_to_move();
        let (moving, nonce) = moving.map_err(|error| ser::Error::custom(attachments::refuse(error)))?;
        let number = attachments::attach(moving).map_err(ser::Error::custom)?;
        (number, nonce).serialize(serializer)
    }
}

impl<'de, T: Plain> Deserialize<'de> for SharedBuffer<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (number, nonce) = <(u32, u64)>::deserialize(deserializer)?;
        let fd = attachments::take(number).map_err(de::Error::custom)?;
        Self::open(fd, nonce).map_err(|error| de::Error::custom(attachments::reject(error)))
    }
}
