//! Memory that processes share.
//!
//! * [`Segment`]: sealed memory without a name, which travels in messages and is checked by whoever maps it.
//! * [`futex`]: a word that one process waits on and another wakes. [`prim`]: atomics that a model checker can replace.
//! * [`SharedBuffer`]: an array that moves from process to process and is not copied; [`FrozenBuffer`]: one that all may read.
//! * [`Arena`]: many small things in one segment.
//! * [`NamedMemory`]: POSIX shared memory, for other programs: Python's `SharedMemory` among them.
//! * [`participants`]: who lives, and what each holds.
//! * [`Words`]: what several processes may use at once by reference. [`Plain`]: values that may lie there as they are.
//!
//! The protocols, and what is found after a death or a stop between any two steps: `docs/design/shared-memory.md` in the
//! repository.

#[cfg(not(loom))]
mod arena;
#[cfg(not(loom))]
mod buffer;
#[cfg(not(loom))]
mod copy;
#[cfg(not(loom))]
mod error;
pub mod futex;
#[cfg(not(loom))]
mod header;
#[cfg(loom)]
#[path = "buffer/lending.rs"]
#[allow(dead_code, reason = "its users are not there under loom")]
mod lending;
#[cfg(not(loom))]
mod mapping;
#[cfg(not(loom))]
pub mod named;
pub mod participants;
#[cfg(not(loom))]
mod plain;
pub mod prim;
#[cfg(not(loom))]
mod segment;
#[cfg(not(loom))]
mod sys;
#[cfg(not(loom))]
mod words;

#[cfg(not(loom))]
pub use self::{
    arena::{Arena, ArenaError, Block, FreeList, View},
    buffer::{Borrowed, BufferError, FreezeError, FrozenBuffer, SharedBuffer},
    error::SegmentError,
    header::Kind,
    named::{NamedError, NamedMemory},
    plain::Plain,
    segment::{MAX_ALIGN, Segment, SegmentOptions},
    words::{Place, Words},
};
