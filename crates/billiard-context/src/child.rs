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
use nix::sys::signal::{SigHandler, Signal};

use crate::{
    current, init,
    panics::Print,
    protocol::{self, Body, Boot, Ended, Report, Start, StartMethod, Surroundings},
    sys,
    task::Outcome,
};

/// The exit code of a process that panicked, as Rust's own.
const PANICKED: i32 = 101;
/// The exit code of a process that could not run its function, or not give its value back.
const FAILED: i32 = 1;

/// Runs in the copy of the guardian that a fork made, after the guardian's own things were closed. Never returns.
pub(crate) fn after_fork(guardian: u32, start: Start, argument: Vec<u8>, received: Received) -> ! {
    fault::point("child.forked");
    if !sys::die_with(guardian) {
        sys::exit_now(FAILED);
    }
    sys::lead_group(None);
    sys::default_dispositions();
    sys::set_dispositions(&[Signal::SIGPIPE], SigHandler::SigIgn);
    sys::set_mask(&[]);
    fault::reload();
    fault::point("child.set_up");
    let Start { method, surroundings, boot } = start;
    if let Err(error) = settle(&surroundings) {
        not_set_up(&boot.report, &error);
    }
    drop(surroundings);
    match method {
        StartMethod::Forkserver => run(boot, argument, received),
        StartMethod::Spawn => spawn(boot, argument, received),
    }
}

/// Streams, directory and umask of the caller.
fn settle(surroundings: &Surroundings) -> io::Result<()> {
    let null = sys::null()?;
    sys::set_stream(null.as_fd(), 0)?;
    for (number, stream) in [(1, &surroundings.stdout), (2, &surroundings.stderr)] {
        sys::set_stream(stream.as_ref().map_or(null.as_fd(), |stream| stream.as_fd()), number)?;
    }
    sys::enter(surroundings.directory.as_fd())?;
    if let Some(mask) = surroundings.umask {
        sys::set_umask(mask);
    }
    Ok(())
}

/// Executes the program afresh; `init` in it goes on in [`boot`].
fn spawn(boot: Boot, argument: Vec<u8>, received: Received) -> ! {
    let report = boot.report.as_fd().try_clone_to_owned().ok().and_then(|fd| Connection::try_from(fd).ok());
    let Err(error) = execute(boot, argument, received);
    match report {
        Some(report) => not_set_up(&report, &error),
        None => sys::exit_now(FAILED),
    }
}

fn execute(boot: Boot, argument: Vec<u8>, received: Received) -> io::Result<Infallible> {
    let (near, far) = Connection::pair().map_err(io::Error::other)?;
    // In the order of their numbers: those of the argument stand first, and none was taken.
    let mut attachments = Attachments::default();
    for fd in received.into_untaken() {
        attachments.push(Arc::new(fd)).map_err(io::Error::other)?;
    }
    let message = protocol::encode(&boot, &mut attachments).map_err(io::Error::other)?;
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
    match frame.and_then(|frame| frame.ok_or(billiard_connection::Error::Truncated)?.decode_prefix::<Boot>()) {
        Ok((boot, argument, received)) => {
            fault::reload();
            run(boot, argument, received)
        }
        Err(error) => {
            eprintln!("billiard: a child was started without a word what to run: {error}");
            sys::exit_now(FAILED)
        }
    }
}

/// Calls the function and reports how it ended.
fn run(boot: Boot, argument: Vec<u8>, mut received: Received) -> ! {
    sys::set_title(&boot.name);
    let Boot { name, daemon, may_have_children, print_panic, task, argument: body, report } = boot;
    let argument = match body.into_bytes(argument) {
        Ok(argument) => argument,
        Err(error) => not_set_up(&report, &error),
    };
    current::set_initialized();
    current::become_child(name, daemon, may_have_children);
    let print = if print_panic { Print::Yes } else { Print::No };
    fault::point("child.run");
    // SAFETY: the task came through the guardian, which has compared its executable with the program's.
    let outcome = match unsafe { task.run(&argument, &mut received, print) } {
        Ok(outcome) => outcome,
        Err(error) => not_set_up(&report, &error),
    };
    drop((argument, received));
    let (ended, bytes, attachments, code) = match outcome {
        Outcome::Returned(mut bytes, attachments) => match Body::of(&mut bytes) {
            Ok(body) => (Ended::Returned(body), bytes, attachments, 0),
            Err(error) => (Ended::BadResult(error.into()), Vec::new(), Attachments::default(), FAILED),
        },
        Outcome::Panicked(panic) => (Ended::Panicked(panic), Vec::new(), Attachments::default(), PANICKED),
        Outcome::BadArgument(error) => (Ended::BadArgument(error), Vec::new(), Attachments::default(), FAILED),
        Outcome::BadResult(error) => (Ended::BadResult(error), Vec::new(), Attachments::default(), FAILED),
    };
    tell(&report, ended, bytes, attachments);
    fault::point("child.ended");
    sys::exit_now(code)
}

fn not_set_up(report: &Connection, error: &(dyn std::error::Error + 'static)) -> ! {
    tell(report, Ended::NotSetUp(RemoteError::msg(error)), Vec::new(), Attachments::default());
    sys::exit_now(FAILED)
}

/// The child's last word. If nobody wants to hear it, there is nobody to tell that either.
fn tell(report: &Connection, ended: Ended, bytes: Vec<u8>, mut attachments: Attachments) {
    let message = protocol::encode(&Report::Ended(ended), &mut attachments).or_else(|error| {
        // A value with more descriptors than a message carries, beside the file for its bytes.
        protocol::encode(&Report::Ended(Ended::BadResult(error.into())), &mut attachments)
    });
    if let Ok(message) = message {
        let _ = FrameWriter::typed(&message, bytes, attachments).write(report, Mode::Wait);
    }
}
