//! The child's side of a start: from the fork, or the fresh execution, to its end.

use std::{
    convert::Infallible,
    fmt, io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
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
    authkey::Revealed,
    current, hooks, init,
    limits::Resource,
    panics::{self, Print},
    protocol::{self, Body, Boot, ChildIdentity, Ended, Report, Start, StartMethod, Stream, Surroundings},
    stop, sys,
    task::{Outcome, Task},
};

/// What the guardian leaves to a child that it forked.
pub(crate) struct Order {
    pub(crate) start: Box<Start>,
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
    let Order { start, report, argument, received, descriptor_limit } = order;
    let Start { method, surroundings, boot, key: _ } = *start;
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
    let (report, received) = set_up(surroundings, report, received);
    match method {
        StartMethod::Spawn => spawn(&boot, report, argument, received),
        StartMethod::Forkserver | StartMethod::Fork => {
            let argument = argument_of(boot.argument, argument, &report);
            let work = Work::Task(boot.task, argument, received);
            run(boot.identity, &boot.limits, &report, work, Hooks::Run)
        }
    }
}

/// Runs in the copy of its starter that a fork made, where all signals are blocked. Never returns.
pub(crate) fn copied(
    starter: u32,
    identity: ChildIdentity,
    surroundings: Surroundings,
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
    let wanted: Vec<i32> = surroundings.attributes.descriptors.iter().map(|&(number, _)| number).collect();
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
    let received: io::Result<Vec<OwnedFd>> =
        received.into_untaken().into_iter().map(|fd| sys::away_from(fd, wanted)).collect();
    Ok((report, received?.into()))
}

/// Streams, directory, umask, and whatever else its caller asked for.
fn settle(surroundings: Surroundings) -> Result<(), SetupError> {
    let Surroundings { directory, streams, umask, environment, attributes } = surroundings;
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
    if let Some(mask) = umask {
        sys::set_umask(mask);
    }
    if let Some(environment) = environment {
        let environment = environment.into_bytes().map_err(about("the environment"))?;
        // SAFETY: this process was just forked by its one thread; or its caller has promised the like.
        unsafe { sys::set_environment(&environment) };
    }
    let wanted: Vec<i32> = attributes.descriptors.iter().map(|&(number, _)| number).collect();
    let mut sources = Vec::new();
    for (number, fd) in attributes.descriptors {
        let fd = sys::away_from(fd.into_inner(), &wanted).map_err(about(format!("descriptor {number}")))?;
        sources.push((number, fd));
    }
    for (number, fd) in sources {
        // A fresh execution keeps it, and makes it close-on-exec afterwards.
        // SAFETY: of this process's own descriptors none has a number that is wanted; what else its starter had open
        // there, it has asked to be replaced.
        unsafe { sys::place(fd.as_fd(), number, false) }.map_err(about(format!("descriptor {number}")))?;
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
    fault::point("child.execute");
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
            boot.descriptors.iter().for_each(|&number| sys::close_number_on_exec(number));
            fault::reload();
            let argument = argument_of(boot.argument, argument, &report);
            run(boot.identity, &boot.limits, &report, Work::Task(boot.task, argument, received), Hooks::Skip)
        }
        Err(error) => {
            eprintln!("billiard: a child was started without a word what to run: {error}");
            sys::exit_now(FAILED)
        }
    }
}

fn argument_of(body: Body, behind: Vec<u8>, report: &Connection) -> Vec<u8> {
    match body.into_bytes(behind) {
        Ok(argument) => argument,
        Err(error) => not_set_up(report, &error),
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
    if report.recv_bytes().is_err() {
        sys::exit_now(FAILED);
    }
    let hooked = if hooks == Hooks::Run { panics::catch(print, hooks::run) } else { Ok(()) };
    let outcome = match (hooked, work) {
        (Err(panic), _) => Outcome::Panicked(panic),
        (Ok(()), Work::Closure(closure)) => closure(print),
        (Ok(()), Work::Task(task, argument, mut received)) => {
            // SAFETY: the task came from the program or through the guardian, which has compared its executable
            // with the program's.
            match unsafe { task.run(&argument, &mut received, print) } {
                Ok(outcome) => outcome,
                Err(error) => not_set_up(report, &error),
            }
        }
    };
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
