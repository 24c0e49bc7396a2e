//! What the supervisor does in the book whenever it is awake, and from time to time.

use billiard_connection::FrameWriter;

use super::{Book, Control, Ended, Job, Mail, Nanos, Phase, Ticket, Word, nonsense, watch};
use crate::{
    apart::Apart,
    state::{JobId, WorkerId},
};

/// How often a job may be found to be done without its mail, by a supervisor that has read all sockets in between.
const MISSES: u8 = 20;

/// What is to be sent to a worker.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) worker: WorkerId,
    pub(crate) job: JobId,
    pub(crate) frame: FrameWriter,
    /// What it carries apart. To drop it takes long, and is for who has no lock.
    #[expect(dead_code, reason = "kept, and dropped outside the lock")]
    pub(crate) apart: Option<Apart>,
}

impl Book {
    /// The supervisor collects that job, from now on, and looks after the jobs; whether it has to be woken for that. The caller looks at it once more.
    #[must_use]
    pub(crate) fn supervise(&mut self, control: &Control<'_>, ticket: Ticket) -> bool {
        if !self.has(ticket) {
            return false;
        }
        if let Some(Some(job)) = self.jobs.get_mut(ticket.slot)
            && !std::mem::replace(&mut job.supervised, true)
        {
            self.supervised.push(ticket);
        }
        control.watch(ticket.slot, watch::SUPERVISOR);
        self.arm()
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
    pub(crate) fn take_mail(&mut self, control: &Control<'_>, mail: &mut Vec<Outgoing>) {
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
            let outgoing = job.and_then(|job| job.mail.take_if(|mail| matches!(**mail, Mail::Outgoing(..))));
            if let Some(Mail::Outgoing(frame, apart)) = outgoing.map(|mail| *mail) {
                mail.push(Outgoing { worker, job: ticket.number(), frame, apart });
            }
            false
        });
        self.mail.append(&mut waiting);
    }

    /// If jobs wait, sees to it that a worker looks.
    pub(crate) fn rouse_any(&mut self, control: &Control<'_>) {
        self.begin = control.begin(self.begin, self.tail);
        if self.begin < self.tail {
            control.rouse_any();
        }
    }

    /// Looks at every job in flight: what nobody has told of is collected where it is the supervisor's to collect, a word that cannot be ends its job, and a job that
    /// waits and has no cell any more gets one. Workers that promise mail and send none are in `doomed`. Whether all that is left is done, and for its callers to
    /// collect: then there is nothing to look for.
    pub(crate) fn inspect(
        &mut self,
        control: &Control<'_>,
        now: Nanos,
        ended: &mut Vec<Ended>,
        doomed: &mut Vec<WorkerId>,
    ) -> bool {
        self.sweep(control, ended);
        self.begin = control.begin(self.begin, self.tail);
        let mut is_settled = true;
        for slot in 0..self.jobs.len() {
            let Some(job) = &self.jobs[slot] else { continue };
            let (ticket, is_supervised) = (Ticket { slot, job: job.id }, job.supervised);
            let word = control.word(slot);
            let is_done = word.phase() == Some(Phase::Done);
            is_settled &= is_done && !is_supervised;
            let holder = self.holder(word.seat()).filter(|_| word.is_of(ticket.job)).map(|holder| holder.worker);
            match (word.phase(), holder) {
                (Some(Phase::Ready), _) if word == Word::ready(ticket.job) => self.find_again(control, ticket),
                (Some(Phase::Claimed), Some(_)) => self.note_begun(control, ticket, now),
                (Some(Phase::Done), Some(_)) if !is_supervised => {}
                (Some(Phase::Done), Some(worker)) => {
                    if self.misses_mail(ticket) {
                        let why = nonsense("its worker says that it is done, and has sent no result");
                        ended.extend(self.discard(control, ticket, why));
                        doomed.push(worker);
                    }
                }
                (Some(Phase::Doomed), Some(_)) if self.jobs[slot].as_ref().is_some_and(Job::is_halted) => {}
                _ => {
                    ended.extend(self.discard(control, ticket, nonsense("its place in the job table was overwritten")))
                }
            }
        }
        is_settled
    }

    /// A job that is done could not be collected: its mail has not come. It was sent before the job was done, so that it comes as soon as it is read; whether that
    /// has been so for too long.
    pub(super) fn misses_mail(&mut self, ticket: Ticket) -> bool {
        self.jobs[ticket.slot].as_mut().is_some_and(|job| {
            job.misses = job.misses.saturating_add(1);
            job.misses > MISSES
        })
    }

    /// Puts a job that waits into the ring again if its cell was passed, as nobody does who can be trusted.
    fn find_again(&mut self, control: &Control<'_>, ticket: Ticket) {
        let was_passed = self.jobs[ticket.slot].as_ref().is_some_and(|job| job.position < self.begin);
        if was_passed && !self.is_ring_full(control) {
            self.move_to_tail(control, ticket);
        }
    }
}
