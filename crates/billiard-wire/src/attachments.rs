//! Descriptors inside a value.
//!
//! A handle (a connection, a file, a segment) cannot be turned into bytes, but the kernel can pass
//! its descriptor beside them. So the `Serialize` of a handle calls [`attach`] and writes the number
//! that it gets; its `Deserialize` reads the number and calls [`take`]. Between the two, whatever
//! carries the bytes carries the list: [`Attachments`] on the way out, [`Received`] on the way in.
//!
//! Outside a message that is being encoded or decoded both are errors, never a dangling number:
//!
//! ```
//! use billiard_wire::{Fd, codec};
//!
//! let file = Fd::new(std::fs::File::open("/dev/null")?);
//! assert!(postcard::to_stdvec(&file).is_err()); // a stranger's encoder has nowhere to put it
//! assert_eq!(codec::encode(&file)?.attachments().len(), 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::{
    cell::{Cell, RefCell},
    fmt,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
    thread::LocalKey,
};

use thiserror::Error;

/// The most descriptors that one message can carry: the kernel's `SCM_MAX_FD`, see
/// [unix(7)](https://man7.org/linux/man-pages/man7/unix.7.html).
pub const MAX: usize = 253;

/// A descriptor on its way out, and what becomes of its handle when the message has gone or not.
pub trait Attachment: AsFd + Send + Sync {
    /// The message was sent whole. A handle that has one owner lets go of its descriptor here.
    fn sent(&self) {}

    /// The message was dropped unsent: the handle is the sender's again.
    fn kept(&self) {}
}

impl Attachment for OwnedFd {}

/// Why a descriptor could not be attached, or taken.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum AttachError {
    /// [`attach`] was called while no message was being encoded.
    #[error("a handle can only be encoded as part of a message that carries descriptors")]
    NotEncoding,
    /// [`take`] was called while no message was being decoded.
    #[error("a handle can only be decoded from a message that carries descriptors")]
    NotDecoding,
    /// The message has more than [`MAX`] descriptors.
    #[error("a message can carry {MAX} descriptors at the most: send the others in another message")]
    TooMany,
    /// The message names a descriptor that did not come with it, or that was taken before.
    #[error("the message names descriptor {0}, which did not come with it or was taken before")]
    Missing(u32),
    /// The handle refuses, and says why: it was handed over before, or is in use.
    #[error("{0}")]
    Refused(String),
}

/// The descriptors of a message on its way out.
///
/// Dropping the list tells every attachment that it was [kept](Attachment::kept).
#[derive(Default)]
pub struct Attachments(Vec<Arc<dyn Attachment>>);

impl Attachments {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The descriptors, in the order of their numbers.
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.0.iter().map(|attachment| attachment.as_fd())
    }

    /// Adds one behind the others.
    ///
    /// # Errors
    ///
    /// [`AttachError::TooMany`] when the list is full; the attachment is then [kept](Attachment::kept).
    pub fn push(&mut self, attachment: Arc<dyn Attachment>) -> Result<u32, AttachError> {
        if self.0.len() >= MAX {
            attachment.kept();
            return Err(AttachError::TooMany);
        }
        self.0.push(attachment);
        Ok(self.0.len() as u32 - 1)
    }

    /// Tells every attachment that the message has gone.
    pub fn sent(mut self) {
        for attachment in self.0.drain(..) {
            attachment.sent();
        }
    }
}

impl Drop for Attachments {
    #[inline]
    fn drop(&mut self) {
        if !self.0.is_empty() {
            self.0.drain(..).for_each(|attachment| attachment.kept());
        }
    }
}

impl fmt::Debug for Attachments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.fds()).finish()
    }
}

/// The descriptors that came with a message. What nobody takes is closed when the list is dropped.
#[derive(Debug, Default)]
pub struct Received(Vec<Option<OwnedFd>>);

impl Received {
    /// How many came, those taken already included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether none came.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes descriptor `number` out of the list.
    ///
    /// # Errors
    ///
    /// [`AttachError::Missing`] when there is none of that number, or it was taken before.
    pub fn take(&mut self, number: u32) -> Result<OwnedFd, AttachError> {
        self.0.get_mut(number as usize).and_then(Option::take).ok_or(AttachError::Missing(number))
    }
}

impl Received {
    /// The same list with each descriptor that nobody took replaced; the numbers stay.
    ///
    /// # Errors
    ///
    /// The first of `replace`.
    pub fn try_map<E>(self, mut replace: impl FnMut(OwnedFd) -> Result<OwnedFd, E>) -> Result<Self, E> {
        let replaced = self.0.into_iter().map(|fd| fd.map(&mut replace).transpose());
        replaced.collect::<Result<_, E>>().map(Self)
    }

    /// Those that nobody took, in the order of their numbers: to pass them on.
    #[must_use]
    pub fn into_untaken(self) -> Vec<OwnedFd> {
        self.0.into_iter().flatten().collect()
    }
}

impl From<Vec<OwnedFd>> for Received {
    fn from(fds: Vec<OwnedFd>) -> Self {
        Self(fds.into_iter().map(Some).collect())
    }
}

/// What one encoding or decoding in progress has gathered, and the first error of a handle in it:
/// postcard's own errors carry no text.
#[derive(Debug)]
struct InProgress<T> {
    list: T,
    refused: Option<AttachError>,
}

/// The message that this thread is at, on the stack of whoever works at it; null: none. Inside the `Serialize` of a value another may be encoded, and then it is that.
type Current<T> = LocalKey<Cell<*const RefCell<InProgress<T>>>>;

thread_local! {
    static ENCODING: Cell<*const RefCell<InProgress<Attachments>>> = const { Cell::new(std::ptr::null()) };
    static DECODING: Cell<*const RefCell<InProgress<Received>>> = const { Cell::new(std::ptr::null()) };
}

/// Calls `work` with the message that this thread is at.
fn with_current<T, R>(current: &'static Current<T>, work: impl FnOnce(Option<&mut InProgress<T>>) -> R) -> R {
    // SAFETY: `Message::during` lets this point to a message that it borrows, in this thread, and takes that back before it returns or unwinds.
    match unsafe { current.get().as_ref() } {
        Some(message) => work(Some(&mut message.borrow_mut())),
        None => work(None),
    }
}

/// Attaches a descriptor to the message that this thread is encoding. The number goes into its bytes.
///
/// # Errors
///
/// [`AttachError::NotEncoding`] outside a message, [`AttachError::TooMany`] beyond [`MAX`]; the
/// attachment is then [kept](Attachment::kept).
pub fn attach(attachment: Arc<dyn Attachment>) -> Result<u32, AttachError> {
    with_current(&ENCODING, |current| match current {
        Some(current) => current.list.push(attachment).inspect_err(|error| current.refused = Some(error.clone())),
        None => {
            attachment.kept();
            Err(AttachError::NotEncoding)
        }
    })
}

/// Makes the encoding in progress fail with `why`; for handles that cannot be encoded as they are.
pub fn refuse(why: impl fmt::Display) -> AttachError {
    let error = AttachError::Refused(why.to_string());
    with_current(&ENCODING, |current| {
        if let Some(current) = current {
            current.refused.get_or_insert_with(|| error.clone());
        }
    });
    error
}

/// Takes a descriptor out of the message that this thread is decoding.
///
/// # Errors
///
/// [`AttachError::NotDecoding`] outside a message, [`AttachError::Missing`] when it is not there.
pub fn take(number: u32) -> Result<OwnedFd, AttachError> {
    with_current(&DECODING, |current| match current {
        Some(current) => current.list.take(number).inspect_err(|error| current.refused = Some(error.clone())),
        None => Err(AttachError::NotDecoding),
    })
}

/// Makes the decoding in progress fail with `why`; for handles whose descriptor is not what it should be.
pub fn reject(why: impl fmt::Display) -> AttachError {
    let error = AttachError::Refused(why.to_string());
    with_current(&DECODING, |current| {
        if let Some(current) = current {
            current.refused.get_or_insert_with(|| error.clone());
        }
    });
    error
}

/// Runs `encode` with `list` as the message in progress; its attachments are added to the list.
#[cfg(feature = "codec")]
#[inline]
pub(crate) fn while_encoding<R>(list: &mut Attachments, encode: impl FnOnce() -> R) -> (R, Option<AttachError>) {
    in_progress(&ENCODING, list, encode)
}

/// Runs `decode` with `list` as the message in progress; what it takes is gone from the list.
#[cfg(feature = "codec")]
#[inline]
pub(crate) fn while_decoding<R>(list: &mut Received, decode: impl FnOnce() -> R) -> (R, Option<AttachError>) {
    in_progress(&DECODING, list, decode)
}

#[cfg(feature = "codec")]
#[inline]
fn in_progress<T: Default, R>(
    current: &'static Current<T>,
    list: &mut T,
    work: impl FnOnce() -> R,
) -> (R, Option<AttachError>) {
    let mut message = Message(RefCell::new(InProgress { list: std::mem::take(list), refused: None }));
    let result = message.during(current, work);
    let InProgress { list: gathered, refused } = message.0.into_inner();
    *list = gathered;
    (result, refused)
}

/// A message that has a place of its own.
#[cfg(feature = "codec")]
#[derive(Debug)]
struct Message<T>(RefCell<InProgress<T>>);

#[cfg(feature = "codec")]
impl<T> Message<T> {
    /// Runs `work` with this as the message in progress.
    #[inline]
    fn during<R>(&mut self, current: &'static Current<T>, work: impl FnOnce() -> R) -> R {
        /// Goes back to the message around this one, even when a user's `Serialize` panics.
        struct Back<T: 'static>(&'static Current<T>, *const RefCell<InProgress<T>>);
        impl<T> Drop for Back<T> {
            fn drop(&mut self) {
                self.0.set(self.1);
            }
        }

        let _back = Back(current, current.replace(&raw const self.0));
        work()
    }
}

/// One message after the other, at one place: for many that are small.
#[cfg(feature = "codec")]
#[derive(Debug)]
pub(crate) struct Series<T>(Message<T>);

#[cfg(feature = "codec")]
impl<T: Default> Default for Series<T> {
    fn default() -> Self {
        Self(Message(RefCell::new(InProgress { list: T::default(), refused: None })))
    }
}

#[cfg(feature = "codec")]
impl Series<Attachments> {
    /// Runs `encode` with a new message in progress, and gives its attachments, if there are any.
    #[inline]
    pub(crate) fn while_encoding<R>(
        &mut self,
        encode: impl FnOnce() -> R,
    ) -> (R, Option<Attachments>, Option<AttachError>) {
        self.clear();
        let result = self.0.during(&ENCODING, encode);
        let InProgress { list, refused } = self.0.0.get_mut();
        let attachments = if list.is_empty() { None } else { Some(std::mem::take(list)) };
        (result, attachments, refused.take())
    }

    /// What a message has left that panicked.
    #[inline]
    fn clear(&mut self) {
        let message = self.0.0.get_mut();
        if !message.list.is_empty() || message.refused.is_some() {
            message.refused = None;
            drop(std::mem::take(&mut message.list));
        }
    }
}

#[cfg(feature = "codec")]
impl Series<Received> {
    /// Runs `decode` with a new message in progress, with which no descriptors came.
    #[inline]
    pub(crate) fn while_decoding<R>(&mut self, decode: impl FnOnce() -> R) -> (R, Option<AttachError>) {
        self.0.0.get_mut().refused = None;
        let result = self.0.during(&DECODING, decode);
        (result, self.0.0.get_mut().refused.take())
    }
}
