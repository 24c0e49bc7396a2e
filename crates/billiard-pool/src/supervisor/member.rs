//! One worker as the supervisor has it: its process, its socket, and what is on the way.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    time::{Duration, Instant},
};

use billiard_connection::{Connection, Error, FrameReader, FrameWriter, Mode};
use billiard_context::{Context, ExitStatus, Message, Process, RemoteError, Starting};
use mio::{Interest, Registry, Token, unix::SourceFd};

use crate::{
    apart::{Census, Encoded},
    error::JobError,
    handle::RawOutcome,
    message::{Carried, Failure, FromWorker},
    state::{JobId, WorkerId},
    sys,
    table::DeskSent,
    worker,
};

/// How long a worker's process may take to exist. Only a guardian that is stopped takes that long.
const START_PATIENCE: Duration = Duration::from_secs(60);
/// How long the status of one that has ended may take. Again, only a guardian that is stopped takes that long.
const STATUS_PATIENCE: Duration = Duration::from_secs(1);
/// How much of a long result is read before the other workers have their turn.
const TURN: usize = 1 << 20;
/// How often it is looked for.
const STATUS_STEP: Duration = Duration::from_millis(5);

pub(super) struct Member {
    process: Life,
    /// None once it was told to leave.
    socket: Option<Connection>,
    reader: FrameReader,
    /// The kernel could not take more of its job for now.
    stalled: bool,
    /// It has said that it is up.
    is_up: bool,
    /// It takes its jobs by itself.
    pulls: bool,
    /// Values in memory of their own that have come from any worker.
    apart: Census,
    /// The job that it has, and what was sent of it.
    job: Option<(JobId, FrameWriter)>,
    /// It is to have TERM, and that much time to end, once its process is known.
    doomed: Option<Duration>,
}

enum Life {
    /// It was asked for, at that time.
    Starting(Starting, Instant),
    /// It exists; and its sentinel may have said, at that time, that it has ended.
    Running(Process, Option<Instant>),
}

/// What an event came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Socket,
    Sentinel,
    Status,
}

/// What became of writing.
pub(super) enum Wrote {
    /// All that goes for now is written.
    Well,
    /// The worker hears nothing any more.
    Broken,
    /// The kernel does not send what that job has, to anybody. The worker has received nothing of it.
    Refused(JobId, RemoteError),
}

/// What a worker said.
pub(super) enum Heard {
    /// Nothing new.
    Nothing,
    Up,
    Outcome(JobId, RawOutcome),
    /// What no worker says, or the end of what it says.
    Nonsense,
}

/// The job of a worker that has ended.
pub(super) enum Remains {
    /// None was sent to it, or its result has come.
    Nothing,
    /// It had not received it whole, and it can be sent to another.
    Unreceived(JobId, FrameWriter),
    /// It may have begun, or cannot be sent again.
    Received,
}

impl Member {
    const SOURCES: [Source; 3] = [Source::Socket, Source::Sentinel, Source::Status];

    fn token(worker: WorkerId, source: Source) -> Token {
        Token(worker.0 as usize * Self::SOURCES.len() + source as usize)
    }

    pub(super) fn of_token(token: Token) -> (WorkerId, Source) {
        let count = Self::SOURCES.len();
        (WorkerId((token.0 / count) as u64), Self::SOURCES[token.0 % count])
    }

    /// Asks for a worker's process and registers all that it can be heard by.
    pub(super) fn start(
        worker: WorkerId,
        context: &Context,
        registry: &Registry,
        desk: Option<DeskSent>,
        apart: Census,
    ) -> Result<Self, RemoteError> {
        let (ours, theirs) = Connection::pair()?;
        let pulls = desk.is_some();
        let starting = match desk {
            None => begin(worker, context, worker::strict, theirs)?,
            Some(desk) => begin(worker, context, worker::shared, (theirs, desk))?,
        };
        register(registry, ours.as_fd(), worker, Source::Socket, Interest::READABLE | Interest::WRITABLE)?;
        if let Some(status) = starting.status_fd() {
            register(registry, status, worker, Source::Status, Interest::READABLE)?;
        }
        let process = Life::Starting(starting, Instant::now());
        Ok(Self {
            process,
            socket: Some(ours),
            reader: FrameReader::new().in_turns_of(TURN),
            stalled: false,
            is_up: false,
            pulls,
            apart,
            job: None,
            doomed: None,
        })
    }

    /// How it ended, if it has; an error when it could not be started. Where the guardian does not answer for long,
    /// whatever is known by then has to do.
    pub(super) fn status(&mut self, worker: WorkerId, registry: &Registry) -> Result<Option<ExitStatus>, RemoteError> {
        if let Life::Starting(starting, since) = &mut self.process {
            match starting.poll()? {
                None if since.elapsed() > START_PATIENCE => {
                    return Err(RemoteError::msg("a worker did not start within a minute"));
                }
                None => return Ok(None),
                Some(process) => {
                    register(registry, process.as_fd(), worker, Source::Sentinel, Interest::READABLE)?;
                    self.process = Life::Running(process, None);
                    if let Some(grace) = self.doomed.take() {
                        self.terminate(grace);
                    }
                }
            }
        }
        let (process, overdue) = match &mut self.process {
            Life::Starting(..) => return Ok(None),
            Life::Running(process, since) => (process, since.is_some_and(|since| since.elapsed() > STATUS_PATIENCE)),
        };
        let status = process.try_join().ok().flatten();
        Ok(status.or_else(|| overdue.then(ExitStatus::unknown)))
    }

    /// Its sentinel says that it has ended.
    pub(super) fn has_ended(&mut self) {
        if let Life::Running(_, since) = &mut self.process {
            since.get_or_insert_with(Instant::now);
        }
    }

    /// When to look at it again, although nothing may be heard of it.
    pub(super) fn look_again(&self) -> Option<Instant> {
        match &self.process {
            Life::Starting(_, since) => Some(*since + START_PATIENCE + STATUS_STEP),
            Life::Running(_, since) => (since.is_some() || self.stalled).then(|| Instant::now() + STATUS_STEP),
        }
    }

    /// Gives it a job, to be written.
    pub(super) fn load(&mut self, job: JobId, frame: FrameWriter) {
        self.job = Some((job, frame));
    }

    /// Writes as far as it goes.
    pub(super) fn write(&mut self) -> Wrote {
        self.stalled = false;
        let (Some(socket), Some((job, frame))) = (&self.socket, &mut self.job) else { return Wrote::Well };
        if frame.is_whole() {
            return Wrote::Well;
        }
        match frame.write(socket, Mode::DontWait) {
            Ok(is_whole) => {
                if is_whole && self.pulls {
                    self.job = None; // the table knows who has it, and the argument may be large
                }
                Wrote::Well
            }
            // Which is not the worker's fault, nor the job's: again, a little later.
            Err(Error::Io { source, .. }) if sys::is_shortage(&source) => {
                self.stalled = true;
                Wrote::Well
            }
            Err(why @ Error::Io { .. }) if !frame.is_begun() => {
                let job = *job;
                self.job = None;
                Wrote::Refused(job, why.into())
            }
            Err(_) => Wrote::Broken,
        }
    }

    /// Reads the next thing that has come whole.
    pub(super) fn read(&mut self) -> Heard {
        let Some(socket) = &self.socket else { return Heard::Nothing };
        let frame = match self.reader.read(socket, Mode::DontWait) {
            Ok(Some(frame)) => frame,
            Ok(None) => return Heard::Nothing,
            Err(_) => return Heard::Nonsense,
        };
        match frame.head() {
            // Once: one that says nothing else would keep the supervisor listening.
            Ok(FromWorker::Up) if !std::mem::replace(&mut self.is_up, true) => Heard::Up,
            Ok(FromWorker::Failed(job, failure)) => self.outcome(job, Err(failure.into())),
            Ok(FromWorker::Returned(job)) => match frame.decode_prefix::<(FromWorker, Carried)>() {
                Ok(((_, Some(_)), ..)) if !self.pulls => Heard::Nonsense,
                Ok(((_, Some(apart)), _, received)) => {
                    let value = self.apart.accept(apart).map_err(JobError::ResultDecode);
                    self.outcome(job, value.map(|value| (value, received)))
                }
                Ok(((_, None), behind, received)) => self.outcome(job, Ok((Encoded::Here(behind), received))),
                // What came with it could not be received or mapped here: its worker is not to blame.
                Err(why) => self.outcome(job, Err(JobError::ResultDecode(why.into()))),
            },
            Ok(FromWorker::Up) | Err(_) => Heard::Nonsense,
        }
    }

    /// The outcome of the job that it has. It was sent no other, so that it cannot know of another.
    fn outcome(&mut self, job: JobId, outcome: RawOutcome) -> Heard {
        if self.pulls {
            return Heard::Outcome(job, outcome); // the table knows whether it is its
        }
        match self.job.take_if(|(its, frame)| *its == job && frame.is_whole()) {
            Some(_) => Heard::Outcome(job, outcome),
            None => Heard::Nonsense,
        }
    }

    /// Whether a long message of it is still coming, and the next turn is due.
    pub(super) fn has_more(&self) -> bool {
        self.socket.is_some() && self.reader.has_more()
    }

    /// Ends its connection: it ends when it has nothing to do.
    pub(super) fn hang_up(&mut self) {
        if let Some(socket) = self.socket.take() {
            // For whoever may have a copy of this end, too.
            let _ = socket.shutdown();
        }
    }

    /// Whether it has said that it is up.
    pub(super) fn is_up(&self) -> bool {
        self.is_up
    }

    /// TERM to it and to its group.
    pub(super) fn terminate(&mut self, grace: Duration) {
        match &self.process {
            Life::Starting(..) => self.doomed = Some(grace), // by a guardian that is stopped
            Life::Running(process, _) => {
                if process.terminate_within(grace).is_err() {
                    // The guardian hears nothing: to it alone. Should it have changed its user, KILL follows, and so does its end.
                    let _ = process.terminate();
                }
            }
        }
    }

    /// Ends it at once; false when there is no process yet, and nothing to wait for.
    pub(super) fn kill(&self) -> bool {
        match &self.process {
            Life::Running(process, _) => {
                let _ = process.kill();
                true
            }
            Life::Starting(..) => false,
        }
    }

    /// What is left of one that has ended and whose socket was read to its end: its pid, and its job.
    pub(super) fn bury(self) -> (Option<u32>, Remains) {
        let pid = match self.process {
            Life::Running(process, _) => {
                let pid = process.pid();
                process.detach(); // there is nothing to wait for
                Some(pid)
            }
            Life::Starting(..) => None,
        };
        let left_unread = self.reader.peer_left_unread();
        let remains = match self.job {
            None => Remains::Nothing,
            Some((_, frame)) if frame.is_whole() && !left_unread => Remains::Received,
            Some((job, mut frame)) => match frame.rewind() {
                true => Remains::Unreceived(job, frame),
                false => Remains::Received,
            },
        };
        (pid, remains)
    }
}

fn begin<A: Message>(worker: WorkerId, context: &Context, main: fn(A), argument: A) -> Result<Starting, RemoteError> {
    let process = context.process(main, argument).name(format!("PoolWorker-{}", worker.0));
    Ok(process.daemon(true).may_have_children(true).begin()?)
}

fn register(
    registry: &Registry,
    fd: BorrowedFd<'_>,
    worker: WorkerId,
    source: Source,
    interest: Interest,
) -> io::Result<()> {
    registry.register(&mut SourceFd(&fd.as_raw_fd()), Member::token(worker, source), interest)
}

impl From<Failure> for JobError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Panicked(panic) => Self::Panicked(Box::new(panic)),
            Failure::BadArgument(error) => Self::ArgumentDecode(error),
            Failure::BadResult(error) => Self::ResultEncode(error),
        }
    }
}
