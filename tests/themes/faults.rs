//! A process is killed, stopped or failed at every named step: every job still has one outcome, nothing hangs,
//! nothing is left. Built with `--cfg billiard_fault` only: `cargo xtask verify faults`.
#![cfg(billiard_fault)]

use std::process::Command;

use billiard_test_support::{Random, Watchdog, patience, rounds};

/// The steps that a process of the pool passes, and how often a run of `child-faulty` passes each at least.
const STEPS: &[(&str, u64)] = &[
    ("child.forked", 1),
    ("child.set_up", 1),
    ("child.run", 1),
    ("worker.start", 1),
    ("worker.run", 10),
    ("worker.publish", 10),
    ("worker.published", 10),
    ("guardian.ready", 1),
    ("guardian.fork", 3),
    ("guardian.forked", 3),
    ("child.ended", 1),
    ("guardian.reap", 1),
];

/// System calls that fail, with which error, and from which pass on that is not the end of building the pool.
const FAILURES: &[(&str, i32, u64)] = &[
    ("sys.context.fork", libc::EAGAIN, 1),
    ("sys.context.pidfd_open", libc::EMFILE, 3),
    ("sys.context.ppoll", libc::EINTR, 1),
    ("sys.connection.socketpair", libc::EMFILE, 2),
    ("sys.connection.recvmsg", libc::EINTR, 1),
    ("sys.connection.sendmsg", libc::EINTR, 1),
];

/// The limit of a job that only the plan may end, in milliseconds.
const LONG: u32 = 60_000;

fn run(plan: &str, limit: u32) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_child-faulty"))
        .arg(limit.to_string())
        .env("BILLIARD_FAULT", plan)
        .env_remove("RUST_BACKTRACE")
        .output()
        .expect("the helper program runs");
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    assert!(output.status.success(), "{plan}: {}\n{text}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    println!("{plan}: {text}");
    text
}

fn count(text: &str, what: &str) -> u64 {
    let behind = text.split(what).nth(1).unwrap_or_default();
    behind.trim_start().split(|c: char| !c.is_ascii_digit()).next().and_then(|n| n.parse().ok()).unwrap_or(0)
}

#[test]
fn a_kill_at_any_step_loses_at_most_the_jobs_of_the_killed() {
    let _watchdog = Watchdog::start("a_kill_at_any_step_loses_at_most_the_jobs_of_the_killed", patience(300));
    for mut random in rounds("a_kill_at_any_step", 1, 0.3) {
        for &(step, passes) in STEPS {
            let text = run(&format!("{step}=kill@{}", 1 + random.below(passes)), LONG);
            if step == "worker.published" {
                assert_eq!(count(&text, "lost"), 0, "a result that was written whole counts: {text}");
            }
        }
    }
}

#[test]
fn a_stop_at_any_step_of_a_worker_ends_at_the_limit() {
    let _watchdog = Watchdog::start("a_stop_at_any_step_of_a_worker_ends_at_the_limit", patience(300));
    for mut random in rounds("a_stop_at_any_step", 1, 0.2) {
        for step in ["worker.run", "worker.publish", "worker.published"] {
            let pass = 8 + random.below(5); // every worker stops there: not too many
            let text = run(&format!("{step}=stop@{pass}"), 300);
            assert!(count(&text, "limits") > 0, "{step}: {text}");
        }
    }
}

#[test]
fn a_guardian_that_stops_delays_replacements_and_no_job() {
    let _watchdog = Watchdog::start("a_guardian_that_stops_delays_replacements_and_no_job", 300);
    for step in ["guardian.fork", "guardian.forked"] {
        let text = run(&format!("{step}=stop@2"), LONG);
        assert_eq!(count(&text, "values"), 40, "the worker that there is does it all: {text}");
    }
}

#[test]
fn a_system_call_that_fails_is_an_error_and_not_the_end() {
    let _watchdog = Watchdog::start("a_system_call_that_fails_is_an_error_and_not_the_end", 300);
    let mut random = Random::from_env("a_system_call_that_fails");
    for &(call, errno, first) in FAILURES {
        let text = run(&format!("{call}=errno:{errno}@{}", first + random.below(3)), LONG);
        assert_eq!(count(&text, "values"), 40, "{call}: {text}");
    }
}

#[test]
fn a_program_whose_children_never_come_up_fails_and_resolves_every_job() {
    let _watchdog = Watchdog::start("a_program_whose_children_never_come_up_fails_and_resolves_every_job", 300);
    let text = run("sys.context.fork=errno:11@*", LONG);
    assert_eq!(count(&text, "failed"), 40, "{text}");
    let text = run("worker.start=kill@*", LONG);
    assert_eq!(count(&text, "failed"), 40, "{text}");
}
