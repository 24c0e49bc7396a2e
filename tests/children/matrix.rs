//! Each way in which a child can end, by one start method, in one kind of host program: prints a line for each, and fails when
//! a status or a value is not what it has to be. `child-matrix METHOD HOST`.

use std::{
    io::PipeWriter,
    process::ExitCode,
    ptr, thread,
    time::{Duration, Instant},
};

use billiard_context::{
    ChildError, Context, EndedBy, ExitStatus, Fd, Message, Process, RemoteError, StartMethod, Stdio,
};
use billiard_test_support::{Leash, end_after, eventually, is_alive, misdeeds};

/// What a host program does that could make it miss how its children end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Host {
    /// Nothing.
    Quiet,
    /// SIGCHLD is ignored: the kernel keeps no status.
    Ignores,
    /// It reaps whatever child it has: in a thread that waits, or, where there may be none, in a handler of SIGCHLD.
    Reaps,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Return,
    Panic,
    ExitCode,
    Abort,
    Segfault,
    KilledByUs,
    KilledFromOutside,
    TerminatedByUs,
    TerminatedFromOutside,
    StackOverflow,
    WithItsParent,
}

const ENDS: [(End, &str); 11] = [
    (End::Return, "return"),
    (End::Panic, "panic"),
    (End::ExitCode, "exit(7)"),
    (End::Abort, "abort"),
    (End::Segfault, "SIGSEGV"),
    (End::KilledByUs, "SIGKILL, ours"),
    (End::KilledFromOutside, "SIGKILL, another's"),
    (End::TerminatedByUs, "SIGTERM, ours"),
    (End::TerminatedFromOutside, "SIGTERM, another's"),
    (End::StackOverflow, "stack overflow"),
    (End::WithItsParent, "its parent is killed"),
];

fn twice(n: u64) -> u64 {
    2 * n
}

fn panics(_: u64) -> u64 {
    panic!("out of cheese")
}

fn exits(_: u64) -> u64 {
    std::process::exit(7)
}

fn aborts(_: u64) -> u64 {
    std::process::abort()
}

fn segfaults(_: u64) -> u64 {
    misdeeds::segfault().into()
}

fn overflows(depth: u64) -> u64 {
    misdeeds::overflow_the_stack(depth)
}

fn waits(_: u64) -> u64 {
    loop {
        thread::park();
    }
}

fn waits_with(leash: Fd<PipeWriter>) {
    let _leash = leash;
    waits(0);
}

/// Starts a child that waits, says who that is, and waits too.
fn has_a_child((method, leash, say): (StartMethod, Fd<PipeWriter>, Fd<PipeWriter>)) -> Result<(), RemoteError> {
    use std::io::Write as _;

    let theirs = Fd::new(leash.try_clone()?);
    let mut child = Context::with_method(method).process(waits_with, theirs).stderr(Stdio::Null).start()?;
    say.into_inner().write_all(&child.pid().to_ne_bytes())?;
    child.join()?;
    Ok(())
}

fn outside(pid: u32, signal: i32) {
    // SAFETY: a signal to a child of this program, which was not joined.
    unsafe { libc::kill(pid as i32, signal) };
}

extern "C" fn reap_all(_: libc::c_int) {
    // SAFETY: a null status is allowed; the call is safe in a handler.
    while unsafe { libc::waitpid(-1, ptr::null_mut(), libc::WNOHANG) } > 0 {}
}

fn become_host(host: Host, method: StartMethod) {
    let on_child = |action| {
        // SAFETY: ignoring runs no code, and the handler does what is safe in one; it leaves no errno behind that
        // anybody would look at, since the calls here that fail are those that were interrupted.
        unsafe { libc::signal(libc::SIGCHLD, action) };
    };
    match (host, method) {
        (Host::Quiet, _) => {}
        (Host::Ignores, _) => on_child(libc::SIG_IGN),
        (Host::Reaps, StartMethod::Fork) => on_child(reap_all as *const () as usize),
        (Host::Reaps, _) => drop(thread::spawn(|| {
            loop {
                // SAFETY: a null status is allowed.
                if unsafe { libc::waitpid(-1, ptr::null_mut(), 0) } < 0 {
                    thread::sleep(Duration::from_micros(100)); // it has no child
                }
            }
        })),
    }
}

/// What there was at an end.
struct Seen {
    status: ExitStatus,
    value: String,
    /// The value, or the error in its place, is the one that belongs to this end.
    right: bool,
}

/// What `take_result` gives, in a word; and whether it belongs to that end.
fn name<R: PartialEq<u64>>(end: End, status: &ExitStatus, result: Result<R, ChildError>) -> (String, bool) {
    let same = |error: &ExitStatus| error == status;
    match result {
        Ok(value) => ("value".into(), end == End::Return && value == 42),
        Err(ChildError::Panicked(panic)) => {
            let wanted = std::env::var("RUST_BACKTRACE").is_ok_and(|value| value == "1");
            let backtrace = panic.backtrace().map_or(0, |text| text.lines().count());
            let right = end == End::Panic
                && panic.message() == "out of cheese"
                && panic.location().is_some_and(|location| location.contains("matrix.rs:"))
                && (backtrace > 1) == wanted;
            (format!("panic, {backtrace} lines of backtrace"), right)
        }
        // One of which nobody knows how it ended may have ended by a code.
        Err(ChildError::Exited(error)) => ("exited".into(), end == End::ExitCode && same(&error)),
        Err(ChildError::Signalled(error)) => {
            let may_be = ![End::Return, End::Panic].contains(&end) && (end != End::ExitCode || error.code().is_none());
            ("signalled".into(), may_be && same(&error))
        }
        Err(error) => (format!("{error}"), false),
    }
}

fn see<R: Message + PartialEq<u64>>(end: End, mut child: Process<R>) -> Seen {
    let status = child.join().expect("a child can be joined");
    let (value, right) = name(end, &status, child.take_result());
    let right = right && !is_alive(child.pid()) && matches!(child.take_result(), Err(ChildError::Taken));
    Seen { status, value, right }
}

fn run(method: StartMethod, end: End) -> Seen {
    let start = |function: fn(u64) -> u64, argument| {
        let context = Context::with_method(method);
        context.process(function, argument).print_panic(false).stderr(Stdio::Null).start().expect("a child")
    };
    let child = match end {
        End::Return => start(twice, 21),
        End::Panic => start(panics, 0),
        End::ExitCode => start(exits, 0),
        End::Abort => start(aborts, 0),
        End::Segfault => start(segfaults, 0),
        End::StackOverflow => start(overflows, 0),
        End::KilledByUs | End::KilledFromOutside | End::TerminatedByUs | End::TerminatedFromOutside => start(waits, 0),
        End::WithItsParent => return with_its_parent(method),
    };
    match end {
        End::KilledByUs => child.kill().expect("it can be killed"),
        End::TerminatedByUs => child.terminate().expect("it can be asked to end"),
        End::KilledFromOutside => outside(child.pid(), libc::SIGKILL),
        End::TerminatedFromOutside => outside(child.pid(), libc::SIGTERM),
        _ => {}
    }
    see(end, child)
}

/// A child that has a child itself is killed from outside: of the grandchild nothing is left.
fn with_its_parent(method: StartMethod) -> Seen {
    use std::io::Read as _;

    let (mut leash, theirs) = Leash::new();
    let (mut listen, say) = std::io::pipe().expect("a pipe");
    let argument = (method, theirs.into(), say.into());
    let mut child = Context::with_method(method).process(has_a_child, argument).start().expect("a child");
    let mut pid = [0; 4];
    listen.read_exact(&mut pid).expect("it says who its child is");
    let grandchild = u32::from_ne_bytes(pid);
    let lived = is_alive(grandchild) && is_alive(child.pid());
    outside(child.pid(), libc::SIGKILL);
    let status = child.join().expect("a child can be joined");
    let signalled = matches!(child.take_result(), Err(ChildError::Signalled(_)));
    let gone = leash.is_loose_within(20) && eventually(20, || !is_alive(grandchild));
    let value = format!("signalled, its child {}", if gone { "gone" } else { "LEFT" });
    Seen { status, value, right: lived && gone && signalled }
}

/// Whether it is the status that this end has to have.
fn is_exact(end: End, status: &ExitStatus) -> bool {
    let (code, signal, ended_by) = match end {
        End::Return => (Some(0), None, EndedBy::Itself),
        End::Panic => (Some(101), None, EndedBy::Itself),
        End::ExitCode => (Some(7), None, EndedBy::Itself),
        // Rust's own handler tells a stack overflow from other faults, and aborts.
        End::Abort | End::StackOverflow => (None, Some(libc::SIGABRT), EndedBy::Unknown),
        End::Segfault => (None, Some(libc::SIGSEGV), EndedBy::Unknown),
        End::KilledByUs => (None, Some(libc::SIGKILL), EndedBy::Us),
        End::KilledFromOutside | End::WithItsParent => (None, Some(libc::SIGKILL), EndedBy::Unknown),
        End::TerminatedByUs => (None, Some(libc::SIGTERM), EndedBy::Us),
        End::TerminatedFromOutside => (None, Some(libc::SIGTERM), EndedBy::Unknown),
    };
    let seen = (status.code(), status.signal(), status.ended_by());
    seen == (code, signal, ended_by) && status.usage().is_some() && status.lifetime().is_some()
}

fn main() -> ExitCode {
    billiard_context::init();
    end_after("child-matrix", 100);
    misdeeds::dump_no_core();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [method, host] = &arguments[..] else { panic!("usage: child-matrix METHOD HOST") };
    let method: StartMethod = method.parse().expect("a start method");
    let host = match host.as_str() {
        "quiet" => Host::Quiet,
        "ignores" => Host::Ignores,
        "reaps" => Host::Reaps,
        other => panic!("{other:?} is no host: quiet, ignores or reaps"),
    };
    become_host(host, method);
    let mut wrong = 0;
    for (end, what) in ENDS {
        let begin = Instant::now();
        let Seen { status, value, right } = run(method, end);
        // Nobody but the child's own parent learns how it ended; and that one may be told nothing, or too late.
        let may_be_unknown = method == StartMethod::Fork && host != Host::Quiet && status == ExitStatus::unknown();
        let right = right && (is_exact(end, &status) || may_be_unknown);
        wrong += usize::from(!right);
        println!(
            "{:<12}{:<9}{:<22}{:<22}{:<9}{:<36}{:>5} ms{}",
            method.to_string(),
            format!("{host:?}").to_lowercase(),
            what,
            status.to_string(),
            format!("{:?}", status.ended_by()),
            value,
            begin.elapsed().as_millis(),
            if right { "" } else { "  WRONG" },
        );
    }
    if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
