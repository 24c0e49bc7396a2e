//! What the supervisor does in the book whenever it is awake, and from time to time.

use std::{sync::atomic::Ordering, time::Duration};

use billiard_connection::FrameWriter;

use super::{Book, Control, Ended, Mail, Nanos, Phase, Stopped, Ticket, Word, after, nonsense, watch};
use crate::{
    error::JobError,
    state::{JobId, WorkerId},
};

/// How soon a job whose time is short is looked at again while it waits for a worker.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

impl Book {
    /// The supervisor collects that job, from now on; the caller looks at it once more.
    pub(crate) fn supervise(&mut self, control: &Control<'_>, ticket: Ticket) {
        if !self.has(ticket) {
            return;
        }
        if let Some(Some(job)) = self.jobs.get_mut(ticket.slot)
            && !std::mem::replace(&mut job.supervised, true)
        {
            self.supervised.push(ticket);
        }
        control.watch(ticket.slot, watch::SUPERVISOR);
    }

    /// Collects what the supervisor is to collect.
    pub(crate) fn sweep(&mut self, control: &Control<'_>, ended: &mut Vec<Ended>) {
        let mut watched = std::mem::take(&mut self.supervised);
        watched.retain(|&ticket| {
            self.collect_for(control, ticket, ended);
            self.has(ticket)
        });
        self.supervised.append(&mut watched);
    }

    /// The frames of jobs that were claimed, and for whom they are.
    pub(crate) fn take_mail(&mut self, control: &Control<'_>, mail: &mut Vec<(WorkerId, JobId, FrameWriter)>) {
        let mut waiting = std::mem::take(&mut self.mail);
        waiting.retain(|&ticket| {
            if !self.has(ticket) {
                return false;
            }
            let word = control.word(ticket.slot);
            let worker = match word.phase() {
                Some(Phase::Claimed) if word.is_of(ticket.job) => self.holder(word.seat()).map(|holder| holder.worker),
                _ => None,
            };
            let Some(worker) = worker else { return true };
            let job = self.jobs[ticket.slot].as_mut();
            let outgoing = job.and_then(|job| job.mail.take_if(|mail| matches!(**mail, Mail::Outgoing(_))));
            if let Some(Mail::Outgoing(frame)) = outgoing.map(|mail| *mail) {
                mail.push((worker, ticket.number(), frame));
            }
            false
        });
        self.mail.append(&mut waiting);
    }

    /// When the first job has to be looked at.
    pub(crate) fn next_deadline(&self) -> Option<Nanos> {
        self.timers.first().map(|&(due, ..)| due)
    }

    /// Ends the jobs that have run for too long; those workers are to end too.
    pub(crate) fn overdue(
        &mut self,
        control: &Control<'_>,
        now: Nanos,
        ended: &mut Vec<Ended>,
        doomed: &mut Vec<WorkerId>,
    ) {
        while let Some(&(due, slot, job)) = self.timers.first() {
            if due > now {
                return;
            }
            self.timers.pop_first();
            let ticket = Ticket { slot, job };
            if !self.has(ticket) {
                continue;
            }
            let Some(entry) = self.jobs[slot].as_mut() else { continue };
            let Some(limit) = &mut entry.limit else { continue };
            let time = limit.time;
            let due = match control.word(slot).phase() {
                Some(Phase::Claimed) => {
                    let accepted = control.slots[slot].accepted.load(Ordering::Relaxed);
                    // Zero: not noted yet. In the future: no moment that a worker has had.
                    let is_moment = accepted != 0 && accepted <= now;
                    after(if is_moment { accepted } else { *limit.seen.get_or_insert(now) }, time)
                }
                // Its time has not begun; a short one is not looked at all the time.
                Some(Phase::Ready) => after(now, time.max(LOOK_AGAIN)),
                _ => continue,
            };
            if due > now {
                limit.due = due;
                self.timers.insert((due, slot, job));
                continue;
            }
            match self.stop(control, ticket, JobError::TimeLimitExceeded(time), true) {
                Stopped::Before(one) => ended.push(one),
                Stopped::During(one, worker) => {
                    ended.push(one);
                    doomed.push(worker);
                }
                Stopped::No => {}
            }
        }
    }

    /// If jobs wait, sees to it that a worker looks.
    pub(crate) fn rouse_any(&mut self, control: &Control<'_>) {
        self.begin = control.begin(self.begin, self.tail);
        if self.begin < self.tail {
            control.rouse_any();
        }
    }

    /// Looks at every job in flight: what nobody has told of is collected where it is the supervisor's to collect, a word that cannot be ends its job, and a job that
    /// waits and has no cell any more gets one. Whether all that is left is done, and for its callers to collect: then there is nothing to look for.
    pub(crate) fn inspect(&mut self, control: &Control<'_>, ended: &mut Vec<Ended>) -> bool {
        self.sweep(control, ended);
        self.begin = control.begin(self.begin, self.tail);
        let mut is_settled = true;
        for slot in 0..self.jobs.len() {
            let Some(job) = &self.jobs[slot] else { continue };
            let ticket = Ticket { slot, job: job.id };
            let word = control.word(slot);
            is_settled &= word.phase() == Some(Phase::Done) && !job.supervised;
            match word.phase() {
                Some(Phase::Ready) if word == Word::ready(ticket.job) => self.find_again(control, ticket),
                Some(Phase::Claimed | Phase::Done) if word.is_of(ticket.job) && self.holder(word.seat()).is_some() => {}
                _ => {
                    ended.extend(self.discard(control, ticket, nonsense("its place in the job table was overwritten")))
                }
            }
        }
        is_settled
    }

    /// Puts a job that waits into the ring again if its cell was passed, as nobody does who can be trusted.
    fn find_again(&mut self, control: &Control<'_>, ticket: Ticket) {
        let is_ring_full = self.tail - self.begin >= control.cells.len() as u64;
        if let Some(job) = &mut self.jobs[ticket.slot]
            && job.position < self.begin
            && !is_ring_full
        {
            job.position = self.tail;
            control.hint(ticket.slot, ticket.job, self.tail);
            self.remember(ticket.slot, self.tail);
            self.tail += 1;
        }
    }
}
