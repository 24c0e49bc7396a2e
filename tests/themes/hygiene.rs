//! What starts and children cost their starter in descriptors and threads, and what children have of their siblings. One test
//! after the other, since each counts what this program has.

use std::{
    collections::BTreeMap,
    fs::File,
    os::fd::AsRawFd,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
};

use billiard_context::{Context, Error, Fd, Process};
use billiard_test_support::{Census, Watchdog, descendants, eventually};

billiard_context::init_for_tests!();

static ALONE: Mutex<()> = Mutex::new(());

const BOTH: [fn() -> Context; 2] = [Context::forkserver, Context::spawn];

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn double(n: u64) -> u64 {
    2 * n
}

fn waits(_: ()) {
    loop {
        thread::park();
    }
}

/// What is open in this process, by number, without the folder that is read for it.
fn open() -> BTreeMap<i32, String> {
    let paths: Vec<_> = std::fs::read_dir("/proc/self/fd").unwrap().flatten().map(|entry| entry.path()).collect();
    let target = |path: &PathBuf| {
        // The folder is closed by now.
        let target = std::fs::read_link(path).ok()?.display().to_string();
        Some((path.file_name()?.to_str()?.parse().ok()?, target))
    };
    paths.iter().filter_map(target).collect()
}

fn looks(given: Option<Fd<File>>) -> (BTreeMap<i32, String>, Option<i32>) {
    let number = given.as_ref().map(|given| given.as_raw_fd());
    (open(), number)
}

/// What there is once the helper process is up and nothing else.
fn at_rest() -> Census {
    assert_eq!(Context::forkserver().process(double, 4).start().unwrap().take_result().unwrap(), 8);
    let mut census = Census::take();
    assert!(eventually(20, || {
        census = Census::take();
        census.descendants == 1
    }));
    census
}

fn is_back_at(rest: &Census) {
    assert!(eventually(20, || Census::take() == *rest), "at first {rest:?}, now {:?}: {:?}", Census::take(), open());
}

#[test]
fn a_child_has_what_it_was_given_however_many_siblings_it_has() {
    let _alone = alone();
    let _watchdog = Watchdog::start("a_child_has_what_it_was_given_however_many_siblings_it_has", 100);
    let rest = at_rest();
    let mut siblings: Vec<Process> = Vec::new();
    for count in [1, 10, 50] {
        while siblings.len() < count {
            let context = BOTH[siblings.len() % 2]();
            siblings.push(context.process(waits, ()).start().unwrap());
        }
        for context in BOTH {
            let given = File::open("/dev/zero").unwrap();
            let numbered = File::open("/dev/full").unwrap();
            let child = context().process(looks, Some(given.into())).descriptor(77, numbered);
            let (open, number) = child.start().unwrap().take_result().unwrap();
            assert_eq!(open[&0], "/dev/null");
            assert_eq!(open[&number.unwrap()], "/dev/zero");
            assert_eq!(open[&77], "/dev/full");
            // And its report channel.
            let sockets = open.iter().filter(|(number, target)| **number > 2 && target.starts_with("socket:")).count();
            assert!(open.len() == 6 && sockets == 1, "{count}: {open:?}");

            let (open, _) = context().process(looks, None).start().unwrap().take_result().unwrap();
            assert!(open.len() == 4 && open.keys().take(3).eq([&0, &1, &2]), "{count}: {open:?}");
        }
        let now = Census::take();
        let most = rest.descriptors + 2 * count;
        assert!(now.descriptors <= most, "{count} children: {} descriptors, at most {most}", now.descriptors);
        assert_eq!(now.threads, rest.threads, "a child costs its starter no thread");
        println!("{count} children: {} descriptors more", now.descriptors - rest.descriptors);
    }
    for child in &mut siblings {
        child.kill().unwrap();
        child.join().unwrap();
    }
    drop(siblings);
    is_back_at(&rest);
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

fn takes(_: (Fd<File>, Stubborn)) {}

#[test]
fn starts_that_fail_leave_nothing() {
    let _alone = alone();
    let _watchdog = Watchdog::start("starts_that_fail_leave_nothing", 100);
    let rest = at_rest();
    for round in 0..100 {
        let context = BOTH[round % 2]();
        let file = || Fd::new(File::open("/dev/null").unwrap());
        let error = context.process(takes, (file(), Stubborn)).start().unwrap_err();
        assert!(matches!(error, Error::Argument(_)), "{error:?}");
        let nowhere = context.process(double, 1).directory("/no/such/folder").stdout(File::open("/dev/null").unwrap());
        let error = nowhere.start().unwrap_err();
        assert!(matches!(error, Error::Configuration { source: Some(_), .. }), "{error:?}");
    }
    is_back_at(&rest);
}

/// Runs `work` while this process may open `more` descriptors and no more.
fn with_room_for<T>(more: usize, work: impl FnOnce() -> T) -> T {
    let open = open();
    let free = (0..).filter(|number| !open.contains_key(number)).nth(more).unwrap();
    let mut before = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the place is valid.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut before) }, 0);
    let limit = libc::rlimit { rlim_cur: free as libc::rlim_t, ..before };
    // SAFETY: the structure is whole.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) }, 0);
    let result = work();
    // SAFETY: as above.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &before) }, 0);
    result
}

/// One start in `room` for descriptors and one without a limit, after `before`; whether the first gave a value. It has to be that, or
/// an error.
fn start_in(room: usize, context: fn() -> Context, before: fn()) -> bool {
    before();
    let started = with_room_for(room, || {
        let mut child = context().process(double, 21).start().map_err(|error| format!("{error:?}"))?;
        child.take_result().map_err(|error| format!("{error:?}"))
    });
    if let Ok(value) = &started {
        assert_eq!(*value, 42);
    }
    let mut child = context().process(double, 4).start().unwrap_or_else(|error| panic!("{started:?}, then {error:?}"));
    assert_eq!(child.take_result().unwrap(), 8, "{started:?}");
    started.is_ok()
}

fn kill_the_guardian() {
    for pid in descendants(std::process::id()) {
        // SAFETY: a signal to a process that descends from this one.
        unsafe { libc::kill(pid as i32, libc::SIGKILL) };
    }
    assert!(eventually(20, || descendants(std::process::id())
        .iter()
        .all(|&pid| !billiard_test_support::is_alive(pid))));
}

#[test]
fn a_start_at_the_limit_of_descriptors_fails_and_the_next_one_works() {
    let _alone = alone();
    let _watchdog = Watchdog::start("a_start_at_the_limit_of_descriptors_fails_and_the_next_one_works", 100);
    let rest = at_rest();
    // The helper process is there; or it has to be brought up, which takes some too.
    for (before, rounds) in [(|| {}) as fn(), kill_the_guardian].into_iter().zip([8, 1]) {
        let mut enough = [0; 2];
        for (context, enough) in BOTH.into_iter().zip(&mut enough) {
            for _ in 0..rounds {
                // Any number of descriptors may be too few; from some on there are enough.
                let gave: Vec<bool> = (0..14).map(|room| start_in(room, context, before)).collect();
                assert!(!gave[0] && gave[13], "{gave:?}");
                *enough = gave.iter().rposition(|gave| !gave).unwrap() + 1;
            }
        }
        println!("room for {enough:?} descriptors is enough for forkserver and spawn");
    }
    // The last one was brought up under a limit, which its children would have too.
    kill_the_guardian();
    at_rest();
    is_back_at(&rest);
}
