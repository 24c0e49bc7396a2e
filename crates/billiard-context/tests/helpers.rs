//! Contexts with a helper process of their own. One test, since it counts the helper processes of this program.

use std::sync::atomic::{AtomicU64, Ordering};

use billiard_connection::Connection;
use billiard_context::{ChildError, Context, Error, Fd, PreloadError, Process, RemoteError, after_fork};
use billiard_test_support::{Census, Watchdog, descendants, eventually, is_alive};

billiard_context::init_for_tests!();

static LOADED: AtomicU64 = AtomicU64::new(0);
static HOOKED: AtomicU64 = AtomicU64::new(0);

fn load((value, log): (u64, Connection)) -> Result<(), RemoteError> {
    LOADED.store(value, Ordering::Relaxed);
    after_fork(|| {
        HOOKED.store(LOADED.load(Ordering::Relaxed) * 10, Ordering::Relaxed);
    });
    after_fork(|| {
        HOOKED.fetch_add(1, Ordering::Relaxed); // in the order in which they were registered
    });
    log.send_bytes(b"loaded")?;
    Ok(())
}

fn look(_: ()) -> (u64, u64) {
    (LOADED.load(Ordering::Relaxed), HOOKED.load(Ordering::Relaxed))
}

fn fails_behind_a_sleeper(report: Connection) -> Result<(), RemoteError> {
    let sleeper = std::process::Command::new("setsid").args(["sleep", "1000"]).spawn()?;
    report.send(&sleeper.id())?;
    std::mem::forget(sleeper);
    Err(RemoteError::msg("too late"))
}

fn fails(text: String) -> Result<(), RemoteError> {
    Err(RemoteError::msg(text))
}

fn fails_not(_: ()) -> Result<(), RemoteError> {
    Ok(())
}

fn panics(_: ()) -> Result<(), RemoteError> {
    panic!("as planned")
}

fn leaves_a_thread(_: ()) -> Result<(), RemoteError> {
    std::thread::spawn(std::thread::park);
    Ok(())
}

fn exits(_: ()) -> Result<(), RemoteError> {
    std::process::exit(3)
}

fn hooks_that_panic(_: ()) -> Result<(), RemoteError> {
    after_fork(|| panic!("a hook"));
    Ok(())
}

fn sleeps(_: ()) {
    loop {
        std::thread::park();
    }
}

/// The helper process that forked a child.
fn parent_of(child: &Process) -> u32 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.pid())).unwrap();
    stat.rsplit_once(')').unwrap().1.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn preloaded<A: billiard_context::Message>(
    function: fn(A) -> Result<(), RemoteError>,
    argument: A,
) -> Result<Context, Error> {
    Context::forkserver_with(function, argument)
}

#[test]
fn a_context_has_a_helper_process_of_its_own() {
    let _watchdog = Watchdog::start("a_context_has_a_helper_process_of_its_own", 100);
    // The helper raises its own limit of open files, and children get back what this process has.
    let limit = libc::rlimit { rlim_cur: 300, rlim_max: billiard_context::max_fds().unwrap() };
    // SAFETY: the structure is valid, and the hard limit is not raised.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) }, 0);
    for context in [Context::forkserver(), Context::spawn()] {
        let mut child = context.process(|_: ()| billiard_context::max_fds(), ()).start().unwrap();
        assert_eq!(child.take_result().unwrap(), Some(300));
    }
    assert_eq!(Context::forkserver().process(look, ()).start().unwrap().take_result().unwrap(), (0, 0));
    let before = Census::take();
    assert_eq!(before.descendants, 1, "the helper process that all share");

    let (log, theirs) = Connection::pair().unwrap();
    let context = preloaded(load, (7, theirs)).unwrap();
    assert_eq!(log.recv_bytes().unwrap(), b"loaded");
    for context in [context.clone(), context.clone()] {
        assert_eq!(context.process(look, ()).start().unwrap().take_result().unwrap(), (7, 71));
    }
    assert_eq!(Context::forkserver().process(look, ()).start().unwrap().take_result().unwrap(), (0, 0));

    // The very first start may ask for nothing.
    fn variables(_: ()) -> usize {
        std::env::vars_os().count()
    }
    let bare = preloaded(fails_not, ()).unwrap();
    assert_eq!(bare.process(variables, ()).env_clear().start().unwrap().take_result().unwrap(), 0);
    drop(bare);

    // It dies, and the next start brings up another, which loads again.
    let mut child = context.process(sleeps, ()).start().unwrap();
    let helper = parent_of(&child);
    // SAFETY: a signal to a process of this test's own.
    unsafe { libc::kill(helper as i32, libc::SIGKILL) };
    assert_eq!(child.join().unwrap().to_string(), "unknown exit status");
    drop(child);
    assert_eq!(context.process(look, ()).start().unwrap().take_result().unwrap(), (7, 71));
    assert_eq!(log.recv_bytes().unwrap(), b"loaded");

    // It ends with the last clone of its context, when the last process of it has been dropped too.
    let child = context.process(sleeps, ()).start().unwrap();
    let (pid, helper) = (child.pid(), parent_of(&child));
    drop(context);
    assert!(is_alive(pid) && is_alive(helper));
    drop(child);
    assert!(!is_alive(pid) && !is_alive(helper));
    drop(log);
    assert!(eventually(10, || Census::take() == before), "{before:?} {:?}", Census::take());

    refusals();
    assert!(eventually(10, || Census::take() == before), "{before:?} {:?}", Census::take());
    detached_children();
    assert!(eventually(10, || Census::take() == before), "{before:?} {:?}", Census::take());
}

fn refusals() {
    let why = |error: Result<Context, Error>| match error {
        Err(Error::Preload(why)) => why,
        other => panic!("{other:?}"),
    };
    let failed = why(preloaded(fails, "no licence".to_owned()));
    assert!(matches!(&failed, PreloadError::Failed(error) if error.message() == "no licence"), "{failed:?}");
    let panicked = why(preloaded(panics, ()));
    assert!(matches!(&panicked, PreloadError::Panicked(panic) if panic.message() == "as planned"), "{panicked:?}");
    let threads = why(preloaded(leaves_a_thread, ()));
    assert!(matches!(threads, PreloadError::Threads(1)), "{threads:?}");
    let ended = why(preloaded(exits, ()));
    assert!(matches!(&ended, PreloadError::Ended(how) if how.contains("exit code 3")), "{ended:?}");

    let (report, theirs) = Connection::pair().unwrap();
    let failed = why(preloaded(fails_behind_a_sleeper, theirs));
    assert!(matches!(failed, PreloadError::Failed(_)), "{failed:?}");
    let sleeper: u32 = report.recv().unwrap();
    assert!(eventually(10, || !is_alive(sleeper)), "what it had started ends with it");

    let context = preloaded(hooks_that_panic, ()).unwrap();
    let error = context.process(look, ()).print_panic(false).start().unwrap().take_result().unwrap_err();
    assert!(matches!(&error, ChildError::Panicked(panic) if panic.message() == "a hook"), "{error}");

    // A copy of this process is refused, since it has threads.
    assert!(matches!(Context::template(), Err(Error::Threads { threads: 2.. })));
    assert!(matches!(Context::fork().prepare(), Err(Error::Threads { threads: 2.. })));
    assert!(matches!(Context::fork().process(look, ()).start(), Err(Error::Threads { threads: 2.. })));
    assert!(matches!(billiard_context::fork(|| 7).start(), Err(Error::Threads { threads: 2.. })));
}

fn keeps(file: Fd<std::fs::File>) -> Result<(), RemoteError> {
    assert!(file.metadata()?.is_file() || !file.metadata()?.is_dir());
    Ok(())
}

fn detached_children() {
    // One that is let go ends with the context that it came from.
    let null = std::fs::File::open("/dev/null").unwrap();
    let context = preloaded(keeps, Fd::new(null)).unwrap();
    let child = context.process(sleeps, ()).start().unwrap();
    let pid = child.pid();
    child.detach();
    assert!(descendants(std::process::id()).contains(&pid) && is_alive(pid));
    drop(context);
    assert!(eventually(10, || !is_alive(pid)));
    assert!(billiard_context::active_children().is_empty());
}
