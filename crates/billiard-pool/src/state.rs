//! What the pool decides, and nothing else: no I/O, no clock, no threads.
//!
//! An [`Event`] and the time go in, [`Effects`] come out. A job is forgotten at the moment its [`Verdict`] is given,
//! so that none is given twice. `docs/design/strict-pool.md` has the table of states.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use serde::{Deserialize, Serialize};

#[cfg(test)]
mod simulation;

/// Time since the pool was built.
pub(crate) type Time = Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct JobId(pub(crate) u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct WorkerId(pub(crate) u64);

/// What has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A job was accepted, with its time limit.
    Submitted(JobId, Option<Duration>),
    /// A caller no longer wants a job that has not begun.
    Cancel(JobId),
    /// A caller wants a job ended, begun or not.
    TerminateJob(JobId),
    /// A worker's process could not be started.
    StartFailed(WorkerId),
    /// A worker is ready for its first job.
    Up(WorkerId),
    /// A worker's result has arrived whole.
    Finished(WorkerId, JobId),
    /// A worker has ended, and what it wrote has been read; with whether the job that it had may have begun, or where jobs are pulled whether it ever had one.
    Gone(WorkerId, Begun),
    /// A worker cannot be understood.
    Broken(WorkerId),
    /// A deadline may have passed.
    Tick,
    /// No more jobs will come.
    Close,
    /// A job was taken from that worker, in the table: it is to end.
    Doomed(WorkerId),
    /// Everything is to end now.
    Terminate,
}

impl Event {
    /// The job that a caller wants ended.
    pub(crate) fn unwanted_job(self) -> Option<JobId> {
        match self {
            Self::Cancel(job) | Self::TerminateJob(job) => Some(job),
            _ => None,
        }
    }
}

/// What is known of a dead worker's job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Begun {
    /// It may have begun.
    Perhaps,
    /// It has not: the worker had not received it whole. It can be given to another.
    No,
}

/// How a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// With the result that has just arrived.
    Done,
    /// Its worker died.
    Lost,
    /// It ran longer than this.
    TimeLimit(Duration),
    /// Before it began, since its caller wanted so.
    Cancelled,
    /// Since its caller, or the pool's owner, wanted so.
    Terminated,
    /// The pool cannot start workers.
    PoolFailed,
}

/// What is to be done about workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Start a process.
    Start(WorkerId),
    /// Send it this job.
    Send(WorkerId, JobId),
    /// Close its socket, so that it ends when it has nothing to do.
    Leave(WorkerId),
    /// Send it TERM.
    Terminate(WorkerId),
    /// Send it KILL.
    Kill(WorkerId),
}

/// What follows from an event.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Effects {
    pub(crate) verdicts: Vec<(JobId, Verdict)>,
    pub(crate) actions: Vec<Action>,
    /// How every job in the table ends.
    pub(crate) everything: Option<Verdict>,
}

/// What the pool was built with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Config {
    /// How many workers there shall be.
    pub(crate) workers: usize,
    /// How long a worker has between TERM and KILL.
    pub(crate) grace: Duration,
    /// Jobs are in a table, out of which workers take them: which worker has which is not known here.
    pub(crate) pulled: bool,
    /// After how many jobs a worker leaves; where jobs are pulled it does so by itself.
    pub(crate) max_tasks: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    /// Jobs still run, none is accepted.
    Closing,
    /// Nothing runs any more.
    Ending,
    /// No worker can be started.
    Failed,
}

#[derive(Clone, Copy, Debug)]
struct Job {
    limit: Option<Duration>,
    /// The worker that has it; none while it is queued.
    worker: Option<WorkerId>,
    /// How often a worker died before it had received it.
    returns: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Starting,
    Idle,
    Busy {
        job: JobId,
        deadline: Option<Time>,
    },
    /// It is to end; and whether it has had TERM, which it gets once: the second would end a job at once that heeds the first.
    Leaving {
        told: bool,
    },
}

impl Stage {
    /// It gets no more jobs.
    const LEAVING: Self = Self::Leaving { told: false };
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Limit(WorkerId),
    Grace(WorkerId),
    Restart,
}

#[derive(Debug)]
pub(crate) struct State {
    config: Config,
    phase: Phase,
    jobs: HashMap<JobId, Job>,
    queue: BTreeSet<JobId>,
    /// Jobs in the table.
    pulled: usize,
    /// Jobs that a worker has done, where that is counted.
    tasks: HashMap<WorkerId, u64>,
    workers: BTreeMap<WorkerId, Stage>,
    /// Since when those are up that have not had a job yet, as far as is known.
    unproven: BTreeMap<WorkerId, Time>,
    /// The worker that was busy last comes first: its caches are warm.
    idle: Vec<WorkerId>,
    timers: BTreeSet<(Time, Timer)>,
    next_worker: u64,
    /// Starts that failed since a worker has proven that it works, and when the first of them did.
    failures: u32,
    failing_since: Time,
    /// No worker is started before.
    restart_at: Time,
}

impl State {
    /// The first delay after a failed start; it doubles up to a second.
    const BACK_OFF: Duration = Duration::from_millis(10);
    /// How often a job is given to another worker after one died before it had received it: receiving it may be
    /// what they die of.
    const RETURNS: u32 = 3;
    /// How long starts have to fail, with no worker up, until the pool gives up.
    const PATIENCE: Duration = Duration::from_secs(3);
    /// How long a worker has to be up until nobody says that its start has failed, if it ends without ever having had a job.
    const PROVEN: Duration = Duration::from_secs(1);
    /// How long a worker with nothing to do may take to leave a pool that is closed.
    const LEAVE: Duration = Duration::from_secs(5);

    pub(crate) fn new(config: Config) -> Self {
        Self {
            config,
            phase: Phase::Running,
            jobs: HashMap::new(),
            queue: BTreeSet::new(),
            pulled: 0,
            tasks: HashMap::new(),
            workers: BTreeMap::new(),
            unproven: BTreeMap::new(),
            idle: Vec::new(),
            timers: BTreeSet::new(),
            next_worker: 0,
            failures: 0,
            failing_since: Time::ZERO,
            restart_at: Time::ZERO,
        }
    }

    /// Jobs that were not sent to a worker yet.
    pub(crate) fn queued(&self) -> usize {
        self.queue.len()
    }

    /// So many jobs are in the table.
    pub(crate) fn set_pulled(&mut self, jobs: usize) {
        self.pulled = jobs;
    }

    /// Whether jobs are accepted.
    pub(crate) fn is_running(&self) -> bool {
        self.phase == Phase::Running
    }

    /// Whether it gave up to start workers.
    pub(crate) fn has_failed(&self) -> bool {
        self.phase == Phase::Failed
    }

    /// Whether a job has begun: it is with a worker.
    pub(crate) fn has_begun(&self, job: JobId) -> bool {
        self.jobs.get(&job).is_some_and(|job| job.worker.is_some())
    }

    /// Workers that have a job or could take one now.
    pub(crate) fn ready_workers(&self) -> usize {
        self.workers.values().filter(|stage| matches!(stage, Stage::Idle | Stage::Busy { .. })).count()
    }

    /// Whether all is over: no job, no worker, and none will come.
    pub(crate) fn is_over(&self) -> bool {
        self.phase != Phase::Running && self.jobs.is_empty() && self.pulled == 0 && self.workers.is_empty()
    }

    /// When a [`Tick`](Event::Tick) is due.
    pub(crate) fn next_deadline(&self) -> Option<Time> {
        self.timers.first().map(|&(time, _)| time)
    }

    /// How many starts in a row may fail.
    fn patience(&self) -> u32 {
        8 + 2 * u32::try_from(self.config.workers).unwrap_or(u32::MAX / 4)
    }

    /// Decides what follows.
    pub(crate) fn handle(&mut self, event: Event, now: Time) -> Effects {
        let mut effects = Effects::default();
        match event {
            Event::Submitted(job, limit) => self.submitted(job, limit, &mut effects),
            Event::Cancel(job) if self.has_begun(job) => {}
            Event::Cancel(job) => self.resolve(job, Verdict::Cancelled, &mut effects),
            Event::TerminateJob(job) => match self.jobs.get(&job).copied() {
                Some(Job { worker: Some(worker), .. }) => self.doom(worker, Verdict::Terminated, now, &mut effects),
                _ => self.resolve(job, Verdict::Terminated, &mut effects),
            },
            Event::StartFailed(worker) => self.gone(worker, Begun::No, now, &mut effects),
            Event::Up(worker) => self.up(worker, now),
            Event::Finished(worker, job) => self.finished(worker, job, now, &mut effects),
            Event::Gone(worker, begun) => self.gone(worker, begun, now, &mut effects),
            Event::Broken(worker) => self.broken(worker, &mut effects),
            // Only here: what has come by then is told before, so that a result that is there beats a limit.
            Event::Tick => self.run_timers(now, &mut effects),
            Event::Close => {
                if self.phase == Phase::Running {
                    self.phase = Phase::Closing;
                }
            }
            Event::Doomed(worker) => {
                // One that has a job is up, whether or not its word for that was read by now; and it may have been
                // asked to leave when its job was the last, which it does not hear while it is in it.
                self.end_worker(worker, now, &mut effects);
            }
            Event::Terminate => self.end(Phase::Ending, Verdict::Terminated, now, &mut effects),
        }
        self.dispatch(now, &mut effects);
        self.let_go(now, &mut effects);
        self.refill(now, &mut effects);
        effects
    }

    fn submitted(&mut self, job: JobId, limit: Option<Duration>, effects: &mut Effects) {
        match self.phase {
            Phase::Running => {
                self.jobs.insert(job, Job { limit, worker: None, returns: 0 });
                self.queue.insert(job);
            }
            Phase::Failed => effects.verdicts.push((job, Verdict::PoolFailed)),
            Phase::Closing | Phase::Ending => effects.verdicts.push((job, Verdict::Terminated)),
        }
    }

    /// The one place where a job ends.
    fn resolve(&mut self, job: JobId, verdict: Verdict, effects: &mut Effects) {
        if self.jobs.remove(&job).is_some() {
            self.queue.remove(&job);
            effects.verdicts.push((job, verdict));
        }
    }

    fn up(&mut self, worker: WorkerId, now: Time) {
        if let Some(stage @ Stage::Starting) = self.workers.get_mut(&worker) {
            *stage = Stage::Idle;
            self.idle.push(worker);
            self.unproven.insert(worker, now);
        }
    }

    /// A worker does what workers are for.
    fn prove(&mut self, worker: WorkerId) {
        self.unproven.remove(&worker);
        self.failures = 0;
    }

    /// Takes the job off a busy worker, whose next stage is given.
    fn take_job(&mut self, worker: WorkerId, next: Stage) -> Option<JobId> {
        match self.workers.get_mut(&worker) {
            Some(stage @ &mut Stage::Busy { job, deadline }) => {
                *stage = next;
                if let Some(deadline) = deadline {
                    self.timers.remove(&(deadline, Timer::Limit(worker)));
                }
                Some(job)
            }
            _ => None,
        }
    }

    fn finished(&mut self, worker: WorkerId, job: JobId, now: Time, effects: &mut Effects) {
        match self.workers.get(&worker) {
            Some(Stage::Busy { job: its, .. }) if *its == job => {
                self.prove(worker);
                self.resolve(job, Verdict::Done, effects);
                if self.has_done_enough(worker) {
                    self.take_job(worker, Stage::LEAVING);
                    effects.actions.push(Action::Leave(worker));
                    self.timers.insert((now.saturating_add(Self::LEAVE), Timer::Grace(worker)));
                } else {
                    self.take_job(worker, Stage::Idle);
                    self.idle.push(worker);
                }
            }
            Some(Stage::Leaving { .. }) | None => {} // decided before
            Some(_) => self.broken(worker, effects),
        }
    }

    /// Counts a job that a worker has done; whether that was its last.
    fn has_done_enough(&mut self, worker: WorkerId) -> bool {
        let Some(most) = self.config.max_tasks else { return false };
        let done = self.tasks.entry(worker).or_default();
        *done += 1;
        *done >= most
    }

    /// Ends a worker.
    fn end_worker(&mut self, worker: WorkerId, now: Time, effects: &mut Effects) {
        if let Some(stage) = self.workers.get_mut(&worker)
            && *stage != (Stage::Leaving { told: true })
        {
            *stage = Stage::Leaving { told: true };
            self.idle.retain(|&idle| idle != worker);
            effects.actions.push(Action::Terminate(worker));
            self.timers.insert((now.saturating_add(self.config.grace), Timer::Grace(worker)));
        }
    }

    /// Ends a busy worker together with its job.
    fn doom(&mut self, worker: WorkerId, verdict: Verdict, now: Time, effects: &mut Effects) {
        if let Some(job) = self.take_job(worker, Stage::LEAVING) {
            self.resolve(job, verdict, effects);
            self.end_worker(worker, now, effects);
        }
    }

    /// A worker that cannot be understood has no use; its job is judged when it is gone.
    fn broken(&mut self, worker: WorkerId, effects: &mut Effects) {
        match self.workers.get_mut(&worker) {
            // One that is not up yet counts as a failed start when it is gone.
            Some(Stage::Busy { .. } | Stage::Starting | Stage::Leaving { .. }) => {}
            Some(stage @ Stage::Idle) => {
                *stage = Stage::LEAVING;
                self.idle.retain(|&idle| idle != worker);
            }
            None => return,
        }
        effects.actions.push(Action::Kill(worker));
    }

    fn gone(&mut self, worker: WorkerId, begun: Begun, now: Time, effects: &mut Effects) {
        let job = self.take_job(worker, Stage::LEAVING);
        let had_job = job.is_some();
        if let Some(job) = job {
            match self.jobs.get_mut(&job) {
                Some(waiting) if begun == Begun::No && waiting.returns < Self::RETURNS => {
                    waiting.worker = None;
                    waiting.returns += 1;
                    self.queue.insert(job);
                }
                _ => self.resolve(job, Verdict::Lost, effects),
            }
        }
        self.idle.retain(|&idle| idle != worker);
        self.tasks.remove(&worker);
        self.timers.retain(|&(_, timer)| timer != Timer::Grace(worker));
        let stage = self.workers.remove(&worker);
        if had_job || begun == Begun::Perhaps {
            self.prove(worker);
        }
        // Looked at here alone: nothing wakes a pool at rest for it.
        while let Some((&proven, _)) = self.unproven.iter().find(|&(_, &up)| now.saturating_sub(up) >= Self::PROVEN) {
            self.prove(proven);
        }
        let is_unproven = self.unproven.remove(&worker).is_some();
        if stage == Some(Stage::Starting) || is_unproven {
            self.start_failed(now, effects);
        }
    }

    /// A worker has ended without having been of use.
    fn start_failed(&mut self, now: Time, effects: &mut Effects) {
        if self.failures == 0 {
            self.failing_since = now;
        }
        self.failures += 1;
        let doublings = (self.failures / (1 + self.config.workers as u32)).min(16);
        let delay = (Self::BACK_OFF * (1 << doublings)).min(Duration::from_secs(1));
        self.restart_at = now + delay;
        let hopeless = self.failures > self.patience() && now - self.failing_since >= Self::PATIENCE;
        // Those that are up go on, whatever keeps others from joining them; and one that was, and is to end, makes room for its successor.
        let are_all_starting = self.workers.values().all(|&stage| stage == Stage::Starting);
        if hopeless && are_all_starting && self.phase != Phase::Ending {
            self.end(Phase::Failed, Verdict::PoolFailed, now, effects);
        }
    }

    fn end(&mut self, phase: Phase, verdict: Verdict, now: Time, effects: &mut Effects) {
        if matches!(self.phase, Phase::Ending | Phase::Failed) {
            return;
        }
        self.phase = phase;
        for (worker, stage) in self.workers.clone() {
            if matches!(stage, Stage::Leaving { .. }) {
                // It was told so by a pool that had time.
                self.timers.insert((now.saturating_add(self.config.grace), Timer::Grace(worker)));
            }
            self.doom(worker, verdict, now, effects);
            // It may have a job out of the table.
            if stage == Stage::Idle && self.config.pulled {
                self.end_worker(worker, now, effects);
            }
        }
        self.pulled = 0;
        effects.everything = self.config.pulled.then_some(verdict);
        let mut queued: Vec<_> = self.queue.iter().copied().collect();
        queued.drain(..).for_each(|job| self.resolve(job, verdict, effects));
    }

    fn run_timers(&mut self, now: Time, effects: &mut Effects) {
        while let Some(&(due, timer)) = self.timers.first() {
            if due > now {
                return;
            }
            self.timers.pop_first();
            match timer {
                Timer::Limit(worker) => {
                    let limit = match self.workers.get(&worker) {
                        Some(Stage::Busy { job, .. }) => self.jobs.get(job).and_then(|job| job.limit),
                        _ => None,
                    };
                    if let Some(limit) = limit {
                        self.doom(worker, Verdict::TimeLimit(limit), now, effects);
                    }
                }
                Timer::Grace(worker) => {
                    if self.workers.contains_key(&worker) {
                        effects.actions.push(Action::Kill(worker));
                    }
                }
                Timer::Restart => {}
            }
        }
    }

    /// Gives queued jobs to idle workers. From here on a job's time counts: a worker that is stopped before it has
    /// received all of it has no more than that either.
    fn dispatch(&mut self, now: Time, effects: &mut Effects) {
        while !self.queue.is_empty() {
            let Some(worker) = self.idle.pop() else { return };
            let Some(id) = self.queue.pop_first() else { return };
            if let (Some(stage), Some(job)) = (self.workers.get_mut(&worker), self.jobs.get_mut(&id)) {
                let deadline = job.limit.map(|limit| now.saturating_add(limit));
                self.timers.extend(deadline.map(|due| (due, Timer::Limit(worker))));
                *stage = Stage::Busy { job: id, deadline };
                self.unproven.remove(&worker);
                job.worker = Some(worker);
                effects.actions.push(Action::Send(worker, id));
            }
        }
    }

    /// Lets workers leave that will get no job any more.
    fn let_go(&mut self, now: Time, effects: &mut Effects) {
        if self.phase == Phase::Running || !self.queue.is_empty() || self.pulled > 0 {
            return;
        }
        let grace = if self.phase == Phase::Closing { Self::LEAVE } else { self.config.grace };
        for (&worker, stage) in &mut self.workers {
            if matches!(stage, Stage::Starting | Stage::Idle) {
                *stage = Stage::LEAVING;
                effects.actions.push(Action::Leave(worker));
                self.timers.insert((now.saturating_add(grace), Timer::Grace(worker)));
            }
        }
        self.idle.clear();
        self.unproven.clear(); // whoever ends now was asked to
    }

    /// Starts workers up to the number there shall be.
    fn refill(&mut self, now: Time, effects: &mut Effects) {
        let wanted = match self.phase {
            Phase::Running => self.config.workers,
            Phase::Closing => self.config.workers.min(self.jobs.len() + self.pulled),
            Phase::Ending | Phase::Failed => 0,
        };
        if self.workers.len() >= wanted {
            return;
        }
        if now < self.restart_at {
            self.timers.insert((self.restart_at, Timer::Restart));
            return;
        }
        while self.workers.len() < wanted {
            let worker = WorkerId(self.next_worker);
            self.next_worker += 1;
            self.workers.insert(worker, Stage::Starting);
            effects.actions.push(Action::Start(worker));
        }
    }
}
