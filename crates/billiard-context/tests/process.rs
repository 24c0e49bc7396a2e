//! One process at a time: how it starts, what it has, how it ends. Plain tests, run in parallel.

use std::{
    fs::File,
    io::{Read, Write},
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use billiard_connection::{Connection, wait};
use billiard_context::{ChildError, Context, Error, Fd, Process, RemoteError, current};
use billiard_test_support::{Stopped, Watchdog, eventually, is_alive, parent};

billiard_context::init_for_tests!();

const BOTH: [fn() -> Context; 2] = [Context::forkserver, Context::spawn];

fn double(n: u64) -> u64 {
    n * 2
}

fn start<A: billiard_context::Message, R: billiard_context::Message>(function: fn(A) -> R, argument: A) -> Process<R> {
    Context::forkserver().process(function, argument).print_panic(false).start().unwrap()
}

#[test]
fn a_child_returns_a_value() {
    let _watchdog = Watchdog::start("a_child_returns_a_value", 60);
    for context in BOTH {
        let mut child = context().process(double, 21).start().unwrap();
        assert!(child.join().unwrap().success());
        assert_eq!(child.take_result().unwrap(), 42);
        assert!(matches!(child.take_result(), Err(ChildError::Taken)));
        assert!(!child.is_alive());
    }
}

fn describe(_: ()) -> (String, bool, u32, String, u32) {
    let directory = std::env::current_dir().unwrap().display().to_string();
    let current = current();
    (current.name.to_owned(), current.daemon, current.pid, directory, std::os::unix::process::parent_id())
}

#[test]
fn a_child_knows_its_name_and_has_its_callers_directory() {
    let _watchdog = Watchdog::start("a_child_knows_its_name_and_has_its_callers_directory", 60);
    for context in BOTH {
        let mut child =
            context().process(describe, ()).name("a name longer than fifteen").daemon(true).start().unwrap();
        let (name, daemon, pid, directory, parent) = child.take_result().unwrap();
        assert_eq!(name, child.name());
        assert_eq!((daemon, pid), (true, child.pid()));
        assert_eq!(directory, std::env::current_dir().unwrap().display().to_string());
        assert_ne!(parent, std::process::id(), "it is the guardian's child");
    }
    assert_eq!(current().name, "MainProcess");
}

fn panics(message: String) {
    panic!("{message}")
}

fn exits(code: i32) {
    std::process::exit(code)
}

fn aborts(_: ()) {
    std::process::abort()
}

fn sleeps(_: ()) {
    loop {
        std::thread::park();
    }
}

fn errs(path: String) -> Result<String, RemoteError> {
    Ok(std::fs::read_to_string(path)?)
}

#[test]
fn each_end_has_its_status_and_its_error() {
    let _watchdog = Watchdog::start("each_end_has_its_status_and_its_error", 60);
    let mut child = start(panics, "out of cheese".to_owned());
    let error = child.take_result().unwrap_err();
    let ChildError::Panicked(panic) = &error else { panic!("{error}") };
    assert_eq!(panic.message(), "out of cheese");
    assert!(panic.location().unwrap().contains("process.rs"));
    assert_eq!(child.join().unwrap().code(), Some(101));
    assert!(matches!(child.take_result(), Err(ChildError::Taken)));

    let long = start(panics, "x".repeat(20_000)).take_result().unwrap_err();
    assert!(matches!(long, ChildError::Panicked(panic) if panic.message().len() > 10_000));

    let mut child = start(exits, 7);
    assert_eq!(child.join().unwrap().code(), Some(7));
    assert!(matches!(child.take_result(), Err(ChildError::Exited(status)) if status.to_string() == "exit code 7"));

    let mut child = start(aborts, ());
    assert!(matches!(child.take_result(), Err(ChildError::Signalled(status)) if status.signal() == Some(6)));

    let mut child = start(sleeps, ());
    assert!(child.is_alive());
    assert_eq!(child.join_timeout(Duration::from_millis(5)).unwrap(), None);
    child.kill().unwrap();
    assert_eq!(child.join().unwrap().to_string(), "signal 9 (SIGKILL)");
    child.kill().unwrap(); // no error, and nobody else is hit
    assert!(child.join().unwrap().usage().is_some());

    let mut child = start(sleeps, ());
    child.terminate().unwrap();
    assert_eq!(child.join().unwrap().signal(), Some(15));

    let missing = start(errs, "/no/such/file".to_owned()).take_result().unwrap();
    assert!(missing.unwrap_err().message().contains("No such file"));
}

#[test]
fn a_signal_to_a_child_that_is_just_born_is_not_lost() {
    let _watchdog = Watchdog::start("a_signal_to_a_child_that_is_just_born_is_not_lost", 100);
    for context in BOTH {
        for _ in 0..200 {
            let mut child = context().process(sleeps, ()).start().unwrap();
            child.terminate().unwrap();
            assert_eq!(child.join().unwrap().signal(), Some(15));
        }
    }
}

#[test]
fn a_stopped_child_can_be_terminated() {
    let _watchdog = Watchdog::start("a_stopped_child_can_be_terminated", 60);
    let mut child = start(sleeps, ());
    rustix_kill(child.pid(), "STOP");
    assert!(eventually(10, || state(child.pid()) == Some('T')));
    child.terminate().unwrap();
    assert_eq!(child.join().unwrap().signal(), Some(15));
}

fn rustix_kill(pid: u32, signal: &str) {
    assert!(
        std::process::Command::new("kill").arg(format!("-{signal}")).arg(pid.to_string()).status().unwrap().success()
    );
}

fn state(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.trim_start().chars().next()
}

#[test]
fn the_sentinel_is_readable_at_the_end() {
    let _watchdog = Watchdog::start("the_sentinel_is_readable_at_the_end", 60);
    let child = start(sleeps, ());
    assert!(wait(&[&child], Some(Duration::ZERO)).unwrap().is_empty());
    child.kill().unwrap();
    assert_eq!(wait(&[&child], None).unwrap(), [0]);
}

fn copy((mut from, to, say): (Fd<File>, Connection, String)) -> Fd<File> {
    let mut text = String::new();
    from.read_to_string(&mut text).unwrap();
    to.send(&(say, text)).unwrap();
    from
}

#[test]
fn files_and_connections_travel_as_parts_of_the_argument_and_the_result() {
    let _watchdog = Watchdog::start("files_and_connections_travel_as_parts_of_the_argument_and_the_result", 60);
    for context in BOTH {
        let (ours, theirs) = Connection::pair().unwrap();
        let path = std::env::temp_dir().join(format!("billiard-argument-{}", std::process::id()));
        std::fs::write(&path, "hello").unwrap();
        let file = File::open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let mut child = context().process(copy, (file.into(), theirs, "it says".to_owned())).start().unwrap();
        assert_eq!(ours.recv::<(String, String)>().unwrap(), ("it says".to_owned(), "hello".to_owned()));
        let back = child.take_result().unwrap();
        assert_eq!(back.metadata().unwrap().len(), 5);
        assert!(ours.recv_bytes().is_err(), "the parent kept no copy of the child's end");
    }
}

fn sum(numbers: Vec<u64>) -> Vec<u64> {
    numbers.iter().map(|n| n + 1).collect()
}

#[test]
fn large_arguments_and_results_travel() {
    let _watchdog = Watchdog::start("large_arguments_and_results_travel", 60);
    for context in BOTH {
        for len in [0, 200, 2_000, 1_000_000] {
            let numbers: Vec<u64> = (0..len).collect();
            let mut child = context().process(sum, numbers).start().unwrap();
            assert!(child.join().unwrap().success(), "before anybody took its value");
            assert_eq!(child.take_result().unwrap(), (1..=len).collect::<Vec<_>>());
        }
    }
}

fn open_descriptors(_: ()) -> Vec<(u32, String)> {
    let mut open: Vec<_> = std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .flatten()
        .filter_map(|entry| {
            let number = entry.file_name().to_str()?.parse().ok()?;
            Some((number, std::fs::read_link(entry.path()).ok()?.display().to_string()))
        })
        .filter(|(_, target)| !target.ends_with("/fd")) // the one that reads the folder
        .collect();
    open.sort();
    open
}

#[test]
fn a_child_has_only_what_it_was_given() {
    let _watchdog = Watchdog::start("a_child_has_only_what_it_was_given", 60);
    let _siblings: Vec<_> = (0..5).map(|_| start(sleeps, ())).collect();
    for context in BOTH {
        let mut child = context().process(open_descriptors, ()).start().unwrap();
        let open = child.take_result().unwrap();
        let beyond: Vec<_> = open.iter().filter(|(number, _)| *number > 2).collect();
        // Its report channel alone.
        assert!(beyond.len() == 1 && beyond[0].1.starts_with("socket:"), "{open:?}");
        assert_eq!(open[0], (0, "/dev/null".to_owned()));
    }
}

fn signals(_: ()) -> Vec<String> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let wanted = ["SigBlk", "SigIgn"];
    status.lines().filter(|line| wanted.iter().any(|name| line.starts_with(name))).map(str::to_owned).collect()
}

#[test]
fn a_child_has_default_signals() {
    let _watchdog = Watchdog::start("a_child_has_default_signals", 60);
    for context in BOTH {
        let lines = context().process(signals, ()).start().unwrap().take_result().unwrap();
        let number = |name: &str| {
            let line = lines.iter().find_map(|line| line.strip_prefix(name)).unwrap();
            u64::from_str_radix(line.trim_start_matches(':').trim(), 16).unwrap()
        };
        assert_eq!(number("SigBlk"), 0, "{lines:?}");
        // 32 and 33 belong to the C library, which lets nobody change them.
        let ignored = number("SigIgn") & !(0b11 << 31);
        assert_eq!(ignored, 1 << 12, "SIGPIPE alone, as Rust programs expect: {lines:?}");
    }
}

fn forks_a_sleeper(report: Connection) {
    let sleeper = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    report.send(&sleeper.id()).unwrap();
    std::mem::forget(sleeper);
}

#[test]
fn a_childs_process_group_ends_with_it() {
    let _watchdog = Watchdog::start("a_childs_process_group_ends_with_it", 60);
    let (ours, theirs) = Connection::pair().unwrap();
    let mut child = start(forks_a_sleeper, theirs);
    let sleeper: u32 = ours.recv().unwrap();
    child.join().unwrap();
    assert!(eventually(10, || !is_alive(sleeper)));
}

#[test]
fn dropping_kills_and_detaching_does_not() {
    let _watchdog = Watchdog::start("dropping_kills_and_detaching_does_not", 60);
    let dropped = start(sleeps, ());
    let pid = dropped.pid();
    drop(dropped);
    assert!(!is_alive(pid));

    let (ours, theirs) = Connection::pair().unwrap();
    let child = start(echo, theirs);
    child.detach();
    ours.send_bytes(b"still there").unwrap();
    assert_eq!(ours.recv_bytes().unwrap(), b"still there");
}

fn echo(connection: Connection) {
    while let Ok(message) = connection.recv_bytes() {
        connection.send_bytes(&message).unwrap();
    }
}

fn starts_a_child(allowed: bool) -> Result<u64, String> {
    let _ = allowed;
    let child = Context::forkserver().process(double, 4).start();
    child.map_err(|error| error.to_string()).and_then(|mut child| child.take_result().map_err(|e| e.to_string()))
}

#[test]
fn children_have_children_unless_they_are_daemonic() {
    let _watchdog = Watchdog::start("children_have_children_unless_they_are_daemonic", 60);
    assert_eq!(start(starts_a_child, true).take_result().unwrap(), Ok(8));
    let context = Context::forkserver();
    let refused = context.process(starts_a_child, false).daemon(true).start().unwrap().take_result().unwrap();
    assert_eq!(refused, Err("daemonic processes are not allowed to have children".to_owned()));
    let mut allowed = context.process(starts_a_child, true).daemon(true).may_have_children(true).start().unwrap();
    assert_eq!(allowed.take_result().unwrap(), Ok(8));
}

fn prints_to(file: Fd<File>) {
    // SAFETY: the streams are this process's own.
    unsafe { libc::dup2(std::os::fd::AsRawFd::as_raw_fd(&*file), 1) };
    print!("a line without an end");
    // A thread that holds the stream's lock for ever keeps nobody from ending.
    std::thread::spawn(|| {
        let _held = std::io::stdout().lock();
        std::thread::park();
    });
}

#[test]
fn what_a_child_printed_is_written_when_it_ends() {
    let _watchdog = Watchdog::start("what_a_child_printed_is_written_when_it_ends", 60);
    let path = std::env::temp_dir().join(format!("billiard-printed-{}", std::process::id()));
    let file = File::create(&path).unwrap();
    let mut child = start(prints_quietly, Fd::new(file));
    assert!(child.join().unwrap().success());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "a line without an end");
    std::fs::remove_file(&path).unwrap();

    let mut child = start(prints_to, Fd::new(File::open("/dev/null").unwrap()));
    assert!(child.join_timeout(Duration::from_secs(30)).unwrap().is_some());
}

fn prints_quietly(file: Fd<File>) {
    // SAFETY: the streams are this process's own.
    unsafe { libc::dup2(std::os::fd::AsRawFd::as_raw_fd(&*file), 1) };
    print!("a line without an end");
}

struct Stubborn;

impl serde::Serialize for Stubborn {
    fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("no"))
    }
}

impl<'de> serde::Deserialize<'de> for Stubborn {
    fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Ok(Self)
    }
}

fn takes(_: Stubborn) {}

fn gives(_: ()) -> Stubborn {
    Stubborn
}

#[test]
fn what_cannot_be_encoded_is_an_error_that_names_the_type() {
    let _watchdog = Watchdog::start("what_cannot_be_encoded_is_an_error_that_names_the_type", 60);
    let error = Context::forkserver().process(takes, Stubborn).start().unwrap_err();
    assert!(matches!(&error, Error::Argument(why) if why.type_name().ends_with("Stubborn")), "{error:?}");
    let error = start(gives, ()).take_result().err().unwrap();
    assert!(matches!(&error, ChildError::Encode(why) if why.message().contains("Stubborn")), "{error}");
}

fn takes_a_connection(connection: Option<Connection>) -> bool {
    connection.is_some()
}

#[test]
fn a_connection_in_an_argument_has_the_child_as_its_only_owner() {
    let _watchdog = Watchdog::start("a_connection_in_an_argument_has_the_child_as_its_only_owner", 60);
    let (ours, theirs) = UnixStream::pair().unwrap();
    let end = Connection::try_from(std::os::fd::OwnedFd::from(theirs)).unwrap();
    assert!(start(takes_a_connection, Some(end)).take_result().unwrap());
    assert_eq!((&ours).read(&mut [0; 8]).unwrap(), 0, "the child was its only owner");
    assert!((&ours).write(b"x").is_err());
}

fn writes_half_a_message_and_leaves_a_sleeper(_: ()) {
    billiard_test_support::misdeeds::write_to_all_descriptors(b"\0\0\x10\0 and not 4,096 bytes");
    // SAFETY: this process has one thread.
    if unsafe { libc::fork() } == 0 {
        // SAFETY: no preconditions.
        unsafe { libc::setsid() };
        std::thread::sleep(Duration::from_secs(1000));
    }
    // SAFETY: always.
    unsafe { libc::_exit(0) }
}

#[test]
fn what_a_child_leaves_behind_keeps_nobody_waiting() {
    let _watchdog = Watchdog::start("what_a_child_leaves_behind_keeps_nobody_waiting", 60);
    let mut child = start(writes_half_a_message_and_leaves_a_sleeper, ());
    let status = child.join().unwrap();
    assert!(!child.is_alive());
    assert_eq!(status.to_string(), "unknown exit status", "its own word hides the guardian's");
    assert!(matches!(child.take_result(), Err(ChildError::Signalled(_))));
    // The channel says, like the sentinel, that it has ended; nobody spins on what it left.
    assert_eq!(wait(&[child.status_fd()], Some(Duration::ZERO)).unwrap(), [0]);
}

#[test]
fn a_value_that_a_limit_keeps_back_is_told() {
    let _watchdog = Watchdog::start("a_value_that_a_limit_keeps_back_is_told", 60);
    let limited =
        Context::forkserver().process(sum, (0..2000).collect()).limit(billiard_context::Resource::FileSize, 1024);
    let error = limited.start().unwrap().take_result().unwrap_err();
    assert!(matches!(error, ChildError::Encode(_)), "{error}");
}

fn is_here(_: ()) -> u32 {
    std::process::id()
}

#[test]
fn a_late_request_to_end_is_none() {
    let _watchdog = Watchdog::start("a_late_request_to_end_is_none", 60);
    let mut child = start(is_here, ());
    assert_eq!(child.take_result().unwrap(), child.pid());
    child.terminate_within(Duration::ZERO).unwrap();
    assert!(child.join().unwrap().success());
}

#[test]
fn a_silent_guardian_keeps_nobody_who_asks_for_an_end() {
    let _watchdog = Watchdog::start("a_silent_guardian_keeps_nobody_who_asks_for_an_end", 60);
    // It has a guardian of its own, which starts nothing else.
    let context = Context::forkserver_with(|_: ()| Ok(()), ()).unwrap();
    let child = context.process(|_: ()| std::thread::sleep(Duration::from_secs(100)), ()).start().unwrap();
    let guardian = parent(child.pid()).unwrap();
    let _stopped = Stopped::new(&[guardian]);
    let (begin, mut asked) = (Instant::now(), 0);
    let refused = loop {
        match child.terminate_within(Duration::from_secs(60)) {
            Ok(()) => asked += 1,
            Err(refused) => break refused,
        }
    };
    assert!(begin.elapsed() < Duration::from_secs(10), "it has waited for the guardian");
    assert!(asked > 0 && child.is_alive(), "{refused}");
    child.kill().unwrap();
}
