//! The group `context`: what it costs to start a process, from a small parent and from a large one.
//!
//! A start is timed from the request to the child's first byte, or to the parent's knowledge of its status. The large
//! parents show who copies the parent and who does not.

use std::time::Duration;

use crate::bench::{
    case::{Better, Case, Entrant},
    subject::{
        FORK, FORK_BYTE, FORK_HERE, MULTIPROCESSING_FORK, MULTIPROCESSING_FORKSERVER, MULTIPROCESSING_SPAWN, OURS,
        POSIX_SPAWN, STD,
    },
};

/// The options of a case with a small parent.
const SMALL: &[(&str, u64)] = &[("parent-mib", 20)];
/// The options of a case with a large parent.
const LARGE: &[(&str, u64)] = &[("parent-mib", 1024)];

/// How many times the raw fork, with `_exit` and `waitpid`, of a small process a start by forkserver may take.
const AIM_FORKSERVER: f64 = 3.0;
/// How many times the time of `Command` a start by spawn may take.
const AIM_SPAWN: f64 = 1.25;

/// Ours to the first byte.
const OURS_BYTE: &str = "ProcessBuilder::start; the child sends a byte on the Connection in its argument";
/// Ours to the status.
const OURS_JOIN: &str = "ProcessBuilder::start and Process::join";
/// Python to the first byte.
const PYTHON_BYTE: &str = "Process.start; the child sends a byte on the end of a Pipe in its arguments";
/// Python to the status.
const PYTHON_JOIN: &str = "Process.start and Process.join";

/// The raw fork.
const RAW_FORK: Entrant =
    Entrant::new(&FORK, 500, 100, "fork, _exit and waitpid of a small process, whatever the size of the parent");
/// The raw fork of a large parent.
const RAW_FORK_HERE: Entrant = Entrant::new(&FORK_HERE, 20, 5, "fork, _exit and waitpid of the parent itself");

/// A case of this group.
const fn case(
    name: &'static str,
    question: &'static str,
    options: &'static [(&'static str, u64)],
    entrants: &'static [Entrant],
) -> Case {
    Case {
        group: "context",
        name,
        question,
        unit: "µs",
        better: Better::Lower,
        options,
        entrants,
        checksum: |starts| starts, // each child ends with status 0
        cap: Duration::from_secs(60),
    }
}

/// The cases.
pub(crate) static CASES: &[Case] = &[
    case(
        "forkserver_start",
        "How long does it take from the request for a process that is forked off a helper to its first byte?",
        SMALL,
        &[
            Entrant::new(&OURS, 500, 100, OURS_BYTE),
            RAW_FORK.with_aim(AIM_FORKSERVER),
            Entrant::new(&FORK_BYTE, 500, 100, "fork of a small process; the child writes a byte into a pipe"),
            Entrant::new(&MULTIPROCESSING_FORKSERVER, 60, 15, PYTHON_BYTE),
            Entrant::new(&MULTIPROCESSING_FORK, 100, 30, PYTHON_BYTE),
        ],
    ),
    case(
        "forkserver_start_1gib",
        "The same from a parent of 1 GiB: is a start as fast?",
        LARGE,
        &[
            Entrant::new(&OURS, 500, 100, OURS_BYTE),
            RAW_FORK.with_aim(AIM_FORKSERVER),
            RAW_FORK_HERE,
            Entrant::new(&MULTIPROCESSING_FORKSERVER, 60, 15, PYTHON_BYTE),
            Entrant::new(&MULTIPROCESSING_FORK, 20, 5, PYTHON_BYTE),
        ],
    ),
    case(
        "forkserver_start_join",
        "How long does it take from the request for a process that is forked off a helper and does nothing to its status?",
        SMALL,
        &[
            Entrant::new(&OURS, 500, 100, OURS_JOIN),
            RAW_FORK.with_aim(AIM_FORKSERVER),
            Entrant::new(&MULTIPROCESSING_FORKSERVER, 60, 15, PYTHON_JOIN),
            Entrant::new(&MULTIPROCESSING_FORK, 100, 30, PYTHON_JOIN),
        ],
    ),
    case(
        "forkserver_start_join_1gib",
        "The same from a parent of 1 GiB: is it as fast?",
        LARGE,
        &[
            Entrant::new(&OURS, 500, 100, OURS_JOIN),
            RAW_FORK.with_aim(AIM_FORKSERVER),
            RAW_FORK_HERE,
            Entrant::new(&MULTIPROCESSING_FORKSERVER, 60, 15, PYTHON_JOIN),
            Entrant::new(&MULTIPROCESSING_FORK, 20, 5, PYTHON_JOIN),
        ],
    ),
    case(
        "spawn_start",
        "How long does it take from the request for a process that executes a program afresh to its first byte?",
        SMALL,
        SPAWN_BYTE,
    ),
    case("spawn_start_1gib", "The same from a parent of 1 GiB: is a start as fast?", LARGE, SPAWN_BYTE),
    case(
        "spawn_start_join",
        "How long does it take from the request for a process that executes a program afresh and does nothing to its status?",
        SMALL,
        SPAWN_JOIN,
    ),
    case("spawn_start_join_1gib", "The same from a parent of 1 GiB: is it as fast?", LARGE, SPAWN_JOIN),
];

/// Who executes a program and waits for its first byte.
static SPAWN_BYTE: &[Entrant] = &[
    Entrant::new(&OURS, 300, 60, OURS_BYTE),
    Entrant::new(&STD, 300, 60, "Command::spawn of our program; the child writes a byte on its piped standard output")
        .with_aim(AIM_SPAWN),
    Entrant::new(&POSIX_SPAWN, 300, 60, "posix_spawn of our program; the child writes a byte into a pipe"),
    Entrant::new(&MULTIPROCESSING_SPAWN, 20, 5, PYTHON_BYTE),
];

/// Who executes a program and waits for its status.
static SPAWN_JOIN: &[Entrant] = &[
    Entrant::new(&OURS, 300, 60, OURS_JOIN),
    Entrant::new(&STD, 300, 60, "Command::spawn of our program, which ends at once, and Child::wait")
        .with_aim(AIM_SPAWN),
    Entrant::new(&POSIX_SPAWN, 300, 60, "posix_spawn of our program, which ends at once, and waitpid"),
    Entrant::new(&MULTIPROCESSING_SPAWN, 20, 5, PYTHON_JOIN),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_start_is_measured_from_a_small_and_a_large_parent() {
        for small in CASES.iter().filter(|case| case.options == SMALL) {
            let large = format!("{}_1gib", small.name);
            let large = CASES.iter().find(|case| case.name == large).unwrap();
            assert_eq!(large.options, LARGE);
            // The aims are the same, so that a start which grows with its parent shows.
            let aims = |case: &Case| -> Vec<_> {
                let aims = case.entrants.iter().filter_map(|entrant| Some((entrant.subject.name, entrant.aim?)));
                aims.collect()
            };
            assert_eq!(aims(small), aims(large));
            assert!(!aims(small).is_empty());
        }
        assert_eq!(CASES.len(), 8);
    }
}
