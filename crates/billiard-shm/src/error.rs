//! Why a segment cannot be made, attached to, or used.

use std::io;

use billiard_wire::generation::Forked;
use thiserror::Error;

use crate::{header::Kind, sys};

/// Why a segment could not be made, attached to, or used as asked.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SegmentError {
    /// A segment has at least one byte.
    #[error("a segment of no bytes was asked for: ask for one at least")]
    ZeroLength,
    /// More than an address space holds.
    #[error("a segment of {0} bytes does not fit into the address space")]
    TooLarge(usize),
    /// An alignment that is no power of two, or larger than segments have.
    #[error("an alignment of {0} bytes was asked for: it has to be a power of two, and at most {max}", max = crate::MAX_ALIGN)]
    BadAlign(usize),
    /// The descriptor is that of a socket, a pipe or something else that is no memory.
    #[error("the descriptor is not that of a memory file")]
    NotMemory,
    /// The file could shrink while it is mapped, which would kill whoever reads it.
    #[error("the memory is not sealed: whoever has it could cut it short")]
    NotSealed,
    /// The file is shorter than what it says it holds, or than any segment.
    #[error("the segment is cut short: it has {has} bytes, {needs} are needed")]
    Truncated {
        /// The bytes that are needed.
        needs: u64,
        /// The bytes that there are.
        has: u64,
    },
    /// The memory does not begin as a segment of ours does.
    #[error("the memory is not a segment of this library")]
    Foreign,
    /// Its maker has not finished it; or died before it had.
    #[error("the segment is not finished: its maker is still at work, or died before it was done")]
    Unfinished,
    /// It was made by another version of this library.
    #[error("the segment has format {found}, this library has format {known}: both programs need the same version")]
    Version {
        /// What the segment says.
        found: u32,
        /// What this library has.
        known: u32,
    },
    /// It holds something else than what was expected, or another version of it.
    #[error("the segment holds {found}, not {expected}")]
    WrongKind {
        /// What the segment says.
        found: Kind,
        /// What was asked for.
        expected: Kind,
    },
    /// It holds the right kind of thing, for another type of value.
    #[error("the segment holds values of another type than `{expected}`")]
    WrongType {
        /// The type that was asked for.
        expected: &'static str,
    },
    /// Its bytes may be used by the protocol of its kind alone, which lends references to them.
    #[error("the segment holds {0}, whose memory is not for everybody: receive it as what it was sent as")]
    Owned(Kind),
    /// Its bytes may be written by anybody, where a protocol that lends references was expected.
    #[error("the segment holds {0} in memory that is for everybody, and was not sent as what is expected here")]
    NotOwned(Kind),
    /// Its header contradicts itself, or the file.
    #[error("the header of the segment makes no sense: {0}")]
    Damaged(&'static str),
    /// A place outside the segment.
    #[error("{len} bytes at {offset} are not inside a segment of {segment} bytes")]
    OutOfBounds {
        /// Where.
        offset: usize,
        /// How many bytes.
        len: usize,
        /// What the segment has.
        segment: usize,
    },
    /// A place where a value of that type cannot be.
    #[error("offset {offset} is not a multiple of {align}")]
    Misaligned {
        /// Where.
        offset: usize,
        /// What the type needs.
        align: usize,
    },
    /// The segment can only be read here.
    #[error("the segment can only be read here")]
    ReadOnly,
    /// The handle was copied by a fork.
    #[error(transparent)]
    Forked(#[from] Forked),
    /// The kernel refuses.
    #[error("{call} failed")]
    Io {
        /// The system call.
        call: &'static str,
        /// Its error.
        source: io::Error,
    },
}

impl From<sys::Failed> for SegmentError {
    fn from(sys::Failed { call, source }: sys::Failed) -> Self {
        Self::Io { call, source }
    }
}
