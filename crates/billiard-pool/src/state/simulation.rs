//! Random histories against a small world of workers: every job has exactly one outcome, whatever happens when.

use std::collections::BTreeMap;

use billiard_test_support::Random;

use super::*;

const MS: Duration = Duration::from_millis(1);

/// What a worker's process does in the simulated world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Starting,
    Waiting,
    Running(JobId),
    /// It was told to go, by a signal or a closed socket, and takes its time.
    Going,
}

#[derive(Debug)]
struct World {
    state: State,
    now: Time,
    random: Random,
    lives: BTreeMap<WorkerId, Life>,
    /// Every job that was accepted, and what was said of it.
    jobs: BTreeMap<JobId, Option<Verdict>>,
    next_job: u64,
    /// Jobs that have begun.
    begun: BTreeSet<JobId>,
    /// Workers that were sent TERM.
    told: BTreeSet<WorkerId>,
    starts: u64,
    starts_fail: Option<Failure>,
}

/// How starts fail when none succeeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure {
    /// There is no process.
    AtOnce,
    /// The process ends before it is up.
    Gone,
    /// Its socket closes, and then it ends.
    Broken,
}

impl World {
    fn new(random: Random, workers: usize) -> Self {
        let state = State::new(Config { workers, grace: 5 * MS, pulled: false, max_tasks: None });
        let mut world = Self {
            state,
            now: Time::ZERO,
            random,
            lives: BTreeMap::new(),
            jobs: BTreeMap::new(),
            next_job: 0,
            begun: BTreeSet::new(),
            told: BTreeSet::new(),
            starts: 0,
            starts_fail: None,
        };
        world.tell(Event::Tick);
        world
    }

    fn tell(&mut self, event: Event) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            let Effects { verdicts, actions, everything: _ } = self.state.handle(event, self.now);
            for (job, verdict) in verdicts {
                let known = self.jobs.get_mut(&job).expect("a verdict is about a job that was accepted");
                assert_eq!(known.replace(verdict), None, "{job:?} has a second outcome");
                match verdict {
                    Verdict::Cancelled => {
                        let held = self.lives.values().any(|life| *life == Life::Running(job));
                        assert!(!held && !self.begun.contains(&job), "{job:?} had begun");
                    }
                    Verdict::Done => assert!(self.begun.contains(&job)),
                    Verdict::Lost | Verdict::TimeLimit(_) | Verdict::Terminated | Verdict::PoolFailed => {}
                }
            }
            for action in actions {
                events.extend(self.act(action));
            }
        }
        let alive = self.lives.len();
        assert!(alive <= self.state.config.workers, "{alive} processes");
    }

    fn act(&mut self, action: Action) -> Option<Event> {
        match action {
            Action::Start(worker) => {
                self.starts += 1;
                if self.starts_fail == Some(Failure::AtOnce) || self.random.below(20) == 0 {
                    return Some(Event::StartFailed(worker));
                }
                assert_eq!(self.lives.insert(worker, Life::Starting), None);
            }
            Action::Send(worker, job) => {
                assert!(!self.begun.contains(&job), "{job:?} is sent again although it may have begun");
                assert_eq!(self.lives.insert(worker, Life::Running(job)), Some(Life::Waiting), "only to the idle");
            }
            // Signals may come after the process has ended.
            Action::Leave(worker) | Action::Terminate(worker) => {
                let is_first = action == Action::Leave(worker) || self.told.insert(worker);
                assert!(is_first, "{worker:?} gets TERM twice");
                if let Some(life) = self.lives.get_mut(&worker) {
                    *life = Life::Going;
                }
            }
            Action::Kill(worker) => {
                if self.lives.contains_key(&worker) {
                    return Some(self.die(worker));
                }
            }
        }
        None
    }

    /// A process ends, whatever it was doing.
    fn die(&mut self, worker: WorkerId) -> Event {
        let begun = match self.lives.remove(&worker) {
            Some(Life::Running(job)) if self.random.below(2) == 0 => {
                self.begun.insert(job);
                Begun::Perhaps
            }
            _ => Begun::No,
        };
        Event::Gone(worker, begun)
    }

    /// A job runs to its end.
    fn run(&mut self, worker: WorkerId, job: JobId) {
        self.lives.insert(worker, Life::Waiting);
        self.begun.insert(job);
        self.tell(Event::Finished(worker, job));
    }

    fn submit(&mut self) {
        let limit = (self.random.below(3) == 0).then(|| (1 + self.random.below(8)) as u32 * MS);
        self.submit_with(limit);
    }

    fn submit_with(&mut self, limit: Option<Duration>) {
        let job = JobId(self.next_job);
        self.next_job += 1;
        self.jobs.insert(job, None);
        self.tell(Event::Submitted(job, limit));
    }

    fn some_worker(&mut self) -> Option<(WorkerId, Life)> {
        let at = self.random.below(self.lives.len().max(1) as u64) as usize;
        self.lives.iter().nth(at).map(|(&worker, &life)| (worker, life))
    }

    /// Something happens.
    fn step(&mut self) {
        match self.random.below(16) {
            0..5 => self.submit(),
            5..10 => match self.some_worker() {
                Some((worker, Life::Starting)) => {
                    self.lives.insert(worker, Life::Waiting);
                    self.tell(Event::Up(worker));
                }
                Some((worker, Life::Running(job))) => self.run(worker, job),
                Some((worker, Life::Going)) => {
                    let gone = self.die(worker);
                    self.tell(gone);
                }
                Some((_, Life::Waiting)) | None => {}
            },
            10 => {
                if let Some((worker, _)) = self.some_worker() {
                    let gone = self.die(worker);
                    self.tell(gone);
                }
            }
            11 => {
                if let Some((worker, _)) = self.some_worker() {
                    let nonsense = if self.random.below(2) == 0 {
                        Event::Broken(worker)
                    } else {
                        Event::Finished(worker, JobId(self.random.below(self.next_job + 1)))
                    };
                    self.hostile(worker, nonsense);
                }
            }
            12 if self.next_job > 0 => {
                let job = JobId(self.random.below(self.next_job));
                let gently = self.random.below(2) == 0;
                self.tell(if gently { Event::Cancel(job) } else { Event::TerminateJob(job) });
            }
            _ => {
                self.now += self.random.below(4) as u32 * MS;
                self.tell(Event::Tick);
            }
        }
    }

    /// A worker says what it should not: its own job alone may suffer.
    fn hostile(&mut self, worker: WorkerId, event: Event) {
        let own = match self.lives[&worker] {
            Life::Running(job) => Some(job),
            _ => None,
        };
        if let (Event::Finished(_, job), Some(own)) = (event, own)
            && job == own
        {
            self.lives.insert(worker, Life::Waiting); // it told the truth
            self.begun.insert(own);
        }
        let open_before: Vec<_> = self.open().collect();
        let due = self.state.next_deadline().is_some_and(|due| due <= self.now);
        self.tell(event);
        let open_after: Vec<_> = self.open().collect();
        if !due {
            assert!(open_before.into_iter().all(|job| open_after.contains(&job) || Some(job) == own));
        }
    }

    fn open(&self) -> impl Iterator<Item = JobId> {
        self.jobs.iter().filter(|(_, verdict)| verdict.is_none()).map(|(&job, _)| job)
    }

    /// Lets the world run out: every process goes on, and time passes, until nothing is left to happen.
    fn finish(&mut self) {
        for _ in 0..100_000 {
            if self.state.is_over() {
                return;
            }
            for worker in self.lives.keys().copied().collect::<Vec<_>>() {
                // As it is now: what happened to the others may have changed it.
                let Some(&life) = self.lives.get(&worker) else { continue };
                match life {
                    Life::Starting => {
                        self.lives.insert(worker, Life::Waiting);
                        self.tell(Event::Up(worker));
                    }
                    Life::Running(job) => self.run(worker, job),
                    Life::Going => {
                        let gone = self.die(worker);
                        self.tell(gone);
                    }
                    Life::Waiting => {}
                }
            }
            self.now += MS;
            self.tell(Event::Tick);
        }
        panic!("it does not come to an end: {self:?}");
    }
}

#[test]
fn every_job_has_exactly_one_outcome() {
    let mut random = Random::from_env("state::simulation");
    for history in 0..20_000 {
        let workers = 1 + random.below(4) as usize;
        let mut world = World::new(random.fork(), workers);
        for _ in 0..random.below(120) {
            world.step();
        }
        if random.below(4) == 0 {
            world.tell(Event::Close);
            (0..random.below(20)).for_each(|_| world.step());
        }
        world.tell(if random.below(2) == 0 { Event::Close } else { Event::Terminate });
        world.finish();
        assert_eq!(world.open().next(), None, "history {history}: a job without an outcome");
        assert!(world.lives.is_empty(), "history {history}: {:?}", world.lives);
        assert!(world.state.queue.is_empty() && world.state.jobs.is_empty());
    }
}

#[test]
fn without_faults_every_job_is_done() {
    let mut world = World::new(Random::from_env("state::simulation"), 3);
    (0..50).for_each(|_| world.submit_with(None));
    world.tell(Event::Close);
    world.finish();
    assert!(world.jobs.values().all(|verdict| *verdict == Some(Verdict::Done)), "{:?}", world.jobs);
}

#[test]
fn a_pool_that_can_start_nobody_fails_and_resolves_its_jobs() {
    for failure in [Failure::AtOnce, Failure::Gone, Failure::Broken] {
        starts_fail(failure);
    }
}

fn starts_fail(failure: Failure) {
    let mut world = World::new(Random::from_env("state::simulation"), 2);
    world.starts_fail = Some(failure);
    world.submit();
    let begin = world.now;
    while !world.state.has_failed() {
        assert!(world.now < begin + Duration::from_secs(60));
        for worker in world.lives.keys().copied().collect::<Vec<_>>() {
            if failure == Failure::Broken {
                world.tell(Event::Broken(worker));
            }
            if world.lives.remove(&worker).is_some() {
                world.tell(Event::Gone(worker, Begun::No));
            }
        }
        world.now += MS;
        world.tell(Event::Tick);
    }
    assert_eq!(world.jobs[&JobId(0)], Some(Verdict::PoolFailed));
    let seconds = (world.now - begin).as_secs_f64();
    assert!(seconds >= 3.0, "it gives up after {seconds} s");
    assert!(world.starts < 30, "{} starts in {seconds} s", world.starts);
    world.submit();
    assert_eq!(world.jobs[&JobId(1)], Some(Verdict::PoolFailed));
    world.finish();
}

/// For a minute, workers come up that each live for so long, and then tell of these events. How many were started, and when the pool failed.
fn workers_live(pulled: bool, life: Duration, ends: impl Fn(WorkerId) -> Vec<Event>) -> (u64, Option<Time>) {
    // One where jobs are given out, so that it gets those that are handed in at its end.
    let workers = if pulled { 2 } else { 1 };
    let mut state = State::new(Config { workers, grace: 5 * MS, pulled, max_tasks: None });
    let (mut now, mut starts, mut living) = (Time::ZERO, 0, Vec::new());
    while now < Duration::from_secs(60) {
        let mut events = vec![Event::Tick];
        let is_over = |&mut (_, until): &mut (WorkerId, Time)| until <= now;
        living.extract_if(.., is_over).for_each(|(worker, _)| events.extend(ends(worker)));
        for event in events {
            for action in state.handle(event, now).actions {
                if let Action::Start(worker) = action {
                    starts += 1;
                    living.push((worker, now + life));
                    state.handle(Event::Up(worker), now);
                }
            }
        }
        if state.has_failed() {
            return (starts, Some(now));
        }
        now += MS;
    }
    (starts, None)
}

#[test]
fn workers_that_come_up_and_end_without_a_job_are_failed_starts() {
    for pulled in [true, false] {
        let (starts, failed) = workers_live(pulled, MS, |worker| vec![Event::Gone(worker, Begun::No)]);
        let seconds = failed.expect("nobody would ever do a job").as_secs_f64();
        assert!(seconds >= 3.0 && starts < 30, "{starts} starts in {seconds} s");
    }
}

#[test]
fn workers_that_end_after_a_job_or_a_while_are_replaced_for_ever_and_at_once() {
    let ends = |worker| vec![Event::Gone(worker, Begun::Perhaps)];
    assert_eq!(workers_live(true, MS, ends), (120_000, None));
    let ends = |worker: WorkerId| {
        let job = JobId(worker.0);
        vec![Event::Submitted(job, None), Event::Finished(worker, job), Event::Gone(worker, Begun::No)]
    };
    assert_eq!(workers_live(false, MS, ends), (60_000, None));
    // Its job is taken from it before it has received it.
    let ends = |worker: WorkerId| {
        let job = JobId(worker.0);
        vec![Event::Submitted(job, None), Event::TerminateJob(job), Event::Gone(worker, Begun::No)]
    };
    assert_eq!(workers_live(false, MS, ends), (60_000, None));
    let ends = |worker| vec![Event::Gone(worker, Begun::No)];
    assert_eq!(workers_live(true, State::PROVEN, ends), (120, None), "at rest, and killed now and then");
}

/// A state whose one worker was started, and that worker.
fn with_one_worker() -> (State, WorkerId) {
    let mut state = State::new(Config { workers: 1, grace: 5 * MS, pulled: false, max_tasks: None });
    let worker = started(&state.handle(Event::Tick, Time::ZERO));
    (state, worker)
}

/// The worker that is to be started last.
fn started(effects: &Effects) -> WorkerId {
    match effects.actions[..] {
        [.., Action::Start(worker)] => worker,
        _ => panic!("{effects:?}"),
    }
}

#[test]
fn a_job_that_a_dead_worker_had_not_received_goes_to_another_a_few_times() {
    let (mut state, mut worker) = with_one_worker();
    state.handle(Event::Submitted(JobId(0), None), Time::ZERO);
    for _ in 0..State::RETURNS {
        assert_eq!(state.handle(Event::Up(worker), Time::ZERO).actions, [Action::Send(worker, JobId(0))]);
        let effects = state.handle(Event::Gone(worker, Begun::No), Time::ZERO);
        assert_eq!(effects.verdicts, []);
        worker = started(&effects);
    }
    state.handle(Event::Up(worker), Time::ZERO);
    let effects = state.handle(Event::Gone(worker, Begun::No), Time::ZERO);
    assert_eq!(effects.verdicts, [(JobId(0), Verdict::Lost)], "receiving it seems to be what they die of");
}

#[test]
fn workers_that_are_up_go_on_while_no_other_can_be_started() {
    let mut state = State::new(Config { workers: 2, grace: 5 * MS, pulled: false, max_tasks: None });
    let effects = state.handle(Event::Tick, Time::ZERO);
    let [Action::Start(first), Action::Start(mut other)] = effects.actions[..] else { panic!("{effects:?}") };
    state.handle(Event::Up(first), Time::ZERO);
    state.handle(Event::Submitted(JobId(0), None), Time::ZERO);
    for second in 1..100 {
        let now = Duration::from_secs(second);
        assert_eq!(state.handle(Event::StartFailed(other), now).verdicts, []);
        other = started(&state.handle(Event::Tick, now + Duration::from_secs(1)));
    }
    assert!(!state.has_failed());
    let done = state.handle(Event::Finished(first, JobId(0)), Duration::from_secs(200));
    assert_eq!(done.verdicts, [(JobId(0), Verdict::Done)]);
}

#[test]
fn a_caller_ends_what_it_says_and_a_result_beats_a_limit() {
    let (mut state, worker) = with_one_worker();
    state.handle(Event::Submitted(JobId(0), Some(10 * MS)), Time::ZERO);
    state.handle(Event::Up(worker), Time::ZERO);
    // The limit has passed and nobody has looked: the job has begun, so that cancelling does nothing.
    assert_eq!(state.handle(Event::Cancel(JobId(0)), 20 * MS).verdicts, []);
    let done = state.handle(Event::Finished(worker, JobId(0)), 20 * MS);
    assert_eq!(done.verdicts, [(JobId(0), Verdict::Done)]);
}

#[test]
fn a_worker_that_does_not_leave_is_ended() {
    for (event, grace) in [(Event::Close, State::LEAVE), (Event::Terminate, 5 * MS)] {
        let (mut state, worker) = with_one_worker();
        state.handle(Event::Up(worker), Time::ZERO);
        assert_eq!(state.handle(event, Time::ZERO).actions, [Action::Leave(worker)]);
        assert_eq!(state.handle(Event::Tick, grace).actions, [Action::Kill(worker)]);
    }
    // One that was told by a pool that had time, which is then terminated.
    let (mut state, worker) = with_one_worker();
    state.handle(Event::Up(worker), Time::ZERO);
    state.handle(Event::Close, Time::ZERO);
    state.handle(Event::Terminate, Time::ZERO);
    assert_eq!(state.handle(Event::Tick, 5 * MS).actions, [Action::Kill(worker)]);
}

#[test]
fn a_grace_beyond_all_time_is_for_ever() {
    let mut state = State::new(Config { workers: 1, grace: Duration::MAX, pulled: false, max_tasks: None });
    let worker = started(&state.handle(Event::Tick, MS));
    state.handle(Event::Up(worker), MS);
    state.handle(Event::Submitted(JobId(0), None), MS);
    assert_eq!(state.handle(Event::Terminate, MS).verdicts, [(JobId(0), Verdict::Terminated)]);
}

#[test]
fn a_limit_counts_from_when_a_worker_has_the_job_and_dooms_no_other() {
    let (mut state, worker) = with_one_worker();
    for job in 0..2 {
        assert_eq!(state.handle(Event::Submitted(JobId(job), Some(10 * MS)), Time::ZERO).verdicts, []);
    }
    state.handle(Event::Up(worker), 5 * MS);
    assert_eq!(state.handle(Event::Tick, 14 * MS), Effects::default());
    let effects = state.handle(Event::Tick, 15 * MS);
    assert_eq!(effects.verdicts, [(JobId(0), Verdict::TimeLimit(10 * MS))]);
    assert_eq!(effects.actions, [Action::Terminate(worker)], "the second job goes to another worker");
    assert_eq!(state.handle(Event::Finished(worker, JobId(0)), 16 * MS), Effects::default(), "it was decided");
    assert_eq!(state.handle(Event::Tick, 20 * MS).actions, [Action::Kill(worker)]);
    started(&state.handle(Event::Gone(worker, Begun::Perhaps), 21 * MS));
}

#[test]
fn the_last_jobs_of_a_closing_pool_are_ended_with_their_workers() {
    let mut state = State::new(Config { workers: 2, grace: 5 * MS, pulled: true, max_tasks: None });
    let effects = state.handle(Event::Tick, Time::ZERO);
    let [Action::Start(first), Action::Start(second)] = effects.actions[..] else { panic!("{effects:?}") };
    for worker in [first, second] {
        state.handle(Event::Up(worker), Time::ZERO);
    }
    state.set_pulled(2);
    state.handle(Event::Close, Time::ZERO);
    // Both jobs are taken from their workers before the first of those is heard of.
    state.set_pulled(0);
    let actions = state.handle(Event::Doomed(first), Time::ZERO).actions;
    assert_eq!(actions, [Action::Terminate(first), Action::Leave(second)]);
    assert_eq!(state.handle(Event::Doomed(second), Time::ZERO).actions, [Action::Terminate(second)]);
    let effects = state.handle(Event::Tick, 5 * MS);
    assert_eq!(effects.actions, [Action::Kill(first), Action::Kill(second)], "after the grace time, not later");
}

#[test]
fn a_worker_that_is_to_end_keeps_its_pool_from_giving_up() {
    for pulled in [false, true] {
        let mut state = State::new(Config { workers: 2, grace: 5 * MS, pulled, max_tasks: None });
        let effects = state.handle(Event::Tick, Time::ZERO);
        let [Action::Start(first), Action::Start(mut other)] = effects.actions[..] else { panic!("{effects:?}") };
        state.handle(Event::Up(first), Time::ZERO);
        state.handle(Event::Submitted(JobId(0), None), Time::ZERO);
        let mut now = Time::ZERO;
        for _ in 1..100 {
            now += Duration::from_secs(1);
            state.handle(Event::StartFailed(other), now);
            other = started(&state.handle(Event::Tick, now + Duration::from_secs(1)));
        }
        // In the moment between a limit and the worker's end there is no other.
        state.handle(if pulled { Event::Doomed(first) } else { Event::TerminateJob(JobId(0)) }, now);
        assert_eq!(state.handle(Event::StartFailed(other), now).everything, None);
        assert!(!state.has_failed());
        state.handle(Event::Gone(first, Begun::Perhaps), now);
        started(&state.handle(Event::Tick, now + Duration::from_secs(1)));
    }
}

#[test]
fn a_worker_gets_term_once_whoever_wants_its_end() {
    let mut state = State::new(Config { workers: 1, grace: 5 * MS, pulled: true, max_tasks: None });
    let worker = started(&state.handle(Event::Tick, Time::ZERO));
    state.handle(Event::Up(worker), Time::ZERO);
    assert_eq!(state.handle(Event::Terminate, Time::ZERO).actions, [Action::Terminate(worker)]);
    assert_eq!(state.handle(Event::Doomed(worker), MS).actions, []);
    assert_eq!(state.handle(Event::Tick, 5 * MS).actions, [Action::Kill(worker)]);
}

#[test]
fn no_deadline_outlives_its_worker() {
    let (mut state, worker) = with_one_worker();
    state.handle(Event::Submitted(JobId(0), None), Time::ZERO);
    state.handle(Event::Up(worker), Time::ZERO);
    state.handle(Event::TerminateJob(JobId(0)), Time::ZERO);
    assert_eq!(state.next_deadline(), Some(5 * MS));
    let next = started(&state.handle(Event::Gone(worker, Begun::Perhaps), MS));
    state.handle(Event::Up(next), MS);
    assert_eq!(state.next_deadline(), None, "at rest nothing wakes");
}
