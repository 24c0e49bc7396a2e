//! Arrays in shared memory that move from process to process without being copied.
//!
//! A [`SharedBuffer`] has one owner, who reads and writes it as a slice. Sending it hands it over. A [`FrozenBuffer`] is what becomes of one
//! that nobody can write any more, by the word of the kernel: any number of processes read it at once.
//!
//! The protocol of the one owner is between processes of one program that trust each other. A process that keeps a
//! descriptor on purpose can write what another owns; [`SharedBuffer::freeze`] would notice, and so would nobody else.

mod frozen;
mod lending;
mod owned;

use thiserror::Error;

pub use frozen::FrozenBuffer;
pub use owned::{Borrowed, FreezeError, SharedBuffer};

use crate::{Kind, Segment, SegmentError, SegmentOptions, sys};

pub(crate) const KIND: Kind = Kind::new("buffer", 1);

/// Why a buffer cannot be made, used, sent or received.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BufferError {
    /// It was sent to another process, which owns it now.
    #[error("the buffer was handed over to another process")]
    Moved,
    /// It is part of a message that is being sent. If that fails, the buffer comes back.
    #[error("the buffer is part of a message that is on its way")]
    Moving,
    /// Somebody reads it: a slice of it is still in use.
    #[error("the buffer is in use: drop the slices that `as_slice` has lent first")]
    Lent,
    /// The message it came with was received before: it has an owner already.
    #[error("the buffer was received before: a message with a buffer can be opened once")]
    AlreadyOpened,
    /// Another process can still write it, so that it cannot be frozen.
    #[error("the buffer cannot be frozen while another process can write it")]
    StillWritable,
    /// It can still be written, and was expected not to be.
    #[error("the buffer can still be written: it was not frozen")]
    NotFrozen,
    /// The memory is none, or cannot be had.
    #[error(transparent)]
    Segment(#[from] SegmentError),
}

impl From<sys::Failed> for BufferError {
    fn from(failed: sys::Failed) -> Self {
        Self::Segment(failed.into())
    }
}

/// How every buffer that can be written is made and attached to.
fn left_out_of_forks() -> SegmentOptions {
    // SAFETY: it has no places; its slices are lent by handles that refuse in a copy, and guards cannot be captured by one.
    unsafe { options().dont_fork() }
}

/// How every buffer is made and attached to.
fn options() -> SegmentOptions {
    // SAFETY: whoever attaches checks the kind next, and the segment never leaves the buffer, whose protocol decides who uses it.
    unsafe { Segment::options().owned() }.may_be_frozen()
}

/// How many values of type `T` a segment holds.
fn count<T>(segment: &Segment) -> Result<usize, SegmentError> {
    match segment.len().checked_div(size_of::<T>()) {
        Some(count) if count * size_of::<T>() == segment.len() => Ok(count),
        _ => Err(SegmentError::Damaged("its length is no multiple of its values'")),
    }
}
