//! Time limits of jobs: when to look at which.
//!
//! A job's time begins when a worker claims it, which the worker notes and tells nobody. Jobs are claimed in the order in which they wait, so that of
//! however many that have not begun, the first alone is looked at: as often as the shortest limit among them, which makes it in time for each.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map},
    sync::atomic::Ordering,
    time::Duration,
};

use super::{Book, Control, Ended, Job, Nanos, Phase, Stopped, Ticket, after};
use crate::{error::JobError, state::WorkerId};

/// How soon those that wait are looked at again at the earliest.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// The limit of one job.
#[derive(Debug)]
pub(super) struct Limit {
    time: Duration,
    /// Of a chunk: the item whose time it is.
    item: Option<usize>,
    /// Once it was seen to have begun: when it did, and when its time is over.
    running: Option<(Nanos, Nanos)>,
}

/// What is to be looked at, and when.
#[derive(Debug, Default)]
pub(super) struct Limits {
    /// Jobs that are not known to have begun, by their position in the ring, and their slots.
    waiting: BTreeSet<(u64, usize)>,
    /// Their limits, and how many have each.
    times: BTreeMap<Duration, usize>,
    /// When to look at those who wait.
    look_at: Nanos,
    /// When to look at which job that has begun.
    running: BTreeSet<(Nanos, usize)>,
}

impl Limits {
    /// A job with a limit begins to wait.
    pub(super) fn begin(&mut self, time: Duration, slot: usize, position: u64, now: Nanos) -> Limit {
        let look_at = after(now, time);
        self.look_at = if self.waiting.is_empty() { look_at } else { self.look_at.min(look_at) };
        self.waiting.insert((position, slot));
        *self.times.entry(time).or_default() += 1;
        Limit { time, item: None, running: None }
    }

    /// A job with that limit has begun, or ended.
    fn waits_no_more(&mut self, time: Duration, slot: usize, position: u64) {
        self.waiting.remove(&(position, slot));
        if let btree_map::Entry::Occupied(mut count) = self.times.entry(time) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }

    /// When to look at those who wait again.
    fn looked(&mut self, now: Nanos) {
        let shortest = self.times.first_key_value().map_or(LOOK_AGAIN, |(&time, _)| time.max(LOOK_AGAIN));
        self.look_at = after(now, shortest);
    }

    /// A job that waits has another position.
    pub(super) fn moved(&mut self, limit: Option<&Limit>, slot: usize, from: u64, to: u64) {
        if limit.is_some() && self.waiting.remove(&(from, slot)) {
            self.waiting.insert((to, slot));
        }
    }

    /// A job has ended.
    pub(super) fn end(&mut self, limit: &Limit, slot: usize, position: u64) {
        match limit.running {
            Some((_, due)) => drop(self.running.remove(&(due, slot))),
            None => self.waits_no_more(limit.time, slot, position),
        }
    }

    /// When a job has to be looked at next.
    #[inline]
    pub(super) fn next_look(&self) -> Option<Nanos> {
        let waiting = (!self.waiting.is_empty()).then_some(self.look_at);
        self.running.first().map(|&(due, _)| due).into_iter().chain(waiting).min()
    }
}

impl Book {
    /// When a limit has to be looked at next.
    pub(crate) fn next_deadline(&self) -> Option<Nanos> {
        self.limits.next_look()
    }

    /// Ends the jobs that have run for too long; those workers are to end too.
    pub(crate) fn overdue(
        &mut self,
        control: &Control<'_>,
        now: Nanos,
        ended: &mut Vec<Ended>,
        doomed: &mut Vec<WorkerId>,
    ) {
        if !self.limits.waiting.is_empty() && self.limits.look_at <= now {
            self.look_at_waiting(control, now);
            self.limits.looked(now);
        }
        while let Some(&(due, slot)) = self.limits.running.first()
            && due <= now
        {
            self.limits.running.pop_first();
            let Some(job) = &mut self.jobs[slot] else { continue };
            let ticket = Ticket { slot, job: job.id };
            let Some(Limit { time, item, running: Some((begun, due)) }) = job.limit.as_deref_mut() else { continue };
            let runs = if job.chunk.is_some() { control.item(slot, job.id) } else { None };
            // Looked at again for as long as it is there: its worker may have said when it was claimed, or that it is done.
            let earliest = claimed_at(control, slot, now);
            *begun = if runs == *item { earliest.min(*begun) } else { earliest };
            (*item, *due) = (runs, after(*begun, *time));
            let time = *time;
            if *due > now {
                self.limits.running.insert((*due, slot));
                continue;
            }
            if let Some(item) = runs {
                let is_over = self.end_item(control, ticket, (item, time), ended, doomed);
                if !is_over && let Some(Job { limit: Some(limit), .. }) = &mut self.jobs[slot] {
                    // The next has begun.
                    let again = after(now, LOOK_AGAIN);
                    limit.running = Some((now, again));
                    self.limits.running.insert((again, slot));
                }
                continue;
            }
            match self.stop(control, ticket, JobError::TimeLimitExceeded(time), true) {
                Stopped::Before(one) => ended.push(one),
                Stopped::During(one, worker) => {
                    ended.push(one);
                    doomed.push(worker);
                }
                Stopped::No => {} // it is done
            }
        }
    }

    /// Those in front may have begun.
    fn look_at_waiting(&mut self, control: &Control<'_>, now: Nanos) {
        while let Some(&(_, slot)) = self.limits.waiting.first() {
            let ticket = self.ticket(slot);
            if ticket.is_some() && control.word(slot).phase() == Some(Phase::Ready) {
                return;
            }
            self.limits.waiting.pop_first();
            if let Some(ticket) = ticket {
                self.note_begun(control, ticket, now);
            }
        }
    }

    /// A job does not wait any more: its time runs, if it has a limit.
    pub(super) fn note_begun(&mut self, control: &Control<'_>, ticket: Ticket, now: Nanos) {
        let Some(job) = &mut self.jobs[ticket.slot] else { return };
        let Some(limit) = job.limit.as_deref_mut() else { return };
        let due = match limit.running {
            // It may have said that it is done when its time was over.
            Some((_, due)) => due,
            None => {
                // First: whoever finds the item finds its moment, or a later one.
                limit.item = if job.chunk.is_some() { control.item(ticket.slot, ticket.job) } else { None };
                let begun = claimed_at(control, ticket.slot, now);
                let due = after(begun, limit.time);
                limit.running = Some((begun, due));
                self.limits.waits_no_more(limit.time, ticket.slot, job.position);
                due
            }
        };
        self.limits.running.insert((due, ticket.slot));
    }
}

/// When a job was claimed, as far as its worker has said: by now. What it says later counts only where that is earlier.
fn claimed_at(control: &Control<'_>, slot: usize, now: Nanos) -> Nanos {
    match control.slots[slot].accepted.load(Ordering::Relaxed) {
        0 => now, // it may be stopped before it has said so
        accepted => accepted.min(now),
    }
}
