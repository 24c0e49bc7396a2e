//! A child is asked to end within a time, in each way in which it may take that: `child-ending METHOD`. It has one thread, so that
//! `fork` is possible. Before the last part, which stops this very process, it prints the pid of the child that has to end meanwhile.

use std::{
    io::{PipeWriter, Read, Write},
    thread,
    time::{Duration, Instant},
};

use billiard_context::{Context, EndedBy, Fd, Process, RemoteError, StartMethod};
use billiard_test_support::{Leash, end_after, is_alive, misdeeds};

/// What a child does when it is asked to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
enum Asked {
    /// It ends.
    Ends,
    /// Nothing.
    Ignores,
}

/// Whether it has children in its group, which ignore that they are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
enum Family {
    None,
    IgnoresToo,
}

type Argument = (Asked, Family, Fd<PipeWriter>, Fd<PipeWriter>);

/// Holds the leash, and so does its family.
fn waits((asked, family, leash, ready): Argument) -> Result<(), RemoteError> {
    if family == Family::IgnoresToo {
        misdeeds::ignore_sigterm();
        misdeeds::leave_somebody(false);
        misdeeds::leave_somebody(false);
    }
    match asked {
        Asked::Ignores => misdeeds::ignore_sigterm(),
        Asked::Ends => misdeeds::heed_sigterm(),
    }
    ready.into_inner().write_all(b"!")?;
    let _held = leash;
    loop {
        thread::park();
    }
}

const LONG: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_millis(150);

fn start(method: StartMethod, asked: Asked, family: Family) -> (Process<Result<(), RemoteError>>, Leash) {
    let (leash, theirs) = Leash::new();
    let (mut listen, ready) = std::io::pipe().expect("a pipe");
    let argument = (asked, family, theirs.into(), ready.into());
    let child = Context::with_method(method).process(waits, argument).start().expect("a child");
    assert_eq!(listen.read(&mut [0]).expect("it says that it is ready"), 1, "{asked:?} {family:?}: it has ended");
    (child, leash)
}

fn ended_with(child: &mut Process<Result<(), RemoteError>>, signal: i32) {
    let status = child.join_timeout(Duration::from_secs(60)).expect("it can be joined").expect("it has ended");
    assert_eq!((status.signal(), status.ended_by()), (Some(signal), EndedBy::Us), "{status}");
}

fn main() {
    billiard_context::init();
    end_after("child-ending", 100);
    let method = std::env::args().nth(1).and_then(|name| name.parse().ok()).expect("a start method");

    for family in [Family::None, Family::IgnoresToo] {
        // Whoever ends when asked ends long before the time is over, and the rest of the group with it.
        let (mut child, mut leash) = start(method, Asked::Ends, family);
        child.terminate_within(LONG).expect("it can be asked");
        ended_with(&mut child, libc::SIGTERM);
        assert!(leash.is_loose_within(20), "{family:?}: somebody of its group is left");

        // Whoever does not is ended when the time is over, and not before.
        let (mut child, mut leash) = start(method, Asked::Ignores, family);
        let begin = Instant::now();
        child.terminate_within(SHORT).expect("it can be asked");
        assert!(begin.elapsed() < Duration::from_secs(30), "it waits for nothing but the helper process");
        ended_with(&mut child, libc::SIGKILL);
        assert!(begin.elapsed() >= SHORT, "{family:?}: ended after {:?}", begin.elapsed());
        assert!(leash.is_loose_within(20), "{family:?}: somebody of its group is left");
        // It has ended: to ask again is no error.
        child.terminate_within(SHORT).expect("it can be asked");
    }

    // A stopped one hears it.
    let (mut child, _leash) = start(method, Asked::Ends, Family::None);
    // SAFETY: a signal to a child of this process that was not joined.
    unsafe { libc::kill(child.pid() as i32, libc::SIGSTOP) };
    child.terminate_within(LONG).expect("it can be asked");
    ended_with(&mut child, libc::SIGTERM);

    // A second, shorter time counts.
    let (mut child, _leash) = start(method, Asked::Ignores, Family::None);
    child.terminate_within(LONG).expect("it can be asked");
    child.terminate_within(SHORT).expect("it can be asked again");
    ended_with(&mut child, libc::SIGKILL);

    // This process stops; the time goes on.
    let (mut child, mut leash) = start(method, Asked::Ignores, Family::IgnoresToo);
    child.terminate_within(SHORT).expect("it can be asked");
    println!("{}", child.pid());
    std::io::stdout().flush().expect("somebody listens");
    // SAFETY: always.
    unsafe { libc::raise(libc::SIGSTOP) };
    assert!(!is_alive(child.pid()), "it has ended while this process was stopped");
    ended_with(&mut child, libc::SIGKILL);
    assert!(leash.is_loose_within(20), "somebody of its group is left");
}
