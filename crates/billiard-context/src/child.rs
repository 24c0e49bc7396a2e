//! The child's side of a start: from the fork, or the fresh execution, to its end.

use std::{
    convert::Infallible,
    io,
    os::fd::{AsFd, AsRawFd},
    sync::Arc,
};

use billiard_connection::{Connection, FrameReader, FrameWriter, Mode};
use billiard_wire::{
    RemoteError,
    attachments::{Attachments, Received},
    fault,
};
use rustix::process::Rlimit;

use crate::{
    current, init,
    panics::Print,
    protocol::{self, Body, Boot, Ended, Report, Start, StartMethod, Surroundings},
    sys,
    task::Outcome,
};

/// What the guardian leaves to a child that it forked.
pub(crate) struct Order {
    pub(crate) start: Start,
    pub(crate) report: Connection,
    pub(crate) argument: Vec<u8>,
    pub(crate) received: Received,
    pub(crate) descriptor_limit: Option<Rlimit>,
}

/// The exit code of a process that panicked, as Rust's own.
const PANICKED: i32 = 101;
/// The exit code of a process that could not run its function, or not give its value back.
const FAILED: i32 = 1;

/// Runs in the copy of the guardian that a fork made, after the guardian's own things were closed. Never returns.
pub(crate) fn after_fork(order: Order) -> ! {
    let Order { start: Start { method, surroundings, boot }, report, argument, received, descriptor_limit } = order;
    fault::point("child.forked");
    if !sys::die_with(boot.guardian) {
        sys::exit_now(FAILED);
    }
    sys::lead_group(None);
    if let Some(limit) = descriptor_limit {
        sys::set_descriptor_limit(limit);
    }
    fault::reload();
    fault::point("child.set_up");
    // Its dispositions are the guardian's, which are the default. What was sent to it meanwhile arrives now.
    sys::set_mask(&[]);
    if let Err(error) = settle(&surroundings) {
        not_set_up(&report, &error);
    }
    drop(surroundings);
    match method {
        StartMethod::Forkserver => run(boot, &report, argument, received),
        StartMethod::Spawn => spawn(&boot, report, argument, received),
    }
}

/// Streams, directory and umask of the caller.
fn settle(surroundings: &Surroundings) -> io::Result<()> {
    let null = sys::null()?;
    sys::set_stream(null.as_fd(), 0)?;
    for (number, stream) in [(1, &surroundings.stdout), (2, &surroundings.stderr)] {
        sys::set_stream(stream.as_ref().map_or(null.as_fd(), |stream| stream.as_fd()), number)?;
    }
    if let Some(directory) = &surroundings.directory {
        sys::enter(directory.as_fd())?;
    }
    if let Some(mask) = surroundings.umask {
        sys::set_umask(mask);
    }
    Ok(())
}

/// Executes the program afresh; `init` in it goes on in [`boot`].
fn spawn(boot: &Boot, report: Connection, argument: Vec<u8>, received: Received) -> ! {
    let Err(error) = execute(boot, &report, argument, received);
    not_set_up(&report, &error)
}

fn execute(boot: &Boot, report: &Connection, argument: Vec<u8>, received: Received) -> io::Result<Infallible> {
    let (near, far) = Connection::pair().map_err(io::Error::other)?;
    // In the order of their numbers: the report channel, then those of the argument, of which none was taken.
    let mut attachments = Attachments::default();
    for fd in std::iter::once(report.as_fd().try_clone_to_owned()?).chain(received.into_untaken()) {
        attachments.push(Arc::new(fd)).map_err(io::Error::other)?;
    }
    let message = protocol::encode(boot, &mut attachments).map_err(io::Error::other)?;
    let whole = FrameWriter::typed(&message, argument, attachments).write(&near, Mode::DontWait);
    if !whole.map_err(io::Error::other)? {
        return Err(io::Error::new(io::ErrorKind::WouldBlock, "the boot channel has no room"));
    }
    sys::set_close_on_exec(far.as_fd(), false)?;
    Err(sys::execute_afresh(&[init::CHILD, &far.as_raw_fd().to_string()]))
}

/// Goes on in a program that was executed afresh. Never returns.
pub(crate) fn boot(channel: Connection) -> ! {
    let frame = FrameReader::new().read(&channel, Mode::DontWait);
    drop(channel);
    let booted = frame.and_then(|frame| {
        let (boot, argument, mut received) =
            frame.ok_or(billiard_connection::Error::Truncated)?.decode_prefix::<Boot>()?;
        Ok((boot, protocol::take_report(&mut received)?, argument, received))
    });
    match booted {
        Ok((boot, report, argument, received)) => {
            // Executing a program that gives rights takes it away.
            if !sys::die_with(boot.guardian) {
                sys::exit_now(FAILED);
            }
            fault::reload();
            run(boot, &report, argument, received)
        }
        Err(error) => {
            eprintln!("billiard: a child was started without a word what to run: {error}");
            sys::exit_now(FAILED)
        }
    }
}

/// Calls the function and reports how it ended.
fn run(boot: Boot, report: &Connection, argument: Vec<u8>, mut received: Received) -> ! {
    sys::set_title(&boot.name);
    let Boot { name, daemon, may_have_children, print_panic, task, argument: body, guardian: _ } = boot;
    let argument = match body.into_bytes(argument) {
        Ok(argument) => argument,
        Err(error) => not_set_up(report, &error),
    };
    current::set_initialized();
    current::become_child(name, daemon, may_have_children);
    let print = if print_panic { Print::Yes } else { Print::No };
    fault::point("child.run");
    // Whoever asked for this process has to know that it exists, or has given it up: then nothing runs.
    if report.recv_bytes().is_err() {
        sys::exit_now(FAILED);
    }
    // SAFETY: the task came through the guardian, which has compared its executable with the program's.
    let outcome = match unsafe { task.run(&argument, &mut received, print) } {
        Ok(outcome) => outcome,
        Err(error) => not_set_up(report, &error),
    };
    drop((argument, received));
    let nothing = (Vec::new(), Attachments::default());
    let (ended, (bytes, attachments), code) = match outcome {
        Outcome::Returned(bytes, attachments) => (Ended::Returned, (bytes, attachments), 0),
        Outcome::Panicked(panic) => (Ended::Panicked(panic), nothing, PANICKED),
        Outcome::BadArgument(error) => (Ended::BadArgument(error), nothing, FAILED),
        Outcome::BadResult(error) => (Ended::BadResult(error), nothing, FAILED),
    };
    if let Err(error) = tell(report, &ended, &bytes, attachments) {
        let _ = tell(report, &Ended::BadResult(error), &[], Attachments::default());
        sys::exit_now(FAILED);
    }
    fault::point("child.ended");
    sys::exit_now(code)
}

fn not_set_up(report: &Connection, error: &(dyn std::error::Error + 'static)) -> ! {
    let _ = tell(report, &Ended::NotSetUp(RemoteError::msg(error)), &[], Attachments::default());
    sys::exit_now(FAILED)
}

/// The child's last word. That nobody hears it is no error.
fn tell(report: &Connection, ended: &Ended, value: &[u8], mut attachments: Attachments) -> Result<(), RemoteError> {
    // Encoding it adds no descriptors, so that those of the value keep their numbers.
    let mut bytes = protocol::encode(ended, &mut Attachments::default())?;
    bytes.extend_from_slice(value);
    let body = Body::of(&mut bytes)?;
    let message = protocol::encode(&Report::Ended(body), &mut attachments)?;
    let _ = FrameWriter::typed(&message, bytes, attachments).write(report, Mode::Wait);
    Ok(())
}
