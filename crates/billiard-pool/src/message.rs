//! What the pool and a worker say to each other on the worker's private socket.

use billiard_context::{
    Panic, RemoteError,
    task::{Outcome, Task},
};
use billiard_shm::FrozenBuffer;
use serde::{Deserialize, Serialize};

use crate::state::JobId;

/// From the pool, in a pair with memory that the argument is in; where there is none, the bytes of the argument stand behind it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ToWorker {
    pub(crate) job: JobId,
    pub(crate) task: Task,
}

/// From a worker, in a pair with memory that a value is in.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FromWorker {
    /// It is ready for its first job.
    Up,
    /// The job has returned; the bytes of the value stand behind it, if they are not in memory of their own.
    Returned(JobId),
    /// The job has failed.
    Failed(JobId, Failure),
}

/// What stands in memory of its own.
pub(crate) type Carried = Option<FrozenBuffer<u8>>;

/// How a job failed without harm to its worker.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Failure {
    Panicked(Panic),
    BadArgument(RemoteError),
    BadResult(RemoteError),
}

impl From<Failure> for Outcome {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Panicked(panic) => Self::Panicked(panic),
            Failure::BadArgument(error) => Self::BadArgument(error),
            Failure::BadResult(error) => Self::BadResult(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use billiard_wire::{attachments::Received, codec};

    use super::*;

    #[test]
    fn what_a_worker_says_is_laid_out_as_tests_of_bad_ones_have_it() {
        let returned = codec::decode::<(FromWorker, Carried)>(b"\x01\x8f\x4e\0", &mut Received::default());
        assert!(matches!(returned, Ok((FromWorker::Returned(JobId(9999)), None))), "{returned:?}");
    }
}
