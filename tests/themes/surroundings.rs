//! A child has its caller's surroundings as they are when it is started. Alone in its program, since it changes the
//! program's own.

use std::{
    collections::BTreeMap,
    fs::File,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use billiard::{Context, context::Process};
use billiard_test_support::Watchdog;

billiard::init_for_tests!();

const BOTH: [fn() -> Context; 2] = [Context::forkserver, Context::spawn];

#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Seen {
    directory: String,
    umask: String,
    variables: BTreeMap<String, String>,
}

fn look(print: String) -> Seen {
    println!("{print}");
    eprintln!("{print} to standard error");
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    Seen {
        directory: std::env::current_dir().map_or_else(|_| "?".into(), |path| path.display().to_string()),
        umask: status.lines().find_map(|line| line.strip_prefix("Umask:")).unwrap().trim().to_owned(),
        variables: std::env::vars().filter(|(name, _)| name.starts_with("BILLIARD_SEEN")).collect(),
    }
}

fn start(context: fn() -> Context, print: &str) -> Process<Seen> {
    context().process(look, print.to_owned()).start().unwrap()
}

fn set(name: &str, value: &str) {
    // SAFETY: this program's one test is its only thread that reads the environment.
    unsafe { std::env::set_var(name, value) };
}

/// Runs `work` with descriptor `number` pointing to something else, or closed, and puts it back.
fn with_stream<R>(number: i32, instead: Option<&File>, work: impl FnOnce() -> R) -> R {
    const HIGH: i32 = 100;
    // SAFETY: it takes numbers.
    let saved = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, HIGH) };
    // SAFETY: a new duplicate, owned by nobody else.
    let saved = unsafe { OwnedFd::from_raw_fd(saved) };
    match instead {
        // SAFETY: the number is put back below, before anybody misses it.
        Some(file) => unsafe { libc::dup2(file.as_raw_fd(), number) },
        // SAFETY: as above.
        None => unsafe { libc::close(number) },
    };
    let result = work();
    // SAFETY: as above.
    unsafe { libc::dup2(saved.as_raw_fd(), number) };
    result
}

fn with_closed(numbers: &[i32], work: &dyn Fn() -> bool) -> bool {
    match numbers {
        [] => work(),
        [number, rest @ ..] => with_stream(*number, None, || with_closed(rest, work)),
    }
}

#[test]
fn a_child_has_its_callers_surroundings() {
    let _watchdog = Watchdog::start("a_child_has_its_callers_surroundings", 60);
    let folder = std::env::temp_dir().join(format!("billiard-surroundings-{}", std::process::id()));
    std::fs::create_dir(&folder).unwrap();
    for (round, context) in BOTH.into_iter().enumerate() {
        let before = start(context, "").take_result().unwrap();
        assert_eq!(before.variables.get("BILLIARD_SEEN_A"), None);

        // Each is changed between two starts of the same helper process.
        set("BILLIARD_SEEN_A", "tea=two");
        set("BILLIARD_SEEN_EMPTY", "");
        std::env::set_current_dir(&folder).unwrap();
        // SAFETY: it takes a number.
        unsafe { libc::umask(0o027) };
        let (out, err) = (folder.join(format!("out-{round}")), folder.join(format!("err-{round}")));
        let seen = with_stream(1, Some(&File::create(&out).unwrap()), || {
            with_stream(2, Some(&File::create(&err).unwrap()), || start(context, "printed").take_result().unwrap())
        });
        assert_eq!((seen.umask.as_str(), seen.directory.as_str()), ("0027", folder.to_str().unwrap()));
        assert_eq!(seen.variables["BILLIARD_SEEN_A"], "tea=two");
        assert_eq!(seen.variables["BILLIARD_SEEN_EMPTY"], "");
        assert_eq!(std::fs::read_to_string(&out).unwrap(), "printed\n");
        assert_eq!(std::fs::read_to_string(&err).unwrap(), "printed to standard error\n");

        // And back.
        // SAFETY: as above.
        unsafe { libc::umask(0o022) };
        for name in ["BILLIARD_SEEN_A", "BILLIARD_SEEN_EMPTY"] {
            // SAFETY: as in `set`.
            unsafe { std::env::remove_var(name) };
        }
        std::env::set_current_dir("/").unwrap();
        let after = start(context, "").take_result().unwrap();
        assert_eq!((after.umask.as_str(), after.directory.as_str(), after.variables.len()), ("0022", "/", 0));
    }

    // Streams that are closed: the child has /dev/null there, and nothing else gets their numbers.
    for closed in [&[0][..], &[1], &[2], &[0, 1, 2]] {
        for context in BOTH {
            let seen = with_closed(closed, &|| start(context, "into nothing").take_result().is_ok());
            assert!(seen, "{closed:?} closed");
        }
    }

    // A variable that no function can set, though a program can be started with it.
    // SAFETY: the text lives as long as the program.
    unsafe { libc::putenv(c"=C:=somewhere".as_ptr().cast_mut()) };
    // More than a socket takes at a time.
    for n in 0..20 {
        set(&format!("BILLIARD_SEEN_{n}"), &"x".repeat(60_000));
    }
    for context in BOTH {
        assert_eq!(start(context, "").take_result().unwrap().variables.len(), 20);
    }
    std::env::set_current_dir("/").unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
}
