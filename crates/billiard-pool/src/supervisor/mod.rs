//! The thread that drives a pool: it starts, feeds, watches and ends workers as the state decides, and never waits
//! for one of them.

mod member;

use std::{
    collections::HashMap,
    io,
    os::fd::{AsRawFd, OwnedFd},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, Instant},
};

use billiard_context::{Context, ExitStatus, RemoteError};
use billiard_wire::fault;
use mio::{Events, Interest, Poll, Token, unix::SourceFd};

use crate::{
    apart::Census,
    error::{JobError, WorkerLost},
    pool::{Arrival, Shared},
    state::{Action, Begun, Config, Event, WorkerId},
    sys,
    table::{Outgoing, Table, Ticket},
};
use member::{Heard, Member, Remains, Source, Wrote};

/// The longest that is slept at a time while there is a deadline at all.
const LONGEST_SLEEP: Duration = Duration::from_secs(3600);

pub(crate) struct Supervisor {
    poll: Poll,
    shared: Arc<Shared>,
    context: Context,
    members: HashMap<WorkerId, Member>,
    /// Workers that are looked at again at that time, although nothing may be heard of them: they wait for the guardian.
    look_again: HashMap<WorkerId, Instant>,
    /// Workers in the middle of a message of which more has come.
    in_turn: Vec<WorkerId>,
    /// What workers ring with, where they share a job table.
    bell: Option<OwnedFd>,
    config: Config,
    /// Large values that have come, and that nobody has taken.
    apart: Census,
    /// When to look at the job table next, although nobody rings; none while no job is in it.
    tick: Option<Instant>,
    ticks: u32,
}

/// How often the job table is looked at while there are jobs.
const TICK: Duration = Duration::from_millis(10);
/// How many ticks it is until every job is looked at.
const THOROUGH: u32 = 5;

/// How many messages of a worker are read before the others have their turn.
const MESSAGES: usize = 64;

/// More than a socket holds of them, in which all is that a dead worker has left.
const LAST_MESSAGES: usize = 1 << 17;
/// More than it holds of the turns in which a long message is read, as a part of the same.
const LAST_TURNS: usize = 64;

/// What a worker has said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spoke {
    /// That it is up.
    First,
    /// How its job ended.
    Result,
}

impl Supervisor {
    pub(crate) const WAKER: Token = Token(usize::MAX);

    const BELL: Token = Token(usize::MAX - 1);

    pub(crate) fn new(poll: Poll, shared: Arc<Shared>, context: Context, config: Config) -> io::Result<Self> {
        let bell = shared.table().map(|_| sys::bell()).transpose()?;
        if let Some(bell) = &bell {
            poll.registry().register(&mut SourceFd(&bell.as_raw_fd()), Self::BELL, Interest::READABLE)?;
        }
        Ok(Self {
            poll,
            shared,
            context,
            members: HashMap::new(),
            look_again: HashMap::new(),
            in_turn: Vec::new(),
            bell,
            config,
            apart: Census::default(),
            tick: None,
            ticks: 0,
        })
    }

    /// Runs until the pool is over. Whatever happens, every job has an outcome afterwards.
    pub(crate) fn run(mut self) {
        let shared = self.shared.clone();
        shared.enter_supervisor();
        let result = catch_unwind(AssertUnwindSafe(|| self.drive()));
        drop(self); // kills what is left
        shared.abandon();
        drop(result); // a panic was printed; what it left behind is resolved
    }

    fn drive(&mut self) {
        let mut events = Events::with_capacity(256);
        let mut actions = Vec::new();
        self.tell(Event::Tick); // the first workers
        let mut was_rung = true;
        loop {
            let Some(due) = self.shared.take_actions(&mut actions) else { return };
            if !actions.is_empty() {
                actions.drain(..).for_each(|action| self.act(action));
                continue; // what they led to comes first
            }
            let shared = self.shared.clone();
            let mut is_busy = shared.table().is_some_and(|table| {
                table.supervisor_sleeps();
                self.work(table)
            });
            if is_busy && !was_rung {
                fault::point("supervisor.woken_late");
            }
            let late = shared.take_late();
            is_busy |= !late.is_empty(); // they may have been the last that a closing pool waits for
            shared.finish(late);
            // However much there is to do: deaths are heard of meanwhile.
            let timeout = if is_busy { Some(Duration::ZERO) } else { self.timeout(due) };
            if let Err(error) = self.poll.poll(&mut events, timeout) {
                assert!(error.kind() == io::ErrorKind::Interrupted, "epoll failed: {error}");
            }
            was_rung = !events.is_empty();
            if let Some(table) = shared.table() {
                table.supervisor_wakes();
            }
            for event in events.iter().filter(|event| event.token() != Self::WAKER && event.token() != Self::BELL) {
                self.happened(event);
            }
            for worker in std::mem::take(&mut self.in_turn) {
                self.listen(worker);
            }
            self.look_again();
            self.tell(Event::Tick);
        }
    }

    /// Works through the job table; whether there was anything to do.
    fn work(&mut self, table: &Table) -> bool {
        let (mut ended, mut doomed, mut mail) = (Vec::new(), Vec::new(), Vec::new());
        let mut has_jobs = table.work(&mut ended, &mut doomed, &mut mail);
        let now = Instant::now();
        if self.tick.is_some_and(|tick| tick <= now) {
            self.ticks = self.ticks.wrapping_add(1);
            has_jobs = table.tick(self.ticks.is_multiple_of(THOROUGH), &mut ended, &mut doomed);
            self.tick = None;
        }
        self.tick = has_jobs.then(|| self.tick.unwrap_or(now + TICK));
        let is_idle = ended.is_empty() && doomed.is_empty() && mail.is_empty();
        self.shared.finish(ended);
        if !is_idle {
            table.give_room();
        }
        for worker in doomed {
            self.tell(Event::Doomed(worker));
        }
        for Outgoing { worker, job, frame, .. } in mail {
            // One that has ended since is audited next.
            if let Some(member) = self.members.get_mut(&worker) {
                member.load(job, frame);
                self.write(worker);
            }
        }
        !is_idle
    }

    /// A worker is no more: what it had in the job table is judged. Whether it ever had something there.
    fn vacate(&self, worker: WorkerId, lost: &WorkerLost) -> bool {
        self.shared.table().is_some_and(|table| {
            let mut ended = Vec::new();
            let had_job = table.audit(worker, lost, &mut ended);
            self.shared.finish(ended);
            had_job
        })
    }

    /// Reads what a worker has said. One whose message is longer than a turn, or that has said much, is read again after the others.
    fn listen(&mut self, worker: WorkerId) {
        let is_through = (0..MESSAGES).any(|_| self.read(worker) != Some(Spoke::First));
        let has_more = !is_through || self.members.get(&worker).is_some_and(Member::has_more);
        if has_more && !self.in_turn.contains(&worker) {
            self.in_turn.push(worker);
        }
    }

    fn tell(&self, event: Event) {
        self.shared.tell(event, Arrival::None);
    }

    fn timeout(&self, due: Option<Duration>) -> Option<Duration> {
        if !self.in_turn.is_empty() {
            return Some(Duration::ZERO);
        }
        let look_again = self.look_again.values().min().map(|at| at.saturating_duration_since(Instant::now()));
        // Rounded up to what epoll counts in, by mio; and no longer than epoll can count.
        let tick = self.tick.map(|at| at.saturating_duration_since(Instant::now()));
        let timeout = due.into_iter().chain(look_again).chain(tick).min();
        let timeout = self.shared.table().map_or(timeout, |table| table.sleeps_for(timeout));
        timeout.map(|timeout| timeout.min(LONGEST_SLEEP))
    }

    fn happened(&mut self, event: &mio::event::Event) {
        let (worker, source) = Member::of_token(event.token());
        match source {
            Source::Socket => {
                if event.is_writable() {
                    self.write(worker);
                }
                if event.is_readable() || event.is_read_closed() {
                    // An idle worker says nothing, so that there is nothing behind a result.
                    self.listen(worker);
                }
            }
            Source::Sentinel => {
                if let Some(member) = self.members.get_mut(&worker) {
                    member.has_ended();
                }
                self.judge(worker);
            }
            Source::Status => self.judge(worker),
        }
    }

    fn look_again(&mut self) {
        if !self.look_again.is_empty() {
            let now = Instant::now();
            let due = self.look_again.iter().filter(|&(_, &at)| at <= now);
            for worker in due.map(|(&worker, _)| worker).collect::<Vec<_>>() {
                self.write(worker);
                self.judge(worker);
            }
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Start(worker) => self.start(worker),
            Action::Send(worker, job) => {
                // A worker may have ended since: its job is then queued again, or resolved.
                let Some(member) = self.members.get_mut(&worker) else { return };
                if let Some(frame) = self.shared.take_frame(job) {
                    member.load(job, frame);
                    self.write(worker);
                }
            }
            Action::Leave(worker) => {
                if let Some(member) = self.members.get_mut(&worker) {
                    member.hang_up();
                }
                if let Some(table) = self.shared.table() {
                    table.dismiss(worker);
                }
            }
            Action::Terminate(worker) => {
                self.judge(worker); // its process may be known by now
                if let Some(member) = self.members.get_mut(&worker) {
                    member.terminate(self.config.grace);
                }
            }
            Action::Kill(worker) => {
                self.judge(worker);
                if self.members.get(&worker).is_some_and(|member| !member.kill()) {
                    // The start is given up; should the process come to be, it finds its socket closed and ends.
                    self.gone(worker, ExitStatus::unknown());
                }
            }
        }
    }

    fn start(&mut self, worker: WorkerId) {
        fault::point("pool.start_worker");
        let desk = match (self.shared.table(), &self.bell) {
            (Some(table), Some(bell)) => {
                let desk = bell.try_clone().map_err(RemoteError::from);
                desk.and_then(|bell| Ok(Some(table.seat(worker, bell, self.config.max_tasks)?)))
            }
            _ => Ok(None),
        };
        let member =
            desk.and_then(|desk| Member::start(worker, &self.context, self.poll.registry(), desk, self.apart.clone()));
        match member {
            Ok(member) => {
                self.look_again.extend(member.look_again().map(|at| (worker, at)));
                self.members.insert(worker, member);
            }
            Err(error) => {
                self.vacate(worker, &WorkerLost::new(0, ExitStatus::unknown()));
                self.shared.note_start_failure(error);
                self.tell(Event::StartFailed(worker));
            }
        }
    }

    /// Writes as far as it goes.
    fn write(&mut self, worker: WorkerId) {
        let Some(member) = self.members.get_mut(&worker) else { return };
        match member.write() {
            Wrote::Well => {
                self.look_again.extend(member.look_again().map(|at| (worker, at)));
            }
            Wrote::Broken => self.tell(Event::Broken(worker)),
            Wrote::Refused(job, why) => {
                let why = JobError::ArgumentDecode(why);
                match self.shared.table() {
                    // The worker has claimed it, and waits for what never comes.
                    Some(_) => drop(self.shared.stop(Ticket::of(job), why, true)),
                    None => self.shared.tell(Event::Finished(worker, job), Arrival::Outcome(Err(why))),
                }
            }
        }
    }

    /// Reads one thing that a worker said, if one has come whole.
    fn read(&mut self, worker: WorkerId) -> Option<Spoke> {
        match self.members.get_mut(&worker)?.read() {
            Heard::Nothing => None,
            Heard::Up => {
                self.tell(Event::Up(worker));
                Some(Spoke::First)
            }
            Heard::Outcome(job, outcome) if self.bell.is_some() => {
                if let Some(table) = self.shared.table() {
                    let mut ended = Vec::new();
                    table.arrived(worker, job, outcome, &mut ended);
                    if !ended.is_empty() {
                        self.shared.finish(ended);
                        table.give_room();
                    }
                }
                Some(Spoke::First) // more may stand behind it
            }
            Heard::Outcome(job, outcome) => {
                self.shared.tell(Event::Finished(worker, job), Arrival::Outcome(outcome));
                Some(Spoke::Result)
            }
            Heard::Nonsense => {
                self.tell(Event::Broken(worker));
                None
            }
        }
    }

    /// Sees whether a worker has ended, and if so lets its job be judged.
    fn judge(&mut self, worker: WorkerId) {
        let Some(member) = self.members.get_mut(&worker) else { return };
        match member.status(worker, self.poll.registry()) {
            Ok(None) => match member.look_again() {
                Some(at) => drop(self.look_again.insert(worker, at)),
                None => drop(self.look_again.remove(&worker)),
            },
            Ok(Some(status)) => {
                // It has ended: all that it wrote is there now. A result that is whole counts. A copy of it may write on, for ever.
                let mut left = LAST_MESSAGES;
                loop {
                    let cost = match self.read(worker) {
                        Some(_) => 1,
                        None if self.members.get(&worker).is_some_and(Member::has_more) => LAST_MESSAGES / LAST_TURNS,
                        None => break,
                    };
                    let Some(rest) = left.checked_sub(cost) else { break };
                    left = rest;
                }
                self.gone(worker, status);
            }
            Err(error) => {
                self.look_again.remove(&worker);
                self.members.remove(&worker).map(Member::bury); // without waiting for it
                self.vacate(worker, &WorkerLost::new(0, ExitStatus::unknown()));
                self.shared.note_start_failure(error);
                self.tell(Event::StartFailed(worker));
            }
        }
    }

    fn gone(&mut self, worker: WorkerId, status: ExitStatus) {
        self.look_again.remove(&worker);
        if let Some(member) = self.members.remove(&worker) {
            let was_up = member.is_up();
            let (pid, remains) = member.bury();
            let pid = pid.unwrap_or(0); // no process, no job
            let begun = match remains {
                Remains::Received => Begun::Perhaps,
                // The state may have given it a job that was to be sent next.
                Remains::Nothing => Begun::No,
                Remains::Unreceived(job, frame) => {
                    self.shared.return_frame(job, frame);
                    Begun::No
                }
            };
            let lost = WorkerLost::new(pid, status);
            let begun = if self.vacate(worker, &lost) { Begun::Perhaps } else { begun };
            if begun == Begun::No {
                let when = if was_up { "it had a job" } else { "it was ready" };
                let why = format_args!("a worker, with pid {pid}, ended before {when}: {}", lost.status());
                self.shared.note_start_failure(RemoteError::msg(why));
            }
            self.shared.tell(Event::Gone(worker, begun), Arrival::Lost(lost));
        }
    }
}
