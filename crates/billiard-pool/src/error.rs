//! What can go wrong with a pool, with a job, and with handing one in.

use std::{error::Error as StdError, fmt, time::Duration};

use billiard_context::{ExitStatus, Panic, RemoteError, task::ForeignFunction};
use billiard_wire::{codec::EncodeError, generation::Forked};
use thiserror::Error;

/// Why a job has no value. Every job that was accepted ends with its value or with one of these, once; those that were not accepted have one of these at once.
///
/// A job's own `Err` is a value: a task of type `fn(A) -> Result<T, RemoteError>` gives `Ok(Err(…))`.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum JobError {
    /// It panicked. Its worker goes on.
    #[error("the job {0}")]
    Panicked(Box<Panic>),
    /// Its worker ended while it ran: it crashed, called `exit`, or was killed.
    #[error("{0}")]
    WorkerLost(Box<WorkerLost>),
    /// It ran longer than its limit; its worker was ended for it.
    #[error("the job ran longer than its limit of {0:?}")]
    TimeLimitExceeded(Duration),
    /// It was ended by [`JobHandle::terminate`](crate::JobHandle::terminate), or with its pool.
    #[error("the job was terminated")]
    Terminated,
    /// It was cancelled before it began.
    #[error("the job was cancelled before it began")]
    Cancelled,
    /// Its argument could not be encoded. It was not sent.
    #[error("the argument of the job cannot be encoded")]
    ArgumentEncode(#[source] EncodeError),
    /// Its argument could not be decoded in the worker, or not be sent there: the kernel refuses some descriptors, those of io_uring for one. It did not run.
    /// Under [`Isolation::Shared`](crate::Isolation::Shared), a worker that had taken what cannot be sent is replaced.
    #[error("the argument of the job cannot be sent to the worker, or decoded there: {0}")]
    ArgumentDecode(RemoteError),
    /// It ran, and its value could not be encoded.
    #[error("the value of the job cannot be encoded by the worker: {0}")]
    ResultEncode(RemoteError),
    /// Its value cannot be decoded here, its descriptors could not be received, or what its worker had to say of it was overwritten by one that ran wild: it has run, or may have.
    #[error("the value of the job cannot be decoded: {0}")]
    ResultDecode(RemoteError),
    /// Its function is not in the main executable.
    #[error(transparent)]
    ForeignFunction(ForeignFunction),
    /// The pool accepts no jobs any more: it was closed or terminated.
    #[error("the pool accepts no jobs any more: it was closed or terminated")]
    PoolClosed,
    /// The pool can start no workers, or none that lives until it has a job, and says why.
    #[error("the pool has failed: {0}")]
    PoolFailed(RemoteError),
    /// This process was forked from the one that the pool belongs to.
    #[error(transparent)]
    Forked(#[from] Forked),
    /// There was no room for the job, and its caller did not want to wait.
    #[error("the pool's queue is full")]
    Full,
}

/// A worker that ended while it ran a job.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("the worker with pid {pid} was lost while it ran the job: {status}")]
pub struct WorkerLost {
    pid: u32,
    status: ExitStatus,
}

impl WorkerLost {
    pub(crate) fn new(pid: u32, status: ExitStatus) -> Self {
        Self { pid, status }
    }

    /// The worker's pid; 0 where it was lost before that was known.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// How it ended, and what it used: signal or exit code, processor time, peak memory. Unknown where the helper process that reaps workers was killed or stopped.
    #[must_use]
    pub fn status(&self) -> &ExitStatus {
        &self.status
    }
}

/// No value has come in time.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("no value has come in time")]
pub struct TimedOut;

/// A job that was not accepted, with its argument.
#[derive(Error)]
#[error("{error}")]
pub struct SubmitError<A> {
    argument: A,
    #[source]
    error: JobError,
}

impl<A> SubmitError<A> {
    pub(crate) fn new(argument: A, error: JobError) -> Self {
        Self { argument, error }
    }

    /// Why it was not accepted.
    pub fn reason(&self) -> &JobError {
        &self.error
    }

    /// Whether there was no room for it, so that it may be tried again later.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self.error, JobError::Full)
    }

    /// The argument, whole.
    #[must_use]
    pub fn into_argument(self) -> A {
        self.argument
    }
}

/// Without the argument, which need not be printable.
impl<A> fmt::Debug for SubmitError<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SubmitError").field("error", &self.error).finish_non_exhaustive()
    }
}

impl<A> From<SubmitError<A>> for JobError {
    fn from(refused: SubmitError<A>) -> Self {
        refused.error
    }
}

/// Why a pool could not be built, or did not end well; and any error of a job, so that `?` works in `main`.
///
/// Its `Debug` is made for `main`: the whole chain of causes, for people.
pub struct Error {
    kind: ErrorKind,
    message: &'static str,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// What sort of error it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The builder was asked for something that cannot be.
    Configuration,
    /// Processes cannot be started: `init()` is missing, say.
    Start,
    /// The pool could start no workers and gave up.
    Failed,
    /// This process was forked from the one that the pool belongs to.
    Forked,
    /// A job has no value.
    Job,
    /// A task's own error.
    Task,
    /// The kernel refuses.
    Io,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: &'static str) -> Self {
        Self { kind, message, source: None }
    }

    pub(crate) fn because(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What sort of error it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message)?;
        for cause in std::iter::successors(self.source(), |&cause| cause.source()) {
            write!(f, "\n  caused by: {cause}")?;
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

impl From<billiard_context::Error> for Error {
    fn from(error: billiard_context::Error) -> Self {
        Self::new(ErrorKind::Start, "the pool cannot start processes").because(error)
    }
}

impl From<JobError> for Error {
    fn from(error: JobError) -> Self {
        Self::new(ErrorKind::Job, "a job has no value").because(error)
    }
}

impl<A> From<SubmitError<A>> for Error {
    fn from(refused: SubmitError<A>) -> Self {
        Self::new(ErrorKind::Job, "a job was not accepted").because(refused.error)
    }
}

impl From<RemoteError> for Error {
    fn from(error: RemoteError) -> Self {
        Self::new(ErrorKind::Task, "a task failed").because(error)
    }
}
