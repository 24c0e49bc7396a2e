//! What items are handed in as: jobs and chunks; and what becomes of them.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use billiard_context::Message;
use billiard_shm::futex::Deadline;

use crate::{
    chunk::Outcomes,
    error::JobError,
    handle::{Cell, JobHandle},
    pool::Shared,
    table::Ticket,
};

/// Items that were handed in together, or could not be.
#[derive(Debug)]
pub(super) struct Unit<R> {
    /// How many items.
    pub(super) count: usize,
    work: Work<R>,
}

#[derive(Debug)]
enum Work<R> {
    /// One item.
    Job(JobHandle<R>),
    Chunk(Chunk),
    /// It could not be handed in.
    Failed(Option<JobError>),
}

/// A chunk that was accepted. Whatever happens to its workers, each item ends with a value or a typed error.
pub(super) struct Chunk {
    cell: Arc<Cell>,
    ticket: Ticket,
    pool: Arc<Shared>,
}

impl fmt::Debug for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chunk").field("ticket", &self.ticket).finish_non_exhaustive()
    }
}

impl<R> Unit<R> {
    pub(super) fn job(handle: JobHandle<R>) -> Self {
        Self { count: 1, work: Work::Job(handle) }
    }

    pub(super) fn chunk(count: usize, cell: Arc<Cell>, ticket: Ticket, pool: Arc<Shared>) -> Self {
        Self { count, work: Work::Chunk(Chunk { cell, ticket, pool }) }
    }

    pub(super) fn failed(why: JobError) -> Self {
        Self { count: 1, work: Work::Failed(Some(why)) }
    }

    /// Itself, if it was handed in; otherwise why not.
    pub(super) fn into_accepted(self) -> Result<Self, JobError> {
        match self.work {
            Work::Failed(Some(why)) => Err(why),
            work => Ok(Self { work, ..self }),
        }
    }

    pub(super) fn is_ready(&self) -> bool {
        match &self.work {
            Work::Job(handle) => handle.is_ready(),
            // In a copy of the pool's process nothing comes any more.
            Work::Chunk(chunk) => chunk.pool.is_here().is_err() || chunk.cell.is_ready(),
            Work::Failed(_) => true,
        }
    }

    /// Waits until it is ready, but no longer than until `deadline`; whether it is.
    pub(super) fn wait_until(&self, deadline: Option<Deadline>) -> bool {
        match &self.work {
            Work::Job(handle) => match deadline {
                None => {
                    handle.wait();
                    true
                }
                Some(deadline) => handle.wait_timeout(deadline.remaining()),
            },
            Work::Chunk(chunk) => chunk.pool.is_here().is_err() || chunk.cell.wait_until(deadline),
            Work::Failed(_) => true,
        }
    }

    /// Cancels it if it has not begun.
    pub(super) fn cancel(&self) {
        self.stop(JobHandle::cancel, JobError::Cancelled, false);
    }

    /// Ends it, begun or not.
    pub(super) fn terminate(&self) {
        self.stop(JobHandle::terminate, JobError::Terminated, true);
    }

    fn stop(&self, stop: fn(&JobHandle<R>) -> bool, why: JobError, begun_too: bool) {
        match &self.work {
            Work::Job(handle) => drop(stop(handle)),
            Work::Chunk(chunk) => drop(chunk.pool.stop(chunk.ticket, why, begun_too)),
            Work::Failed(_) => {}
        }
    }
}

impl<R: Message> Unit<R> {
    /// Has the waker called once it is ready; what became of its items, if it is so already.
    pub(super) fn watch(&mut self, waker: Waker) -> Option<Opened<R>> {
        match &mut self.work {
            Work::Job(handle) => match Pin::new(handle).poll(&mut Context::from_waker(&waker)) {
                Poll::Ready(outcome) => Some(Opened::one(outcome)),
                Poll::Pending => None,
            },
            Work::Chunk(chunk) if chunk.pool.is_here().is_ok() && chunk.cell.watch(waker) => None,
            Work::Chunk(_) | Work::Failed(_) => self.open(),
        }
    }

    /// What became of its items, if it is ready; once.
    pub(super) fn open(&mut self) -> Option<Opened<R>> {
        match &mut self.work {
            Work::Job(handle) => handle.try_get().map(Opened::one),
            Work::Chunk(chunk) => {
                let outcomes = match chunk.pool.is_here() {
                    Ok(()) => chunk.cell.take_outcomes()?,
                    Err(forked) => {
                        let mut outcomes = Outcomes::default();
                        outcomes.end(forked.into());
                        outcomes
                    }
                };
                Some(Opened { left: self.count, one: None, outcomes })
            }
            Work::Failed(why) => Some(Opened::one(Err(why.take()?))),
        }
    }
}

/// What became of the items of a unit, in their order.
#[derive(Debug)]
pub(super) struct Opened<R> {
    left: usize,
    one: Option<Result<R, JobError>>,
    outcomes: Outcomes,
}

impl<R> Opened<R> {
    fn one(outcome: Result<R, JobError>) -> Self {
        Self { left: 1, one: Some(outcome), outcomes: Outcomes::default() }
    }
}

impl<R: Message> Opened<R> {
    /// All of them: faster than one by one.
    pub(super) fn each(self, mut with: impl FnMut(Result<R, JobError>)) {
        match self.one {
            Some(outcome) => with(outcome),
            None => self.outcomes.each(self.left, with),
        }
    }
}

impl<R: Message> Iterator for Opened<R> {
    type Item = Result<R, JobError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        Some(self.one.take().unwrap_or_else(|| self.outcomes.next()))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl<R: Message> ExactSizeIterator for Opened<R> {}
