//! Values in the order of the items.

use std::{collections::VecDeque, fmt, time::Duration};

use billiard_context::Message;
use billiard_shm::futex::Deadline;

use super::{
    intake::{Intake, Taken},
    unit::{Opened, Unit},
};
use crate::error::{JobError, TimedOut};

/// The values of [`Pool::imap`](crate::Pool::imap), in the order of the items.
///
/// An item that cannot be handed in is an error in its place, and the next ones go on; but once the pool accepts no
/// more, that is the last of the errors for items that were not handed in yet.
pub struct Imap<'p, I: Iterator, R> {
    intake: Intake<'p, I, R>,
    /// How many jobs or chunks are to be under way.
    ahead: usize,
    /// What became of those whose turn it is.
    opened: Option<Opened<R>>,
    under_way: VecDeque<Unit<R>>,
}

impl<'p, I: Iterator, R> Imap<'p, I, R> {
    pub(super) fn new(ahead: usize, intake: Intake<'p, I, R>) -> Self {
        Self { intake, ahead, opened: None, under_way: VecDeque::new() }
    }
}

impl<I, R> Imap<'_, I, R>
where
    I: Iterator,
    I::Item: Message,
    R: Message,
{
    /// Hands items in, as long as there is nothing better to do.
    fn fill(&mut self, deadline: Option<Deadline>) {
        while self.under_way.len() < self.ahead {
            // What is there comes before what may have to be waited for.
            let first = self.under_way.front();
            let taken = self.intake.next(first.is_none(), deadline, || first.is_some_and(Unit::is_ready));
            let Taken::Unit(unit) = taken else { return };
            self.under_way.push_back(unit);
        }
    }

    fn next_until(&mut self, deadline: Option<Deadline>) -> Result<Option<Result<R, JobError>>, TimedOut> {
        loop {
            if let Some(value) = self.opened.as_mut().and_then(Iterator::next) {
                return Ok(Some(value));
            }
            self.fill(deadline);
            let Some(first) = self.under_way.front_mut() else {
                return if self.intake.is_stalled() { Err(TimedOut) } else { Ok(None) };
            };
            if !first.wait_until(deadline) {
                return Err(TimedOut);
            }
            self.opened = first.open();
            self.under_way.pop_front();
        }
    }

    /// As `next`, but waits no longer than `timeout` for the value. The input is taken as by `next`: for as long as that itself waits, so does this.
    ///
    /// # Errors
    ///
    /// [`TimedOut`] when the value has not come in time. Nothing is lost: the next call waits for the same.
    pub fn next_timeout(&mut self, timeout: Duration) -> Result<Option<Result<R, JobError>>, TimedOut> {
        self.next_until(Some(Deadline::after(timeout)))
    }
}

impl<I, R> Iterator for Imap<'_, I, R>
where
    I: Iterator,
    I::Item: Message,
    R: Message,
{
    type Item = Result<R, JobError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_until(None).ok().flatten() // without a deadline there is none to miss
    }
}

impl<I: Iterator, R> Drop for Imap<'_, I, R> {
    fn drop(&mut self) {
        self.under_way.iter().for_each(Unit::cancel);
    }
}

impl<I: Iterator, R> fmt::Debug for Imap<'_, I, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Imap").field("under_way", &self.under_way.len()).finish_non_exhaustive()
    }
}
