//! What can go wrong on a connection.

use std::io;

use billiard_wire::{
    codec::{DecodeError, EncodeError, WrongCount},
    frame::BadHeader,
    generation::Forked,
};
use thiserror::Error;

/// Why a message could not be sent or received.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The other end was closed, between two messages: nothing more will come.
    #[error("the other end of the connection is closed")]
    Eof,
    /// The other end was closed in the middle of a message: its process died, most likely.
    #[error("the other end of the connection closed in the middle of a message")]
    Truncated,
    /// Nobody is at the other end to take what is sent.
    #[error("nobody is left at the other end of the connection")]
    Disconnected,
    /// An earlier message broke off half-way; nothing on this connection can be trusted any more.
    #[error("an earlier message on this connection broke off half-way: close it and make another")]
    Poisoned,
    /// The length in front of a message is one that no peer writes.
    #[error("the connection is out of step")]
    BadHeader(#[from] BadHeader),
    /// A typed message and the descriptors that came with it do not agree.
    #[error("the connection is out of step")]
    WrongCount(#[from] WrongCount),
    /// A message is longer than the limit of the one who reads it.
    #[error("a message of {len} bytes is longer than the limit of {limit}")]
    TooLong {
        /// What its header announces.
        len: u64,
        /// What the reader takes.
        limit: u64,
    },
    /// Descriptors came where none are expected; they were closed.
    #[error("{0} descriptors came where none were expected, and were closed")]
    UnexpectedDescriptors(usize),
    /// A descriptor was expected and none came.
    #[error("a descriptor was expected and none came")]
    NoDescriptor,
    /// The kernel dropped descriptors on their way: this process may open no more, most likely. The message they were
    /// in is gone; the connection stays usable.
    #[error("descriptors were lost on their way: has this process reached its limit of open files?")]
    DescriptorsLost,
    /// This end was handed to another process inside a message.
    #[error("this end of the connection was handed over to another process")]
    HandedOver,
    /// This process was forked by hand from the one that the connection belongs to.
    #[error(transparent)]
    Forked(#[from] Forked),
    /// The value cannot be encoded; nothing was sent.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The message came whole but is not of the type asked for; the connection stays usable.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The kernel refuses.
    #[error("{call} failed")]
    Io {
        /// The system call.
        call: &'static str,
        /// Its error.
        source: io::Error,
    },
}
