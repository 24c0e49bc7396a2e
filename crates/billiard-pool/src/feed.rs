//! Many items through one function: a few jobs ahead, values as they come.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    iter::Fuse,
    pin::Pin,
    sync::{Arc, mpsc},
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use billiard_context::Message;
use billiard_shm::futex::Deadline;

use crate::{
    error::{JobError, TimedOut},
    handle::JobHandle,
    job::Room,
    pool::Pool,
};

/// How many jobs per worker are handed in ahead of the values that are taken.
const AHEAD: usize = 4;
/// How many jobs `map` has under way: enough that no worker ever waits for the caller.
const MAP_AHEAD: usize = 1024;

impl Pool {
    /// Calls `function` with each item, in many workers at once, and waits for all values, in the order of the items.
    ///
    /// The items are taken as the work goes on, so that many need little memory at a time; they have to end, and all values are kept.
    ///
    /// # Errors
    ///
    /// The first job that failed. Those that have not begun are then cancelled; those that have run on.
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
        map(self, function, items.into_iter())
    }

    /// Calls `function` with each item, in many workers at once; an iterator over the values in the order of the items.
    ///
    /// The items are taken as the values are, in the thread that asks for them: never more than a few ahead, so that the input may be
    /// endless; but an input that waits for the value of an earlier item would wait for ever. While one item takes long, only those few
    /// go on: where the order does not matter, [`imap_unordered`](Self::imap_unordered) keeps all workers busy. An item whose job fails is an
    /// error in its place, and the next ones go on. Dropping the iterator cancels the jobs that have not begun; so does a panic of the input, which is the caller's.
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
        Imap::new(self, function, items.into_iter())
    }

    /// Calls `function` with each item, in many workers at once; an iterator over the values as they come.
    ///
    /// The items are taken as the values are, in the thread that asks for them: never more than a few ahead, so that the input may be
    /// endless; but an input that waits for the value of an earlier item would wait for ever. Dropping the iterator cancels the jobs
    /// that have not begun.
    pub fn imap_unordered<I, R>(&self, function: fn(I::Item) -> R, items: I) -> ImapUnordered<'_, I::IntoIter, R>
    where
        I: IntoIterator,
        I::Item: Message,
        R: Message,
    {
        ImapUnordered::new(self, function, items.into_iter())
    }
}

/// Items on their way into a pool.
struct Intake<'p, I: Iterator, R> {
    pool: &'p Pool,
    function: fn(I::Item) -> R,
    items: Fuse<I>,
    /// An item for which there was no room yet.
    stalled: Option<I::Item>,
    /// The pool accepts no more.
    is_over: bool,
}

impl<'p, I: Iterator, R> Intake<'p, I, R> {
    fn new(pool: &'p Pool, function: fn(I::Item) -> R, items: I) -> Self {
        Self { pool, function, items: items.fuse(), stalled: None, is_over: false }
    }
}

impl<I, R> Intake<'_, I, R>
where
    I: Iterator,
    I::Item: Message,
    R: Message,
{
    /// Hands in the next item; none when there is no other, or no room for it. What `is_alone` waits for room, until `deadline`: with something under way there
    /// is something else to wait for.
    fn next(&mut self, is_alone: bool, deadline: Option<Deadline>) -> Option<Result<JobHandle<R>, JobError>> {
        if self.is_over {
            return None;
        }
        let item = self.stalled.take().or_else(|| self.items.next())?;
        let job = self.pool.job(self.function, item);
        let room = if is_alone { deadline.map_or(Room::Forever, Room::Until) } else { Room::Never };
        match job.submit_where(room) {
            Ok(handle) => Some(Ok(handle)),
            Err(refused) if refused.is_full() && !matches!(room, Room::Forever) => {
                self.stalled = Some(refused.into_argument());
                None
            }
            Err(refused) => {
                self.is_over = refused.is_final();
                Some(Err(refused.into()))
            }
        }
    }
}

/// The values of [`Pool::imap_unordered`], as they come.
///
/// An item that cannot be handed in is an error in its place, and the next ones go on; but once the pool accepts no
/// more, that is the last of the errors for items that were not handed in yet.
pub struct ImapUnordered<'p, I: Iterator, R> {
    feed: Feed<'p, I, R>,
}

impl<'p, I: Iterator, R> ImapUnordered<'p, I, R> {
    pub(crate) fn new(pool: &'p Pool, function: fn(I::Item) -> R, items: I) -> Self {
        Self { feed: Feed::new(pool, function, items, AHEAD * pool.workers()) }
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
        self.feed.next().map(|(_, value)| value)
    }
}

impl<I, R> ImapUnordered<'_, I, R>
where
    I: Iterator,
    I::Item: Message,
    R: Message,
{
    /// As `next`, but waits no longer than `timeout` for a value. The input is taken as by `next`: for as long as that itself waits, so does this.
    ///
    /// # Errors
    ///
    /// [`TimedOut`] when no value has come in time. Nothing is lost: the next call goes on.
    pub fn next_timeout(&mut self, timeout: Duration) -> Result<Option<Result<R, JobError>>, TimedOut> {
        let next = self.feed.next_until(Some(Deadline::after(timeout)))?;
        Ok(next.map(|(_, value)| value))
    }
}

impl<I: Iterator, R> fmt::Debug for ImapUnordered<'_, I, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImapUnordered").field("under_way", &self.feed.under_way.len()).finish_non_exhaustive()
    }
}

/// The values of [`Pool::imap`], in the order of the items.
///
/// An item that cannot be handed in is an error in its place, and the next ones go on; but once the pool accepts no
/// more, that is the last of the errors for items that were not handed in yet.
pub struct Imap<'p, I: Iterator, R> {
    intake: Intake<'p, I, R>,
    /// How many jobs are to be under way.
    ahead: usize,
    under_way: VecDeque<Result<JobHandle<R>, JobError>>,
}

impl<'p, I: Iterator, R> Imap<'p, I, R> {
    pub(crate) fn new(pool: &'p Pool, function: fn(I::Item) -> R, items: I) -> Self {
        let ahead = AHEAD * pool.workers();
        Self { intake: Intake::new(pool, function, items), ahead, under_way: VecDeque::new() }
    }
}

impl<I, R> Imap<'_, I, R>
where
    I: Iterator,
    I::Item: Message,
    R: Message,
{
    /// Whether the value of the first item is there, or why there is none.
    fn is_ready(&self) -> bool {
        self.under_way.front().is_some_and(|first| first.as_ref().map_or(true, JobHandle::is_ready))
    }

    /// Hands items in, as long as there is nothing better to do.
    fn fill(&mut self, deadline: Option<Deadline>) {
        // What is there comes before what may have to be waited for.
        while self.under_way.len() < self.ahead && !self.is_ready() {
            let Some(submitted) = self.intake.next(self.under_way.is_empty(), deadline) else { return };
            self.under_way.push_back(submitted);
        }
    }

    /// The value of the first item under way.
    fn pop(&mut self) -> Option<Result<R, JobError>> {
        self.under_way.pop_front().map(|first| first?.get())
    }

    /// As `next`, but waits no longer than `timeout` for the value. The input is taken as by `next`: for as long as that itself waits, so does this.
    ///
    /// # Errors
    ///
    /// [`TimedOut`] when the value has not come in time. Nothing is lost: the next call waits for the same.
    pub fn next_timeout(&mut self, timeout: Duration) -> Result<Option<Result<R, JobError>>, TimedOut> {
        let deadline = Deadline::after(timeout);
        self.fill(Some(deadline));
        match self.under_way.front() {
            Some(Ok(first)) if !first.wait_timeout(deadline.remaining()) => Err(TimedOut),
            None if self.intake.stalled.is_some() => Err(TimedOut),
            _ => Ok(self.pop()),
        }
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
        self.fill(None);
        self.pop()
    }
}

impl<I: Iterator, R> Drop for Imap<'_, I, R> {
    fn drop(&mut self) {
        for handle in self.under_way.iter().flatten() {
            handle.cancel();
        }
    }
}

impl<I: Iterator, R> fmt::Debug for Imap<'_, I, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Imap").field("under_way", &self.under_way.len()).finish_non_exhaustive()
    }
}

/// [`Pool::map`].
pub(crate) fn map<I, R>(pool: &Pool, function: fn(I::Item) -> R, items: I) -> Result<Vec<R>, JobError>
where
    I: Iterator,
    I::Item: Message,
    R: Message,
{
    let mut values: Vec<Option<R>> = Vec::with_capacity(items.size_hint().0.min(MAP_AHEAD));
    for (index, value) in Feed::new(pool, function, items, MAP_AHEAD) {
        if values.len() <= index {
            values.resize_with(index + 1, || None);
        }
        values[index] = Some(value?);
    }
    Ok(values.into_iter().map(|value| value.expect("every item has had its job")).collect())
}

/// Hands items in and gives values out with their index, as they come.
struct Feed<'p, I: Iterator, R> {
    intake: Intake<'p, I, R>,
    /// How many items were handed in, or could not be: the index of the next.
    count: usize,
    /// How many jobs are to be under way.
    ahead: usize,
    under_way: HashMap<usize, JobHandle<R>>,
    tell: mpsc::Sender<usize>,
    ready: mpsc::Receiver<usize>,
}

/// The index of an item, and its value.
type Indexed<R> = (usize, Result<R, JobError>);

/// Says which item's job is ready.
struct Notice {
    index: usize,
    tell: mpsc::Sender<usize>,
}

impl Wake for Notice {
    fn wake(self: Arc<Self>) {
        let _ = self.tell.send(self.index); // nobody listens once the feed is dropped
    }
}

impl<'p, I: Iterator, R> Feed<'p, I, R> {
    fn new(pool: &'p Pool, function: fn(I::Item) -> R, items: I, ahead: usize) -> Self {
        let (tell, ready) = mpsc::channel();
        let intake = Intake::new(pool, function, items);
        Self { intake, count: 0, ahead, under_way: HashMap::new(), tell, ready }
    }
}

impl<I, R> Iterator for Feed<'_, I, R>
where
    I: Iterator,
    I::Item: Message,
    R: Message,
{
    type Item = Indexed<R>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_until(None).ok().flatten() // without a deadline there is none to miss
    }
}

impl<I, R> Feed<'_, I, R>
where
    I: Iterator,
    I::Item: Message,
    R: Message,
{
    /// The next value and its index, but waits no longer for it than until `deadline`.
    fn next_until(&mut self, deadline: Option<Deadline>) -> Result<Option<Indexed<R>>, TimedOut> {
        while self.under_way.len() < self.ahead {
            // What is there comes before what may have to be waited for.
            if let Some(ready) = self.ready.try_recv().ok().and_then(|index| self.take(index)) {
                return Ok(Some(ready));
            }
            let Some(submitted) = self.intake.next(self.under_way.is_empty(), deadline) else { break };
            let index = self.count;
            self.count += 1;
            let mut handle = match submitted {
                Ok(handle) => handle,
                Err(error) => return Ok(Some((index, Err(error)))),
            };
            let waker = Waker::from(Arc::new(Notice { index, tell: self.tell.clone() }));
            match Pin::new(&mut handle).poll(&mut Context::from_waker(&waker)) {
                Poll::Ready(value) => return Ok(Some((index, value))),
                Poll::Pending => drop(self.under_way.insert(index, handle)),
            }
        }
        while !self.under_way.is_empty() {
            let index = match deadline {
                None => self.ready.recv().expect("the feed itself holds a sender"),
                Some(deadline) => self.ready.recv_timeout(deadline.remaining()).map_err(|_| TimedOut)?,
            };
            if let Some(ready) = self.take(index) {
                return Ok(Some(ready));
            }
        }
        if self.intake.stalled.is_some() { Err(TimedOut) } else { Ok(None) }
    }
}

impl<I: Iterator, R: Message> Feed<'_, I, R> {
    /// The value of item `index`, whose job is ready.
    fn take(&mut self, index: usize) -> Option<Indexed<R>> {
        let value = self.under_way.get_mut(&index)?.try_get()?;
        self.under_way.remove(&index);
        Some((index, value))
    }
}

impl<I: Iterator, R> Drop for Feed<'_, I, R> {
    fn drop(&mut self) {
        for handle in self.under_way.values() {
            handle.cancel();
        }
    }
}
