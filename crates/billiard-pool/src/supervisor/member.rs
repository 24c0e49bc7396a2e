//! One worker as the supervisor has it: its process, its socket, and what is on the way.

use std::os::fd::{AsFd, AsRawFd};

use billiard_connection::{Connection, Error, FrameReader, FrameWriter, Mode};
use billiard_context::{Context, ExitStatus, Process, RemoteError};
use mio::{Interest, Registry, Token, unix::SourceFd};

use crate::{
    error::JobError,
    handle::RawOutcome,
    message::{Failure, FromWorker},
    state::{JobId, WorkerId},
    worker,
};

pub(super) struct Member {
    process: Process,
    /// None once it was told to leave.
    socket: Option<Connection>,
    reader: FrameReader,
    /// The job that it has, and what was sent of it.
    job: Option<(JobId, FrameWriter)>,
}

/// What an event came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Socket,
    Sentinel,
    Status,
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

impl Member {
    const SOURCES: [Source; 3] = [Source::Socket, Source::Sentinel, Source::Status];

    fn token(worker: WorkerId, source: Source) -> Token {
        Token(worker.0 as usize * Self::SOURCES.len() + source as usize)
    }

    pub(super) fn of_token(token: Token) -> (WorkerId, Source) {
        let count = Self::SOURCES.len();
        (WorkerId((token.0 / count) as u64), Self::SOURCES[token.0 % count])
    }

    /// Starts a worker's process and registers all that it can be heard by.
    pub(super) fn start(worker: WorkerId, context: Context, registry: &Registry) -> Result<Self, RemoteError> {
        let (ours, theirs) = Connection::pair()?;
        let process = context
            .process(worker::main, theirs)
            .name(format!("PoolWorker-{}", worker.0))
            .daemon(true)
            .may_have_children(true)
            .start()?;
        let register = |fd: &dyn AsFd, source, interest| {
            registry.register(&mut SourceFd(&fd.as_fd().as_raw_fd()), Self::token(worker, source), interest)
        };
        register(&ours, Source::Socket, Interest::READABLE | Interest::WRITABLE)?;
        register(&process, Source::Sentinel, Interest::READABLE)?;
        register(&process.status_fd(), Source::Status, Interest::READABLE)?;
        Ok(Self { process, socket: Some(ours), reader: FrameReader::new(), job: None })
    }

    /// Gives it a job, to be written.
    pub(super) fn load(&mut self, job: JobId, frame: FrameWriter) {
        self.job = Some((job, frame));
    }

    /// Writes as far as it goes; whether the job has left whole by it.
    pub(super) fn write(&mut self) -> Result<bool, Error> {
        match (&self.socket, &mut self.job) {
            (Some(socket), Some((_, frame))) if !frame.is_whole() => frame.write(socket, Mode::DontWait),
            _ => Ok(false),
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
        match frame.decode_prefix() {
            Ok((FromWorker::Up, ..)) => Heard::Up,
            Ok((FromWorker::Returned(job), bytes, received)) => self.outcome(job, Ok((bytes, received))),
            Ok((FromWorker::Failed(job, failure), ..)) => self.outcome(job, Err(failure.into())),
            Err(_) => Heard::Nonsense,
        }
    }

    fn outcome(&mut self, job: JobId, outcome: RawOutcome) -> Heard {
        self.job = None;
        Heard::Outcome(job, outcome)
    }

    /// How it ended, if it has. Once it is overdue, whatever is known by now has to do.
    pub(super) fn status(&mut self, overdue: bool) -> Option<ExitStatus> {
        match self.process.try_join() {
            Ok(None) | Err(_) if overdue => Some(ExitStatus::unknown()),
            Ok(status) => status,
            Err(_) => None,
        }
    }

    /// Closes its socket: it ends when it has nothing to do.
    pub(super) fn hang_up(&mut self) {
        self.socket = None;
    }

    pub(super) fn terminate(&self) {
        // It fails only for a process that has changed its user; KILL follows, and so does its end.
        let _ = self.process.terminate();
    }

    pub(super) fn kill(&self) {
        let _ = self.process.kill();
    }

    /// What is left of one that has ended and whose socket was read to its end: its pid, and the job that it had not
    /// received whole, if that can be sent to another.
    pub(super) fn bury(self) -> (u32, Option<(JobId, FrameWriter)>) {
        let pid = self.process.pid();
        self.process.detach(); // there is nothing to wait for
        let left_unread = self.reader.peer_left_unread();
        let unreceived = self.job.filter(|(_, frame)| left_unread || !frame.is_whole());
        (pid, unreceived.and_then(|(job, mut frame)| frame.rewind().then_some((job, frame))))
    }
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
