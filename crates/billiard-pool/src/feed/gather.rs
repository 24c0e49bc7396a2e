//! What is under way, and what of it is ready: in the order in which that comes.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Wake, Waker},
};

use billiard_context::Message;
use billiard_shm::futex::Deadline;

use super::unit::{Opened, Unit};
use crate::error::TimedOut;

/// Units under way. Dropping it cancels those that have not begun.
pub(super) struct Gather<R> {
    under_way: HashMap<usize, Unit<R>>,
    /// The number of the next.
    next: usize,
    notices: Arc<Notices>,
}

/// The number of a unit, in the order of the items, and what became of them.
pub(super) type Numbered<R> = (usize, Opened<R>);

/// The numbers of units that are ready.
#[derive(Debug, Default)]
struct Notices {
    board: Mutex<Board>,
    come: Condvar,
    /// Whether something is ready, for who asks often. Stored under the mutex, and whoever has seen it locks that before it reads more.
    any: AtomicBool,
}

#[derive(Debug, Default)]
struct Board {
    ready: VecDeque<usize>,
    waker: Option<Waker>,
}

impl Notices {
    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of one that is ready.
    fn pop(&self) -> Option<usize> {
        let mut board = self.board();
        let number = board.ready.pop_front();
        self.any.store(!board.ready.is_empty(), Relaxed);
        number
    }
}

/// Says that a unit is ready.
struct Notice {
    number: usize,
    notices: Arc<Notices>,
}

impl Wake for Notice {
    fn wake(self: Arc<Self>) {
        let mut board = self.notices.board();
        board.ready.push_back(self.number);
        self.notices.any.store(true, Relaxed);
        let waker = board.waker.take();
        drop(board);
        self.notices.come.notify_one();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<R> Gather<R> {
    pub(super) fn new() -> Self {
        Self { under_way: HashMap::new(), next: 0, notices: Arc::default() }
    }

    pub(super) fn len(&self) -> usize {
        self.under_way.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.under_way.is_empty()
    }

    /// Whether something may be ready.
    pub(super) fn has_news(&self) -> bool {
        self.notices.any.load(Relaxed)
    }

    /// Has this waker called when something is ready. Look once more afterwards.
    pub(super) fn watch(&self, waker: Waker) {
        let before = self.notices.board().waker.replace(waker);
        drop(before); // which may run anything
    }

    pub(super) fn cancel(&self) {
        self.under_way.values().for_each(Unit::cancel);
    }

    pub(super) fn terminate(&self) {
        self.under_way.values().for_each(Unit::terminate);
    }
}

impl<R: Message> Gather<R> {
    /// Another is under way; what became of its items, if it is ready at once.
    pub(super) fn add(&mut self, mut unit: Unit<R>) -> Option<Numbered<R>> {
        let number = self.next;
        self.next += 1;
        let waker = Waker::from(Arc::new(Notice { number, notices: self.notices.clone() }));
        if let Some(opened) = unit.watch(waker) {
            return Some((number, opened));
        }
        self.under_way.insert(number, unit);
        None
    }

    /// One that is ready.
    pub(super) fn try_next(&mut self) -> Option<Numbered<R>> {
        while self.has_news() {
            let number = self.notices.pop()?;
            if let Some(opened) = self.under_way.get_mut(&number).and_then(Unit::open) {
                self.under_way.remove(&number);
                return Some((number, opened));
            }
        }
        None
    }

    /// The next that is ready; waits for it, no longer than until `deadline`. None when nothing is under way.
    pub(super) fn next_until(&mut self, deadline: Option<Deadline>) -> Result<Option<Numbered<R>>, TimedOut> {
        loop {
            if let Some(ready) = self.try_next() {
                return Ok(Some(ready));
            }
            if self.under_way.is_empty() {
                return Ok(None);
            }
            let notices = self.notices.clone();
            let mut board = notices.board();
            while board.ready.is_empty() {
                board = match deadline {
                    None => notices.come.wait(board).unwrap_or_else(PoisonError::into_inner),
                    Some(deadline) if deadline.has_passed() => return Err(TimedOut),
                    Some(deadline) => {
                        let waited = notices.come.wait_timeout(board, deadline.remaining());
                        waited.unwrap_or_else(PoisonError::into_inner).0
                    }
                };
            }
        }
    }
}

impl<R> Drop for Gather<R> {
    fn drop(&mut self) {
        self.cancel();
    }
}

impl<R> fmt::Debug for Gather<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gather").field("under_way", &self.under_way.len()).finish_non_exhaustive()
    }
}
