//! A job as its caller sees it.

use std::{
    any::Any,
    fmt,
    future::Future,
    marker::PhantomData,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use billiard_context::{
    Message, RemoteError,
    panics::{Print, catch},
};
use billiard_shm::futex::Deadline;
use billiard_wire::{attachments::Received, codec::DecodeError, exact};

use crate::{
    apart::Encoded,
    chunk::Outcomes,
    error::JobError,
    pool::Shared,
    state::{Event, JobId},
    table::Ticket,
};

/// What the pool knows of a job that has ended: its value still encoded, or its error.
pub(crate) type RawOutcome = Result<(Encoded, Received), JobError>;

/// What is made of a job's outcome before its handle is ready: the callbacks have seen it.
pub(crate) type Callback = Box<dyn FnOnce(RawOutcome) -> Box<dyn Any + Send> + Send>;

/// Where a job's outcome is laid down, once.
#[derive(Debug, Default)]
pub(crate) struct Cell {
    slot: Mutex<Slot>,
    ready: Condvar,
    has_callback: bool,
}

/// An outcome as it is laid down.
enum Laid {
    /// Still encoded.
    Raw(RawOutcome),
    /// A `Result<R, JobError>`, which callbacks have seen.
    Seen(Box<dyn Any + Send>),
}

#[derive(Default)]
struct Slot {
    outcome: Option<Laid>,
    callback: Option<Callback>,
    /// It was laid down, and may have been taken since.
    is_ready: bool,
    /// How many threads wait: a condition variable that is signalled costs a system call, waited for or not.
    waiting: usize,
    waker: Option<Waker>,
}

/// The largest room that is kept.
const MOST_SPARED: usize = 2 << 20;

thread_local! {
    /// A cell that was not needed: the next job of this thread has it.
    static SPARE: std::cell::Cell<Option<Arc<Cell>>> = const { std::cell::Cell::new(None) };
    /// The room of an argument that was handed in, or of a value that was decoded: the next one of this thread has it.
    static SPARE_BYTES: std::cell::Cell<Vec<u8>> = const { std::cell::Cell::new(Vec::new()) };
}

/// Room for an argument or a value, from one before it where there was one.
#[inline]
pub(crate) fn spare_bytes() -> Vec<u8> {
    SPARE_BYTES.try_with(std::cell::Cell::take).unwrap_or_default()
}

/// Keeps room for the next one.
#[inline]
pub(crate) fn keep_bytes(bytes: Vec<u8>) {
    if bytes.capacity() <= MOST_SPARED {
        let _ = SPARE_BYTES.try_with(|spare| spare.set(bytes)); // at its thread's very end there is none
    }
}

impl Cell {
    /// An empty one.
    pub(crate) fn empty() -> Arc<Self> {
        SPARE.try_with(std::cell::Cell::take).ok().flatten().unwrap_or_default()
    }

    /// Keeps one that nothing was laid down in, and that nobody else has, for the next job.
    fn spare(mut cell: Arc<Self>) {
        if let Some(Self { slot, has_callback: false, .. }) = Arc::get_mut(&mut cell) {
            let slot = slot.get_mut().unwrap_or_else(PoisonError::into_inner);
            if !slot.is_ready {
                slot.waker = None;
                let _ = SPARE.try_with(|spare| spare.set(Some(cell))); // at its thread's very end there is none
            }
        }
    }

    /// One whose outcome is shown to a callback first.
    pub(crate) fn with_callback(callback: Callback) -> Self {
        Self {
            slot: Mutex::new(Slot { callback: Some(callback), ..Slot::default() }),
            has_callback: true,
            ..Self::default()
        }
    }

    /// Whether it has to be completed where callbacks run.
    pub(crate) fn has_callback(&self) -> bool {
        self.has_callback
    }

    /// Whether the outcome was laid down.
    pub(crate) fn is_ready(&self) -> bool {
        self.slot().is_ready
    }

    fn slot(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the outcome is laid down, but no longer than until `deadline`; whether it is.
    pub(crate) fn wait_until(&self, deadline: Option<Deadline>) -> bool {
        let mut slot = self.slot();
        while !slot.is_ready {
            let left = deadline.map(Deadline::remaining);
            if left.is_some_and(|left| left.is_zero()) {
                return false;
            }
            slot.waiting += 1;
            slot = match left {
                None => self.ready.wait(slot).unwrap_or_else(PoisonError::into_inner),
                Some(left) => self.ready.wait_timeout(slot, left).unwrap_or_else(PoisonError::into_inner).0,
            };
            slot.waiting -= 1;
        }
        true
    }

    /// Has the waker called once the outcome is laid down; false when it is there already.
    pub(crate) fn watch(&self, waker: Waker) -> bool {
        let mut slot = self.slot();
        if slot.is_ready {
            return false;
        }
        let before = slot.waker.replace(waker);
        drop(slot);
        drop(before); // which may run anything
        true
    }

    /// What became of the items of a chunk, once.
    pub(crate) fn take_outcomes(&self) -> Option<Outcomes> {
        match self.slot().outcome.take()? {
            Laid::Raw(Ok((Encoded::Items(outcomes), _))) => Some(*outcomes),
            Laid::Raw(Err(why)) => {
                let mut outcomes = Outcomes::default();
                outcomes.end(why);
                Some(outcomes)
            }
            Laid::Raw(Ok(_)) | Laid::Seen(_) => unreachable!("it is a chunk's"),
        }
    }

    /// Lays the outcome down and wakes who waits for it.
    pub(crate) fn complete(&self, outcome: RawOutcome) {
        let callback = if self.has_callback { self.slot().callback.take() } else { None };
        let outcome = match callback {
            Some(callback) => Laid::Seen(callback(outcome)),
            None => Laid::Raw(outcome),
        };
        let waker = {
            let mut slot = self.slot();
            debug_assert!(!slot.is_ready, "a job has one outcome");
            slot.outcome = Some(outcome);
            slot.is_ready = true;
            if slot.waiting > 0 {
                self.ready.notify_all();
            }
            slot.waker.take()
        };
        if let Some(waker) = waker {
            guard(|| waker.wake()); // outside the lock, since it may run anything
        }
    }
}

/// Runs what belongs to somebody else: whatever it does, it is not this thread's affair. A panic was printed, and what it was thrown with may panic
/// again when it is dropped, so that it is not.
pub(crate) fn guard(run: impl FnOnce()) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(run)) {
        std::mem::forget(payload);
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot").field("is_ready", &self.is_ready).finish_non_exhaustive()
    }
}

/// A job that was accepted: it ends with a value or a typed error, whatever happens to its worker.
///
/// A handle is a future too, for any executor. Dropping it detaches the job, which runs on, with its callbacks, and whose value is lost; so
/// does a `select!` that drops it.
#[must_use = "dropping the handle detaches the job, and its outcome is lost"]
pub struct JobHandle<R> {
    id: JobId,
    cell: Arc<Cell>,
    pool: Arc<Shared>,
    /// Where it is in the job table, if the pool has one.
    ticket: Option<Ticket>,
    value: PhantomData<fn() -> R>,
}

impl<R> JobHandle<R> {
    pub(crate) fn new(id: JobId, ticket: Option<Ticket>, cell: Arc<Cell>, pool: Arc<Shared>) -> Self {
        Self { id, cell, pool, ticket, value: PhantomData }
    }

    /// Whether its outcome is in the cell; it is brought there if it lies in the table.
    fn settle(&self) -> bool {
        if let Some(ticket) = self.ticket {
            self.pool.collect(ticket, &self.cell);
        }
        self.cell.is_ready()
    }

    /// Waits until the outcome is in the cell, but no longer than until `deadline`; whether it is.
    fn wait_until(&self, deadline: Option<Deadline>) -> bool {
        if let Some(ticket) = self.ticket
            && !self.pool.wait(ticket, &self.cell, deadline)
        {
            return self.settle(); // it is pending, and the time is over
        }
        // From here on it is on its way.
        self.cell.wait_until(deadline)
    }

    /// A number that no other job of this pool has or will have.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id.0
    }

    /// Whether it has ended.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.pool.is_here().is_ok() && self.settle()
    }

    /// Waits until it has ended; not on the pool's own thread, as [`get`](Self::get). In a copy of the pool's process there is nothing to wait for: it returns at once.
    pub fn wait(&self) {
        if self.pool.is_here().is_ok() {
            self.wait_until(None);
        }
    }

    /// Waits until it has ended, but no longer than `timeout`; whether it has. On the pool's own thread that is time in which the pool stands still.
    #[must_use]
    pub fn wait_timeout(&self, timeout: Duration) -> bool {
        self.pool.is_here().is_ok() && self.wait_until(Some(Deadline::after(timeout)))
    }

    /// Cancels it if it has not begun; whether it did. It then ends as [`JobError::Cancelled`], and no worker ends for it.
    ///
    /// A job has begun once it was given to a worker.
    pub fn cancel(&self) -> bool {
        match self.ticket {
            Some(ticket) => self.pool.stop(ticket, JobError::Cancelled, false),
            None => self.pool.ask(Event::Cancel(self.id)),
        }
    }

    /// Ends it, begun or not, as [`JobError::Terminated`]; false when it had ended already.
    ///
    /// If it has begun, its worker ends (SIGTERM, and SIGKILL after the pool's grace time) and another takes its place.
    pub fn terminate(&self) -> bool {
        match self.ticket {
            Some(ticket) => self.pool.stop(ticket, JobError::Terminated, true),
            None => self.pool.ask(Event::TerminateJob(self.id)),
        }
    }
}

impl<R: Message> JobHandle<R> {
    /// Waits for the job's value.
    ///
    /// Not on the pool's own thread, in a callback or a waker: there it may wait for ever.
    ///
    /// # Errors
    ///
    /// Any [`JobError`]: why it has none.
    ///
    /// # Panics
    ///
    /// When the value was taken before, by [`try_get`](Self::try_get) or as a future.
    pub fn get(self) -> Result<R, JobError> {
        // The shortest way: out of the table, past the cell.
        if let Some(ticket) = self.ticket
            && self.pool.is_here().is_ok()
            && let Some(outcome) = self.pool.fetch(ticket, &self.cell)
        {
            Cell::spare(self.cell);
            return decode_outcome(outcome);
        }
        self.wait();
        self.take().expect("the value was not taken by `try_get` before")
    }

    /// The job's value if it has ended; `None` when it has not, or when the value was taken before.
    pub fn try_get(&mut self) -> Option<Result<R, JobError>> {
        if self.pool.is_here().is_ok() {
            self.settle();
        }
        self.take()
    }

    fn take(&self) -> Option<Result<R, JobError>> {
        if let Err(forked) = self.pool.is_here() {
            return Some(Err(forked.into()));
        }
        let outcome = self.cell.slot().outcome.take()?;
        Some(match outcome {
            Laid::Raw(outcome) => decode_outcome(outcome),
            Laid::Seen(value) => *value.downcast().expect("the callback was made for this type"),
        })
    }
}

/// The outcome with its value decoded.
#[inline]
pub(crate) fn decode_outcome<R: Message>(outcome: RawOutcome) -> Result<R, JobError> {
    let (mut bytes, mut received) = outcome?;
    let value = decoded(|| exact::decode(bytes.as_bytes(), &mut received));
    if let Encoded::Here(bytes) = bytes {
        keep_bytes(bytes);
    }
    value
}

/// In the thread that asks for the value: decoding runs code of the user's types.
#[inline]
pub(crate) fn decoded<R>(decode: impl FnOnce() -> Result<R, DecodeError>) -> Result<R, JobError> {
    match catch(Print::No, decode) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(JobError::ResultDecode(error.into())),
        Err(panic) => Err(JobError::ResultDecode(RemoteError::from(panic))),
    }
}

impl<R: Message> Future for JobHandle<R> {
    type Output = Result<R, JobError>;

    /// # Panics
    ///
    /// When the value was taken before.
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if self.pool.is_here().is_ok() && !self.settle() {
            // Cloned before the lock is taken: it may run anything.
            if self.cell.watch(context.waker().clone()) {
                let Some(ticket) = self.ticket else { return Poll::Pending };
                self.pool.supervise(ticket);
                if !self.settle() {
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(self.take().expect("a handle is not polled after it has given its value"))
    }
}

impl<R> fmt::Debug for JobHandle<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobHandle").field("id", &self.id.0).field("is_ready", &self.is_ready()).finish_non_exhaustive()
    }
}
