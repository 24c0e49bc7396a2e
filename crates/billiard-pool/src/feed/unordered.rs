//! Values as they come.

use std::{fmt, time::Duration};

use billiard_context::Message;
use billiard_shm::futex::Deadline;

use super::{
    gather::{Gather, Numbered},
    intake::{Intake, Taken},
    unit::Opened,
};
use crate::error::{JobError, TimedOut};

/// Hands items in, and gives what became of them as that comes.
pub(super) struct Feed<'p, I: Iterator, R> {
    pub(super) intake: Intake<'p, I, R>,
    pub(super) gather: Gather<R>,
    /// How many jobs or chunks are to be under way.
    ahead: usize,
}

impl<'p, I: Iterator, R> Feed<'p, I, R> {
    pub(super) fn new(ahead: usize, intake: Intake<'p, I, R>) -> Self {
        Self { intake, gather: Gather::new(), ahead }
    }
}

impl<I, R> Feed<'_, I, R>
where
    I: Iterator,
    I::Item: Message,
    R: Message,
{
    /// What became of the next items that are ready; waits no longer for them than until `deadline`.
    pub(super) fn next_until(&mut self, deadline: Option<Deadline>) -> Result<Option<Numbered<R>>, TimedOut> {
        loop {
            if let Some(ready) = self.gather.try_next() {
                return Ok(Some(ready));
            }
            if self.gather.len() == self.ahead {
                return self.gather.next_until(deadline);
            }
            // What is there comes before what may have to be waited for.
            let (is_alone, gather) = (self.gather.is_empty(), &self.gather);
            match self.intake.next(is_alone, deadline, || gather.has_news()) {
                Taken::Unit(unit) => {
                    if let Some(ready) = self.gather.add(unit) {
                        return Ok(Some(ready));
                    }
                }
                Taken::Interrupted => {}
                Taken::Full if is_alone => return Err(TimedOut),
                Taken::Full | Taken::End => return self.gather.next_until(deadline),
            }
        }
    }
}

/// The values of [`Pool::imap_unordered`](crate::Pool::imap_unordered), as they come.
///
/// An item that cannot be handed in is an error in its place, and the next ones go on; but once the pool accepts no
/// more, that is the last of the errors for items that were not handed in yet.
pub struct ImapUnordered<'p, I: Iterator, R> {
    feed: Feed<'p, I, R>,
    /// Those that came last.
    opened: Option<Opened<R>>,
}

impl<'p, I: Iterator, R> ImapUnordered<'p, I, R> {
    pub(super) fn new(ahead: usize, intake: Intake<'p, I, R>) -> Self {
        Self { feed: Feed::new(ahead, intake), opened: None }
    }
}

impl<I, R> ImapUnordered<'_, I, R>
where
    I: Iterator,
    I::Item: Message,
    R: Message,
{
    fn next_until(&mut self, deadline: Option<Deadline>) -> Result<Option<Result<R, JobError>>, TimedOut> {
        loop {
            if let Some(value) = self.opened.as_mut().and_then(Iterator::next) {
                return Ok(Some(value));
            }
            match self.feed.next_until(deadline)? {
                Some((_, opened)) => self.opened = Some(opened),
                None => return Ok(None),
            }
        }
    }

    /// As `next`, but waits no longer than `timeout` for a value. The input is taken as by `next`: for as long as that itself waits, so does this.
    ///
    /// # Errors
    ///
    /// [`TimedOut`] when no value has come in time. Nothing is lost: the next call goes on.
    pub fn next_timeout(&mut self, timeout: Duration) -> Result<Option<Result<R, JobError>>, TimedOut> {
        self.next_until(Some(Deadline::after(timeout)))
    }
}

impl<I, R> Iterator for ImapUnordered<'_, I, R>
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

impl<I: Iterator, R> fmt::Debug for ImapUnordered<'_, I, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImapUnordered").field("under_way", &self.feed.gather.len()).finish_non_exhaustive()
    }
}
