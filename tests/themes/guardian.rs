//! The helper process is killed and stopped: what runs ends with it, what starts is an error, and the next start works.
//! One test, since all of it is about the one helper process of this program.

use std::{io::PipeWriter, thread, time::Duration};

use billiard::{
    Context, Fd,
    connection::{Connection, Error as ConnectionError},
    context::{ChildError, Error, ExitStatus, Process},
};
use billiard_test_support::{
    Census, Leash, Random, Watchdog, descendants, eventually, is_alive, misdeeds, parent, patience, rounds,
};

billiard::init_for_tests!();

fn double(n: u64) -> u64 {
    2 * n
}

fn park(report: Connection) {
    let sleeper = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    report.send(&sleeper.id()).unwrap();
    std::mem::forget(sleeper); // nobody waits for it: this process is about to be killed
    loop {
        std::thread::park();
    }
}

fn guardian() -> u32 {
    let is_guardian = |pid: &u32| {
        is_alive(*pid)
            && std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "billiard-guard")
    };
    descendants(std::process::id()).into_iter().find(is_guardian).expect("the helper process")
}

fn signal(pid: u32, signal: i32) {
    // SAFETY: a signal to a process that descends from this one.
    unsafe { libc::kill(pid as i32, signal) };
}

fn start(n: u64) -> Result<Process<u64>, Error> {
    Context::forkserver().process(double, n).start()
}

#[test]
fn the_guardian_is_killed_and_stopped() {
    let _watchdog = Watchdog::start("the_guardian_is_killed_and_stopped", patience(110));
    assert_eq!(start(1).unwrap().take_result().unwrap(), 2);
    killed_while_a_child_runs();
    killed_at_random();
    killed_with_grandchildren();
    stopped_while_a_child_starts();
    lied_to_by_its_child();
    assert!(eventually(10, || Census::take().descendants == 1), "{:?}", descendants(std::process::id()));
}

fn killed_while_a_child_runs() {
    let (ours, theirs) = Connection::pair().unwrap();
    let mut child = Context::forkserver().process(park, theirs).start().unwrap();
    let grandchild: u32 = ours.recv().unwrap();
    signal(guardian(), libc::SIGKILL);
    let status = child.join().unwrap();
    assert_eq!(status.to_string(), "unknown exit status");
    assert!(matches!(child.take_result(), Err(ChildError::Signalled(_))));
    assert!(!is_alive(child.pid()));
    assert!(eventually(10, || !is_alive(grandchild)), "what is left of its group ends with it");
    assert_eq!(start(2).unwrap().take_result().unwrap(), 4, "another one was brought up");
}

fn killed_at_random() {
    let mut random = Random::from_env("the guardian is killed at random");
    let before = Census::take();
    let (mut values, mut ended, mut refused) = (0, 0, 0);
    let over = &std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let mut hunter = random.fork();
        scope.spawn(move || {
            while !over.load(std::sync::atomic::Ordering::Relaxed) {
                std::thread::sleep(Duration::from_micros(1000 + hunter.below(10_000)));
                if let Some(&pid) = descendants(std::process::id()).iter().min() {
                    signal(pid, libc::SIGKILL);
                }
            }
        });
        for n in 0..300 {
            match start(n).map(|mut child| child.take_result()) {
                Ok(Ok(value)) => {
                    assert_eq!(value, 2 * n);
                    values += 1;
                }
                Ok(Err(ChildError::Signalled(_))) => ended += 1,
                Err(Error::GuardianDied | Error::GuardianNotReady { .. }) => refused += 1,
                other => panic!("{other:?}"),
            }
        }
        over.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    println!("{values} values, {ended} ended with the guardian, {refused} not started");
    assert!(values > 0 && ended + refused > 0);
    // The last kill may still be on its way.
    assert!(eventually(10, || start(1).is_ok_and(|mut child| child.take_result().is_ok_and(|value| value == 2))));
    let after = || Census { descendants: before.descendants, ..Census::take() };
    assert!(eventually(10, || after() == before), "{before:?}, {:?}", after());
}

/// Has two children of its own in its group, and then ends, or waits.
fn has_children((leash, end): (Fd<PipeWriter>, bool)) -> u64 {
    misdeeds::leave_somebody(false);
    misdeeds::leave_somebody(false);
    if end {
        return 7;
    }
    let _held = leash;
    loop {
        thread::park();
    }
}

/// How often the guardian is killed at least while children with children of their own start, run and end.
const KILLS: usize = 30;

fn killed_with_grandchildren() {
    let before = Census::take();
    let (mut kills, mut exact, mut unknown, mut refused) = (0, 0, 0, 0);
    for mut random in rounds("the guardian is killed, its children have children", KILLS, 0.4) {
        let victim = guardian();
        let (mut leash, theirs) = Leash::new();
        thread::scope(|scope| {
            let delay = Duration::from_micros(random.below(15_000));
            scope.spawn(move || {
                thread::sleep(delay);
                signal(victim, libc::SIGKILL);
            });
            let mut children = Vec::new();
            for n in 0..6 {
                let context = if n % 2 == 0 { Context::forkserver() } else { Context::spawn() };
                let end = random.below(2) == 0;
                match context.process(has_children, (theirs.try_clone().unwrap().into(), end)).start() {
                    Ok(child) => children.push((end, child)),
                    Err(Error::GuardianDied | Error::GuardianNotReady { .. }) => refused += 1,
                    Err(other) => panic!("{other:?}"),
                }
            }
            // Before its children are joined: those that wait end by nothing else.
            assert!(eventually(20, || !is_alive(victim)));
            let this = std::process::id();
            let parents: Vec<u32> = descendants(this).into_iter().filter(|&pid| parent(pid) == Some(this)).collect();
            for (end, mut child) in children {
                // One of a later guardian lives on, and that one can say how it ended.
                let is_kept = parent(child.pid()).is_some_and(|parent| parents.contains(&parent));
                if !end && is_kept {
                    assert!(child.is_alive());
                    child.kill().unwrap();
                    assert_eq!(child.join().unwrap().signal(), Some(libc::SIGKILL));
                    continue;
                }
                let status = child.join().unwrap();
                match child.take_result() {
                    Ok(value) => assert!(end && value == 7 && (status.success() || status == ExitStatus::unknown())),
                    Err(ChildError::Signalled(_)) => assert!(status.code().is_none(), "{status}"),
                    Err(other) => panic!("{other:?}"),
                }
                match (status.code(), status.signal()) {
                    (Some(0), None) if end => exact += 1,
                    // It is the guardian who would have said how it ended.
                    (None, None) => unknown += 1,
                    _ => panic!("{status}, of a child that {}", if end { "ends" } else { "waits" }),
                }
            }
        });
        drop(theirs);
        assert!(leash.is_loose_within(20), "a child of a child is left: {:?}", descendants(std::process::id()));
        assert_eq!(start(9).unwrap().take_result().unwrap(), 18, "the next start works");
        kills += 1;
    }
    println!("{kills} kills: {exact} exact statuses, {unknown} unknown, {refused} starts refused");
    assert!(exact > 0 && unknown > 0);
    let after = || Census { descendants: before.descendants, ..Census::take() };
    assert!(eventually(10, || after() == before), "{before:?}, {:?}", after());
}

fn says(report: Connection) {
    report.send_bytes(b"it ran").unwrap();
}

fn stopped_while_a_child_starts() {
    let stopped = guardian();
    signal(stopped, libc::SIGSTOP);
    let (given_up, theirs) = Connection::pair().unwrap();
    let mut starting = Context::forkserver().process(says, theirs).begin().unwrap();
    assert!(starting.poll().unwrap().is_none());
    drop(starting);
    let (waited_for, theirs) = Connection::pair().unwrap();
    let starting = Context::forkserver().process(says, theirs).begin().unwrap();
    signal(stopped, libc::SIGCONT);
    let mut child = starting.wait().unwrap();
    assert_eq!(waited_for.recv_bytes().unwrap(), b"it ran");
    assert!(child.join().unwrap().success());
    let never = given_up.recv_bytes();
    assert!(matches!(never, Err(ConnectionError::Eof)), "a start that was given up runs nothing: {never:?}");
}

fn lies(_: ()) -> u64 {
    misdeeds::write_to_all_descriptors(b"\0\0\0\x0a\0\x03\0\0\0\0\0\0\0\0 and nonsense");
    std::thread::sleep(Duration::from_millis(50));
    7
}

fn lied_to_by_its_child() {
    let mut child = Context::forkserver().process(lies, ()).start().unwrap();
    let status = child.join().unwrap();
    assert!(!is_alive(child.pid()), "what a child writes does not make it ended: {status}");
    assert_eq!(start(3).unwrap().take_result().unwrap(), 6);
}
