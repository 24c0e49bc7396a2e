//! A chunk in a worker: one item after the other, each with an outcome of its own.

use billiard_connection::Connection;
use billiard_context::{
    panics::Print,
    task::{Items, ItemsTask, Outcome},
};
use billiard_wire::{codec, fault};

use super::{failure, send};
use crate::{
    apart,
    table::{Claim, Desk, Span, Ticket, items},
};

/// A chunk that was claimed.
#[derive(Debug)]
pub(super) struct Chunk<'w> {
    pub(super) pool: &'w Connection,
    pub(super) desk: &'w mut Desk,
    pub(super) claim: Claim,
    pub(super) job: u64,
    pub(super) task: ItemsTask,
    pub(super) count: usize,
    pub(super) has_limit: bool,
    /// All items, one behind the other.
    pub(super) argument: &'w [u8],
    /// For the outcome of one item after the other.
    pub(super) laid: &'w mut Vec<u8>,
}

impl Chunk<'_> {
    /// Runs the items that have not been run, until one has an outcome that has to go over the socket: with that the chunk is done for this time. False when the chunk is this
    /// worker's no more, or there is no pool.
    #[must_use]
    pub(super) fn work(self) -> bool {
        let Self { claim, job, task, count, .. } = self;
        let Some(item) = self.desk.item(claim).filter(|&item| item < count) else { return false };
        let Some(rest) = items::skip(self.argument, item) else { return false };
        let span = self.desk.room_for_items(claim);
        let room = span.map_or(0, |span| span.len());
        // All of it may come to count, if this worker dies.
        if !self.desk.lay_down_items(claim, job, span, room, 0) {
            return false;
        }
        let mut run = Run { chunk: self, item, rest, span, room, used: 0, mailed: 0, is_well: true };
        // SAFETY: the task came from the pool, through memory that the pool alone can write; the guardian's executable, of which this process is a copy, was compared
        // with the pool's.
        let found = unsafe { task.run(&mut run, Print::No) };
        if !run.is_well || found.is_err() || (run.item < count && run.mailed == 0) {
            return false;
        }
        run.mailed > 0 || run.chunk.desk.lay_down_items(claim, job, span, run.used, 0)
    }
}

/// How far it has come.
#[derive(Debug)]
struct Run<'w> {
    chunk: Chunk<'w>,
    /// The item that runs.
    item: usize,
    /// Those behind it.
    rest: &'w [u8],
    /// Where outcomes are laid down, how much room there is, and how much of that is used.
    span: Option<Span>,
    room: usize,
    used: usize,
    /// The item behind the one whose outcome went over the socket.
    mailed: usize,
    /// The chunk is this worker's, and there is a pool.
    is_well: bool,
}

impl Items for Run<'_> {
    #[inline]
    fn next(&mut self) -> Option<(&[u8], &mut Vec<u8>)> {
        if self.item == self.chunk.count || self.mailed > 0 || !self.is_well {
            return None;
        }
        let (_, argument, rest) = items::split(self.rest)?;
        self.rest = rest;
        fault::point("worker.item");
        self.chunk.laid.clear();
        items::begin(self.chunk.laid);
        Some((argument, self.chunk.laid))
    }

    #[inline]
    fn returned(&mut self) -> bool {
        fault::point("worker.item.run");
        self.lay(false) || {
            let mut bytes = std::mem::take(self.chunk.laid);
            bytes.drain(..items::HEAD);
            self.send(Outcome::Returned(bytes, Default::default()))
        }
    }

    fn ended(&mut self, outcome: Outcome) -> bool {
        fault::point("worker.item.run");
        let outcome = match outcome {
            Outcome::Returned(..) => outcome,
            failed => {
                let failure = failure(failed);
                if let Ok(encoded) = codec::encode(&failure) {
                    self.chunk.laid.truncate(items::HEAD);
                    self.chunk.laid.extend_from_slice(encoded.body());
                    if self.lay(true) {
                        return true;
                    }
                }
                failure.into()
            }
        };
        self.send(outcome)
    }
}

impl Run<'_> {
    /// Lays the outcome of the item down, and goes on to the next. False when there is no room for it; or when there is nothing more to do, which `next` says.
    #[inline]
    fn lay(&mut self, is_failure: bool) -> bool {
        let len = items::len_of(self.chunk.laid.len() - items::HEAD);
        let Some(span) = self.span.filter(|_| len <= self.room - self.used) else { return false };
        items::seal(self.chunk.laid, 0, is_failure);
        self.is_well = self.chunk.desk.append(span, self.used, self.chunk.laid);
        self.used += len;
        self.advance();
        true
    }

    /// Sends the outcome of the item over the socket, with which the chunk is done for this time.
    fn send(&mut self, outcome: Outcome) -> bool {
        let Chunk { claim, job, .. } = self.chunk;
        let number = Ticket { slot: claim.slot, job }.number();
        self.is_well = send(self.chunk.pool, number, outcome, apart::LEAST).is_ok();
        fault::point("worker.item.sent");
        self.mailed = self.item + 1;
        self.is_well &= self.chunk.desk.lay_down_items(claim, job, self.span, self.used, self.mailed);
        self.advance();
        false
    }

    #[inline]
    fn advance(&mut self) {
        if !self.is_well {
            return;
        }
        let Chunk { claim, has_limit, ref desk, .. } = self.chunk;
        if has_limit {
            desk.accept(claim); // of the next one; before the step to it
        }
        fault::point("worker.item.laid_down");
        self.is_well = desk.advance(claim, self.item, has_limit);
        fault::point("worker.item.finished");
        self.item += usize::from(self.is_well);
    }
}
