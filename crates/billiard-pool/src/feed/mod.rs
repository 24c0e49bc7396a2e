//! Many items through one function: a few jobs or chunks ahead, values in order or as they come.
//!
//! * [`intake`]: items become jobs and chunks, as far as there is room.
//! * [`unit`]: a job or a chunk that is under way.
//! * [`gather`]: those under way, and what of them is ready.

use std::time::Duration;

use billiard_context::Message;

use self::intake::{Intake, Manner};
use crate::{error::JobError, pool::Pool};

mod gather;
mod imap;
mod intake;
mod map;
mod unit;
mod unordered;

pub use self::{imap::Imap, map::MapHandle, unordered::ImapUnordered};

/// How many jobs or chunks per worker are handed in ahead of the values that are taken, and how many of them a map has for each worker where nothing else is said.
const AHEAD: usize = 4;

/// When a map that fails has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum MapPolicy {
    /// At the first failure that is seen: what has not begun is cancelled, what runs goes on and is not waited for.
    #[default]
    FailFast,
    /// When every item has its outcome. The error is that of the first item, in the order of the items, that has failed.
    WaitAll,
}

impl Pool {
    /// Calls `function` with each item, in many workers at once, and waits for all values, in the order of the items.
    ///
    /// As [`jobs`](Self::jobs) without options: items go in chunks.
    ///
    /// # Errors
    ///
    /// The first failure that is seen: see [`MapPolicy::FailFast`].
    ///
    /// # Panics
    ///
    /// When the iterator does.
    pub fn map<I, R>(&self, function: fn(I::Item) -> R, items: I) -> Result<Vec<R>, JobError>
    where
        I: IntoIterator,
        I::Item: Message,
        R: Message,
    {
        self.jobs(function, items).map()
    }

    /// As [`map`](Self::map), but does not wait for the values: see [`JobsBuilder::map_async`].
    ///
    /// # Errors
    ///
    /// As [`JobsBuilder::map_async`].
    ///
    /// # Panics
    ///
    /// When the iterator does.
    pub fn map_async<I, R>(&self, function: fn(I::Item) -> R, items: I) -> Result<MapHandle<R>, JobError>
    where
        I: IntoIterator,
        I::Item: Message,
        R: Message,
    {
        self.jobs(function, items).map_async()
    }

    /// Calls `function` with each item, in many workers at once; an iterator over the values in the order of the items.
    ///
    /// The items are taken as the values are, in the thread that asks for them: never more than a few ahead, so that the input may be
    /// endless; but an input that waits for the value of an earlier item would wait for ever. While one item takes long, only those few
    /// go on: where the order does not matter, [`imap_unordered`](Self::imap_unordered) keeps all workers busy. An item that fails is an
    /// error in its place, and the next ones go on. Dropping the iterator cancels what has not begun; so does a panic of the input, which is the caller's.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), billiard_pool::Error> {
    /// # billiard_pool::init();
    /// fn word(n: u32) -> String {
    ///     format!("{n:b}")
    /// }
    ///
    /// let pool = billiard_pool::Pool::new()?;
    /// for (n, word) in pool.imap(word, 1..).take(100).enumerate() {
    ///     println!("{}: {}", n + 1, word?);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn imap<I, R>(&self, function: fn(I::Item) -> R, items: I) -> Imap<'_, I::IntoIter, R>
    where
        I: IntoIterator,
        I::Item: Message,
        R: Message,
    {
        self.jobs(function, items).imap()
    }

    /// Calls `function` with each item, in many workers at once; an iterator over the values as they come.
    ///
    /// The items are taken as the values are, in the thread that asks for them: never more than a few ahead, so that the input may be
    /// endless; but an input that waits for the value of an earlier item would wait for ever. Dropping the iterator cancels
    /// what has not begun.
    pub fn imap_unordered<I, R>(&self, function: fn(I::Item) -> R, items: I) -> ImapUnordered<'_, I::IntoIter, R>
    where
        I: IntoIterator,
        I::Item: Message,
        R: Message,
    {
        self.jobs(function, items).imap_unordered()
    }

    /// Many items for one function, with options.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), billiard_pool::Error> {
    /// # billiard_pool::init();
    /// # use std::time::Duration;
    /// fn root(n: u64) -> u64 {
    ///     n.isqrt()
    /// }
    ///
    /// let pool = billiard_pool::Pool::new()?;
    /// // Items this small go in chunks: to hand each in by itself would take longer than to work at it.
    /// let values = pool.jobs(root, 0..1_000_000).chunk_size(10_000).timeout(Duration::from_secs(1)).imap();
    /// println!("{}", values.flatten().sum::<u64>());
    /// # Ok(())
    /// # }
    /// ```
    pub fn jobs<I, R>(&self, function: fn(I::Item) -> R, items: I) -> JobsBuilder<'_, I::IntoIter, R>
    where
        I: IntoIterator,
    {
        JobsBuilder {
            pool: self,
            function,
            items: items.into_iter(),
            chunk_size: None,
            limit: None,
            policy: MapPolicy::default(),
        }
    }
}

/// Many items for one function, before they are handed in.
///
/// # Chunks
///
/// Small items are handed in many at a time: a chunk goes to one worker, which works at one item after the other. Each item has an outcome of its own all the same: one that panics, runs too long
/// or takes its worker down is one error in its place; what was finished before it counts, and the rest of the chunk goes on in another worker. No item is begun twice.
///
/// A chunk ends early where its encoded items reach one MiB; an item that carries descriptors goes by itself. Under [`Isolation::Strict`](crate::Isolation::Strict) every item does, as if
/// each chunk were of one.
#[must_use = "nothing is handed in before `map()`, `map_async()`, `imap()` or `imap_unordered()`"]
pub struct JobsBuilder<'p, I: Iterator, R> {
    pool: &'p Pool,
    function: fn(I::Item) -> R,
    items: I,
    chunk_size: Option<usize>,
    limit: Option<Duration>,
    policy: MapPolicy,
}

impl<'p, I: Iterator, R> JobsBuilder<'p, I, R> {
    /// How many items make a chunk; 0 is as 1. Where nothing is said it is 1 for `imap` and `imap_unordered`; for `map` and `map_async` as many as give each worker four chunks.
    pub fn chunk_size(mut self, items: usize) -> Self {
        self.chunk_size = Some(items);
        self
    }

    /// How long each item may run; in place of the pool's own limit. An item that runs longer fails as [`JobError::TimeLimitExceeded`], and its worker is ended; the rest of its chunk goes on
    /// in another once it is.
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.limit = Some(limit);
        self
    }

    /// When `map` and `map_async` have ended if an item fails.
    pub fn policy(mut self, policy: MapPolicy) -> Self {
        self.policy = policy;
        self
    }
}

impl<'p, I, R> JobsBuilder<'p, I, R>
where
    I: Iterator,
    I::Item: Message,
    R: Message,
{
    fn intake(self) -> Intake<'p, I, R> {
        let manner = Manner { chunk_size: self.chunk_size.unwrap_or(1), limit: self.limit };
        Intake::new(self.pool, self.function, self.items, manner)
    }

    /// Hands all items in and waits for all values, in the order of the items. Where it is not known how many items there are and no chunk size is given, they are collected first.
    ///
    /// Items are taken as the work goes on, so that those of a given chunk size need little memory at a time; they have to end, and all values are kept.
    ///
    /// # Errors
    ///
    /// That of an item that has failed: of which is the [policy](Self::policy)'s to say.
    ///
    /// # Panics
    ///
    /// When the iterator does.
    pub fn map(self) -> Result<Vec<R>, JobError> {
        map::map(self)
    }

    /// Hands all items in, and waits only while there is no room for them. Where no chunk size is given, the items are collected first.
    ///
    /// # Errors
    ///
    /// The first reason for which an item could not be handed in; those that were are cancelled then.
    ///
    /// # Panics
    ///
    /// When the iterator does.
    pub fn map_async(self) -> Result<MapHandle<R>, JobError> {
        map::map_async(self)
    }

    /// An iterator over the values in the order of the items: see [`Pool::imap`].
    pub fn imap(self) -> Imap<'p, I, R> {
        Imap::new(AHEAD * self.pool.workers(), self.intake())
    }

    /// An iterator over the values as they come: see [`Pool::imap_unordered`].
    pub fn imap_unordered(self) -> ImapUnordered<'p, I, R> {
        ImapUnordered::new(AHEAD * self.pool.workers(), self.intake())
    }
}

impl<I: Iterator, R> std::fmt::Debug for JobsBuilder<'_, I, R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { chunk_size, limit, policy, .. } = self;
        f.debug_struct("JobsBuilder")
            .field("chunk_size", chunk_size)
            .field("limit", limit)
            .field("policy", policy)
            .finish_non_exhaustive()
    }
}
