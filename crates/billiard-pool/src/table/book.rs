//! The pool's own account of a job table: which slots are in flight, for which job. No I/O and no clock: what happens comes in by calls, and what it leads to goes out.
//!
//! One mutex is around it. A job is taken out of the book at the moment its outcome is known, so that none has two.

use std::{sync::Arc, time::Duration};

use billiard_connection::FrameWriter;
use billiard_context::RemoteError;
use billiard_wire::{
    attachments::{Attachments, Received},
    codec,
};

pub(crate) use self::duties::Outgoing;
use self::{
    chunks::Chunk,
    limits::{Limit, Limits},
};
use super::{
    control::{Control, MAX_SLOTS, SLOT_BITS, cells, watch},
    heap::Taken,
    memory::{About, Argument, Call, Inputs, MAX_ARGUMENT, Output, Outputs},
    word::{Phase, Word},
};
use crate::{
    apart::Apart,
    error::{JobError, WorkerLost},
    handle::{Cell, RawOutcome, spare_bytes},
    message::{Carried, Failure, ToWorker},
    state::{JobId, WorkerId},
};

mod chunks;
mod duties;
mod limits;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

/// Nanoseconds of CLOCK_MONOTONIC.
pub(crate) type Nanos = u64;

/// How many slots a submitter that needs one looks at, beyond those that workers may be busy with.
const GLANCE: usize = 256;

/// A job that is to be handed in.
#[derive(Debug)]
pub(crate) struct NewJob {
    pub(crate) call: Call,
    pub(crate) argument: Vec<u8>,
    pub(crate) attachments: Attachments,
    /// Where the argument was laid down already.
    pub(crate) placed: Option<Placed>,
    /// Of a chunk: of each item.
    pub(crate) limit: Option<Duration>,
    pub(crate) cell: Arc<Cell>,
    /// The supervisor is to collect it.
    pub(crate) supervised: bool,
}

/// Where an argument is that was too large for a record.
#[derive(Debug)]
pub(crate) enum Placed {
    InHeap(Taken),
    /// It goes by mail, of which this is the larger part.
    Apart(Apart),
}

/// Where a job was put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket {
    pub(crate) slot: usize,
    pub(crate) job: u64,
}

impl Ticket {
    /// Both in one number, for mail.
    pub(crate) fn number(self) -> JobId {
        JobId(self.job << SLOT_BITS | self.slot as u64)
    }

    pub(crate) fn of(JobId(number): JobId) -> Self {
        Self { slot: number as usize & (MAX_SLOTS - 1), job: number >> SLOT_BITS }
    }
}

/// A job that has ended, to be told to its handle once no lock is held.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) cell: Arc<Cell>,
    pub(crate) outcome: RawOutcome,
    /// What was to be sent for it, or has come, and is not wanted any more: memory and descriptors, which may take long to drop.
    pub(crate) rest: Option<Box<Mail>>,
}

/// Why a job was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    Full,
    /// There is no place for the argument of a chunk.
    NoPlace,
    Closed,
}

/// What became of a wish to end a job.
#[derive(Debug)]
pub(crate) enum Stopped {
    /// It has ended by it, before anybody had it.
    Before(Ended),
    /// It has ended by it; this worker is to end too.
    During(Ended, WorkerId),
    /// It has ended, or is done, or has begun and was not to be ended then.
    No,
}

#[derive(Debug)]
struct Job {
    id: u64,
    cell: Arc<Cell>,
    /// What few jobs have, in boxes: the entry of a tiny one is on one cache line.
    limit: Option<Box<Limit>>,
    mail: Option<Box<Mail>>,
    chunk: Option<Box<Chunk>>,
    supervised: bool,
    /// How often it was found to be done without the mail that its worker promised.
    misses: u8,
    /// Of its cell in the ring.
    position: u64,
}

impl Job {
    fn ended(self, outcome: RawOutcome) -> Ended {
        let outcome = match (self.chunk, outcome) {
            (Some(chunk), Err(why)) => chunk.into_outcome(Some(why)),
            (_, outcome) => outcome,
        };
        Ended { cell: self.cell, outcome, rest: self.mail }
    }

    /// A chunk all of whose items have an outcome.
    fn finished(mut self) -> Ended {
        let outcome = self.chunk.take().map_or(Err(JobError::Terminated), |chunk| chunk.into_outcome(None));
        self.ended(outcome)
    }
}

/// What goes over a worker's socket.
#[derive(Debug)]
pub(crate) enum Mail {
    /// What a worker gets once it has claimed the job, where that does not fit into the record; and what it carries apart.
    Outgoing(FrameWriter, Option<Apart>),
    /// A result, which counts when the job is done.
    Arrived(RawOutcome),
    /// The argument, in the heap.
    Placed(#[expect(dead_code, reason = "kept, and given back when it is dropped")] Taken),
}

/// Who is in a seat.
#[derive(Debug)]
struct Holder {
    worker: WorkerId,
    outputs: Outputs,
    /// Whether a job was collected from it, or taken from it.
    had_job: bool,
}

#[derive(Debug)]
pub(crate) struct Book {
    /// By slot.
    jobs: Vec<Option<Job>>,
    /// Slots that can be used; the last is the warmest.
    free: Vec<usize>,
    in_flight: usize,
    /// The slots of the jobs in the order they came, by their cell in the ring; older ones are forgotten.
    order: Box<[u32]>,
    /// All cells before have jobs that have ended.
    oldest: u64,
    /// Those that the supervisor collects, some of which have ended.
    supervised: Vec<Ticket>,
    /// Those that wait for their mail to be sent, some of which have ended.
    mail: Vec<Ticket>,
    /// Slots of doomed jobs, and whose end is waited for.
    doomed: Vec<(usize, usize)>,
    limits: Limits,
    seats: Vec<Option<Holder>>,
    next_job: u64,
    tail: u64,
    /// Where the ring began when that was looked at last.
    begin: u64,
    is_closed: bool,
    /// Whether the supervisor looks by itself, since there are jobs.
    is_armed: bool,
    /// Until when it sleeps.
    sleeps_until: Nanos,
}

impl Book {
    pub(crate) fn new(slots: usize, seats: usize) -> Self {
        Self {
            jobs: (0..slots).map(|_| None).collect(),
            free: (0..slots).rev().collect(),
            in_flight: 0,
            order: vec![0; cells(slots)].into(),
            oldest: 0,
            supervised: Vec::new(),
            mail: Vec::new(),
            doomed: Vec::new(),
            limits: Limits::default(),
            seats: (0..seats).map(|_| None).collect(),
            next_job: 1,
            tail: 0,
            begin: 0,
            is_closed: false,
            is_armed: false,
            sleeps_until: Nanos::MAX,
        }
    }

    /// Jobs that have not ended.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// The job in a slot.
    fn ticket(&self, slot: usize) -> Option<Ticket> {
        self.jobs[slot].as_ref().map(|job| Ticket { slot, job: job.id })
    }

    #[inline]
    fn has(&self, ticket: Ticket) -> bool {
        self.jobs.get(ticket.slot).and_then(Option::as_ref).is_some_and(|job| job.id == ticket.job)
    }

    // ---- seats

    /// Puts a worker into a free seat.
    pub(crate) fn seat(&mut self, worker: WorkerId, outputs: Outputs) -> Option<usize> {
        let seat = self.seats.iter().position(Option::is_none)?;
        self.seats[seat] = Some(Holder { worker, outputs, had_job: false });
        Some(seat)
    }

    pub(crate) fn seat_of(&self, worker: WorkerId) -> Option<usize> {
        self.seats.iter().position(|seat| seat.as_ref().is_some_and(|holder| holder.worker == worker))
    }

    #[inline]
    fn holder(&self, seat: u16) -> Option<&Holder> {
        self.seats.get(usize::from(seat))?.as_ref()
    }

    // ---- handing in

    /// Hands `new` in, if there is a slot; what does not fit into a record is taken out of it. What had to be collected for that is in `ended`.
    pub(crate) fn submit(
        &mut self,
        control: &Control<'_>,
        inputs: &Inputs,
        new: &mut NewJob,
        now: Nanos,
        ended: &mut Vec<Ended>,
    ) -> Result<Ticket, Refused> {
        if self.is_closed {
            return Err(Refused::Closed);
        }
        if self.free.is_empty() {
            self.make_room(control, ended);
        }
        if self.free.is_empty() {
            return Err(Refused::Full);
        }
        let fits = new.argument.len() <= MAX_ARGUMENT && new.attachments.is_empty();
        if new.call.items().is_some() && !fits && !matches!(new.placed, Some(Placed::InHeap(_))) {
            return Err(Refused::NoPlace);
        }
        self.make_cell(control);
        let Some(slot) = self.free.pop() else { return Err(Refused::Full) };
        let job = self.next_job;
        self.next_job += 1;
        let ticket = Ticket { slot, job };
        let about = About { call: new.call, has_limit: new.limit.is_some() };
        let (mut span, mut chunk_argument) = (None, None);
        let mail = match (new.placed.take(), new.call) {
            (Some(Placed::InHeap(taken)), call) => {
                span = Some(taken.span());
                match call {
                    Call::One(_) => Some(Mail::Placed(taken)),
                    Call::Items(..) => {
                        chunk_argument = Some(taken);
                        None
                    }
                }
            }
            (None, _) if fits => None,
            (_, Call::Items(..)) => None, // refused above
            (apart, Call::One(task)) => {
                self.mail.push(ticket);
                let apart = match apart {
                    Some(Placed::Apart(apart)) => Some(apart),
                    _ => None,
                };
                Some(outgoing(ToWorker { job: ticket.number(), task }, new, apart))
            }
        };
        let limit = new.limit.map(|time| Box::new(self.limits.begin(time, slot, self.tail, now)));
        self.jobs[slot] = Some(Job {
            id: job,
            cell: new.cell.clone(),
            limit,
            mail: mail.map(Box::new),
            chunk: new.call.items().map(|count| Box::new(Chunk::new(count, new.limit, chunk_argument))),
            supervised: new.supervised,
            misses: 0,
            position: self.tail,
        });
        self.in_flight += 1;
        self.remember(slot, self.tail);
        let watch = if new.supervised { watch::SUPERVISOR } else { 0 };
        self.supervised.extend(new.supervised.then_some(ticket));
        // Last: what a worker has read comes back late, and everything behind these stores waits for it.
        let argument = match span {
            Some(span) => Argument::Placed(span),
            None if fits => Argument::Here(&new.argument),
            None => Argument::Mail,
        };
        let written = inputs.write(slot, job, about, argument);
        debug_assert!(written, "the slot is the table's, and the argument fits");
        if new.call.items().is_some() {
            control.begin_items(slot, job, 0);
        }
        control.offer(slot, job, watch, self.tail);
        self.tail += 1;
        Ok(ticket)
    }

    /// Whether the supervisor has to be told that there are jobs. Once.
    #[inline]
    pub(crate) fn arm(&mut self) -> bool {
        !std::mem::replace(&mut self.is_armed, true)
    }

    /// The supervisor sleeps until then.
    pub(crate) fn set_sleeps_until(&mut self, until: Nanos) {
        self.sleeps_until = until;
    }

    /// Whether a limit is due before the supervisor looks.
    #[inline]
    pub(crate) fn is_early(&self) -> bool {
        self.limits.next_look().is_some_and(|due| due < self.sleeps_until)
    }

    /// Whether the supervisor looks by itself.
    pub(crate) fn is_armed(&self) -> bool {
        self.is_armed
    }

    /// The supervisor looks no more by itself, if there are no jobs, or those that there are need nobody to look; whether that is so.
    pub(crate) fn disarm(&mut self, is_settled: bool) -> bool {
        if is_settled || self.in_flight == 0 {
            self.is_armed = false;
        }
        !self.is_armed
    }

    /// Sees to it that there is room for another cell in the ring.
    #[inline]
    fn make_cell(&mut self, control: &Control<'_>) {
        if self.is_ring_full(control) {
            self.begin = control.begin(self.begin, self.tail);
        }
        if self.is_ring_full(control) {
            self.close_ranks(control);
        }
    }

    #[inline]
    fn is_ring_full(&self, control: &Control<'_>) -> bool {
        self.tail.wrapping_sub(self.begin) >= control.cells.len() as u64
    }

    /// Of a full ring at least half of the cells are of jobs that wait no more, behind one that does. Each cell is passed, and those who wait get new ones, in the
    /// order in which they are.
    fn close_ranks(&mut self, control: &Control<'_>) {
        for position in self.begin..self.tail {
            let waiting = self.at_cell(position).filter(|ticket| control.word(ticket.slot) == Word::ready(ticket.job));
            control.pass(position);
            self.begin = position + 1;
            if let Some(ticket) = waiting {
                self.move_to_tail(control, ticket);
            }
        }
    }

    /// Gives a job that waits a new cell, the last in the ring, which is not full.
    fn move_to_tail(&mut self, control: &Control<'_>, ticket: Ticket) {
        let Some(job) = &mut self.jobs[ticket.slot] else { return };
        self.limits.moved(job.limit.as_deref(), ticket.slot, job.position, self.tail);
        job.position = self.tail;
        control.hint(ticket.slot, ticket.job, self.tail);
        self.remember(ticket.slot, self.tail);
        self.tail += 1;
    }

    /// The job whose cell is at that position; none if it has ended, or has another.
    fn at_cell(&self, position: u64) -> Option<Ticket> {
        let slot = self.order[position as usize & (self.order.len() - 1)] as usize;
        let job = self.jobs.get(slot)?.as_ref().filter(|job| job.position == position)?;
        Some(Ticket { slot, job: job.id })
    }

    /// Notes whose cell that is.
    #[inline]
    fn remember(&mut self, slot: usize, position: u64) {
        let at = position as usize & (self.order.len() - 1);
        self.order[at] = slot as u32;
    }

    /// The oldest jobs in flight whose cell nobody else has yet, so many at the most.
    fn oldest(&mut self, most: usize) -> Vec<Ticket> {
        let begin = self.oldest.max(self.tail.saturating_sub(self.order.len() as u64));
        let of_cell = |position: u64| Some((position, self.at_cell(position)?));
        let found: Vec<_> = (begin..self.tail).filter_map(of_cell).take(most).collect();
        self.oldest = found.first().map_or(self.tail, |&(position, _)| position);
        found.into_iter().map(|(_, ticket)| ticket).collect()
    }

    /// Collects some of what is done, the oldest first.
    fn make_room(&mut self, control: &Control<'_>, ended: &mut Vec<Ended>) {
        let glance = self.seats.len() + GLANCE;
        let oldest = self.oldest(glance);
        self.collect_some(control, oldest, ended);
        if self.free.is_empty() {
            // One that is done may be so old that its place in the order is another's.
            let all = (0..self.jobs.len()).filter_map(|slot| self.ticket(slot)).collect();
            self.collect_some(control, all, ended);
        }
    }

    fn collect_some(&mut self, control: &Control<'_>, tickets: Vec<Ticket>, ended: &mut Vec<Ended>) {
        for ticket in tickets {
            // Who has callbacks is told by the supervisor.
            if self.jobs[ticket.slot].as_ref().is_some_and(|job| !job.cell.has_callback()) {
                self.collect_for(control, ticket, ended);
            }
        }
    }

    /// Collects it on behalf of callers, who may sleep on its slot.
    fn collect_for(&mut self, control: &Control<'_>, ticket: Ticket, ended: &mut Vec<Ended>) {
        if let Some(one) = self.collect(control, ticket) {
            control.wake_callers(ticket.slot);
            ended.push(one);
        }
    }

    // ---- ending

    /// The one place where a job ends: it leaves the book.
    #[inline]
    fn end(&mut self, slot: usize) -> Option<Job> {
        let job = self.jobs[slot].take()?;
        self.in_flight -= 1;
        if let Some(limit) = &job.limit {
            self.limits.end(limit, slot, job.position);
        }
        Some(job)
    }

    /// As [`end`](Self::end), where it is not done, and its word says by now that it never will be: callers that sleep on it are woken here.
    fn end_early(&mut self, control: &Control<'_>, slot: usize) -> Option<Job> {
        let job = self.end(slot)?;
        control.wake_callers(slot);
        Some(job)
    }

    /// Ends a job whose worker is gone, or whose word cannot be; its slot is free.
    fn discard(&mut self, control: &Control<'_>, ticket: Ticket, why: JobError) -> Option<Ended> {
        if !self.has(ticket) {
            return None;
        }
        self.free(control, ticket);
        let job = self.end_early(control, ticket.slot)?;
        Some(job.ended(Err(why)))
    }

    #[inline]
    fn free(&mut self, control: &Control<'_>, ticket: Ticket) {
        control.free(ticket.slot, ticket.job);
        self.free.push(ticket.slot);
    }

    /// The outcome of a job that is done, if it is, and all of it is there.
    pub(crate) fn collect(&mut self, control: &Control<'_>, ticket: Ticket) -> Option<Ended> {
        if !self.has(ticket) {
            return None;
        }
        let word = control.word(ticket.slot);
        if word.phase() != Some(Phase::Done) || !word.is_of(ticket.job) {
            return None;
        }
        let output = self.seats.get_mut(usize::from(word.seat())).and_then(Option::as_mut).and_then(|holder| {
            holder.had_job = true;
            holder.outputs.read(ticket.slot, ticket.job, spare_bytes())
        });
        if self.jobs[ticket.slot].as_ref().is_some_and(|job| job.chunk.is_some()) {
            return self.collect_chunk(control, ticket, output);
        }
        let outcome = match output {
            Some(Output::Value(bytes)) => Ok((bytes.into(), Received::default())),
            Some(Output::Failure(bytes)) => Err(match codec::decode::<Failure>(&bytes, &mut Received::default()) {
                Ok(failure) => failure.into(),
                Err(error) => JobError::ResultDecode(error.into()),
            }),
            Some(Output::Mail) => {
                let mail = &mut self.jobs[ticket.slot].as_mut()?.mail;
                match mail.take_if(|mail| matches!(**mail, Mail::Arrived(_))).map(|mail| *mail) {
                    Some(Mail::Arrived(outcome)) => outcome,
                    _ => return None,
                }
            }
            Some(Output::Items { .. }) | None => {
                Err(nonsense("its worker says that it is done, and has laid down no result"))
            }
        };
        let job = self.end(ticket.slot)?;
        self.free(control, ticket);
        Some(job.ended(outcome))
    }

    /// A result has come over the socket of that worker. It is taken if it is that of a job that this worker has. What is not wanted any more comes back, to be dropped
    /// where no lock is held.
    pub(crate) fn arrived(
        &mut self,
        control: &Control<'_>,
        worker: WorkerId,
        number: JobId,
        outcome: RawOutcome,
        ended: &mut Vec<Ended>,
    ) -> Option<Box<Mail>> {
        let ticket = Ticket::of(number);
        let mail = Some(Box::new(Mail::Arrived(outcome)));
        if !self.has(ticket) {
            return mail; // it has been ended, or never was
        }
        let word = control.word(ticket.slot);
        let is_its = matches!(word.phase(), Some(Phase::Claimed | Phase::Done)) && word.is_of(ticket.job);
        if !is_its || self.holder(word.seat()).is_none_or(|holder| holder.worker != worker) {
            return mail; // it is not that worker's
        }
        let job = self.jobs[ticket.slot].as_mut()?;
        let unwanted = std::mem::replace(&mut job.mail, mail);
        self.collect_for(control, ticket, ended);
        // Until it says that it is done; and whether or not anybody still wants the result, which may hold descriptors.
        let _ = self.supervise(control, ticket);
        unwanted
    }

    /// Ends a job with this error, if nobody has it yet; or also if a worker has it.
    pub(crate) fn stop(&mut self, control: &Control<'_>, ticket: Ticket, why: JobError, begun_too: bool) -> Stopped {
        if !self.has(ticket) {
            return Stopped::No;
        }
        if self.jobs[ticket.slot].as_ref().is_some_and(Job::is_halted) {
            return self.end_halted(control, ticket, why).map_or(Stopped::No, Stopped::Before);
        }
        // It can change as often as this: ready, claimed, done. One that does so again and again is nonsense.
        for _ in 0..3 {
            let word = control.word(ticket.slot);
            match word.phase() {
                Some(Phase::Ready) if control.cancel(ticket.slot, ticket.job) => {
                    let Some(job) = self.end_early(control, ticket.slot) else { return Stopped::No };
                    self.free.push(ticket.slot);
                    return Stopped::Before(job.ended(Err(why)));
                }
                Some(Phase::Claimed) if !begun_too => return Stopped::No,
                Some(Phase::Claimed)
                    if word.is_of(ticket.job) && control.doom(ticket.slot, ticket.job, word.seat()) =>
                {
                    let seat = usize::from(word.seat());
                    self.keep_what_there_is(control, ticket, seat);
                    let Some(job) = self.end_early(control, ticket.slot) else { return Stopped::No };
                    let ended = job.ended(Err(why));
                    return match self.seats.get_mut(seat).and_then(Option::as_mut) {
                        Some(holder) => {
                            holder.had_job = true;
                            self.doomed.push((ticket.slot, seat));
                            Stopped::During(ended, holder.worker)
                        }
                        None => {
                            self.free(control, ticket);
                            Stopped::Before(ended)
                        }
                    };
                }
                // The word has changed meanwhile: again. One that cannot be is resolved by who looks at all of them.
                Some(Phase::Ready | Phase::Claimed) if word.is_of(ticket.job) => {}
                _ => break,
            }
        }
        Stopped::No
    }

    /// A worker has ended, and all that it has sent is read: what it had is judged, and its seat is free. Whether it ever had a job.
    pub(crate) fn audit(
        &mut self,
        control: &Control<'_>,
        worker: WorkerId,
        lost: &WorkerLost,
        ended: &mut Vec<Ended>,
    ) -> bool {
        let Some(seat) = self.seat_of(worker) else { return false };
        let before = ended.len();
        let why = || JobError::WorkerLost(Box::new(lost.clone()));
        for slot in 0..self.jobs.len() {
            let Some(ticket) = self.ticket(slot) else { continue };
            let word = control.word(slot);
            if usize::from(word.seat()) != seat || !word.is_of(ticket.job) {
                continue;
            }
            match word.phase() {
                Some(Phase::Done) => {
                    self.collect_for(control, ticket, ended);
                    // If that is not so, its mail has not come whole.
                    if control.word(slot) == word {
                        ended.extend(self.discard(control, ticket, why()));
                    }
                }
                Some(Phase::Claimed | Phase::Doomed)
                    if self.jobs[slot].as_ref().is_some_and(|job| job.chunk.is_some()) =>
                {
                    ended.extend(self.lose_item(control, ticket, seat, why()));
                }
                Some(Phase::Claimed | Phase::Doomed) => ended.extend(self.discard(control, ticket, why())),
                _ => {}
            }
        }
        self.doomed.retain(|&(slot, of)| {
            let is_its = of == seat;
            if is_its {
                self.free.push(slot);
            }
            !is_its
        });
        control.clear_seat(seat);
        let had_job = self.seats[seat].take().is_some_and(|holder| holder.had_job);
        had_job || ended.len() > before
    }

    /// Accepts no more. The supervisor collects what is in flight.
    pub(crate) fn close(&mut self, control: &Control<'_>) {
        self.is_closed = true;
        for slot in 0..self.jobs.len() {
            if let Some(ticket) = self.ticket(slot) {
                let _ = self.supervise(control, ticket);
            }
        }
    }

    /// Accepts no more, and ends all that is in flight with these errors. What is done stays so.
    pub(crate) fn end_all(&mut self, control: &Control<'_>, why: impl Fn() -> JobError, ended: &mut Vec<Ended>) {
        self.is_closed = true;
        for slot in 0..self.jobs.len() {
            let Some(ticket) = self.ticket(slot) else { continue };
            self.collect_for(control, ticket, ended);
            if let Stopped::Before(one) | Stopped::During(one, _) = self.stop(control, ticket, why(), true) {
                ended.push(one);
            }
            // Done meanwhile; or by mail that will not be waited for; or a word that cannot be.
            self.collect_for(control, ticket, ended);
            ended.extend(self.discard(control, ticket, why()));
        }
    }
}

/// A job's mail; with descriptors, or apart.
fn outgoing(head: ToWorker, new: &mut NewJob, apart: Option<Apart>) -> Mail {
    let mut attachments = std::mem::take(&mut new.attachments);
    let with_all = apart.and_then(|apart| {
        let prefix = codec::encode_after(&(&head, Some(apart.bytes())), &mut attachments).ok()?;
        Some((prefix, apart))
    });
    match with_all {
        Some((prefix, apart)) => Mail::Outgoing(FrameWriter::typed(&prefix, Vec::new(), attachments), Some(apart)),
        None => {
            let prefix = codec::encode_after(&(head, Carried::None), &mut attachments).expect("numbers encode");
            Mail::Outgoing(FrameWriter::typed(&prefix, std::mem::take(&mut new.argument), attachments), None)
        }
    }
}

fn after(moment: Nanos, time: Duration) -> Nanos {
    moment.saturating_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
}

/// A worker has gone wild, and this job has no result.
fn nonsense(what: &str) -> JobError {
    JobError::ResultDecode(RemoteError::msg(what))
}
