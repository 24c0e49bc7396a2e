//! Copies of this process. No test harness, which would have threads: what is tested runs in `main`, one after the other.

use std::{
    cell::Cell,
    io::Read,
    process::exit,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use billiard_connection::Connection;
use billiard_context::{
    ChildError, Context, EndedBy, Error, Process, Signal, StartMethod, Stdio, Stop, StopSignals, active_children,
    after_fork, current, fork, fork_unchecked, scope,
};

static STATE: AtomicU32 = AtomicU32::new(0);
static HOOKED: AtomicU32 = AtomicU32::new(0);

fn main() {
    billiard_context::init();
    // A hang is a failure: no thread may watch, so the kernel does.
    // SAFETY: it takes a number.
    unsafe { libc::alarm(100) };
    let tests: &[(&str, fn())] = &[
        ("a_copy_has_its_starters_memory", a_copy_has_its_starters_memory),
        ("closures_borrow", closures_borrow),
        ("arguments_are_moved", arguments_are_moved),
        ("each_end_has_its_status", each_end_has_its_status),
        ("options_change_the_copy_alone", options_change_the_copy_alone),
        ("signals_are_as_at_the_start_of_a_program", signals_are_as_at_the_start_of_a_program),
        ("what_is_printed_is_printed_once", what_is_printed_is_printed_once),
        ("a_copy_may_have_copies", a_copy_may_have_copies),
        ("one_owner_handles_refuse_in_the_copy", one_owner_handles_refuse_in_the_copy),
        ("a_copy_that_is_deaf_is_made_to_end", a_copy_that_is_deaf_is_made_to_end),
        ("detached_copies_are_reaped", detached_copies_are_reaped),
        ("a_template_serves_threads", a_template_serves_threads),
        ("threads_are_refused", threads_are_refused), // the last: it leaves one
    ];
    for (name, test) in tests {
        println!("{name}");
        test();
    }
    println!("{} passed", tests.len());
}

fn state(add: u32) -> u32 {
    STATE.load(Ordering::Relaxed) + add
}

fn a_copy_has_its_starters_memory() {
    after_fork(|| {
        HOOKED.fetch_add(1, Ordering::Relaxed);
    });
    STATE.store(40, Ordering::Relaxed);
    let mut child = Context::fork().process(state, 2).name("copy").start().unwrap();
    assert_eq!(child.take_result().unwrap(), 42);
    assert_eq!(child.join().unwrap().to_string(), "exit code 0");
    assert!(child.join().unwrap().usage().unwrap().peak_memory > 0);
    let seen =
        fork(|| (current().name.to_owned(), current().pid, HOOKED.load(Ordering::Relaxed))).name("mirror").start();
    let mut child = seen.unwrap();
    assert_eq!(child.take_result().unwrap(), ("mirror".into(), child.pid(), 1));
    assert_eq!(HOOKED.load(Ordering::Relaxed), 0);
    assert_eq!("fork".parse(), Ok(StartMethod::Fork));
}

fn closures_borrow() {
    let words = ["tea".to_owned(), "two".to_owned()];
    let counted = Cell::new(0);
    // SAFETY: there is one thread, and what is borrowed is this process's own memory.
    let builder = unsafe {
        fork_unchecked(|| {
            counted.set(counted.get() + words.len());
            (counted.get(), words.concat())
        })
    };
    let mut child = builder.start().unwrap();
    assert_eq!(child.take_result().unwrap(), (2, "teatwo".to_owned()));
    assert_eq!(counted.get(), 0, "it was the copy's");
    let dropped = Connection::pair().unwrap();
    let (ours, theirs) = dropped;
    let mut child = fork(move || theirs.send_bytes(b"from the copy").is_ok()).start().unwrap();
    assert_eq!(ours.recv_bytes().unwrap(), b"from the copy");
    assert!(child.take_result().unwrap());
    assert!(ours.recv_bytes().is_err(), "what the closure had captured was dropped here");
}

fn echo(connection: Connection) -> Vec<u8> {
    let message = connection.recv_bytes().unwrap();
    connection.send_bytes(&message).unwrap();
    message
}

fn arguments_are_moved() {
    let (ours, theirs) = Connection::pair().unwrap();
    let mut child = Context::fork().process(echo, theirs).start().unwrap();
    ours.send_bytes(b"there and back").unwrap();
    assert_eq!(ours.recv_bytes().unwrap(), b"there and back");
    assert_eq!(child.take_result().unwrap(), b"there and back");
    assert!(ours.recv_bytes().is_err(), "nobody else has the other end");
    // Large ones too.
    let mut child = Context::fork().process(|bytes: Vec<u8>| bytes.len(), vec![1; 300_000]).start().unwrap();
    assert_eq!(child.take_result().unwrap(), 300_000);
    assert_eq!(fork(|| vec![7u8; 300_000]).start().unwrap().take_result().unwrap(), vec![7; 300_000]);
}

fn each_end_has_its_status() {
    let error = fork(|| -> u32 { panic!("as planned") }).print_panic(false).start().unwrap().take_result().unwrap_err();
    assert!(matches!(&error, ChildError::Panicked(panic) if panic.message() == "as planned"), "{error}");
    let mut child = fork(|| -> () { exit(7) }).start().unwrap();
    assert_eq!(child.join().unwrap().code(), Some(7));
    let mut child = fork(|| -> () { std::process::abort() }).start().unwrap();
    assert_eq!(child.join().unwrap().signal(), Some(libc::SIGABRT));
    let mut child = sleeper();
    assert!(child.is_alive() && child.join_timeout(Duration::from_millis(1)).unwrap().is_none());
    child.kill().unwrap();
    let status = child.join().unwrap();
    assert_eq!((status.signal(), status.ended_by()), (Some(9), EndedBy::Us));
    assert!(status.lifetime().unwrap() >= Duration::from_millis(1));
    // Its group ends with it.
    let (ours, theirs) = Connection::pair().unwrap();
    let mut child = fork(move || {
        let sleeper = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        theirs.send(&sleeper.id()).unwrap();
        std::mem::forget(sleeper); // this process is about to end
    })
    .start()
    .unwrap();
    let grandchild: u32 = ours.recv().unwrap();
    child.join().unwrap();
    assert!(billiard_test_support::eventually(10, || !billiard_test_support::is_alive(grandchild)));
    // Dropped, it is ended and reaped.
    let child = sleeper();
    let pid = child.pid();
    drop(child);
    assert!(!std::fs::exists(format!("/proc/{pid}")).unwrap(), "not even a zombie is left");
}

fn sleeper() -> Process {
    fork(|| -> () {
        loop {
            std::thread::park();
        }
    })
    .start()
    .unwrap()
}

fn options_change_the_copy_alone() {
    let mut child = fork(|| {
        let mut input = String::new();
        std::io::stdin().read_to_string(&mut input).unwrap();
        print!("seen");
        let umask = std::fs::read_to_string("/proc/self/status").unwrap();
        let umask = umask.lines().find_map(|line| line.strip_prefix("Umask:")).unwrap().trim().to_owned();
        (input, std::env::var("TEA").unwrap(), std::env::current_dir().unwrap(), umask)
    })
    .env("TEA", "two")
    .directory("/")
    .umask(0o135)
    .stdout(Stdio::Pipe)
    .start()
    .unwrap();
    let mut output = String::new();
    child.take_stdout().unwrap().read_to_string(&mut output).unwrap();
    let seen = child.take_result().unwrap();
    assert_eq!(seen, (String::new(), "two".to_owned(), "/".into(), "0135".to_owned()));
    assert_eq!(output, "seen");
    // The end of its input comes when this process closes its own end: the copy has none of that.
    let mut child = fork(|| {
        let mut input = String::new();
        std::io::stdin().read_to_string(&mut input).unwrap();
        input
    })
    .stdin(Stdio::Pipe)
    .start()
    .unwrap();
    std::io::Write::write_all(&mut child.take_stdin().unwrap(), b"to the end").unwrap();
    assert_eq!(child.take_result().unwrap(), "to the end");
    assert!(std::env::var("TEA").is_err() && std::env::current_dir().unwrap() != std::path::Path::new("/"));
    let variables = fork(|| std::env::vars_os().count()).start().unwrap().take_result().unwrap();
    assert_eq!(variables, std::env::vars_os().count());
}

fn signals_are_as_at_the_start_of_a_program() {
    // Whoever runs this may have it ignored, as `nohup` does, and then it stays so.
    // SAFETY: defaulting runs no code.
    unsafe { libc::signal(libc::SIGHUP, libc::SIG_DFL) };
    let stop = Stop::install(&StopSignals::Minimal).unwrap();
    // SAFETY: this process itself gets it, and has a handler for it.
    unsafe { libc::raise(libc::SIGHUP) };
    assert_eq!(stop.requested(), Some(Signal::HUP));
    let mut child = fork(|| {
        let own = Stop::install(&StopSignals::These(vec![Signal::USR1])).unwrap();
        // Nobody has asked this process, and the starter's descriptor is not its own.
        own.wait_timeout(Duration::ZERO).unwrap().is_none()
    })
    .start()
    .unwrap();
    assert!(child.take_result().unwrap());
    assert_eq!(child.join().unwrap().code(), Some(0));
    let mut child = sleeper();
    child.terminate().unwrap();
    assert_eq!(child.join().unwrap().signal(), Some(15), "the handler was its starter's");
    for number in [libc::SIGHUP, libc::SIGQUIT, libc::SIGTERM, libc::SIGUSR1] {
        // SAFETY: defaulting runs no code.
        unsafe { libc::signal(number, libc::SIG_DFL) };
    }
}

fn what_is_printed_is_printed_once() {
    let path = std::env::temp_dir().join(format!("billiard-fork-printed-{}", std::process::id()));
    let file = std::fs::File::create(&path).unwrap();
    let mut child = fork(|| {
        print!("before ");
        fork(|| print!("in the middle ")).start().unwrap().join().unwrap();
        print!("after");
    })
    .stdout(file)
    .start()
    .unwrap();
    assert!(child.join().unwrap().success());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "before in the middle after");
    std::fs::remove_file(path).unwrap();
}

fn a_copy_may_have_copies() {
    let count = |n: u32| STATE.load(Ordering::Relaxed) + n;
    let mut child = fork(|| {
        let fork = Context::fork().process(state, 1).start().unwrap().take_result().unwrap();
        assert_eq!(Context::fork().process(state, 1).begin().unwrap().name(), format!("{}:2", current().name));
        // And a helper process of its own: its starter's is not its own.
        let server = Context::forkserver().process(state, 1).start().unwrap().take_result().unwrap();
        (fork, server)
    })
    .start()
    .unwrap();
    assert_eq!(child.take_result().unwrap(), (count(1), 1));
    let mut refused = fork(|| fork(|| 7).start().map(drop).unwrap_err().to_string()).daemon(true).start().unwrap();
    assert_eq!(refused.take_result().unwrap(), "daemonic processes are not allowed to have children");
}

fn one_owner_handles_refuse_in_the_copy() {
    let sibling = sleeper();
    let mut helped = Context::forkserver().process(state, 3).start().unwrap();
    let (ours, theirs) = Connection::pair().unwrap();
    // SAFETY: there is one thread, and what is borrowed are handles, which look for themselves.
    let builder = unsafe {
        fork_unchecked(|| {
            let refused = |result: Result<(), Error>| matches!(result, Err(Error::Forked(_)));
            assert!(refused(sibling.kill()) && refused(sibling.terminate()));
            assert!(refused(sibling.terminate_within(Duration::ZERO)));
            assert!(active_children().is_empty());
            ours.send_bytes(b"shared").is_ok() // a connection may be used by both
        })
    };
    let mut child = builder.start().unwrap();
    assert!(child.take_result().unwrap());
    assert_eq!(theirs.recv_bytes().unwrap(), b"shared");
    assert!(sibling.is_alive());
    assert_eq!(helped.take_result().unwrap(), 3);
    assert_eq!(active_children().len(), 1);
}

fn a_copy_that_is_deaf_is_made_to_end() {
    let (ours, theirs) = Connection::pair().unwrap();
    let mut child = fork(move || -> () {
        billiard_test_support::misdeeds::ignore_sigterm();
        theirs.send_bytes(b"deaf").unwrap();
        loop {
            std::thread::park();
        }
    })
    .start()
    .unwrap();
    ours.recv_bytes().unwrap();
    child.terminate_within(Duration::from_millis(10)).unwrap();
    let status = child.join().unwrap();
    assert_eq!((status.signal(), status.ended_by()), (Some(9), EndedBy::Us));
    scope(|scope| drop(scope.start(fork(|| 7)).unwrap()));
}

fn detached_copies_are_reaped() {
    let (ours, theirs) = Connection::pair().unwrap();
    let child = fork(move || drop(theirs.recv_bytes())).start().unwrap();
    let pid = child.pid();
    child.detach();
    assert_eq!(active_children().len(), 1);
    ours.send_bytes(b"end").unwrap();
    assert!(billiard_test_support::eventually(10, || active_children().is_empty()));
    assert!(!std::fs::exists(format!("/proc/{pid}")).unwrap(), "looking at the list reaps it");
}

fn a_template_serves_threads() {
    STATE.store(100, Ordering::Relaxed);
    let context = Context::template().unwrap();
    STATE.store(200, Ordering::Relaxed);
    std::thread::scope(|scope| {
        for n in 0..4 {
            let context = &context;
            scope.spawn(move || {
                let mut child = context.process(state, n).start().unwrap();
                assert_eq!(child.take_result().unwrap(), 100 + n, "as it was when the copy was made");
            });
        }
    });
}

fn threads_are_refused() {
    // A thread that has been joined may still be on its way out.
    assert!(billiard_test_support::eventually(10, || Context::fork().prepare().is_ok()));
    std::thread::spawn(std::thread::park);
    assert!(matches!(Context::fork().process(state, 1).start(), Err(Error::Threads { threads: 2 })));
    assert!(matches!(Context::template(), Err(Error::Threads { threads: 2 })));
    // SAFETY: the other thread holds nothing.
    let mut unchecked = unsafe { Context::fork_unchecked() }.process(state, 1).start().unwrap();
    assert_eq!(unchecked.take_result().unwrap(), 201);
    // SAFETY: as above.
    let mut unchecked = unsafe { fork_unchecked(|| 5u8) }.start().unwrap();
    assert_eq!(unchecked.take_result().unwrap(), 5);
}
