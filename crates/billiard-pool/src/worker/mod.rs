//! The worker's side: take a job, run it, give its result, for as long as there is a pool.

use billiard_connection::{Connection, Error, FrameReader, FrameWriter, Mode};
use billiard_context::{
    panics::Print,
    task::{Outcome, Task},
};
use billiard_wire::{
    RemoteError,
    attachments::{Attachments, Received},
    codec,
    exact::Bytes,
    fault,
};

use self::items::Chunk;
use crate::{
    apart,
    message::{Carried, Failure, FromWorker, ToWorker},
    state::JobId,
    sys,
    table::{Call, Claim, Desk, DeskSent, Found, MAX_PLACED, Output, Span, Ticket},
};

mod items;

/// What a worker process runs under `Isolation::Strict`: jobs come over its socket, one at a time. It ends when the pool closes its end, or says something
/// that it does not understand.
pub(crate) fn strict(pool: Connection) {
    if !begin(&pool) {
        return;
    }
    let mut reader = FrameReader::new();
    while let Ok(Some(frame)) = reader.read(&pool, Mode::Wait) {
        let Ok(ToWorker { job, task }) = frame.head() else { return };
        let outcome = match frame.decode_prefix::<(ToWorker, Carried)>() {
            Ok((_, mut argument, received)) => {
                fault::point("worker.run");
                run(task, Bytes::Vec(&mut argument), received, Vec::new())
            }
            // Not all of its descriptors could be received: this job's bad luck alone.
            Err(error) => Outcome::BadArgument(error.into()),
        };
        fault::point("worker.publish");
        if send(&pool, job, outcome, usize::MAX).is_err() {
            return;
        }
        fault::point("worker.published");
    }
}

/// What it runs under `Isolation::Shared`: it takes jobs out of the table. It ends when it is told to, or when a job has been taken from it: the pool has decided
/// that it is to end, and a signal is on its way.
pub(crate) fn shared((pool, desk): (Connection, DeskSent)) {
    let Ok(mut desk) = desk.open() else { return };
    if !begin(&pool) {
        return;
    }
    let mut tools = Tools::default();
    let mut tasks = 0;
    while let Found::Job(claim) = desk.next() {
        fault::point("worker.claimed");
        if !work(&pool, &mut desk, &mut tools, claim) {
            return;
        }
        tasks += 1;
        if desk.max_tasks.is_some_and(|most| tasks >= most) {
            return;
        }
    }
}

fn begin(pool: &Connection) -> bool {
    sys::ignore_interrupts();
    fault::point("worker.start");
    pool.send(&(FromWorker::Up, Carried::None)).is_ok()
}

/// The largest buffer that a worker keeps for its next job.
const MOST_KEPT: usize = MAX_PLACED;

/// What one job after the other is done with.
#[derive(Debug, Default)]
struct Tools {
    reader: FrameReader,
    argument: Vec<u8>,
    result: Vec<u8>,
    /// What becomes of one item of a chunk after the other.
    laid: Vec<u8>,
}

impl Tools {
    /// Keeps the room of a value that was laid down. Where the argument has become a value, it goes on there.
    fn keep(&mut self, bytes: Vec<u8>) {
        let kept = if self.argument.capacity() == 0 { &mut self.argument } else { &mut self.result };
        *kept = bytes;
    }

    /// Of few large jobs nothing stays.
    fn shrink(&mut self) {
        for buffer in [&mut self.argument, &mut self.result] {
            if buffer.capacity() > MOST_KEPT {
                *buffer = Vec::new();
            }
        }
    }
}

/// One job out of the table; false when that was the last.
fn work(pool: &Connection, desk: &mut Desk, tools: &mut Tools, claim: Claim) -> bool {
    let Some(input) = desk.input(claim, &mut tools.argument) else { return false };
    let job = input.job;
    let number = Ticket { slot: claim.slot, job }.number();
    if input.about.has_limit {
        desk.accept(claim);
    }
    let task = match input.about.call {
        Call::One(task) => task,
        Call::Items(..) if input.is_mail => return false, // it never is
        Call::Items(task, count) => {
            let (has_limit, argument, laid) = (input.about.has_limit, &tools.argument[..], &mut tools.laid);
            let done = Chunk { pool, desk, claim, job, task, count, has_limit, argument, laid }.work();
            return done && finish(desk, claim);
        }
    };
    let buffer = std::mem::take(&mut tools.result);
    let outcome = match input.is_mail {
        false => {
            fault::point("worker.run");
            run(task, Bytes::Vec(&mut tools.argument), Received::default(), buffer)
        }
        true => {
            desk.ring();
            fault::point("worker.mail");
            let Ok(Some(frame)) = tools.reader.read(pool, Mode::Wait) else { return false };
            match frame.head::<ToWorker>() {
                Ok(head) if head.job == number => {}
                _ => return false,
            }
            match frame.decode_prefix::<(ToWorker, Carried)>() {
                Ok(((_, carried), mut behind, received)) => {
                    fault::point("worker.run");
                    let argument = carried.as_deref().map_or(Bytes::Vec(&mut behind), Bytes::Slice);
                    run(task, argument, received, buffer)
                }
                Err(error) => Outcome::BadArgument(error.into()),
            }
        }
    };
    fault::point("worker.publish");
    let (output, span) = match fit(outcome, |len| desk.room(claim, len)) {
        Ok(fitting) => fitting,
        Err(outcome) => {
            if send(pool, number, outcome, apart::LEAST).is_err() {
                return false;
            }
            fault::point("worker.sent");
            (Output::Mail, None)
        }
    };
    if !desk.lay_down(claim, job, &output, span) {
        return false;
    }
    if let Output::Value(bytes) = output {
        tools.keep(bytes);
    }
    tools.shrink();
    finish(desk, claim)
}

/// Says that the result is there, which has been laid down; false when the job is not this worker's any more.
fn finish(desk: &Desk, claim: Claim) -> bool {
    fault::point("worker.laid_down");
    let published = desk.publish(claim);
    fault::point("worker.published");
    if published {
        desk.announce(claim);
        fault::point("worker.announced");
    }
    published
}

/// What there is room for, and where, as far as it is not its record; the outcome itself where there is none.
fn fit(
    outcome: Outcome,
    mut room: impl FnMut(usize) -> Option<Option<Span>>,
) -> Result<(Output, Option<Span>), Outcome> {
    match outcome {
        Outcome::Returned(bytes, attachments) if attachments.is_empty() => match room(bytes.len()) {
            Some(span) => Ok((Output::Value(bytes), span)),
            None => Err(Outcome::Returned(bytes, attachments)),
        },
        Outcome::Returned(..) => Err(outcome),
        failed => {
            let failure = failure(failed);
            let encoded = codec::encode(&failure).ok().map(|encoded| encoded.into_parts().0);
            match encoded.and_then(|bytes| room(bytes.len()).map(|span| (Output::Failure(bytes), span))) {
                Some(fitting) => Ok(fitting),
                None => Err(failure.into()),
            }
        }
    }
}

fn run(task: Task, argument: Bytes<'_>, mut received: Received, buffer: Vec<u8>) -> Outcome {
    // SAFETY: the task came from the pool, through this worker's private socket or memory that the pool alone can write; the guardian's executable, of which
    // this process is a copy, was compared with the pool's.
    let outcome = unsafe { task.run(argument, &mut received, Print::No, buffer) };
    outcome.unwrap_or_else(|error| Outcome::BadArgument(RemoteError::from(error)))
}

/// Sends it over the socket; values of so many bytes and without descriptors, of which a message has room for so many, in memory of their own, where that is to be had.
fn send(pool: &Connection, job: JobId, outcome: Outcome, apart: usize) -> Result<(), Error> {
    let (bytes, attachments) = match outcome {
        Outcome::Returned(bytes, attachments) => (bytes, attachments),
        failed => return say(pool, &FromWorker::Failed(job, failure(failed)))?.map_or(Ok(()), Err),
    };
    let returned = FromWorker::Returned(job);
    if bytes.len() >= apart
        && attachments.is_empty()
        && let Some(carried) = apart::freeze(&bytes)
    {
        fault::point("worker.apart");
        if say_with(pool, &returned, Some(carried), Vec::new(), Attachments::default())?.is_none() {
            return Ok(());
        }
    }
    match say_with(pool, &returned, None, bytes, attachments)? {
        None => Ok(()),
        // Its descriptors: this job's bad luck alone.
        Some(refused) => {
            let failed = FromWorker::Failed(job, Failure::BadResult(refused.into()));
            say(pool, &failed)?.map_or(Ok(()), Err)
        }
    }
}

fn say(pool: &Connection, message: &FromWorker) -> Result<Option<Error>, Error> {
    say_with(pool, message, None, Vec::new(), Attachments::default())
}

/// Says something on the socket. If the kernel does not take what comes with it, and nothing of it is said, something else can be: that is the error inside.
fn say_with(
    pool: &Connection,
    message: &FromWorker,
    carried: Carried,
    bytes: Vec<u8>,
    mut attachments: Attachments,
) -> Result<Option<Error>, Error> {
    let prefix = match codec::encode_after(&(message, carried), &mut attachments) {
        Ok(prefix) => prefix,
        Err(error) => return Ok(Some(error.into())),
    };
    let mut frame = FrameWriter::typed(&prefix, bytes, attachments);
    match frame.write(pool, Mode::Wait) {
        Ok(_) => Ok(None),
        Err(error @ Error::Io { .. }) if !frame.is_begun() => Ok(Some(error)),
        Err(error) => Err(error),
    }
}

fn failure(outcome: Outcome) -> Failure {
    match outcome {
        Outcome::Panicked(panic) => Failure::Panicked(panic),
        Outcome::BadArgument(error) => Failure::BadArgument(error),
        Outcome::BadResult(error) => Failure::BadResult(error),
        Outcome::Returned(..) => unreachable!("it has a value"),
    }
}
