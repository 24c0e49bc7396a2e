//! All values at once, in the order of the items.

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    mem,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use billiard_context::Message;
use billiard_shm::futex::Deadline;

use super::{
    AHEAD, JobsBuilder, MapPolicy,
    gather::{Gather, Numbered},
    intake::{Intake, Manner, Taken},
    unordered::Feed,
};
use crate::error::JobError;

/// How many jobs or chunks `map` has under way: enough that no worker ever waits for the caller.
const MAP_AHEAD: usize = 1024;

/// [`JobsBuilder::map`].
pub(super) fn map<I, R>(builder: JobsBuilder<'_, I, R>) -> Result<Vec<R>, JobError>
where
    I: Iterator,
    I::Item: Message,
    R: Message,
{
    let policy = builder.policy;
    match (builder.chunk_size, builder.items.size_hint()) {
        (Some(size), _) => drain(policy, intake(builder, size)),
        (None, (least, Some(most))) if least == most => {
            let size = default_chunk(least, builder.pool.workers());
            drain(policy, intake(builder, size))
        }
        (None, _) => map(collect(builder)),
    }
}

/// [`JobsBuilder::map_async`].
pub(super) fn map_async<I, R>(builder: JobsBuilder<'_, I, R>) -> Result<MapHandle<R>, JobError>
where
    I: Iterator,
    I::Item: Message,
    R: Message,
{
    let policy = builder.policy;
    let Some(size) = builder.chunk_size else {
        let builder = collect(builder);
        let size = default_chunk(builder.items.len(), builder.pool.workers());
        return map_async(builder.chunk_size(size));
    };
    let mut intake = intake(builder, size);
    let mut handle =
        MapHandle { gather: Gather::new(), values: Values::new(policy, intake.len_hint()), is_taken: false };
    loop {
        match intake.next(handle.gather.is_empty(), None, || false) {
            Taken::Unit(unit) => match unit.into_accepted() {
                Ok(unit) => {
                    let ready = handle.gather.add(unit);
                    handle.values.extend(ready);
                }
                Err(why) => return Err(why),
            },
            Taken::Full => {
                let ready = handle.gather.next_until(None).ok().flatten();
                handle.values.extend(ready);
            }
            Taken::Interrupted | Taken::End => return Ok(handle),
        }
    }
}

/// So many that each worker gets [`AHEAD`] chunks.
fn default_chunk(items: usize, workers: usize) -> usize {
    items.div_ceil(AHEAD * workers)
}

fn intake<'p, I, R>(builder: JobsBuilder<'p, I, R>, chunk_size: usize) -> Intake<'p, I, R>
where
    I: Iterator,
    I::Item: Message,
    R: Message,
{
    let manner = Manner { chunk_size, limit: builder.limit };
    Intake::new(builder.pool, builder.function, builder.items, manner)
}

fn collect<'p, I: Iterator, R>(builder: JobsBuilder<'p, I, R>) -> JobsBuilder<'p, std::vec::IntoIter<I::Item>, R> {
    let JobsBuilder { pool, function, items, chunk_size, limit, policy } = builder;
    let items = items.collect::<Vec<_>>().into_iter();
    JobsBuilder { pool, function, items, chunk_size, limit, policy }
}

fn drain<I, R>(policy: MapPolicy, intake: Intake<'_, I, R>) -> Result<Vec<R>, JobError>
where
    I: Iterator,
    I::Item: Message,
    R: Message,
{
    let mut values = Values::new(policy, intake.len_hint());
    let mut feed = Feed::new(MAP_AHEAD, intake);
    while !values.is_over() {
        match feed.next_until(None).ok().flatten() {
            Some(ready) => values.extend([ready]),
            None => break,
        }
    }
    values.into_result()
}

/// The values so far.
#[derive(Debug)]
struct Values<R> {
    policy: MapPolicy,
    /// Those of all units before `next`, in their order.
    values: Vec<R>,
    next: usize,
    /// Those of units behind it, by their numbers.
    ahead: BTreeMap<usize, Vec<R>>,
    /// The first, and of which unit it is.
    failure: Option<(usize, JobError)>,
}

impl<R> Values<R> {
    /// None yet, of about so many.
    fn new(policy: MapPolicy, expected: usize) -> Self {
        let mut values = Vec::new();
        let _ = values.try_reserve_exact(expected); // which is what the input says of itself: no promise
        Self { policy, values, next: 0, ahead: BTreeMap::new(), failure: None }
    }

    /// Whether what comes behind changes nothing.
    fn is_over(&self) -> bool {
        self.policy == MapPolicy::FailFast && self.failure.is_some()
    }

    fn into_result(self) -> Result<Vec<R>, JobError> {
        match self.failure {
            Some((_, why)) => Err(why),
            None => Ok(self.values),
        }
    }
}

impl<R: Message> Extend<Numbered<R>> for Values<R> {
    fn extend<T: IntoIterator<Item = Numbered<R>>>(&mut self, ready: T) {
        for (number, opened) in ready {
            let mut failure = None;
            let mut unit = Vec::new();
            let values = if number == self.next { &mut self.values } else { &mut unit };
            values.reserve(opened.len());
            opened.each(|outcome| match outcome {
                Ok(value) => values.push(value),
                Err(why) => failure = failure.take().or(Some(why)),
            });
            if number == self.next {
                self.next += 1;
            } else {
                self.ahead.insert(number, unit);
            }
            while let Some(mut unit) = self.ahead.remove(&self.next) {
                self.values.append(&mut unit);
                self.next += 1;
            }
            if let Some(why) = failure
                && self.failure.as_ref().is_none_or(|&(first, _)| number < first)
            {
                self.failure = Some((number, why));
            }
        }
    }
}

/// A map that was handed in: it ends with all values, in the order of the items, or with an error.
///
/// It is a future too, for any executor. Dropping it cancels what has not begun.
#[must_use = "dropping the handle cancels what has not begun"]
pub struct MapHandle<R> {
    gather: Gather<R>,
    values: Values<R>,
    is_taken: bool,
}

// Nothing in it is pinned.
impl<R> Unpin for MapHandle<R> {}

impl<R: Message> MapHandle<R> {
    /// Whether it has ended: every item has, or one has failed and the policy is [`MapPolicy::FailFast`].
    #[must_use]
    pub fn is_ready(&mut self) -> bool {
        while !self.values.is_over()
            && let Some(ready) = self.gather.try_next()
        {
            self.values.extend([ready]);
        }
        self.values.is_over() || self.gather.is_empty()
    }

    fn wait_until(&mut self, deadline: Option<Deadline>) -> bool {
        while !self.is_ready() {
            match self.gather.next_until(deadline) {
                Ok(ready) => self.values.extend(ready),
                Err(_) => return false,
            }
        }
        true
    }

    /// Waits until it has ended, but no longer than `timeout`; whether it has.
    #[must_use]
    pub fn wait_timeout(&mut self, timeout: Duration) -> bool {
        self.wait_until(Some(Deadline::after(timeout)))
    }

    /// Waits for all values. Not on the pool's own thread, in a callback or a waker: there it may wait for ever.
    ///
    /// # Errors
    ///
    /// That of an item that has failed.
    ///
    /// # Panics
    ///
    /// When the values were taken before, by [`try_get`](Self::try_get) or as a future.
    pub fn get(mut self) -> Result<Vec<R>, JobError> {
        self.wait_until(None);
        self.take().expect("the values were not taken by `try_get` before")
    }

    /// All values if it has ended; `None` when it has not, or when they were taken before.
    pub fn try_get(&mut self) -> Option<Result<Vec<R>, JobError>> {
        if self.is_ready() { self.take() } else { None }
    }

    fn take(&mut self) -> Option<Result<Vec<R>, JobError>> {
        if mem::replace(&mut self.is_taken, true) {
            return None;
        }
        self.gather.cancel(); // where one has failed
        Some(mem::replace(&mut self.values, Values::new(MapPolicy::WaitAll, 0)).into_result())
    }
}

impl<R> MapHandle<R> {
    /// Cancels what has not begun: those items end as [`JobError::Cancelled`].
    pub fn cancel(&self) {
        self.gather.cancel();
    }

    /// Ends what has not ended, begun or not, as [`JobError::Terminated`]. Workers that have some of it are ended, and replaced.
    pub fn terminate(&self) {
        self.gather.terminate();
    }
}

impl<R: Message> Future for MapHandle<R> {
    type Output = Result<Vec<R>, JobError>;

    /// # Panics
    ///
    /// When the values were taken before.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.gather.watch(context.waker().clone());
        if !self.is_ready() {
            return Poll::Pending;
        }
        Poll::Ready(self.take().expect("a handle is not polled after it has given its values"))
    }
}

impl<R> fmt::Debug for MapHandle<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MapHandle").field("under_way", &self.gather.len()).finish_non_exhaustive()
    }
}
