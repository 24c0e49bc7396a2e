//! Chunks in the simulation: jobs of several items, each of which has one outcome, and the right one.

use billiard_context::task::ItemsTask;

use super::*;
use crate::{apart::Encoded, table::items};

/// The items of a job as its caller knows them.
#[derive(Debug)]
pub(super) struct Items {
    /// How long each value is.
    lengths: Vec<usize>,
    /// Who was at it when, at last.
    runs: Vec<Option<(WorkerId, Nanos)>>,
    /// Its worker has stepped behind it while the job was its own.
    finished: Vec<bool>,
    /// Its outcome went over the socket.
    mailed: Vec<bool>,
}

/// How far a worker is with a chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Progress {
    claim: Claim,
    at: At,
    item: usize,
    span: Option<Span>,
    used: usize,
    mailed: usize,
    /// When the item behind the one that runs began, as the worker has said.
    since: Nanos,
}

/// What comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
enum At {
    Open,
    Run,
    LayDown(Vec<u8>),
    Send,
    Record,
    Accept,
    Advance,
    Close,
}

/// The value of an item.
fn value(job: u64, item: usize, len: usize) -> Vec<u8> {
    [job as u8, item as u8].into_iter().cycle().take(len).collect()
}

impl Items {
    pub(super) fn some(random: &mut Random) -> Self {
        let count = 1 + random.below(6) as usize;
        let lengths = (0..count).map(|_| [3, 8, 100, 400][random.below(4) as usize]).collect();
        Self { lengths, runs: vec![None; count], finished: vec![false; count], mailed: vec![false; count] }
    }

    pub(super) fn call(&self) -> Call {
        Call::Items(ItemsTask::from_words([1, 2]), self.lengths.len())
    }

    /// Its worker has published: what is left is anybody's.
    pub(super) fn are_published(&mut self, running: Option<usize>) {
        if let Some(run) = running.and_then(|item| self.runs.get_mut(item)) {
            *run = None;
        }
    }

    /// Its worker is at that item from now on.
    fn begin(&mut self, item: usize, worker: WorkerId, now: Nanos) {
        if let Some(run) = self.runs.get_mut(item) {
            assert_eq!(run.replace((worker, now)), None, "item {item} is run once");
        }
    }
}

impl Known {
    /// A worker has claimed it; of a chunk what is left, from that item on.
    pub(super) fn is_claimed(&mut self, first: Option<usize>, worker: WorkerId, now: Nanos) {
        let before = self.claimed.replace((worker, now));
        match &mut self.items {
            Some(items) => items.begin(first.expect("it was offered"), worker, now),
            None => assert_eq!(before, None, "a job is run once"),
        }
        self.is_published = false;
    }
}

/// A worker begins with a chunk that it has claimed.
pub(super) fn begin(claim: Claim) -> Step {
    let (span, used, mailed) = (None, 0, 0);
    Step::Item(Progress { claim, at: At::Open, item: 0, span, used, mailed, since: 0 })
}

/// Whether an item of that job was doomed, and the rest waits for the end of its worker.
pub(super) fn is_halted(book: &Book, ticket: Ticket) -> bool {
    book.jobs[ticket.slot].as_ref().filter(|job| job.id == ticket.job).is_some_and(Job::is_halted)
}

impl World {
    /// A step of a worker with a chunk.
    pub(super) fn step_item(&mut self, id: WorkerId, mut its: Progress) -> Step {
        let (control, worker) = (self.words.control(), self.workers.get_mut(&id).unwrap());
        let (slot, number) = (its.claim.slot, its.claim.generation);
        let job = self.jobs.get_mut(&number).unwrap();
        let (items, has_limit) = (job.items.as_mut().unwrap(), job.limit.is_some());
        its.at = match its.at {
            At::Open => {
                let Some(item) = control.item(slot, number) else { return Step::Ended };
                let is_wanted = |slot, generation| control.is_done(Claim { slot, generation }, worker.seat);
                its.item = item;
                its.span = [600, 200].into_iter().find_map(|len| worker.shelf.take(len, (slot, number), is_wanted));
                let room = its.span.map_or(0, Span::len);
                assert!(worker.outputs.write_items(slot, number, its.span, room, 0));
                At::Run
            }
            At::Run if its.item == items.lengths.len() || its.mailed > 0 => At::Close,
            At::Run => {
                let mut laid = Vec::new();
                items::push(&mut laid, false, &value(number, its.item, items.lengths[its.item]));
                match its.span.is_some_and(|span| its.used + laid.len() <= span.len()) {
                    true => At::LayDown(laid),
                    false => At::Send,
                }
            }
            At::LayDown(laid) => {
                assert!(worker.outputs.append(its.span.unwrap(), its.used, &laid));
                its.used += laid.len();
                At::Accept
            }
            At::Send => {
                let bytes = value(number, its.item, items.lengths[its.item]);
                let ticket = Ticket { slot, job: number };
                worker.said.push_back(Said::Result(ticket.number(), Ok((bytes.into(), Received::default()))));
                At::Record
            }
            At::Record => {
                its.mailed = its.item + 1;
                items.mailed[its.item] = true;
                assert!(worker.outputs.write_items(slot, number, its.span, its.used, its.mailed));
                At::Accept
            }
            At::Accept => {
                its.since = self.now;
                if has_limit {
                    control.slots[slot].accepted.store(self.now, Ordering::Relaxed);
                }
                At::Advance
            }
            At::Advance => {
                if !control.advance(its.claim, its.item, has_limit) {
                    return Step::Ended;
                }
                if !job.has_ended {
                    items.finished[its.item] = true;
                    items.begin(its.item + 1, id, its.since);
                }
                its.item += 1;
                At::Run
            }
            At::Close => {
                if its.mailed == 0 {
                    assert!(worker.outputs.write_items(slot, number, its.span, its.used, 0));
                }
                return Step::Publish(its.claim);
            }
        };
        Step::Item(its)
    }

    /// Looks at the outcome of each item.
    pub(super) fn judge_items(&self, number: u64, outcome: RawOutcome) {
        let job = &self.jobs[&number];
        let items = job.items.as_ref().unwrap();
        let Ok((Encoded::Items(mut outcomes), _)) = outcome else { panic!("job {number}: {outcome:?}") };
        for (item, &len) in items.lengths.iter().enumerate() {
            let (run, is_finished) = (items.runs[item], items.finished[item]);
            match outcomes.next::<Vec<u8>>() {
                Ok(bytes) => {
                    assert!(is_finished, "item {item} of job {number} has a value that nobody gave it");
                    assert!(bytes == value(number, item, len), "another's value");
                    continue;
                }
                Err(JobError::WorkerLost(lost)) => {
                    let (worker, _) = run.expect("it had begun");
                    assert_eq!(lost.pid(), worker.0 as u32, "item {item} of job {number} is lost with another's death");
                }
                Err(JobError::TimeLimitExceeded(limit)) => {
                    let (_, since) = run.expect("it had begun");
                    assert!(job.limit == Some(limit) && after(since, limit) <= self.now, "item {item} was in time");
                }
                Err(JobError::Cancelled) => assert!(job.is_unwanted && run.is_none()),
                Err(JobError::Terminated) => assert!(job.is_unwanted || self.is_terminated),
                Err(JobError::PoolFailed(_)) => assert!(self.is_terminated),
                Err(other) => panic!("item {item} of job {number}: {other}"),
            }
            // Of a job that is ended by its caller, what is still on its way is not waited for.
            let is_left = self.is_terminated || job.is_unwanted && items.mailed[item];
            assert!(!is_finished || is_left, "item {item} of job {number} was finished");
        }
    }
}
