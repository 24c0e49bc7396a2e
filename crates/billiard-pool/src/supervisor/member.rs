//! One worker as the supervisor has it: its process, its socket, and what is on the way.

use std::os::fd::{AsFd, AsRawFd};

use billiard_connection::{Connection, Error, FrameReader, FrameWriter, Mode};
use billiard_context::{Context, ExitStatus, Process, RemoteError};
use billiard_wire::codec;
use mio::{Interest, Registry, Token, unix::SourceFd};

use crate::{
    error::JobError,
    handle::RawOutcome,
    message::{Failure, FromWorker, ToWorker},
    pool::Parcel,
    state::{JobId, WorkerId},
    worker,
};

pub(super) struct Member {
    process: Process,
    /// None once it was told to leave.
    socket: Option<Connection>,
    reader: FrameReader,
    /// The job on its way to it.
    writer: Option<FrameWriter>,
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
        Ok(Self { process, socket: Some(ours), reader: FrameReader::new(), writer: None })
    }

    /// Puts a job on its way.
    pub(super) fn load(&mut self, job: JobId, parcel: Parcel) {
        let Parcel { task, argument, mut attachments } = parcel;
        let message = codec::encode_after(&ToWorker { job, task }, &mut attachments).expect("three numbers encode");
        self.writer = Some(FrameWriter::typed(&message, argument, attachments));
    }

    /// Writes as far as it goes; whether the job has left whole by it.
    pub(super) fn write(&mut self) -> Result<bool, Error> {
        let (Some(socket), Some(writer)) = (&self.socket, &mut self.writer) else { return Ok(false) };
        let result = writer.write(socket, Mode::DontWait);
        if !matches!(result, Ok(false)) {
            self.writer = None;
        }
        result
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
            Ok((FromWorker::Returned(job), bytes, received)) => Heard::Outcome(job, Ok((bytes, received))),
            Ok((FromWorker::Failed(job, failure), ..)) => Heard::Outcome(job, Err(failure.into())),
            Err(_) => Heard::Nonsense,
        }
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

    /// Gives back all that is left of one that has ended.
    pub(super) fn bury(self, status: ExitStatus) -> (u32, ExitStatus) {
        let pid = self.process.pid();
        self.process.detach(); // there is nothing to wait for
        (pid, status)
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
