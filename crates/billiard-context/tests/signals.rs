//! Signals, stopping in order, scopes, and the list of children. Plain tests, run in parallel.

use std::time::Duration;

use billiard_connection::Connection;
use billiard_context::{ChildError, Context, EndedBy, Process, Signal, Stop, StopSignals, active_children, scope};
use billiard_test_support::{Watchdog, eventually, is_alive};

billiard_context::init_for_tests!();

const BOTH: [fn() -> Context; 2] = [Context::forkserver, Context::spawn];

fn sleeps(_: ()) {
    loop {
        std::thread::park();
    }
}

fn start<A: billiard_context::Message, R: billiard_context::Message>(function: fn(A) -> R, argument: A) -> Process<R> {
    Context::forkserver().process(function, argument).print_panic(false).start().unwrap()
}

#[test]
fn who_ended_it_and_how_long_it_lived_is_told() {
    let _watchdog = Watchdog::start("who_ended_it_and_how_long_it_lived_is_told", 60);
    for context in BOTH {
        let start = || context().process(sleeps, ()).start().unwrap();
        for (end, signal) in [
            (Process::kill as fn(&Process) -> _, Signal::KILL),
            (Process::terminate, Signal::TERM),
            (Process::interrupt, Signal::INT),
            (|process| process.send_signal(Signal::USR2), Signal::USR2),
        ] {
            let mut child = start();
            end(&child).unwrap();
            let status = child.join().unwrap();
            assert_eq!((status.signal(), status.ended_by()), (Some(signal.as_raw()), EndedBy::Us), "{status}");
        }

        let mut child = start();
        // SAFETY: a signal to a child that is not reaped before it is joined.
        unsafe { libc::kill(child.pid() as i32, libc::SIGTERM) };
        let status = child.join().unwrap();
        assert_eq!((status.signal(), status.ended_by()), (Some(15), EndedBy::Unknown), "{status}");

        fn naps(ms: u64) {
            std::thread::sleep(Duration::from_millis(ms));
        }
        let mut child = context().process(naps, 30).start().unwrap();
        let status = child.join().unwrap();
        assert_eq!(status.ended_by(), EndedBy::Itself);
        let lifetime = status.lifetime().unwrap();
        assert!(lifetime >= Duration::from_millis(30) && lifetime < Duration::from_secs(50), "{lifetime:?}");
    }
}

#[test]
fn a_process_is_asked_to_end_by_the_signal_of_its_builder() {
    let _watchdog = Watchdog::start("a_process_is_asked_to_end_by_the_signal_of_its_builder", 60);
    for context in BOTH {
        let mut child = context().process(sleeps, ()).term_signal(Signal::QUIT).start().unwrap();
        child.terminate().unwrap();
        assert_eq!(child.join().unwrap().signal(), Some(Signal::QUIT.as_raw()));
    }
}

fn stops_in_order((ready, signals): (Connection, Vec<i32>)) -> String {
    let signals = match &signals[..] {
        [] => StopSignals::Minimal,
        [0] => StopSignals::Full,
        these => StopSignals::These(these.iter().map(|&number| Signal::from_raw(number).unwrap()).collect()),
    };
    let stop = Stop::install(&signals).unwrap();
    assert_eq!(stop.requested(), None);
    ready.send_bytes(b"ready").unwrap();
    let signal = stop.wait_timeout(Duration::from_secs(50)).unwrap().unwrap();
    assert_eq!(stop.requested(), Some(signal));
    format!("stopped by {signal}")
}

#[test]
fn a_child_that_is_asked_to_stop_gives_its_value_and_ends_by_the_signal() {
    let _watchdog = Watchdog::start("a_child_that_is_asked_to_stop_gives_its_value_and_ends_by_the_signal", 60);
    for context in BOTH {
        for (signals, signal) in [
            (vec![], Signal::TERM),
            (vec![], Signal::HUP),
            (vec![0], Signal::USR2),
            (vec![40], Signal::from_raw(40).unwrap()),
        ] {
            let (ours, theirs) = Connection::pair().unwrap();
            let mut child = context().process(stops_in_order, (theirs, signals)).start().unwrap();
            assert_eq!(ours.recv_bytes().unwrap(), b"ready");
            child.send_signal(signal).unwrap();
            assert_eq!(child.join().unwrap().signal(), Some(signal.as_raw()));
            assert_eq!(child.take_result().unwrap(), format!("stopped by {signal}"));
        }
    }
}

fn does_not_stop(ready: Connection) {
    Stop::install(&StopSignals::default()).unwrap();
    ready.send_bytes(b"ready").unwrap();
    sleeps(())
}

#[test]
fn asked_a_second_time_it_ends_at_once() {
    let _watchdog = Watchdog::start("asked_a_second_time_it_ends_at_once", 60);
    let (ours, theirs) = Connection::pair().unwrap();
    let mut child = start(does_not_stop, theirs);
    ours.recv_bytes().unwrap();
    child.send_signal(Signal::TERM).unwrap();
    child.send_signal(Signal::HUP).unwrap();
    assert_eq!(child.join().unwrap().code(), Some(70));
    assert!(matches!(child.take_result(), Err(ChildError::Exited(_))));
}

fn ignores_and_installs(ready: Connection) -> bool {
    // SAFETY: ignoring a signal runs no code.
    unsafe { libc::signal(libc::SIGHUP, libc::SIG_IGN) };
    let stop = Stop::install(&StopSignals::Minimal).unwrap();
    ready.send_bytes(b"ready").unwrap();
    assert_eq!(ready.recv_bytes().unwrap(), b"go on");
    stop.requested().is_none()
}

#[test]
fn what_is_ignored_stays_ignored() {
    let _watchdog = Watchdog::start("what_is_ignored_stays_ignored", 60);
    let (ours, theirs) = Connection::pair().unwrap();
    let mut child = start(ignores_and_installs, theirs);
    ours.recv_bytes().unwrap();
    child.send_signal(Signal::HUP).unwrap();
    ours.send_bytes(b"go on").unwrap();
    assert!(child.take_result().unwrap());
    assert!(child.join().unwrap().success());
}

#[test]
fn the_children_that_live_are_listed() {
    let _watchdog = Watchdog::start("the_children_that_live_are_listed", 60);
    // Other tests start children meanwhile: these have names of their own.
    let listed = || {
        let all = active_children();
        all.into_iter().filter(|child| child.name().starts_with("listed")).collect::<Vec<_>>()
    };
    let names = || listed().iter().map(|child| child.name().to_owned()).collect::<Vec<_>>();
    let start = |name: &str, daemon| {
        Context::forkserver().process(sleeps, ()).name(format!("listed {name}")).daemon(daemon).start().unwrap()
    };
    let (mut first, second, third) = (start("first", false), start("second", true), start("third", false));
    assert_eq!(names(), ["listed first", "listed second", "listed third"]);
    assert!(!listed()[0].is_daemon() && listed()[1].is_daemon());
    first.kill().unwrap();
    first.join().unwrap();
    let pid = second.pid();
    drop(second);
    assert!(!is_alive(pid));
    third.detach();
    assert_eq!(names(), ["listed third"]);
    let detached = listed().remove(0);
    detached.terminate().unwrap();
    assert!(eventually(20, || !detached.is_alive() && listed().is_empty()));
}

fn reports_its_end(report: Connection) {
    let _ = report.recv_bytes();
    report.send_bytes(b"done").unwrap();
}

#[test]
fn a_scope_waits_for_its_children_and_ends_the_daemonic() {
    let _watchdog = Watchdog::start("a_scope_waits_for_its_children_and_ends_the_daemonic", 60);
    let context = Context::forkserver();
    let (ours, theirs) = Connection::pair().unwrap();
    let (worker, daemon) = scope(|scope| {
        let worker = scope.start(context.process(reports_its_end, theirs)).unwrap().pid();
        let daemon = scope.start(context.process(sleeps, ()).daemon(true)).unwrap();
        let mut joined = scope.start(context.process(u32::count_ones, 7)).unwrap();
        assert_eq!(joined.take_result().unwrap(), 3);
        ours.send_bytes(b"end").unwrap();
        (worker, daemon.pid())
    });
    assert_eq!(ours.recv_bytes().unwrap(), b"done", "it was waited for, not killed");
    assert!(!is_alive(worker) && !is_alive(daemon));
}

fn ignores_term(ready: Connection) {
    billiard_test_support::misdeeds::ignore_sigterm();
    ready.send_bytes(b"ready").unwrap();
    sleeps(())
}

#[test]
fn a_scope_ends_even_the_deaf() {
    let _watchdog = Watchdog::start("a_scope_ends_even_the_deaf", 60);
    let (ours, theirs) = Connection::pair().unwrap();
    let context = Context::spawn();
    scope(|scope| {
        scope.start(context.process(ignores_term, theirs).daemon(true)).unwrap();
        ours.recv_bytes().unwrap();
    });
    assert!(ours.recv_bytes().is_err(), "its end of the connection is closed");
}

#[test]
fn a_scope_that_panics_waits_for_nobody() {
    let _watchdog = Watchdog::start("a_scope_that_panics_waits_for_nobody", 60);
    let mut pid = 0;
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        scope(|scope| {
            pid = scope.start(Context::forkserver().process(sleeps, ())).unwrap().pid();
            panic!("as planned");
        })
    }));
    assert!(panicked.is_err());
    assert!(!is_alive(pid));
}
