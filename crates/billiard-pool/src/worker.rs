//! The worker's side: receive a job, run it, send its result, for as long as there is a pool.

use billiard_connection::{Connection, FrameReader, FrameWriter, Mode};
use billiard_context::{
    panics::Print,
    task::{Outcome, Task},
};
use billiard_wire::{
    RemoteError,
    attachments::{Attachments, Received},
    codec, fault,
};

use crate::{
    message::{Failure, FromWorker, ToWorker},
    state::JobId,
    sys,
};

/// What a worker process runs. It ends when the pool closes its end, or says something that it does not understand.
pub(crate) fn main(pool: Connection) {
    sys::ignore_interrupts();
    fault::point("worker.start");
    if pool.send(&FromWorker::Up).is_err() {
        return;
    }
    let mut reader = FrameReader::new();
    while let Ok(Some(frame)) = reader.read(&pool, Mode::Wait) {
        let Ok(ToWorker { job, task }) = frame.head() else { return };
        let outcome = match frame.decode_prefix::<ToWorker>() {
            Ok((_, argument, received)) => {
                fault::point("worker.run");
                run(task, &argument, received)
            }
            // Not all of its descriptors could be received: this job's bad luck alone.
            Err(error) => Outcome::BadArgument(error.into()),
        };
        fault::point("worker.publish");
        if publish(&pool, job, outcome).is_err() {
            return;
        }
        fault::point("worker.published");
    }
}

fn run(task: Task, argument: &[u8], mut received: Received) -> Outcome {
    // SAFETY: the task came from the pool, through this worker's private socket; the guardian's executable, of which
    // this process is a copy, was compared with the pool's.
    let outcome = unsafe { task.run(argument, &mut received, Print::No) };
    outcome.unwrap_or_else(|error| Outcome::BadArgument(RemoteError::from(error)))
}

fn publish(pool: &Connection, job: JobId, outcome: Outcome) -> Result<(), billiard_connection::Error> {
    let (message, bytes, attachments) = match outcome {
        Outcome::Returned(bytes, attachments) => (FromWorker::Returned(job), bytes, attachments),
        Outcome::Panicked(panic) => failed(job, Failure::Panicked(panic)),
        Outcome::BadArgument(error) => failed(job, Failure::BadArgument(error)),
        Outcome::BadResult(error) => failed(job, Failure::BadResult(error)),
    };
    let (prefix, _) = codec::encode(&message)?.into_parts();
    FrameWriter::typed(&prefix, bytes, attachments).write(pool, Mode::Wait).map(drop)
}

fn failed(job: JobId, failure: Failure) -> (FromWorker, Vec<u8>, Attachments) {
    (FromWorker::Failed(job, failure), Vec::new(), Attachments::default())
}
