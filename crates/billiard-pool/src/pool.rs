//! The pool as its owner sees it, and what its threads share.

use std::{
    collections::HashMap,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError},
    thread::{self, JoinHandle, ThreadId},
    time::{Duration, Instant},
};

use billiard_connection::FrameWriter;
use billiard_context::{Message, RemoteError};
use billiard_shm::futex::Deadline;
use billiard_wire::generation::{Forked, Generation};

use crate::{
    builder::PoolBuilder,
    error::{Error, ErrorKind, JobError, SubmitError},
    handle::{Cell, JobHandle, RawOutcome, guard},
    job::{How, JobBuilder, Room},
    state::{Action, Effects, Event, JobId, State, Verdict},
    table::{Ended, Look, Mail, Stopped, Table, Ticket},
};

/// A pool of worker processes.
///
/// Every job that is accepted ends once, with its value or a typed error. A worker that crashes, hangs or is killed takes
/// down the job that it ran and no other, and another worker takes its place.
///
/// Dropping the pool terminates it: jobs that have not ended end as [`JobError::Terminated`], and no worker is left; it waits for that, the [grace time](PoolBuilder::grace) and little more.
/// The helper process that starts workers stays until this program ends. To let jobs finish, [`close`](Pool::close) and [`join`](Pool::join). If the program itself is killed, its workers end with it.
/// In a copy of the program, made by a fork, the pool and its handles refuse: [`JobError::Forked`].
///
/// ```no_run
/// use billiard_pool::Pool;
///
/// fn square(n: u64) -> u64 {
///     n * n
/// }
///
/// fn main() -> Result<(), billiard_pool::Error> {
///     billiard_pool::init(); // a worker process starts here and never returns
///
///     let pool = Pool::new()?;
///     assert_eq!(pool.apply(square, 5)?, 25);
///     assert_eq!(pool.map(square, 0..4)?, [0, 1, 4, 9]);
///     pool.join()
/// }
/// ```
pub struct Pool {
    shared: Arc<Shared>,
    supervisor: Option<JoinHandle<()>>,
}

/// What callers, handles and the supervisor share.
pub(crate) struct Shared {
    /// The copy of the process that the pool belongs to. In another nobody takes the locks, which may be held for ever.
    generation: Generation,
    inner: Mutex<Inner>,
    /// Signalled when the queue has room again, or the pool accepts no more.
    pub(crate) room: Condvar,
    waker: mio::Waker,
    supervisor: OnceLock<ThreadId>,
    epoch: Instant,
    pub(crate) queue_size: usize,
    pub(crate) default_limit: Option<Duration>,
    workers: usize,
    /// Where jobs are, under `Isolation::Shared`.
    pub(crate) table: Option<Table>,
}

pub(crate) struct Inner {
    pub(crate) state: State,
    pub(crate) jobs: HashMap<JobId, Record>,
    pub(crate) next_job: u64,
    /// What the supervisor has to do.
    actions: Vec<Action>,
    /// Submitters that wait for room.
    pub(crate) waiting: usize,
    /// Why the last worker could not be started.
    start_failure: Option<RemoteError>,
    /// Jobs with callbacks that have ended, for the supervisor, where callbacks run.
    pub(crate) late: Vec<Ended>,
}

/// What became of waiting for a job in the table.
enum Waited {
    /// This is its outcome.
    Done(Ended),
    /// It is in its cell, or on the way there.
    Elsewhere,
    /// It still is in the table.
    Pending,
}

/// A job that has not ended.
pub(crate) struct Record {
    pub(crate) cell: Arc<Cell>,
    /// What goes to a worker; with the supervisor while one has it.
    pub(crate) frame: Option<FrameWriter>,
}

impl Record {
    fn ended(self, outcome: RawOutcome) -> Ended {
        Ended { cell: self.cell, outcome, rest: self.frame.map(|frame| Box::new(Mail::Outgoing(frame, None))) }
    }
}

/// What came with an event for the job that it concerns.
#[derive(Debug)]
pub(crate) enum Arrival {
    /// A result.
    Outcome(RawOutcome),
    /// The end of its worker.
    Lost(crate::WorkerLost),
    /// Nothing.
    None,
}

impl Shared {
    pub(crate) fn new(
        state: State,
        waker: mio::Waker,
        builder: &PoolBuilder,
        workers: usize,
        table: Option<Table>,
    ) -> Self {
        let inner = Inner {
            state,
            jobs: HashMap::new(),
            next_job: 0,
            actions: Vec::new(),
            waiting: 0,
            start_failure: None,
            late: Vec::new(),
        };
        Self {
            generation: Generation::current(),
            inner: Mutex::new(inner),
            room: Condvar::new(),
            waker,
            supervisor: OnceLock::new(),
            epoch: Instant::now(),
            queue_size: builder.queue_size,
            default_limit: builder.timeout,
            workers,
            table,
        }
    }

    pub(crate) fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An error in a copy of the pool's process.
    #[inline]
    pub(crate) fn is_here(&self) -> Result<(), Forked> {
        self.generation.check_current()
    }

    /// The time as the state knows it.
    pub(crate) fn now(&self) -> Duration {
        self.epoch.elapsed()
    }

    /// A caller's event: the state decides, verdicts go to their handles, and the supervisor is woken if there is
    /// something for it to do. Whether the job that the event names has ended by it.
    pub(crate) fn ask(&self, event: Event) -> bool {
        self.is_here().is_ok() && self.decide(self.inner(), event, Arrival::None, true)
    }

    /// The supervisor's event, with what came for the job. What is to be done is there when it looks.
    pub(crate) fn tell(&self, event: Event, arrival: Arrival) {
        self.decide(self.inner(), event, arrival, false);
    }

    pub(crate) fn decide(
        &self,
        mut inner: MutexGuard<'_, Inner>,
        event: Event,
        mut arrival: Arrival,
        wake: bool,
    ) -> bool {
        if let Some(table) = &self.table {
            if event == Event::Close {
                table.close(); // first: no job comes after the last worker was let go
            }
            inner.state.set_pulled(table.in_flight());
        }
        let Effects { verdicts, actions, everything } = inner.state.handle(event, self.now());
        let has_news = inner.actions.is_empty() && !actions.is_empty();
        inner.actions.extend(actions);
        // A caller's event gives its own job a verdict, or nobody.
        let unwanted = event.unwanted_job();
        let ended_it = unwanted.is_some() && verdicts.iter().any(|&(job, _)| Some(job) == unwanted);
        let mut ended = Vec::with_capacity(verdicts.len());
        if let (Some(table), Some(verdict)) = (&self.table, everything) {
            table.end_all(|| inner.error_of(verdict), &mut ended);
        }
        for (job, verdict) in verdicts {
            if let Some(record) = inner.jobs.remove(&job) {
                let outcome = match (verdict, std::mem::replace(&mut arrival, Arrival::None)) {
                    (Verdict::Done, Arrival::Outcome(outcome)) => outcome,
                    (Verdict::Lost, Arrival::Lost(lost)) => Err(JobError::WorkerLost(Box::new(lost))),
                    (verdict, _) => Err(inner.error_of(verdict)),
                };
                ended.push(record.ended(outcome));
            }
        }
        if inner.waiting > 0 && (inner.state.queued() < self.queue_size || !inner.state.is_running()) {
            self.room.notify_all();
        }
        let is_late = inner.put_off(&mut ended);
        drop(inner);
        if wake && (is_late || has_news) {
            self.wake();
        }
        self.finish(ended);
        ended_it
    }

    /// Tells the handles. No lock is held: what wakes may run anything.
    #[inline]
    pub(crate) fn finish(&self, ended: impl IntoIterator<Item = Ended>) {
        for Ended { cell, outcome, rest } in ended {
            cell.complete(outcome);
            guard(|| drop((cell, rest))); // and with the cell a value that callbacks have seen and nobody wants
        }
    }

    /// The job table, if the pool has one.
    pub(crate) fn table(&self) -> Option<&Table> {
        self.table.as_ref()
    }

    /// Brings a job's outcome out of the table into its cell, if it is there.
    pub(crate) fn collect(&self, ticket: Ticket, cell: &Cell) {
        let Some(table) = &self.table else { return };
        match table.look(ticket) {
            Look::Done if !cell.has_callback() => match self.take(table, ticket) {
                Some(ended) => self.finish([ended]),
                None => self.see_to(ticket, cell),
            },
            Look::Gone => self.see_to(ticket, cell),
            Look::Done | Look::Pending => {}
        }
    }

    /// A job that is no longer in its slot is in its cell, or on the way there, and so is one of which a part comes by mail; or its word was overwritten, or that mail
    /// never comes: then nobody tells, and the supervisor has to look.
    fn see_to(&self, ticket: Ticket, cell: &Cell) {
        if !cell.is_ready() {
            self.supervise(ticket);
        }
    }

    /// The outcome of a job that is done, out of the table. It may be the last that a closing pool waits for.
    #[inline]
    fn take(&self, table: &Table, ticket: Ticket) -> Option<Ended> {
        let ended = table.collect(ticket);
        if ended.is_some() && table.is_closed() {
            self.wake();
        }
        ended
    }

    /// Waits until a job is no longer pending in the table; false when it still is at the deadline. Its outcome is in its cell then, or on the way there.
    pub(crate) fn wait(&self, ticket: Ticket, cell: &Cell, deadline: Option<Deadline>) -> bool {
        match self.await_done(ticket, cell, deadline) {
            Waited::Done(ended) => self.finish([ended]),
            Waited::Elsewhere => {}
            Waited::Pending => return false,
        }
        true
    }

    /// The outcome of a job, past its cell, once it is there; none where it comes, or has come, into the cell.
    pub(crate) fn fetch(&self, ticket: Ticket, cell: &Cell) -> Option<RawOutcome> {
        match self.await_done(ticket, cell, None) {
            Waited::Done(ended) => Some(ended.outcome),
            Waited::Elsewhere | Waited::Pending => None,
        }
    }

    #[inline]
    fn await_done(&self, ticket: Ticket, cell: &Cell, deadline: Option<Deadline>) -> Waited {
        let Some(table) = &self.table else { return Waited::Elsewhere };
        if cell.has_callback() {
            return Waited::Elsewhere; // the supervisor brings it
        }
        loop {
            match table.look(ticket) {
                Look::Done if let Some(ended) = self.take(table, ticket) => return Waited::Done(ended),
                Look::Done | Look::Gone => {
                    self.see_to(ticket, cell);
                    return Waited::Elsewhere;
                }
                Look::Pending if deadline.is_some_and(Deadline::has_passed) => return Waited::Pending,
                Look::Pending => {
                    table.wait(ticket, deadline);
                    if table.look(ticket) == Look::Pending && table.look_after() {
                        self.wake();
                    }
                }
            }
        }
    }

    /// Has the supervisor bring a job's outcome, and look whether it comes at all.
    pub(crate) fn supervise(&self, ticket: Ticket) {
        if self.table.as_ref().is_some_and(|table| table.supervise(ticket)) {
            self.wake();
        }
    }

    /// Ends a job in the table, begun or not; whether it has ended by it.
    pub(crate) fn stop(&self, ticket: Ticket, why: JobError, begun_too: bool) -> bool {
        let Some(table) = &self.table else { return false };
        if self.is_here().is_err() {
            return false;
        }
        // Locked first: the supervisor does not end before what is put off is done.
        let mut inner = self.inner();
        let (ended, doomed) = match table.stop(ticket, why, begun_too) {
            Stopped::Before(ended) => (ended, None),
            Stopped::During(ended, worker) => (ended, Some(worker)),
            Stopped::No => return false,
        };
        let mut ended = vec![ended];
        let late = inner.put_off(&mut ended);
        let closing = !inner.state.is_running();
        drop(inner);
        self.finish(ended);
        table.give_room();
        if let Some(worker) = doomed {
            self.ask(Event::Doomed(worker));
        }
        if late || closing {
            self.wake();
        }
        true
    }

    /// What has ended elsewhere, and has callbacks.
    pub(crate) fn take_late(&self) -> Vec<Ended> {
        let mut inner = self.inner();
        if inner.waiting > 0 && !inner.late.is_empty() {
            self.room.notify_all();
        }
        std::mem::take(&mut inner.late)
    }

    /// Says that this thread is the supervisor.
    pub(crate) fn enter_supervisor(&self) {
        let _ = self.supervisor.set(thread::current().id());
    }

    pub(crate) fn is_supervisor(&self) -> bool {
        self.supervisor.get() == Some(&thread::current().id())
    }

    /// Wakes the supervisor.
    pub(crate) fn wake(&self) {
        // An eventfd whose counter is full is awake already; nothing else can fail.
        let _ = self.waker.wake();
    }

    /// What the supervisor has to do now, and when a deadline is due; `None` once all is over.
    pub(crate) fn take_actions(&self, actions: &mut Vec<Action>) -> Option<Option<Duration>> {
        let mut inner = self.inner();
        actions.append(&mut inner.actions);
        if let Some(table) = &self.table {
            inner.state.set_pulled(table.in_flight());
        }
        if inner.state.is_over() && actions.is_empty() && inner.late.is_empty() {
            return None;
        }
        Some(inner.state.next_deadline().map(|due| due.saturating_sub(self.now())))
    }

    /// What goes to the worker that shall get the job; `None` when it has ended meanwhile.
    pub(crate) fn take_frame(&self, job: JobId) -> Option<FrameWriter> {
        self.inner().jobs.get_mut(&job)?.frame.take()
    }

    /// Puts it back: no worker has received it.
    pub(crate) fn return_frame(&self, job: JobId, frame: FrameWriter) {
        if let Some(record) = self.inner().jobs.get_mut(&job) {
            record.frame = Some(frame);
        }
    }

    /// Remembers why a worker could not be started.
    pub(crate) fn note_start_failure(&self, why: RemoteError) {
        let mut inner = self.inner();
        if !inner.state.has_failed() {
            inner.start_failure = Some(why); // the last before it gave up: those that are let go then end as well
        }
    }

    /// Ends every job that has not ended, since nobody is left who could.
    pub(crate) fn abandon(&self) {
        // Should the state itself have failed, the handles do not depend on it.
        let _ = catch_unwind(AssertUnwindSafe(|| self.tell(Event::Terminate, Arrival::None)));
        let mut ended = self.take_late();
        if let Some(table) = &self.table {
            table.end_all(|| JobError::Terminated, &mut ended);
        }
        let records: Vec<_> = self.inner().jobs.drain().collect();
        ended.extend(records.into_iter().map(|(_, record)| record.ended(Err(JobError::Terminated))));
        self.finish(ended);
        // What has been put off meanwhile: no job is left by now that could come to it.
        self.finish(self.take_late());
    }
}

impl Inner {
    /// Leaves those with callbacks to the supervisor's next turn, whoever has ended them, so that no callback runs inside another; whether there are any.
    fn put_off(&mut self, ended: &mut Vec<Ended>) -> bool {
        let before = self.late.len();
        self.late.extend(ended.extract_if(.., |ended| ended.cell.has_callback()));
        self.late.len() > before
    }

    fn failure(&self) -> RemoteError {
        self.start_failure.clone().unwrap_or_else(|| RemoteError::msg("its workers end before they are ready"))
    }

    /// What a verdict that is no result is called.
    fn error_of(&self, verdict: Verdict) -> JobError {
        match verdict {
            Verdict::TimeLimit(limit) => JobError::TimeLimitExceeded(limit),
            Verdict::Cancelled => JobError::Cancelled,
            Verdict::PoolFailed => JobError::PoolFailed(self.failure()),
            Verdict::Terminated | Verdict::Done | Verdict::Lost => JobError::Terminated,
        }
    }

    pub(crate) fn refusal(&self) -> JobError {
        if self.state.has_failed() { JobError::PoolFailed(self.failure()) } else { JobError::PoolClosed }
    }
}

impl Pool {
    /// A pool with one worker for each CPU that this process may use.
    ///
    /// # Errors
    ///
    /// As [`PoolBuilder::build`].
    pub fn new() -> Result<Self, Error> {
        Self::builder().build()
    }

    /// A pool with options.
    pub fn builder() -> PoolBuilder {
        PoolBuilder::default()
    }

    pub(crate) fn from_parts(shared: Arc<Shared>, supervisor: JoinHandle<()>) -> Self {
        Self { shared, supervisor: Some(supervisor) }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Calls `function` with `argument` in a worker and waits for its value; before that for room, while the queue is full.
    ///
    /// # Errors
    ///
    /// Any [`JobError`]: why the job was not accepted, or has no value.
    pub fn apply<A: Message, R: Message>(&self, function: fn(A) -> R, argument: A) -> Result<R, JobError> {
        // This caller looks after it by itself.
        self.shared.submit(self.job(function, argument), How { room: Room::Forever, look_after: false })?.get()
    }

    /// Hands in a job. Waits only while the queue is full.
    ///
    /// # Errors
    ///
    /// [`SubmitError`] with the argument: when it cannot be encoded, the function is not in the main executable, the pool accepts no jobs any more or has failed,
    /// or is another process's; and on the pool's own thread, where callbacks and most wakers of futures run and nothing may wait, when the queue is full. Jobs that have ended and whose callbacks have yet to run
    /// fill the queue too, for those who hand in jobs with callbacks.
    pub fn apply_async<A: Message, R: Message>(
        &self,
        function: fn(A) -> R,
        argument: A,
    ) -> Result<JobHandle<R>, SubmitError<A>> {
        self.job(function, argument).submit()
    }

    /// A job with options of its own.
    pub fn job<A: Message, R: Message>(&self, function: fn(A) -> R, argument: A) -> JobBuilder<'_, A, R> {
        JobBuilder::new(&self.shared, function, argument)
    }

    /// How many workers there shall be.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.shared.workers
    }

    /// How many workers have said that they are ready and have not ended since. After a death it is one less for a moment.
    #[must_use]
    pub fn ready_workers(&self) -> usize {
        if self.shared.is_here().is_ok() { self.shared.inner().state.ready_workers() } else { 0 }
    }

    /// Accepts no more jobs. Those that were accepted run; then the workers end.
    pub fn close(&self) {
        self.shared.ask(Event::Close);
        self.shared.wake();
    }

    /// Ends everything now: jobs that have not ended end as [`JobError::Terminated`]. Returns at once; [`join`](Self::join) waits.
    pub fn terminate(&self) {
        self.shared.ask(Event::Terminate);
        self.shared.wake();
    }

    /// Closes the pool and waits until every job has ended and no worker is left. On the pool's own thread, in a callback or a waker, it cannot wait for that, and returns at once.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Failed`] when the pool had given up to start workers; [`ErrorKind::Forked`] in a copy of the pool's process.
    pub fn join(mut self) -> Result<(), Error> {
        if let Err(forked) = self.shared.is_here() {
            return Err(Error::new(ErrorKind::Forked, "the pool is another process's").because(forked));
        }
        self.close();
        self.join_supervisor();
        let inner = self.shared.inner();
        if inner.state.has_failed() {
            let error = Error::new(ErrorKind::Failed, "the pool could not start workers and gave up");
            return Err(error.because(inner.failure()));
        }
        Ok(())
    }

    fn join_supervisor(&mut self) {
        // A waker that drops the last of the pool does so on that very thread, which then ends by itself.
        if let Some(supervisor) = self.supervisor.take().filter(|_| !self.shared.is_supervisor()) {
            let _ = supervisor.join(); // it never panics: what it runs is caught
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        match self.supervisor {
            Some(_) if self.shared.is_here().is_ok() => {
                self.terminate();
                self.join_supervisor();
            }
            // The thread is not in this copy of the process.
            Some(_) => std::mem::forget(self.supervisor.take()),
            None => {}
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Err(forked) = self.shared.is_here() {
            return f.debug_tuple("Pool").field(&forked).finish();
        }
        let inner = self.shared.inner();
        f.debug_struct("Pool")
            .field("workers", &self.shared.workers)
            .field("ready_workers", &inner.state.ready_workers())
            .field("jobs", &self.shared.table.as_ref().map_or(inner.jobs.len(), Table::in_flight))
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("workers", &self.workers).finish_non_exhaustive()
    }
}
