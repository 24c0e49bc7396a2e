//! The child's side of a start: from the fork, or the fresh execution, to its end.

use std::{fmt, io, os::fd::AsFd};

use billiard_connection::{Connection, FrameReader, FrameWriter, Mode};
use billiard_wire::{
    RemoteError,
    attachments::{Attachments, Received},
    exact::Bytes,
    fault,
};
use rustix::process::Rlimit;

use crate::{
    authkey::Revealed,
    builder, current, hooks,
    limits::Resource,
    panics::{self, Print},
    protocol::{self, Body, Boot, ChildIdentity, Ended, Go, Report, Stream, Surroundings},
    stop, sys,
    task::{Outcome, Task},
};

/// What the guardian leaves to a child that it forked.
pub(crate) struct Order {
    pub(crate) boot: Box<Boot>,
    pub(crate) report: Connection,
    pub(crate) argument: Vec<u8>,
    pub(crate) received: Received,
    pub(crate) descriptor_limit: Option<Rlimit>,
}

/// What a child calls.
pub(crate) enum Work<'a> {
    /// A function that travelled, with its argument and that one's descriptors.
    Task(Task, Vec<u8>, Received),
    /// What the copy of its starter has in memory.
    Closure(Box<dyn FnOnce(Print) -> Outcome + 'a>),
}

/// The exit code of a process that panicked, as Rust's own.
const PANICKED: i32 = 101;
/// The exit code of a process that could not run its function, or not give its value back.
const FAILED: i32 = 1;

/// What could not be done while a child was set up, and the kernel's answer.
struct SetupError(String, io::Error);

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0, self.1)
    }
}

/// Says what an error was about.
fn about(what: impl Into<String>) -> impl FnOnce(io::Error) -> SetupError {
    |error| SetupError(what.into(), error)
}

/// Runs in the copy of the guardian that a fork made, after the guardian's own things were closed. Never returns.
pub(crate) fn after_fork(order: Order) -> ! {
    let Order { boot, report, argument, received, descriptor_limit } = order;
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
    go_on(*boot, report, argument, received, Hooks::Run)
}

/// What comes to the same however a guardian's child came to be.
fn go_on(boot: Boot, report: Connection, argument: Vec<u8>, received: Received, hooks: Hooks) -> ! {
    let Boot { task, argument: body, identity, surroundings, limits, .. } = boot;
    let (report, received) = set_up(surroundings, report, received);
    let argument = match body.into_bytes(argument) {
        Ok(argument) => argument,
        Err(error) => not_set_up(&report, &error),
    };
    run(identity, &limits, &report, Work::Task(task, argument, received), hooks)
}

/// Runs in the copy of its starter that a fork made, where all signals are blocked. Never returns.
pub(crate) fn copied(
    starter: u32,
    identity: ChildIdentity,
    surroundings: Surroundings,
    environment: Option<&[u8]>,
    limits: &[(Resource, u64)],
    report: Connection,
    work: Work<'_>,
) -> ! {
    fault::point("child.forked");
    if !sys::die_with(starter) {
        sys::exit_now(FAILED);
    }
    sys::lead_group(None);
    // Its starter's handlers are for its starter.
    sys::default_dispositions();
    stop::forget();
    builder::count_anew();
    if let Some(environment) = environment {
        // SAFETY: this is the one thread of this copy, and whoever made it of a process with several has promised that
        // no other was changing the environment.
        unsafe { sys::set_environment(environment) };
    }
    fault::point("child.set_up");
    sys::set_mask(&[]);
    let (report, work) = match work {
        Work::Task(task, argument, received) => {
            let (report, received) = set_up(surroundings, report, received);
            (report, Work::Task(task, argument, received))
        }
        closure @ Work::Closure(_) => (set_up(surroundings, report, Received::default()).0, closure),
    };
    run(identity, limits, &report, work, Hooks::Run)
}

/// Settles the process, or ends it with the reason.
fn set_up(surroundings: Surroundings, report: Connection, received: Received) -> (Connection, Received) {
    // What it has of its own must not be in the way of the numbers that are wanted.
    let wanted = surroundings.attributes.numbers();
    let moved = if wanted.is_empty() { Ok((report, received)) } else { out_of_the_way(report, received, &wanted) };
    let (report, received) = match moved {
        Ok(moved) => moved,
        Err(_) => sys::exit_now(FAILED), // it has nobody to tell
    };
    match settle(surroundings) {
        Ok(()) => (report, received),
        Err(error) => not_set_up(&report, &error),
    }
}

fn out_of_the_way(report: Connection, received: Received, wanted: &[i32]) -> io::Result<(Connection, Received)> {
    let away = report.as_fd().try_clone_to_owned().and_then(|fd| sys::away_from(fd, wanted))?;
    drop(report);
    let report = Connection::try_from(away).map_err(|_| io::ErrorKind::InvalidData)?;
    Ok((report, received.try_map(|fd| sys::away_from(fd, wanted))?))
}

/// Streams, directory, and whatever else its caller asked for.
fn settle(surroundings: Surroundings) -> Result<(), SetupError> {
    let Surroundings { directory, streams, attributes } = surroundings;
    let names = ["standard input", "standard output", "standard error"];
    for ((number, stream), name) in streams.iter().enumerate().zip(names) {
        let set = match stream {
            Stream::Keep => Ok(()),
            Stream::Null => sys::null().and_then(|null| sys::set_stream(null.as_fd(), number)),
            Stream::To(fd) => sys::set_stream(fd.as_fd(), number),
        };
        set.map_err(about(name))?;
    }
    if let Some(directory) = directory {
        sys::enter(directory.as_fd()).map_err(about("the working directory"))?;
    }
    drop(streams); // before their numbers become somebody else's
    let wanted = attributes.numbers();
    let mut sources = Vec::new();
    for (number, fd) in attributes.descriptors {
        let fd = sys::away_from(fd.into_inner(), &wanted).map_err(about(format!("descriptor {number}")))?;
        sources.push((number, fd));
    }
    for (number, fd) in sources {
        // SAFETY: of this process's own descriptors none has a number that is wanted; what else its starter had open
        // there, it has asked to be replaced.
        unsafe { sys::place(fd.as_fd(), number) }.map_err(about(format!("descriptor {number}")))?;
    }
    if let Some(cpus) = attributes.cpus {
        sys::set_cpus(&cpus).map_err(about(format!("the CPUs {cpus:?}")))?;
    }
    if let Some(niceness) = attributes.niceness {
        sys::add_niceness(niceness).map_err(about(format!("niceness {niceness}")))?;
    }
    if attributes.no_new_privileges {
        sys::give_up_new_privileges().map_err(about("no new privileges"))?;
    }
    Ok(())
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
            // A guardian that has died meanwhile could not end it.
            if !sys::die_with(boot.guardian) {
                sys::exit_now(FAILED);
            }
            if let Some((current, maximum)) = boot.descriptor_limit {
                sys::set_descriptor_limit(Rlimit { current, maximum });
            }
            fault::reload();
            fault::point("child.booted");
            sys::ignore_broken_pipes(); // the standard library may not have come to it yet
            // It was executed with the guardian's mask. What was sent to it meanwhile arrives now.
            sys::set_mask(&[]);
            go_on(boot, report, argument, received, Hooks::Skip)
        }
        Err(error) => {
            eprintln!("billiard: a child was started without a word what to run: {error}");
            sys::exit_now(FAILED)
        }
    }
}

/// Whether the hooks of [`after_fork`](crate::after_fork) are called.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hooks {
    Run,
    Skip,
}

/// Calls the function and reports how it ended.
fn run(
    mut identity: ChildIdentity,
    limits: &[(Resource, u64)],
    report: &Connection,
    work: Work<'_>,
    hooks: Hooks,
) -> ! {
    sys::set_title(&identity.name);
    current::set_initialized();
    identity.authkey.take().into_iter().for_each(Revealed::adopt);
    let identity = current::become_child(identity);
    let print = if identity.print_panic { Print::Yes } else { Print::No };
    for &(resource, value) in limits {
        if let Err(error) = sys::set_limit(resource.as_rustix(), value) {
            not_set_up(report, &SetupError(format!("the limit of {resource}, {value}"), error));
        }
    }
    fault::point("child.run");
    // Whoever asked for this process has to know that it exists, or has given it up: then nothing runs.
    match report.recv::<Go>() {
        Ok(Go { umask }) => umask.into_iter().for_each(sys::set_umask),
        Err(_) => sys::exit_now(FAILED),
    }
    let hooked = if hooks == Hooks::Run { panics::catch(print, hooks::run) } else { Ok(()) };
    let outcome = match (hooked, work) {
        (Err(panic), _) => Outcome::Panicked(panic),
        (Ok(()), Work::Closure(closure)) => closure(print),
        (Ok(()), Work::Task(task, mut argument, mut received)) => {
            // SAFETY: the task came from the program or through the guardian, which has compared its executable
            // with the program's.
            match unsafe { task.run(Bytes::Vec(&mut argument), &mut received, print, Vec::new()) } {
                Ok(outcome) => outcome,
                Err(error) => not_set_up(report, &error),
            }
        }
    };
    // A limit of what its function may write is none of what it says last.
    if limits.iter().any(|&(resource, _)| resource == Resource::FileSize) {
        sys::ignore_file_size_signal();
    }
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
    // Who was asked to stop, and did so in order, ends as the signal says.
    if let Some(signal) = stop::requested() {
        sys::flush_streams();
        sys::raise_by_default(signal);
    }
    sys::exit_now(code)
}

fn not_set_up(report: &Connection, error: &dyn fmt::Display) -> ! {
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
