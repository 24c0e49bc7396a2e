//! Named memory, with the real Python beside it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::{Mutex, atomic::AtomicU64},
};

use billiard_connection::Connection;
use billiard_context::Context;
use billiard_shm::{NamedError, NamedMemory, named, prim::Ordering};
use billiard_test_support::Watchdog;
use billiard_wire::names::{self, NameEvent};

billiard_context::init_for_tests!();

/// A name of this test process's own.
fn name(what: &str) -> String {
    format!("billiard-test-{what}-{}", std::process::id())
}

fn path(name: &str) -> PathBuf {
    Path::new("/dev/shm").join(name)
}

#[test]
fn memory_is_found_by_its_name() {
    let memory = NamedMemory::create(5000).unwrap();
    assert!(memory.name().starts_with("billiard-") && memory.len() == 5000 && !memory.is_empty());
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(path(memory.name())).unwrap().permissions());
    assert_eq!(mode & 0o7777, 0o600);
    let other = NamedMemory::open(&format!("/{}", memory.name())).unwrap();
    assert_eq!(other.len(), 5000, "its length is what it really has");
    memory.words::<AtomicU64>(8).unwrap().store(7, Ordering::Relaxed);
    let mut bytes = [0; 8];
    other.read(8, &mut bytes).unwrap();
    assert_eq!(u64::from_ne_bytes(bytes), 7);
    let reader = NamedMemory::open_read_only(memory.name()).unwrap();
    assert!(matches!(reader.write(0, b"x"), Err(NamedError::ReadOnly)));
    assert!(matches!(reader.words::<AtomicU64>(0), Err(NamedError::ReadOnly)));
    assert!(matches!(memory.words::<AtomicU64>(4), Err(NamedError::OutOfBounds { .. })));
    assert!(matches!(memory.read(4999, &mut bytes), Err(NamedError::OutOfBounds { .. })));
}

#[test]
fn what_is_asked_for_is_checked() {
    assert!(matches!(NamedMemory::create(0), Err(NamedError::ZeroLength)));
    assert!(matches!(NamedMemory::create(usize::MAX), Err(NamedError::TooLarge(_))));
    assert!(matches!(NamedMemory::create(1 << 60), Err(NamedError::Io { .. })), "there is no room for that");
    assert!(matches!(NamedMemory::create_named("a/b", 1), Err(NamedError::BadName(_))));
    assert!(matches!(NamedMemory::create_named("billiard-0123456789abcdef", 1), Err(NamedError::BadName(_))));
    assert!(matches!(NamedMemory::open(""), Err(NamedError::BadName(_))));
    assert!(matches!(NamedMemory::open(&name("nobody")), Err(NamedError::NotFound(_))));
    let empty = name("empty");
    fs::write(path(&empty), "").unwrap();
    assert!(matches!(NamedMemory::open(&empty), Err(NamedError::Unfinished(_))));
    fs::remove_file(path(&empty)).unwrap();
}

#[test]
fn a_name_is_created_once_and_removed_once() {
    let name = name("once");
    let mut memory = NamedMemory::create_named(&name, 10).unwrap();
    assert!(matches!(NamedMemory::create_named(&name, 10), Err(NamedError::Exists(_))));
    let mut other = NamedMemory::open(&name).unwrap();
    memory.unlink().unwrap();
    assert!(matches!(memory.unlink(), Err(NamedError::NotFound(_))));
    assert!(matches!(other.unlink(), Err(NamedError::NotFound(_))));
    memory.write(0, b"still").unwrap();
    let mut bytes = [0; 5];
    other.read(0, &mut bytes).unwrap();
    assert_eq!(&bytes, b"still", "other mappings survive");
    // An opener does not own the name; the maker does, and takes it along.
    let memory = NamedMemory::create_named(&name, 10).unwrap();
    drop(NamedMemory::open(&name).unwrap());
    assert!(path(&name).exists());
    drop(memory);
    assert!(!path(&name).exists());
    let mut kept = NamedMemory::create_named(&name, 10).unwrap();
    kept.keep_name();
    drop(kept);
    NamedMemory::open(&name).unwrap().unlink().unwrap();
}

/// Creates memory, says its name, and stays.
fn create_and_stay(report: Connection) {
    let memory = NamedMemory::create(100).unwrap();
    report.send(&memory.name().to_owned()).unwrap();
    loop {
        std::thread::park();
    }
}

#[test]
fn names_of_the_killed_are_removed_and_those_of_the_living_are_not() {
    let _watchdog = Watchdog::start("names_of_the_killed_are_removed_and_those_of_the_living_are_not", 60);
    let (here, there) = Connection::pair().unwrap();
    let mut child = Context::forkserver().process(create_and_stay, there).start().unwrap();
    let left: String = here.recv().unwrap();
    let mine = NamedMemory::create(1).unwrap();
    // Opening and closing one's own memory by name takes no lock away.
    drop(NamedMemory::open(mine.name()).unwrap());
    named::sweep();
    assert!(path(&left).exists() && path(mine.name()).exists());
    child.kill().unwrap();
    child.join().unwrap();
    let next = NamedMemory::create(1).unwrap();
    // Another test's sweep may have it in hand at this moment: then it is that one's to remove.
    while path(&left).exists() {
        std::thread::yield_now();
    }
    assert!(path(mine.name()).exists() && path(next.name()).exists());
}

#[test]
fn many_who_sweep_and_create_at_once_keep_their_own() {
    let _watchdog = Watchdog::start("many_who_sweep_and_create_at_once_keep_their_own", 60);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..50 {
                    let memory = NamedMemory::create(1).unwrap();
                    named::sweep();
                    assert!(path(memory.name()).exists());
                }
            });
        }
    });
}

#[test]
fn names_are_told_before_they_are_there() {
    static SEEN: Mutex<Vec<(bool, PathBuf, bool)>> = Mutex::new(Vec::new());
    let observe = |event: NameEvent<'_>| {
        let (giving, path) = match event {
            NameEvent::Giving(name) => (true, &name.path),
            NameEvent::Done(name) => (false, &name.path),
            _ => return,
        };
        SEEN.lock().unwrap().push((giving, path.to_owned(), path.exists()));
    };
    assert!(names::observe(observe));
    let memory = NamedMemory::create_named(&name("observed"), 1).unwrap();
    let path = path(memory.name());
    drop(memory);
    let seen: Vec<_> = SEEN.lock().unwrap().iter().filter(|(_, seen, _)| *seen == path).cloned().collect();
    assert_eq!(seen, [(true, path.clone(), false), (false, path, false)]);
}

/// Runs a program in Python, unless there is none.
fn python(program: &str, name: &str) -> Option<Output> {
    match Command::new("python3").args(["-c", program, name]).output() {
        Ok(output) => Some(output),
        Err(error) => {
            println!("skipped: python3 cannot be run: {error}");
            None
        }
    }
}

/// Opens what another made: its tracker would remove the name when it ends, before Python 3.13.
const OPEN: &str = "
import sys
from multiprocessing import resource_tracker, shared_memory
memory = shared_memory.SharedMemory(name=sys.argv[1])
resource_tracker.unregister(memory._name, 'shared_memory')
assert memory.size >= 100, memory.size
assert bytes(memory.buf[:5]) == b'hello', bytes(memory.buf[:5])
memory.buf[5:11] = b' world'
memory.close()
";

#[test]
fn python_opens_what_we_made() {
    let _watchdog = Watchdog::start("python_opens_what_we_made", 60);
    let chosen = NamedMemory::create_named(&name("python"), 100).unwrap();
    for memory in [NamedMemory::create(100).unwrap(), chosen] {
        memory.write(0, b"hello").unwrap();
        let Some(output) = python(OPEN, memory.name()) else { return };
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let mut bytes = [0; 11];
        memory.read(0, &mut bytes).unwrap();
        assert_eq!(&bytes, b"hello world");
        assert!(path(memory.name()).exists());
    }
}

/// Makes what another opens, and leaves it.
const MAKE: &str = "
import sys
from multiprocessing import resource_tracker, shared_memory
memory = shared_memory.SharedMemory(create=True, size=1000)
resource_tracker.unregister(memory._name, 'shared_memory')
memory.buf[:5] = b'hello'
print(memory.name)
memory.close()
";

#[test]
fn we_open_what_python_made() {
    let _watchdog = Watchdog::start("we_open_what_python_made", 60);
    let Some(output) = python(MAKE, "") else { return };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let name = String::from_utf8(output.stdout).unwrap();
    let mut memory = NamedMemory::open(name.trim()).unwrap();
    assert_eq!(memory.len(), 1000);
    let mut bytes = [0; 5];
    memory.read(0, &mut bytes).unwrap();
    assert_eq!(&bytes, b"hello");
    memory.unlink().unwrap();
    assert!(matches!(NamedMemory::open(name.trim()), Err(NamedError::NotFound(_))));
}
