//! The two sides of a job table: the pool's, and a worker's.

use std::{
    os::fd::OwnedFd,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering, fence},
    },
    time::Duration,
};

use billiard_context::Fd;
use billiard_shm::{SegmentError, futex::Deadline};
use billiard_wire::fault;
use serde::{Deserialize, Serialize};

use super::{
    book::{Book, Ended, Nanos, NewJob, Outgoing, Placed, Refused, Stopped, Ticket},
    control::{Claim, Found},
    heap::{Room, Shelf, Span},
    memory::{
        ControlMemory, INPUT_HEAP, Input, Inputs, MAX_ARGUMENT, MAX_PLACED, MAX_RESULT, OUTPUT_HEAP, Output, Outputs,
        Shape,
    },
    word::Phase,
};
use crate::{
    apart::{self, Census},
    error::{JobError, WorkerLost},
    handle::RawOutcome,
    state::{JobId, WorkerId},
    sys,
};

/// How long a waiter sleeps before it looks by itself: whoever was to wake it may be stopped.
pub(crate) const RECHECK: Duration = Duration::from_millis(50);
/// How often a caller looks at the slot word before it sleeps: some 20 µs, what waking it would cost.
const CALLER_SPINS: u32 = 500;
/// How often a worker looks at the ring before it sleeps: as long.
const WORKER_SPINS: u32 = 500;
/// The same behind a large result, as long as it takes to copy one: it is in the cache of this processor, which answers the caller's late once it rests.
const WORKER_SPINS_LARGE: u32 = 3000;

/// How much room is taken for what becomes of a chunk: the most of these that there is.
const ROOM_FOR_ITEMS: [usize; 3] = [1 << 20, 1 << 17, 1 << 14];

fn now() -> Nanos {
    Deadline::after(Duration::ZERO).as_nanos()
}

/// The pool's side.
#[derive(Debug)]
pub(crate) struct Table {
    shape: Shape,
    control: ControlMemory,
    inputs: Inputs,
    /// Of the heap for arguments.
    room: Room,
    /// Arguments in memory of their own that no worker has got yet.
    apart: Census,
    book: Mutex<Book>,
    /// As the book has it: written with its lock held, so that who has collected from a closed book finds it raised.
    is_closed: AtomicBool,
}

/// What a caller finds who looks for its job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// It waits, or runs.
    Pending,
    /// Its result is there.
    Done,
    /// It has left the table, or is about to: its handle will be told, or was.
    Gone,
}

impl Table {
    pub(crate) fn create(slots: usize, seats: usize) -> Result<Self, SegmentError> {
        let shape = Shape { slots: slots as u32, seats: seats as u32 };
        Ok(Self {
            shape,
            control: ControlMemory::create(shape)?,
            inputs: Inputs::create(shape)?,
            room: Room::new(INPUT_HEAP),
            apart: Census::default(),
            book: Mutex::new(Book::new(slots, seats)),
            is_closed: AtomicBool::new(false),
        })
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Jobs that have not ended.
    pub(crate) fn in_flight(&self) -> usize {
        self.book().in_flight()
    }

    // ---- callers

    /// Hands a job in, if there is a slot; and whether the supervisor has to be woken for it: to look after it, which a caller that waits at once does by itself, or
    /// for its limit. What had to be collected for that is in `ended`.
    #[inline]
    pub(crate) fn submit(
        &self,
        new: &mut NewJob,
        look_after: bool,
        ended: &mut Vec<Ended>,
    ) -> Result<(Ticket, bool), Refused> {
        let control = self.control.words();
        let _coming = (new.argument.len() >= apart::LEAST).then(|| control.coming());
        if new.argument.len() > MAX_ARGUMENT {
            self.place(new);
        }
        // The clock is read for those alone that need it.
        let now = if new.limit.is_some() { now() } else { 0 };
        let mut book = self.book();
        let ticket = book.submit(&control, &self.inputs, new, now, ended)?;
        let wake = (look_after && book.arm()) || (new.limit.is_some() && book.is_early());
        drop(book);
        control.rouse();
        Ok((ticket, wake))
    }

    /// Lays an argument that does not fit into a record down in the heap, before any lock is held. Where it does not fit there either, or there is no room, it goes by
    /// mail; a large one in memory of its own.
    fn place(&self, new: &mut NewJob) {
        let len = new.argument.len();
        if new.placed.is_some() || !new.attachments.is_empty() {
            return; // with descriptors, of which a message has room for so many, it goes by mail as a whole
        }
        if len <= MAX_PLACED {
            let taken = self.room.take(len).filter(|taken| self.inputs.place(taken.span(), &new.argument));
            new.placed = taken.map(Placed::InHeap);
        }
        if new.placed.is_none() && new.call.items().is_none() && len >= apart::LEAST {
            new.placed = self.apart.copy(&new.argument).map(Placed::Apart);
        }
    }

    /// Says that this caller is about to wait for room. It tries once more, then [waits](Self::wait_room).
    pub(crate) fn want_room(&self) {
        self.control.words().want_room();
    }

    /// Waits until there may be room, no longer than until `deadline`.
    pub(crate) fn wait_room(&self, deadline: Option<Deadline>) {
        let recheck = Deadline::after(RECHECK);
        self.control.words().wait_room(Some(deadline.map_or(recheck, |deadline| deadline.min(recheck))));
    }

    /// Wakes those who wait for room.
    pub(crate) fn give_room(&self) {
        self.control.words().give_room();
    }

    /// Has the supervisor look after the jobs; whether it has to be woken for that.
    pub(crate) fn look_after(&self) -> bool {
        self.book().arm()
    }

    /// Where a job is.
    #[inline]
    pub(crate) fn look(&self, ticket: Ticket) -> Look {
        let word = self.control.words().word(ticket.slot);
        match word.phase() {
            _ if !word.is_of(ticket.job) => Look::Gone,
            Some(Phase::Done) => Look::Done,
            Some(Phase::Ready | Phase::Claimed) => Look::Pending,
            _ => Look::Gone,
        }
    }

    /// The outcome of a job that is done, unless somebody else has it, or a part of it is still to come.
    #[inline]
    pub(crate) fn collect(&self, ticket: Ticket) -> Option<Ended> {
        self.book().collect(&self.control.words(), ticket)
    }

    /// Waits a while for a job that is pending: no longer than until `deadline`, or than it is good to wait without looking.
    pub(crate) fn wait(&self, ticket: Ticket, deadline: Option<Deadline>) {
        for _ in 0..CALLER_SPINS {
            if self.look(ticket) != Look::Pending {
                return;
            }
            std::hint::spin_loop();
        }
        let recheck = Deadline::after(RECHECK);
        let until = deadline.map_or(recheck, |deadline| deadline.min(recheck));
        let is_pending = || self.look(ticket) == Look::Pending;
        self.control.words().wait(ticket.slot, is_pending, Some(until));
        if recheck.has_passed() && self.look(ticket) != Look::Pending {
            fault::point("caller.woken_late");
        }
    }

    /// The supervisor is to collect it, and to look after the jobs; whether it has to be woken for that. The caller looks once more afterwards.
    pub(crate) fn supervise(&self, ticket: Ticket) -> bool {
        self.book().supervise(&self.control.words(), ticket)
    }

    pub(crate) fn stop(&self, ticket: Ticket, why: JobError, begun_too: bool) -> Stopped {
        self.book().stop(&self.control.words(), ticket, why, begun_too)
    }

    // ---- the supervisor

    /// A seat for a worker that is about to be started, and what it needs to know.
    pub(crate) fn seat(&self, worker: WorkerId, bell: OwnedFd, max_tasks: Option<u64>) -> Result<DeskSent, SeatError> {
        let outputs = Outputs::create(self.shape)?;
        let theirs = outputs.descriptor()?;
        let seat = self.book().seat(worker, outputs).ok_or(SeatError::NoSeat)?;
        Ok(DeskSent {
            shape: self.shape,
            seat: seat as u16,
            control: Fd::new(self.control.descriptor()?),
            inputs: Fd::new(self.inputs.descriptor()?),
            outputs: Fd::new(theirs),
            bell: Fd::new(bell),
            max_tasks,
        })
    }

    /// The worker is to end when it has nothing to do.
    pub(crate) fn dismiss(&self, worker: WorkerId) {
        if let Some(seat) = self.book().seat_of(worker) {
            self.control.words().dismiss(seat);
        }
    }

    pub(crate) fn arrived(&self, worker: WorkerId, job: JobId, outcome: RawOutcome, ended: &mut Vec<Ended>) {
        let unwanted = self.book().arrived(&self.control.words(), worker, job, outcome, ended);
        drop(unwanted); // now that no lock is held
    }

    pub(crate) fn audit(&self, worker: WorkerId, lost: &WorkerLost, ended: &mut Vec<Ended>) -> bool {
        let (control, mut book) = (self.control.words(), self.book());
        let had_job = book.audit(&control, worker, lost, ended);
        book.rouse_any(&control);
        drop(book);
        control.give_room();
        had_job
    }

    pub(crate) fn close(&self) {
        let mut book = self.book();
        book.close(&self.control.words());
        self.is_closed.store(true, Ordering::Relaxed);
        drop(book);
        self.give_room();
    }

    /// Whether it accepts no more: who collects then tells the supervisor, since that may have been the last.
    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Relaxed)
    }

    pub(crate) fn end_all(&self, why: impl Fn() -> JobError, ended: &mut Vec<Ended>) {
        self.book().end_all(&self.control.words(), why, ended);
        self.give_room();
    }

    /// The supervisor is about to sleep: from now on it is rung. It works through what there is once more.
    pub(crate) fn supervisor_sleeps(&self) {
        self.control.words().supervisor_sleeps();
    }

    pub(crate) fn supervisor_wakes(&self) {
        self.control.words().supervisor_wakes();
    }

    /// What the supervisor does whenever it is awake; workers whose job ran for too long are in `doomed`. Whether it has to look from time to time.
    pub(crate) fn work(&self, ended: &mut Vec<Ended>, doomed: &mut Vec<WorkerId>, mail: &mut Vec<Outgoing>) -> bool {
        let (control, mut book) = (self.control.words(), self.book());
        book.sweep(&control, ended);
        book.take_mail(&control, mail);
        if book.next_deadline().is_some() {
            book.overdue(&control, now(), ended, doomed);
        }
        book.is_armed()
    }

    /// What it does from time to time while there are jobs: sees to it that nobody trusts in the dead or stopped. False when there are none, or none but results
    /// that wait for their callers; the next who hands one in will wake it.
    pub(crate) fn tick(&self, thoroughly: bool, ended: &mut Vec<Ended>, doomed: &mut Vec<WorkerId>) -> bool {
        let (control, mut book) = (self.control.words(), self.book());
        book.rouse_any(&control);
        let is_settled = thoroughly && book.inspect(&control, now(), ended, doomed);
        !book.disarm(is_settled)
    }

    /// The supervisor is going to sleep for so long, or for ever: no longer than until a limit has to be looked at, which is given. Whoever hands in a job with an
    /// earlier limit wakes it.
    pub(crate) fn sleeps_for(&self, timeout: Option<Duration>) -> Option<Duration> {
        let mut book = self.book();
        let until = timeout.map(|timeout| Deadline::after(timeout).as_nanos());
        let until = until.into_iter().chain(book.next_deadline()).min();
        book.set_sleeps_until(until.unwrap_or(Nanos::MAX));
        until.map(|until| Deadline::from_nanos(until).remaining())
    }
}

/// Why a worker cannot have a seat.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SeatError {
    #[error("all seats of the job table are taken by workers that have not ended yet")]
    NoSeat,
    #[error(transparent)]
    Segment(#[from] SegmentError),
}

/// A worker's side, as it is sent to it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct DeskSent {
    shape: Shape,
    seat: u16,
    control: Fd,
    inputs: Fd,
    outputs: Fd,
    bell: Fd,
    max_tasks: Option<u64>,
}

impl DeskSent {
    /// Maps it all.
    pub(crate) fn open(self) -> Result<Desk, SegmentError> {
        Ok(Desk {
            seat: usize::from(self.seat),
            control: ControlMemory::attach(self.control.into_inner(), self.shape)?,
            inputs: Inputs::attach(self.inputs.into_inner(), self.shape)?,
            outputs: Outputs::attach(self.outputs.into_inner(), self.shape)?,
            shelf: Shelf::new(OUTPUT_HEAP),
            bell: self.bell.into_inner(),
            max_tasks: self.max_tasks,
            searchers: std::thread::available_parallelism().map_or(1, |cpus| cpus.get().div_ceil(2) as u32),
            was_large: false,
        })
    }
}

/// A worker's side.
#[derive(Debug)]
pub(crate) struct Desk {
    seat: usize,
    control: ControlMemory,
    inputs: Inputs,
    outputs: Outputs,
    shelf: Shelf,
    bell: OwnedFd,
    pub(crate) max_tasks: Option<u64>,
    searchers: u32,
    /// The last result that had to have room.
    was_large: bool,
}

impl Desk {
    /// The next job, or that it is time to end.
    pub(crate) fn next(&self) -> Found {
        let spins = if self.was_large { WORKER_SPINS_LARGE } else { WORKER_SPINS };
        self.control.words().next(self.seat, spins, self.searchers)
    }

    /// What the job is. Its argument is in `buffer`. None when that makes no sense, or the job has been taken from this worker before its argument was read.
    pub(crate) fn input(&self, claim: Claim, buffer: &mut Vec<u8>) -> Option<Input> {
        let input = self.inputs.read(claim.slot, buffer)?;
        if input.was_placed {
            fault::point("worker.argument");
            // Pairs with the Release of who writes the same place for another job: if a byte of that was read, the word is found to be changed.
            fence(Ordering::Acquire);
            if !self.control.words().is_claimed(claim, self.seat) {
                return None;
            }
        }
        let generation = super::word::Word::ready(input.job) == super::word::Word::ready(claim.generation);
        generation.then_some(input)
    }

    /// Notes when the job was claimed: for jobs with a limit.
    pub(crate) fn accept(&self, claim: Claim) {
        self.control.words().slots[claim.slot].accepted.store(now(), Ordering::Relaxed);
    }

    /// Whether there is room for a result of so many bytes; and where, if not in its record.
    pub(crate) fn room(&mut self, claim: Claim, len: usize) -> Option<Option<Span>> {
        self.was_large = len >= apart::LEAST;
        if len <= MAX_RESULT {
            return Some(None);
        }
        let (control, seat) = (self.control.words(), self.seat);
        let is_wanted = |slot, generation| control.is_done(Claim { slot, generation }, seat);
        let job = (claim.slot, claim.generation);
        (len <= MAX_PLACED).then(|| self.shelf.take(len, job, is_wanted)).flatten().map(Some)
    }

    /// Lays the result down, where there is room for it; false where it does not fit.
    #[must_use]
    pub(crate) fn lay_down(&self, claim: Claim, job: u64, output: &Output, span: Option<Span>) -> bool {
        self.outputs.write(claim.slot, job, output, span)
    }

    /// Which item of a chunk is to be run; none where that makes no sense.
    pub(crate) fn item(&self, claim: Claim) -> Option<usize> {
        self.control.words().item(claim.slot, claim.generation)
    }

    /// Room for what becomes of the items of a chunk, if there is any.
    pub(crate) fn room_for_items(&mut self, claim: Claim) -> Option<Span> {
        ROOM_FOR_ITEMS.into_iter().find_map(|len| self.room(claim, len)?)
    }

    /// Says where that is, how much of it counts, and whether an item has gone over the socket, by the number of the one behind it.
    #[must_use]
    pub(crate) fn lay_down_items(
        &self,
        claim: Claim,
        job: u64,
        span: Option<Span>,
        used: usize,
        mailed: usize,
    ) -> bool {
        self.outputs.write_items(claim.slot, job, span, used, mailed)
    }

    /// Lays what became of an item down, behind others.
    #[inline]
    #[must_use]
    pub(crate) fn append(&self, span: Span, at: usize, item: &[u8]) -> bool {
        self.outputs.append(span, at, item)
    }

    /// Says that this item is finished; false when it is this worker's no more, which then has to end.
    #[inline]
    #[must_use]
    pub(crate) fn advance(&self, claim: Claim, item: usize, has_limit: bool) -> bool {
        self.control.words().advance(claim, item, has_limit)
    }

    /// Says that the result is there; false when the job is this worker's no more, which then has to end.
    #[must_use]
    pub(crate) fn publish(&self, claim: Claim) -> bool {
        self.control.words().publish(claim, self.seat)
    }

    /// Wakes whom that concerns.
    pub(crate) fn announce(&self, claim: Claim) {
        if self.control.words().announce(claim.slot) {
            self.ring();
        }
    }

    /// Wakes the supervisor.
    pub(crate) fn ring(&self) {
        sys::ring(&self.bell);
    }
}
