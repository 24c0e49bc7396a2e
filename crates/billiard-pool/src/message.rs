//! What the pool and a worker say to each other on the worker's private socket.

use billiard_context::{Panic, RemoteError, task::Task};
use serde::{Deserialize, Serialize};

use crate::state::JobId;

/// From the pool. The bytes of the argument stand behind it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ToWorker {
    pub(crate) job: JobId,
    pub(crate) task: Task,
}

/// From a worker.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FromWorker {
    /// It is ready for its first job.
    Up,
    /// The job has returned; the bytes of the value stand behind it.
    Returned(JobId),
    /// The job has failed.
    Failed(JobId, Failure),
}

/// How a job failed without harm to its worker.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Failure {
    Panicked(Panic),
    BadArgument(RemoteError),
    BadResult(RemoteError),
}
