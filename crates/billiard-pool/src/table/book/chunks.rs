//! Chunks in the book: each of their items has an outcome of its own, and what is left of one goes on after a death.

use std::time::Duration;

use super::{Book, Control, Ended, Job, Output, Phase, Ticket, nonsense, watch};
use crate::{
    apart::Encoded,
    chunk::Outcomes,
    error::JobError,
    handle::RawOutcome,
    state::WorkerId,
    table::{book::Mail, heap::Taken, items},
};
use billiard_wire::attachments::Received;

/// What is known of the items of a job.
#[derive(Debug)]
pub(super) struct Chunk {
    /// How many there are.
    count: usize,
    /// The first without an outcome.
    next: usize,
    outcomes: Outcomes,
    /// Of each item.
    limit: Option<Duration>,
    /// The argument, in the heap: for as long as there are items.
    _argument: Option<Taken>,
    /// Where an item was doomed: the seat of its worker, whose end the rest waits for.
    halted: Option<usize>,
}

impl Chunk {
    pub(super) fn new(count: usize, limit: Option<Duration>, argument: Option<Taken>) -> Self {
        Self { count, next: 0, outcomes: Outcomes::default(), limit, _argument: argument, halted: None }
    }

    /// The outcome of the job, whose items have all had theirs, but for those that end by this.
    pub(super) fn into_outcome(mut self, rest: Option<JobError>) -> RawOutcome {
        if let Some(why) = rest {
            self.outcomes.end(why);
        }
        Ok((Encoded::Items(Box::new(self.outcomes)), Received::default()))
    }

    /// Keeps what was laid down of the items before `running`. False when that makes no sense. Where the worker `has_said` how much that is, the bytes are left to whoever decodes
    /// them, and may be anything; otherwise it may be less.
    #[must_use]
    fn keep(
        &mut self,
        running: Option<usize>,
        output: Option<Output>,
        mail: &mut Option<Box<Mail>>,
        has_said: bool,
    ) -> bool {
        let Some(running) = running.filter(|&running| (self.next..=self.count).contains(&running)) else {
            return false;
        };
        if running == self.next {
            return true; // the record may be of before
        }
        let Some(Output::Items { mut bytes, mailed }) = output else { return false };
        let is_mailed = mailed == running;
        let laid = running - self.next - usize::from(is_mailed);
        if !has_said {
            let Some(rest) = items::skip(&bytes, laid) else { return false };
            bytes.truncate(bytes.len() - rest.len());
            bytes.shrink_to_fit();
        }
        self.outcomes.laid(laid, bytes);
        self.next += laid;
        if is_mailed && let Some(outcome) = take_arrived(mail) {
            self.outcomes.one(outcome);
            self.next += 1;
        }
        true
    }
}

fn take_arrived(mail: &mut Option<Box<Mail>>) -> Option<RawOutcome> {
    match *mail.take_if(|mail| matches!(**mail, Mail::Arrived(_)))? {
        Mail::Arrived(outcome) => Some(outcome),
        _ => None,
    }
}

impl Job {
    pub(super) fn is_halted(&self) -> bool {
        self.chunk.as_ref().is_some_and(|chunk| chunk.halted.is_some())
    }
}

impl Book {
    /// Keeps the outcomes of the items that are finished of a job that the worker in that seat has, or had.
    #[must_use]
    fn keep_finished(&mut self, control: &Control<'_>, ticket: Ticket, seat: usize) -> bool {
        let holder = self.seats.get(seat).and_then(Option::as_ref);
        let running = control.item(ticket.slot, ticket.job);
        let output = holder.and_then(|holder| holder.outputs.read(ticket.slot, ticket.job, Vec::new()));
        let Some(Job { chunk: Some(chunk), mail, .. }) = &mut self.jobs[ticket.slot] else { return false };
        chunk.keep(running, output, mail, false)
    }

    /// A chunk is done, as far as its worker has come: the outcome of the job, if that was all of it; otherwise the rest is offered again.
    pub(super) fn collect_chunk(
        &mut self,
        control: &Control<'_>,
        ticket: Ticket,
        output: Option<Output>,
    ) -> Option<Ended> {
        let running = control.item(ticket.slot, ticket.job);
        let Some(Job { chunk: Some(chunk), mail, .. }) = &mut self.jobs[ticket.slot] else { return None };
        let is_mailed = matches!(output, Some(Output::Items { mailed, .. }) if Some(mailed) == running);
        if is_mailed && !matches!(mail.as_deref(), Some(Mail::Arrived(_))) {
            return None; // it is on its way
        }
        let is_whole = chunk.keep(running, output, mail, true) && (chunk.next == chunk.count || is_mailed);
        if !is_whole {
            return self.end_chunk(control, ticket, Some(nonsense("its worker says that it is done, and it is not")));
        }
        self.go_on(control, ticket)
    }

    /// A worker has died that had a chunk: what it has finished counts, the item that it was at is lost, and the rest goes on.
    pub(super) fn lose_item(
        &mut self,
        control: &Control<'_>,
        ticket: Ticket,
        seat: usize,
        why: JobError,
    ) -> Option<Ended> {
        if let Some(holder) = &mut self.seats[seat] {
            holder.had_job = true;
        }
        if let Some(Job { chunk: Some(chunk), .. }) = &mut self.jobs[ticket.slot]
            && chunk.halted.take().is_some()
        {
            return self.go_on(control, ticket);
        }
        if !self.keep_finished(control, ticket, seat) {
            return self.end_chunk(control, ticket, Some(nonsense("what was finished of a chunk was overwritten")));
        }
        if let Some(Job { chunk: Some(chunk), .. }) = &mut self.jobs[ticket.slot]
            && chunk.next < chunk.count
        {
            chunk.outcomes.one(Err(why));
            chunk.next += 1;
        }
        self.go_on(control, ticket)
    }

    /// As much of a chunk as is finished counts, and the rest is going to end with its job.
    pub(super) fn keep_what_there_is(&mut self, control: &Control<'_>, ticket: Ticket, seat: usize) {
        if self.jobs[ticket.slot].as_ref().is_some_and(|job| job.chunk.is_some()) {
            let _ = self.keep_finished(control, ticket, seat); // nothing, where that makes no sense
        }
    }

    /// The time of the item that runs is over. Its worker is to end too, in `doomed`. False when that item is finished meanwhile.
    pub(super) fn end_item(
        &mut self,
        control: &Control<'_>,
        ticket: Ticket,
        (item, limit): (usize, Duration),
        ended: &mut Vec<Ended>,
        doomed: &mut Vec<WorkerId>,
    ) -> bool {
        let word = control.word(ticket.slot);
        if word.phase() != Some(Phase::Claimed) || !word.is_of(ticket.job) {
            return true; // it is done, or nobody has it
        }
        let seat = usize::from(word.seat());
        let Some(worker) = self.seats.get_mut(seat).and_then(Option::as_mut).map(|holder| {
            holder.had_job = true;
            holder.worker
        }) else {
            return true; // whoever looks at all words ends it
        };
        if self.awaits_mail(ticket, seat, item) && !self.misses_mail(ticket) {
            return false; // the outcome of the item before is on its way: without it nobody knows whose time is over
        }
        let count = self.jobs[ticket.slot].as_ref().and_then(|job| job.chunk.as_ref()).map_or(0, |chunk| chunk.count);
        // Once all are finished only the publication is missing.
        let is_last = item == count;
        if !is_last && !control.doom_item(ticket.slot, ticket.job, item) {
            return false;
        }
        let is_doomed = control.doom(ticket.slot, ticket.job, word.seat());
        if is_last && !is_doomed {
            return true; // it is done
        }
        // It cannot have been published.
        if !is_doomed || !self.keep_finished(control, ticket, seat) {
            ended.extend(self.end_chunk(control, ticket, Some(nonsense("its place in the job table was overwritten"))));
            doomed.push(worker);
            return true;
        }
        doomed.push(worker);
        let Some(job) = &mut self.jobs[ticket.slot] else { return true };
        let Some(chunk) = &mut job.chunk else { return true };
        if !is_last {
            chunk.outcomes.one(Err(JobError::TimeLimitExceeded(limit)));
            chunk.next += 1;
        }
        if chunk.next < chunk.count {
            chunk.halted = Some(seat);
            if let Some(limit) = job.limit.take() {
                self.limits.end(&limit, ticket.slot, job.position);
            }
        } else if let Some(job) = self.end_early(control, ticket.slot) {
            self.doomed.push((ticket.slot, seat));
            ended.push(job.finished());
        }
        true
    }

    /// Whether the outcome of the item before `running` went over the socket, and has not come yet.
    fn awaits_mail(&self, ticket: Ticket, seat: usize, running: usize) -> bool {
        let has_come = |job: &Job| matches!(job.mail.as_deref(), Some(Mail::Arrived(_)));
        if self.jobs[ticket.slot].as_ref().is_none_or(has_come) {
            return false;
        }
        let outputs = self.seats.get(seat).and_then(Option::as_ref).map(|holder| &holder.outputs);
        let output = outputs.and_then(|outputs| outputs.read(ticket.slot, ticket.job, Vec::new()));
        matches!(output, Some(Output::Items { mailed, .. }) if mailed == running)
    }

    /// Of a chunk whose rest waits for the end of a worker: ends it.
    pub(super) fn end_halted(&mut self, control: &Control<'_>, ticket: Ticket, why: JobError) -> Option<Ended> {
        let seat = self.jobs[ticket.slot].as_ref()?.chunk.as_ref()?.halted?;
        let job = self.end_early(control, ticket.slot)?;
        self.doomed.push((ticket.slot, seat));
        Some(job.ended(Err(why)))
    }

    fn end_chunk(&mut self, control: &Control<'_>, ticket: Ticket, why: Option<JobError>) -> Option<Ended> {
        self.free(control, ticket);
        let job = self.end_early(control, ticket.slot)?;
        Some(match why {
            Some(why) => job.ended(Err(why)),
            None => job.finished(),
        })
    }

    /// Nobody has the chunk any more: the outcome of the job, or the rest is offered again, in the same slot.
    fn go_on(&mut self, control: &Control<'_>, ticket: Ticket) -> Option<Ended> {
        let Some(Job { chunk: Some(chunk), .. }) = &self.jobs[ticket.slot] else { return None };
        let (next, limit) = (chunk.next, chunk.limit);
        if next == chunk.count {
            return self.end_chunk(control, ticket, None);
        }
        self.make_cell(control);
        let Some(job) = &mut self.jobs[ticket.slot] else { return None };
        job.misses = 0;
        job.mail = None; // of an item whose worker has died before it was finished
        if let Some(limit) = job.limit.take() {
            self.limits.end(&limit, ticket.slot, job.position);
        }
        job.limit = limit.map(|time| Box::new(self.limits.begin(time, ticket.slot, self.tail, 0)));
        job.position = self.tail;
        self.remember(ticket.slot, self.tail);
        control.begin_items(ticket.slot, ticket.job, next);
        control.offer(ticket.slot, ticket.job, watch::SUPERVISOR, self.tail);
        self.tail += 1;
        let _ = control.rouse(); // a searcher that it trusts in and that does not come is the tick's affair
        None
    }
}
