//! Random histories of a pool whose workers are simulated: the algorithms of the table, the book and the state are the real ones, and each step of each worker is a
//! choice. Whatever happens when, every job has exactly one outcome, and the right one.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    mem,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use billiard_context::{ExitStatus, task::Task};
use billiard_test_support::{Random, Watchdog};

use super::*;
use crate::{
    handle::Callback,
    state::{Action, Begun, Config, Effects, Event, State, Verdict},
    table::{
        control::{Claim, MAX_SEATS, Words},
        heap::{Room, Shelf, Span},
        memory::Shape,
    },
};

mod chunks;

const MS: Nanos = 1_000_000;
const GRACE: Nanos = 5 * MS;
/// So small that there is often no room.
const SMALL_HEAP: usize = 2048;

/// How large a result is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Size {
    Tiny,
    /// In the heap, where there is room.
    Placed,
    /// By mail.
    Large,
}

/// What a worker's process does next.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// It says that it is up.
    Begin,
    /// It looks at the ring.
    Look,
    /// It has read where the ring begins.
    Take(u64),
    Pass(u64, Option<Claim>),
    LieDown,
    Sleep,
    Accept(Claim),
    /// It has copied an argument out of the heap: all of it was as it should be, or not.
    Check(Claim, bool),
    /// It waits for the argument.
    Mail(Claim),
    Run(Claim),
    Item(chunks::Progress),
    /// It sends a large result.
    Send(Claim),
    LayDown(Claim, Output, Option<Span>),
    Publish(Claim),
    Announce(Claim),
    /// The process has ended.
    Ended,
}

/// What a worker has said on its socket.
#[derive(Debug)]
enum Said {
    Up,
    Result(JobId, RawOutcome),
}

#[derive(Debug)]
struct Worker {
    seat: usize,
    outputs: Outputs,
    shelf: Shelf,
    step: Step,
    is_stopped: bool,
    /// It has been told to end, and does so when it likes.
    is_told: bool,
    hung_up: bool,
    tasks: u64,
    said: VecDeque<Said>,
    mail: Option<JobId>,
}

/// A job as its caller knows it.
#[derive(Debug)]
struct Known {
    cell: Arc<Cell>,
    ticket: Ticket,
    limit: Option<Duration>,
    /// What its argument is made of, where that is in the heap.
    content: Option<u8>,
    size: Size,
    /// Of a chunk.
    items: Option<chunks::Items>,
    claimed: Option<(WorkerId, Nanos)>,
    is_published: bool,
    is_unwanted: bool,
    has_ended: bool,
    /// Its worker promises mail, and sends none.
    is_cheated: bool,
}

struct World {
    words: Words,
    inputs: Inputs,
    room: Room,
    book: Book,
    state: State,
    max_tasks: Option<u64>,
    now: Nanos,
    random: Random,
    workers: BTreeMap<WorkerId, Worker>,
    jobs: BTreeMap<u64, Known>,
    by_cell: HashMap<*const Cell, u64>,
    is_terminated: bool,
    /// Some workers promise mail and send none.
    has_cheats: bool,
    slots: usize,
}

impl World {
    fn new(mut random: Random) -> Self {
        let (workers, slots) = (1 + random.below(3) as usize, 1 + random.below(6) as usize);
        // As the builder has it, and once a second word of bits is used.
        let seats = if random.below(16) == 0 { 70.min(MAX_SEATS) } else { 2 * workers + 8 };
        let max_tasks = (random.below(4) == 0).then(|| 1 + random.below(3));
        let has_cheats = random.below(4) == 0;
        let config = Config { workers, grace: Duration::from_nanos(GRACE), pulled: true, max_tasks };
        let mut world = Self {
            words: Words::new(slots, seats),
            inputs: Inputs::create(Shape { slots: slots as u32, seats: seats as u32 }).unwrap(),
            room: Room::new(SMALL_HEAP),
            book: Book::new(slots, seats),
            state: State::new(config),
            max_tasks,
            now: MS,
            random,
            workers: BTreeMap::new(),
            jobs: BTreeMap::new(),
            by_cell: HashMap::new(),
            is_terminated: false,
            has_cheats,
            slots,
        };
        world.tell(Event::Tick);
        world
    }

    fn one_in(&mut self, bound: u64) -> bool {
        self.random.below(bound) == 0
    }

    // ---- as the pool does it

    fn tell(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            if event == Event::Close {
                self.book.close(&self.words.control());
            }
            self.state.set_pulled(self.book.in_flight());
            let now = Duration::from_nanos(self.now);
            let Effects { verdicts, actions, everything } = self.state.handle(event, now);
            assert_eq!(verdicts, [], "it knows of no job");
            if let Some(verdict) = everything {
                self.is_terminated = true;
                let why = || match verdict {
                    Verdict::PoolFailed => JobError::PoolFailed(RemoteError::msg("no worker")),
                    _ => JobError::Terminated,
                };
                let mut ended = Vec::new();
                self.book.end_all(&self.words.control(), why, &mut ended);
                self.judge(ended);
            }
            for action in actions {
                events.extend(self.act(action));
            }
        }
    }

    fn act(&mut self, action: Action) -> Option<Event> {
        match action {
            Action::Start(id) => {
                let shape = Shape { slots: self.slots as u32, seats: 1 };
                let outputs = Outputs::create(shape).unwrap();
                let seat = self.book.seat(id, outputs.clone()).expect("there are seats enough");
                if self.one_in(20) {
                    self.audit(id);
                    return Some(Event::StartFailed(id));
                }
                let worker = Worker {
                    seat,
                    outputs,
                    shelf: Shelf::new(SMALL_HEAP),
                    step: Step::Begin,
                    is_stopped: false,
                    is_told: false,
                    hung_up: false,
                    tasks: 0,
                    said: VecDeque::new(),
                    mail: None,
                };
                assert!(self.workers.insert(id, worker).is_none());
            }
            Action::Send(..) => panic!("nothing is sent"),
            Action::Leave(id) => {
                if let Some(worker) = self.workers.get_mut(&id) {
                    worker.hung_up = true;
                    self.words.control().dismiss(worker.seat);
                }
            }
            Action::Terminate(id) => {
                self.is_not_at_work(id);
                if let Some(worker) = self.workers.get_mut(&id) {
                    worker.is_told = true;
                }
            }
            Action::Kill(id) => {
                self.is_not_at_work(id);
                if let Some(worker) = self.workers.get_mut(&id) {
                    worker.step = Step::Ended;
                }
            }
        }
        None
    }

    /// Nobody is ended for a job that is not its own, or has not ended.
    fn is_not_at_work(&self, id: WorkerId) {
        let is_its = |job: &&Known| {
            job.claimed.is_some_and(|(worker, _)| worker == id) && !chunks::is_halted(&self.book, job.ticket)
        };
        let mut its = self.jobs.values().filter(is_its);
        let has_cheated = its.clone().any(|job| job.is_cheated && job.has_ended);
        let is_at_work = its.any(|job| !job.has_ended && !job.is_published);
        assert!(!is_at_work || has_cheated, "{id:?} is ended in the middle of a job that goes on");
    }

    fn audit(&mut self, id: WorkerId) {
        let lost = WorkerLost::new(id.0 as u32, ExitStatus::unknown());
        let mut ended = Vec::new();
        self.book.audit(&self.words.control(), id, &lost, &mut ended);
        self.book.rouse_any(&self.words.control());
        self.judge(ended);
    }

    /// Looks at every outcome.
    fn judge(&mut self, ended: impl IntoIterator<Item = Ended>) {
        for Ended { cell, outcome, .. } in ended {
            let number = self.by_cell[&Arc::as_ptr(&cell)];
            let job = self.jobs.get_mut(&number).unwrap();
            assert!(!mem::replace(&mut job.has_ended, true), "job {number} has a second outcome: {outcome:?}");
            if job.items.is_some() {
                self.judge_items(number, outcome);
                continue;
            }
            match &outcome {
                Ok((bytes, _)) => {
                    assert!(job.is_published, "job {number} has a value that nobody gave it");
                    assert!(bytes.chunks(8).all(|word| word == number.to_ne_bytes()), "another's value");
                }
                Err(JobError::ResultDecode(_)) if job.is_cheated => assert!(job.is_published),
                Err(JobError::WorkerLost(lost)) => {
                    let (worker, _) = job.claimed.expect("it had begun");
                    assert_eq!(lost.pid(), worker.0 as u32, "job {number} is lost with another's death");
                    assert!(!job.is_published || job.is_cheated, "job {number} was done");
                    assert_eq!(self.workers.get(&worker).map(|worker| &worker.step), Some(&Step::Ended));
                }
                Err(JobError::TimeLimitExceeded(limit)) => {
                    let (_, since) = job.claimed.expect("it had begun");
                    assert!(job.limit == Some(*limit) && after(since, *limit) <= self.now, "job {number} was in time");
                    assert!(!job.is_published);
                }
                Err(JobError::Cancelled) => assert!(job.is_unwanted && job.claimed.is_none()),
                Err(JobError::Terminated) => assert!(job.is_unwanted || self.is_terminated),
                Err(JobError::PoolFailed(_)) => assert!(self.is_terminated),
                Err(other) => panic!("job {number}: {other}"),
            }
            cell.complete(outcome);
        }
    }

    // ---- as callers do it

    fn submit(&mut self) {
        let limit = self.one_in(3).then(|| Duration::from_nanos((1 + self.random.below(8)) * MS));
        let items = self.one_in(3).then(|| chunks::Items::some(&mut self.random));
        let (with_callback, by_mail) = (self.one_in(4) && items.is_none(), self.one_in(6) && items.is_none());
        let size = [Size::Tiny, Size::Tiny, Size::Placed, Size::Large][self.random.below(4) as usize];
        let is_cheated = self.has_cheats && self.one_in(4);
        let (content, len) = (self.random.below(256) as u8, MAX_ARGUMENT + 1 + self.random.below(500) as usize);
        let placed = if !by_mail && self.one_in(3) { self.room.take(len) } else { None };
        let content = placed.as_ref().map(|taken| {
            assert!(self.inputs.place(taken.span(), &vec![content; len]));
            content
        });
        let callback: Callback = Box::new(|outcome| Box::new(outcome));
        let cell = Arc::new(if with_callback { Cell::with_callback(callback) } else { Cell::default() });
        let mut new = NewJob {
            call: items.as_ref().map_or(Call::One(Task::from_words([1, 2])), chunks::Items::call),
            argument: vec![0; if by_mail { MAX_ARGUMENT + 1 } else { 1 }],
            attachments: Attachments::default(),
            placed: placed.map(Placed::InHeap),
            limit,
            cell: cell.clone(),
            supervised: with_callback || items.is_some(),
        };
        let mut ended = Vec::new();
        let control = self.words.control();
        let result = self.book.submit(&control, &self.inputs, &mut new, self.now, &mut ended);
        if result == Err(Refused::Full) {
            let taken = self.book.in_flight() + self.book.doomed.len();
            assert_eq!(
                taken, self.slots,
                "slots are taken by jobs that have not ended, and by workers that are to end"
            );
            let all: Vec<_> = (0..self.slots).filter_map(|slot| self.book.ticket(slot)).collect();
            for ticket in all {
                let has_callback = self.book.jobs[ticket.slot].as_ref().is_some_and(|job| job.cell.has_callback());
                let missed = !has_callback && self.book.collect(&self.words.control(), ticket).is_some();
                assert!(!missed, "job {} is done, and there was no room", ticket.job);
            }
        }
        if !self.one_in(8) {
            let _ = self.words.control().rouse();
        }
        if let Ok(ticket) = result {
            let _ = self.book.arm();
            self.by_cell.insert(Arc::as_ptr(&cell), ticket.job);
            let job = Known {
                cell,
                ticket,
                limit,
                content,
                size,
                claimed: None,
                is_published: false,
                is_unwanted: false,
                has_ended: false,
                is_cheated: size == Size::Large && is_cheated && items.is_none(),
                items,
            };
            assert!(self.jobs.insert(ticket.job, job).is_none(), "a number is given once");
        }
        self.judge(ended);
    }

    fn some_job(&mut self) -> Option<u64> {
        let open: Vec<_> = self.jobs.iter().filter(|(_, job)| !job.has_ended).map(|(&job, _)| job).collect();
        // Now and then one that has ended: nothing comes of it.
        match open.len() as u64 {
            0 => self.jobs.keys().next_back().copied(),
            _ if self.one_in(16) => self.jobs.keys().next().copied(),
            len => Some(open[self.random.below(len) as usize]),
        }
    }

    fn stop(&mut self, begun_too: bool) {
        let Some(number) = self.some_job() else { return };
        let job = self.jobs.get_mut(&number).unwrap();
        job.is_unwanted |= !job.has_ended;
        let why = if begun_too { JobError::Terminated } else { JobError::Cancelled };
        match self.book.stop(&self.words.control(), job.ticket, why, begun_too) {
            Stopped::Before(ended) => self.judge([ended]),
            Stopped::During(ended, worker) => {
                assert!(begun_too);
                assert_eq!(job.claimed.map(|(worker, _)| worker), Some(worker));
                self.judge([ended]);
                self.tell(Event::Doomed(worker));
            }
            Stopped::No => job.is_unwanted = false,
        }
    }

    fn collect(&mut self) {
        let Some(number) = self.some_job() else { return };
        let job = &self.jobs[&number];
        let (ticket, has_callback) = (job.ticket, job.cell.has_callback());
        if self.one_in(4) {
            let _ = self.book.supervise(&self.words.control(), ticket);
        } else if !has_callback {
            let ended = self.book.collect(&self.words.control(), ticket);
            self.judge(ended);
        } else {
            self.words.control().watch(ticket.slot, watch::CALLER);
        }
    }

    // ---- as the supervisor does it

    fn work(&mut self) {
        let control = self.words.control();
        control.supervisor_sleeps();
        let (mut ended, mut doomed, mut mail) = (Vec::new(), Vec::new(), Vec::new());
        self.book.sweep(&control, &mut ended);
        self.book.take_mail(&control, &mut mail);
        self.book.overdue(&control, self.now, &mut ended, &mut doomed);
        self.judge(ended);
        for worker in doomed {
            self.tell(Event::Doomed(worker));
        }
        for Outgoing { worker, job, .. } in mail {
            if let Some(worker) = self.workers.get_mut(&worker) {
                worker.mail = Some(job);
            }
        }
    }

    fn tick(&mut self) {
        if !self.book.is_armed() {
            return;
        }
        let mut ended = Vec::new();
        self.book.rouse_any(&self.words.control());
        let mut doomed = Vec::new();
        let is_settled = self.one_in(2) && self.book.inspect(&self.words.control(), self.now, &mut ended, &mut doomed);
        self.judge(ended);
        assert!(doomed.is_empty() || self.has_cheats, "nobody promises mail and sends none");
        for worker in doomed {
            self.tell(Event::Doomed(worker));
        }
        self.book.disarm(is_settled);
        if is_settled {
            assert!(self.jobs.values().all(|job| job.has_ended || job.is_published), "nobody looks, and there is work");
        }
    }

    /// Reads what a worker has said.
    fn read(&mut self, id: WorkerId) {
        while let Some(said) = self.workers.get_mut(&id).and_then(|worker| worker.said.pop_front()) {
            match said {
                Said::Up => self.tell(Event::Up(id)),
                Said::Result(job, outcome) => {
                    let mut ended = Vec::new();
                    drop(self.book.arrived(&self.words.control(), id, job, outcome, &mut ended));
                    self.judge(ended);
                }
            }
        }
    }

    /// Sees that a worker has ended.
    fn bury(&mut self, id: WorkerId) {
        self.read(id);
        self.audit(id);
        self.workers.remove(&id);
        self.tell(Event::Gone(id, Begun::No));
    }

    // ---- as workers do it

    /// One step of a worker.
    fn step(&mut self, id: WorkerId) {
        let control = self.words.control();
        let Some(worker) = self.workers.get_mut(&id) else { return };
        if worker.is_stopped {
            return;
        }
        if let Step::Item(progress) = worker.step.clone() {
            let next = self.step_item(id, progress);
            self.workers.get_mut(&id).unwrap().step = next;
            return;
        }
        let ticket = |claim: Claim| Ticket { slot: claim.slot, job: claim.generation };
        worker.step = match worker.step.clone() {
            Step::Begin => {
                worker.said.push_back(Said::Up);
                if worker.hung_up { Step::Ended } else { Step::Look }
            }
            Step::Look => match control.front() {
                Some(position) => Step::Take(position),
                None if control.is_dismissed(worker.seat) => Step::Ended,
                None => Step::LieDown,
            },
            Step::Take(position) => {
                let claim = control.take(position, worker.seat);
                if let Some(claim) = claim {
                    let job = self.jobs.get_mut(&claim.generation).unwrap();
                    job.is_claimed(control.item(claim.slot, claim.generation), id, self.now);
                    assert!(!job.has_ended);
                }
                Step::Pass(position, claim)
            }
            Step::Pass(position, claim) => {
                control.pass(position);
                claim.map_or(Step::Look, Step::Accept)
            }
            Step::LieDown => match control.lie_down(worker.seat) {
                true => Step::Sleep,
                false => Step::Look,
            },
            Step::Sleep if control.sleeps(worker.seat) => Step::Sleep,
            Step::Sleep => Step::Look,
            Step::Accept(claim) => {
                let mut record = Vec::new();
                let input = self.inputs.read(claim.slot, &mut record).expect("the record is whole");
                assert_eq!(input.job, claim.generation, "the record is the job's");
                if input.about.has_limit {
                    control.slots[claim.slot].accepted.store(self.now, Ordering::Relaxed);
                }
                let content = self.jobs[&claim.generation].content;
                assert_eq!(input.was_placed, content.is_some());
                match content {
                    _ if input.is_mail => Step::Mail(claim),
                    Some(content) => Step::Check(claim, record.iter().all(|&byte| byte == content)),
                    None => Step::Run(claim),
                }
            }
            Step::Check(claim, is_right) => match control.is_claimed(claim, worker.seat) {
                true => {
                    assert!(is_right, "the place of an argument was another's before its job was taken away");
                    Step::Run(claim)
                }
                false => Step::Ended,
            },
            Step::Mail(claim) => match worker.mail.take() {
                Some(job) if job == ticket(claim).number() => Step::Run(claim),
                Some(_) => panic!("another's mail"),
                None if worker.hung_up => Step::Ended,
                None => Step::Mail(claim),
            },
            Step::Run(claim) if self.jobs[&claim.generation].items.is_some() => chunks::begin(claim),
            Step::Run(claim) => {
                let bytes = claim.generation.to_ne_bytes().repeat(40);
                let job = (claim.slot, claim.generation);
                let is_wanted = |slot, generation| control.is_done(Claim { slot, generation }, worker.seat);
                match self.jobs[&claim.generation].size {
                    Size::Tiny => Step::LayDown(claim, Output::Value(claim.generation.to_ne_bytes().to_vec()), None),
                    Size::Placed => match worker.shelf.take(bytes.len(), job, is_wanted) {
                        Some(span) => Step::LayDown(claim, Output::Value(bytes), Some(span)),
                        None => Step::Send(claim),
                    },
                    Size::Large => Step::Send(claim),
                }
            }
            Step::Send(claim) => {
                if !self.jobs[&claim.generation].is_cheated {
                    let bytes = claim.generation.to_ne_bytes().repeat(MAX_ARGUMENT);
                    worker
                        .said
                        .push_back(Said::Result(ticket(claim).number(), Ok((bytes.into(), Received::default()))));
                }
                Step::LayDown(claim, Output::Mail, None)
            }
            Step::LayDown(claim, output, span) => {
                assert!(worker.outputs.write(claim.slot, claim.generation, &output, span));
                Step::Publish(claim)
            }
            Step::Publish(claim) => {
                let is_published = control.publish(claim, worker.seat);
                let job = self.jobs.get_mut(&claim.generation).unwrap();
                let is_ended = job.has_ended || chunks::is_halted(&self.book, job.ticket);
                assert_eq!(is_published, !is_ended, "its result counts, unless it was ended");
                job.is_published = is_published;
                if let Some(items) = job.items.as_mut().filter(|_| is_published) {
                    items.are_published(control.item(claim.slot, claim.generation));
                }
                if is_published { Step::Announce(claim) } else { Step::Ended }
            }
            Step::Announce(claim) => {
                let _ = control.announce(claim.slot);
                worker.tasks += 1;
                if self.max_tasks.is_some_and(|most| worker.tasks >= most) { Step::Ended } else { Step::Look }
            }
            Step::Ended | Step::Item(_) => Step::Ended,
        };
    }

    fn some_worker(&mut self) -> Option<WorkerId> {
        let at = self.random.below(self.workers.len().max(1) as u64) as usize;
        self.workers.keys().nth(at).copied()
    }

    /// Something happens.
    fn happen(&mut self) {
        match self.random.below(40) {
            0..8 => self.submit(),
            8..24 => {
                if let Some(id) = self.some_worker() {
                    (0..1 + self.random.below(4)).for_each(|_| self.step(id));
                }
            }
            24..27 => self.work(),
            27 => self.tick(),
            28..30 => self.collect(),
            30 => self.stop(false),
            31 => self.stop(true),
            32..36 => {
                if let Some(id) = self.some_worker() {
                    match self.workers[&id].step {
                        Step::Ended => self.bury(id),
                        _ => self.read(id),
                    }
                }
            }
            36 => {
                if let Some(id) = self.some_worker() {
                    self.harm(id);
                }
            }
            _ => {
                self.now += self.random.below(3) * MS;
                self.tell(Event::Tick);
            }
        }
    }

    /// A worker dies, or is stopped, or goes on, or does at last what it was told.
    fn harm(&mut self, id: WorkerId) {
        let dies = self.one_in(3);
        let worker = self.workers.get_mut(&id).unwrap();
        match worker.is_told || dies {
            true => worker.step = Step::Ended,
            false => worker.is_stopped = !worker.is_stopped,
        }
    }

    /// Lets the world run out.
    fn finish(&mut self) {
        for _ in 0..20_000 {
            if self.state.is_over() {
                return;
            }
            for id in self.workers.keys().copied().collect::<Vec<_>>() {
                if let Some(worker) = self.workers.get_mut(&id) {
                    worker.is_stopped = false;
                }
                self.step(id);
                match self.workers.get(&id).map(|worker| &worker.step) {
                    Some(Step::Ended) => self.bury(id),
                    _ => self.read(id),
                }
            }
            self.work();
            self.tick();
            self.now += MS;
            self.tell(Event::Tick);
        }
        panic!("it does not come to an end: {:?}\n{:?}\n{:?}\n{:?}", self.book, self.words, self.state, self.jobs);
    }

    /// Nothing is left behind.
    fn is_clean(&mut self) {
        let without: Vec<_> = self.jobs.iter().filter(|(_, job)| !job.has_ended).collect();
        assert!(without.is_empty(), "without an outcome: {without:?}");
        assert!(self.workers.is_empty(), "{:?}", self.workers);
        let (control, mut ended) = (self.words.control(), Vec::new());
        self.book.sweep(&control, &mut ended);
        self.book.take_mail(&control, &mut Vec::new());
        self.book.make_room(&control, &mut ended);
        assert!(ended.is_empty());
        let book = &self.book;
        assert!(book.jobs.iter().all(Option::is_none) && book.in_flight == 0, "{book:?}");
        assert!(book.supervised.is_empty() && book.mail.is_empty() && book.next_deadline().is_none(), "{book:?}");
        assert!(book.doomed.is_empty(), "{book:?}");
        assert!(book.seats.iter().all(Option::is_none) && control.has_clear_seats(), "{book:?} {control:?}");
        let free: BTreeSet<_> = book.free.iter().copied().collect();
        assert!(free.len() == self.slots && book.free.len() == self.slots, "{:?}", book.free);
        assert_eq!(self.room.free(), SMALL_HEAP, "of arguments");
    }
}

/// How long histories are tried, and how many at most.
const TIME: Duration = Duration::from_secs(8);
const HISTORIES: u64 = 30_000;

#[test]
fn every_job_has_exactly_one_outcome_and_the_right_one() {
    let _watchdog = Watchdog::start("every_job_has_exactly_one_outcome_and_the_right_one", 300);
    let mut random = Random::from_env("table::simulation");
    let begin = Instant::now();
    let mut histories = 0;
    while histories < HISTORIES && begin.elapsed() < TIME {
        let mut world = World::new(random.fork());
        for _ in 0..world.random.below(300) {
            world.happen();
        }
        if world.one_in(3) {
            world.tell(Event::Close);
            (0..world.random.below(60)).for_each(|_| world.happen());
        }
        let end = if world.one_in(2) { Event::Close } else { Event::Terminate };
        world.tell(end);
        (0..world.random.below(30)).for_each(|_| world.happen());
        world.finish();
        world.is_clean();
        histories += 1;
    }
    println!("{histories} histories");
}
