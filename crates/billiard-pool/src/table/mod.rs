//! The carrier of `Isolation::Shared`: jobs in memory that the pool and its workers share. The protocol, and what is found after a death or a stop
//! anywhere in it: `docs/design/job-table.md`.
//!
//! * [`word`]: where a job is.
//! * [`control`]: every step on the shared words.
//! * [`items`]: chunks, and which of its items runs.
//! * [`memory`]: the segments, the records in them, and the [`heap`]s for what is larger.
//! * [`book`]: the pool's own account.

#[cfg(not(loom))]
mod book;
mod control;
#[cfg(not(loom))]
mod heap;
pub(crate) mod items;
#[cfg(not(loom))]
mod memory;
#[cfg(not(loom))]
mod records;
mod word;

#[cfg(not(loom))]
mod sides;

#[cfg(not(loom))]
pub(crate) use self::{
    book::{Ended, Mail, NewJob, Outgoing, Refused, Stopped, Ticket},
    control::{Claim, Found, MAX_SEATS, MAX_SLOTS},
    heap::Span,
    memory::{Call, MAX_ITEMS, MAX_PLACED, Output},
    sides::{Desk, DeskSent, Look, Table},
};
