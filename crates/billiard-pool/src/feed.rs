//! Many items through one function: a few jobs ahead, values as they come.

use std::{
    collections::HashMap,
    fmt,
    iter::{Enumerate, Fuse},
    pin::Pin,
    sync::{Arc, mpsc},
    task::{Context, Poll, Wake, Waker},
};

use billiard_context::Message;

use crate::{error::JobError, handle::JobHandle, pool::Pool};

/// How many jobs per worker are handed in ahead of the values that are taken.
const AHEAD: usize = 4;
/// How many jobs `map` has under way: enough that no worker ever waits for the caller.
const MAP_AHEAD: usize = 1024;

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

impl<I: Iterator, R> fmt::Debug for ImapUnordered<'_, I, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImapUnordered").field("under_way", &self.feed.under_way.len()).finish_non_exhaustive()
    }
}

/// [`Pool::map`].
pub(crate) fn map<I, R>(pool: &Pool, function: fn(I::Item) -> R, items: I) -> Result<Vec<R>, JobError>
where
    I: Iterator,
    I::Item: Message,
    R: Message,
{
    let mut values: Vec<Option<R>> = Vec::with_capacity(items.size_hint().0);
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
    pool: &'p Pool,
    function: fn(I::Item) -> R,
    items: Fuse<Enumerate<I>>,
    /// How many jobs are to be under way; none once the pool accepts no more.
    ahead: usize,
    under_way: HashMap<usize, JobHandle<R>>,
    /// An item for which there was no room yet.
    stalled: Option<(usize, I::Item)>,
    tell: mpsc::Sender<usize>,
    ready: mpsc::Receiver<usize>,
}

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
        Self {
            pool,
            function,
            items: items.enumerate().fuse(),
            ahead,
            under_way: HashMap::new(),
            stalled: None,
            tell,
            ready,
        }
    }
}

impl<I, R> Iterator for Feed<'_, I, R>
where
    I: Iterator,
    I::Item: Message,
    R: Message,
{
    type Item = (usize, Result<R, JobError>);

    fn next(&mut self) -> Option<Self::Item> {
        while self.under_way.len() < self.ahead {
            // What is there comes before what may have to be waited for.
            if let Some(ready) = self.ready.try_recv().ok().and_then(|index| self.take(index)) {
                return Some(ready);
            }
            let Some((index, item)) = self.stalled.take().or_else(|| self.items.next()) else { break };
            let job = self.pool.job(self.function, item);
            // With something under way there is something else to wait for than room in the queue.
            let submitted = if self.under_way.is_empty() { job.submit() } else { job.try_submit() };
            let mut handle = match submitted {
                Ok(handle) => handle,
                Err(refused) if refused.is_full() && !self.under_way.is_empty() => {
                    self.stalled = Some((index, refused.into_argument()));
                    break;
                }
                Err(refused) => {
                    if matches!(refused.reason(), JobError::PoolClosed | JobError::PoolFailed(_)) {
                        self.ahead = 0;
                    }
                    return Some((index, Err(refused.into())));
                }
            };
            let waker = Waker::from(Arc::new(Notice { index, tell: self.tell.clone() }));
            match Pin::new(&mut handle).poll(&mut Context::from_waker(&waker)) {
                Poll::Ready(value) => return Some((index, value)),
                Poll::Pending => drop(self.under_way.insert(index, handle)),
            }
        }
        while !self.under_way.is_empty() {
            let index = self.ready.recv().expect("the feed itself holds a sender");
            if let Some(ready) = self.take(index) {
                return Some(ready);
            }
        }
        None
    }
}

impl<I: Iterator, R: Message> Feed<'_, I, R> {
    /// The value of item `index`, whose job is ready.
    fn take(&mut self, index: usize) -> Option<(usize, Result<R, JobError>)> {
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
