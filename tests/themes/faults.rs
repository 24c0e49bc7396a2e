//! A process is killed, stopped or failed at every named step: every job still has one outcome, nothing hangs,
//! nothing is left. Built with `--cfg billiard_fault` only: `cargo xtask verify faults`.
#![cfg(billiard_fault)]

use std::{path::Path, process::Command, time::Instant};

use billiard_test_support::{Random, Watchdog, patience, rounds};

/// The steps that a process of any pool passes, and how often a run of `child-faulty` passes each at least.
const STEPS: &[(&str, u64)] = &[
    ("child.forked", 1),
    ("child.set_up", 1),
    ("child.run", 1),
    ("worker.start", 1),
    ("worker.run", 10),
    ("worker.publish", 10),
    ("worker.published", 10),
    ("guardian.ready", 1),
    ("guardian.fork", 2),
    ("guardian.forked", 2),
    ("child.ended", 1),
    ("guardian.reap", 1),
];

/// Those of a worker at a job table; the first as often as it looks for a job.
const TABLE_STEPS: &[(&str, u64)] = &[
    ("table.claim", 10),
    ("table.claimed", 10),
    ("worker.claimed", 10),
    ("worker.run", 10),
    ("worker.publish", 10),
    ("worker.laid_down", 10),
    ("worker.published", 10),
    ("worker.announced", 10),
    ("table.found", 1),
    ("table.sleep", 1),
];

/// Those of a worker at a job table whose jobs do not fit into a record, but into the heaps.
const PLACED_STEPS: &[(&str, u64)] = &[("worker.argument", 10), ("worker.placed", 10), ("worker.laid_down", 10)];

/// Those of one whose jobs are items of chunks.
const ITEM_STEPS: &[(&str, u64)] = &[
    ("worker.item", 10),
    ("worker.item.run", 10),
    ("worker.item.laid_down", 10),
    ("worker.item.finished", 10),
    ("worker.laid_down", 2),
    ("worker.published", 2),
];

/// Those of one that has no room for what becomes of every second item.
const GROWN_STEPS: &[(&str, u64)] = &[
    ("worker.item.run", 5),
    ("worker.item.sent", 3),
    ("worker.item.laid_down", 5),
    ("worker.item.finished", 5),
    ("worker.laid_down", 3),
];

/// Those of one whose jobs carry descriptors.
const MAIL_STEPS: &[(&str, u64)] = &[("worker.mail", 10), ("worker.sent", 10), ("worker.laid_down", 10)];

/// A worker at one of these has no job that has not been published: whatever becomes of it, nothing is lost.
const PUBLISHED: &[&str] = &["worker.published", "worker.announced", "table.sleep"];

/// What a run is made of, beside its plan: isolation, size, and how many jobs.
const STRICT: [&str; 3] = ["strict", "5000", "40"];
const SMALL: [&str; 3] = ["shared", "10", "40"];
const LARGE: [&str; 3] = ["shared", "5000", "40"];
const MAIL: [&str; 3] = ["shared", "fd", "40"];
const CHUNKS: [&str; 3] = ["chunks", "10", "60"];
const GROWN: [&str; 3] = ["chunks", "700000", "40"];
const HUGE: [&str; 3] = ["shared", "5000000", "20"];

/// Those of one whose jobs are too large for the heaps.
const APART_STEPS: &[(&str, u64)] = &[("worker.mail", 5), ("worker.apart", 5), ("worker.sent", 5)];

/// System calls that fail, with which error, from which pass on that is not the end of building the pool, and how many passes there are from then on at least.
const FAILURES: &[(&str, i32, u64, u64)] = &[
    ("sys.context.fork", libc::EAGAIN, 1, 2),
    ("sys.context.pidfd_open", libc::EMFILE, 3, 2),
    ("sys.context.ppoll", libc::EINTR, 1, 3),
    ("sys.connection.socketpair", libc::EMFILE, 2, 2),
    ("sys.connection.recvmsg", libc::EINTR, 1, 3),
    ("sys.connection.sendmsg", libc::EINTR, 1, 3),
];

/// The limit of a job that only the plan may end, in milliseconds.
const LONG: u32 = 60_000;

/// Runs jobs under a plan, and demands that each part of it has come to pass.
fn run_all(plan: &str, limit: u32, kind: &[&str]) -> String {
    let log =
        std::env::temp_dir().join(format!("billiard-faults-{}-{:?}", std::process::id(), std::thread::current().id()));
    let text = run_logged(plan, limit, kind, Some(&log));
    let happened = std::fs::read_to_string(&log).unwrap_or_default();
    let _ = std::fs::remove_file(&log);
    for step in plan.split(',').filter_map(|part| part.split('=').next()) {
        assert!(happened.lines().any(|line| line == step), "{plan} {kind:?}: {step} was not passed so often");
    }
    text
}

fn run(plan: &str, limit: u32, kind: &[&str]) -> String {
    run_logged(plan, limit, kind, None)
}

fn run_logged(plan: &str, limit: u32, kind: &[&str], log: Option<&Path>) -> String {
    let begun = Instant::now();
    let output = Command::new(env!("CARGO_BIN_EXE_child-faulty"))
        .arg(limit.to_string())
        .args(kind)
        .env("BILLIARD_FAULT", plan)
        .envs(log.map(|path| ("BILLIARD_FAULT_LOG", path)))
        .env_remove("RUST_BACKTRACE")
        .output()
        .expect("the helper program runs");
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    assert!(
        output.status.success(),
        "{plan} {kind:?}: {}\n{text}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    println!("{plan} {kind:?}: {text}, after {:?}", begun.elapsed());
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
        let small = [(STEPS, STRICT), (STEPS, LARGE), (TABLE_STEPS, SMALL)];
        let large = [(PLACED_STEPS, LARGE), (MAIL_STEPS, MAIL), (APART_STEPS, HUGE)];
        let all = small.into_iter().chain(large).chain([(ITEM_STEPS, CHUNKS), (GROWN_STEPS, GROWN)]);
        for (steps, kind) in all {
            for &(step, passes) in steps {
                let text = run_all(&format!("{step}=kill@{}", 1 + random.below(passes)), LONG, &kind);
                if PUBLISHED.contains(&step) {
                    assert_eq!(count(&text, "lost"), 0, "a result that was laid down whole counts: {text}");
                }
            }
        }
    }
}

#[test]
fn workers_that_are_killed_again_and_again_lose_their_own_jobs_alone() {
    let _watchdog = Watchdog::start("workers_that_are_killed_again_and_again", patience(300));
    let mut kills = 0;
    for mut random in rounds("workers_that_are_killed_again_and_again", 1, 0.3) {
        let many = |kind: [&'static str; 3]| [kind[0], kind[1], "500"];
        let all = [(TABLE_STEPS, SMALL), (PLACED_STEPS, LARGE), (MAIL_STEPS, MAIL), (ITEM_STEPS, CHUNKS)];
        for (steps, kind) in all.map(|(steps, kind)| (steps, many(kind))) {
            for &(step, _) in steps {
                // Each worker of the pool, and each that takes its place. Not at its first look: none would ever come to a job, which is tested below.
                let text = run(&format!("{step}=kill@{}", 2 + random.below(20)), LONG, &kind);
                kills += count(&text, "workers").saturating_sub(2);
                if PUBLISHED.contains(&step) {
                    assert_eq!(count(&text, "lost"), 0, "a result that was laid down whole counts: {text}");
                }
            }
        }
    }
    println!("{kills} kills");
    assert!(kills > 0);
}

#[test]
fn a_stop_at_any_step_of_a_worker_ends_at_the_limit() {
    let _watchdog = Watchdog::start("a_stop_at_any_step_of_a_worker_ends_at_the_limit", patience(300));
    for mut random in rounds("a_stop_at_any_step", 1, 0.2) {
        let in_the_table = ["worker.claimed", "worker.run", "worker.publish", "worker.laid_down"];
        let all: [(&[&str], _); 5] = [
            (&["worker.run", "worker.publish", "worker.published"], STRICT),
            (&in_the_table, SMALL),
            (&["worker.argument", "worker.placed"], LARGE),
            (&["worker.mail", "worker.sent"], MAIL),
            (&["worker.item", "worker.item.run", "worker.item.laid_down", "worker.item.finished"], CHUNKS),
        ];
        for (steps, kind) in all {
            for step in steps {
                let pass = 8 + random.below(5); // every worker stops there: not too many
                let text = run_all(&format!("{step}=stop@{pass}"), 300, &kind);
                assert_eq!(count(&text, "lost"), 0, "{step}: {text}");
                // Behind the last item of a chunk nothing is left that could fail.
                let may_be_last = *step == "worker.item.finished" && count(&text, "values") == 60;
                assert!(count(&text, "limits") > 0 || may_be_last, "{step}: {text}");
            }
        }
    }
}

#[test]
fn a_worker_that_is_stopped_at_any_step_and_goes_on_loses_nothing() {
    let _watchdog = Watchdog::start("a_worker_that_is_stopped_at_any_step_and_goes_on_loses_nothing", patience(300));
    for mut random in rounds("a_worker_that_is_stopped", 1, 0.2) {
        let all = [(TABLE_STEPS, SMALL), (PLACED_STEPS, LARGE), (MAIL_STEPS, MAIL), (APART_STEPS, HUGE)];
        for (steps, kind) in all.into_iter().chain([(ITEM_STEPS, CHUNKS), (GROWN_STEPS, GROWN)]) {
            for &(step, passes) in steps {
                let plan = format!("{step}=stop@{}", 1 + random.below(passes));
                let text = run_all(&plan, LONG, &[kind[0], kind[1], kind[2], "continue"]);
                assert_eq!(count(&text, "values").to_string(), kind[2], "{plan}: {text}");
            }
        }
    }
}

#[test]
fn a_guardian_that_stops_delays_replacements_and_no_job() {
    let _watchdog = Watchdog::start("a_guardian_that_stops_delays_replacements_and_no_job", 300);
    for step in ["guardian.fork", "guardian.forked"] {
        let text = run_all(&format!("{step}=stop@2"), LONG, &STRICT);
        assert_eq!(count(&text, "values"), 40, "the worker that there is does it all: {text}");
    }
}

#[test]
fn a_system_call_that_fails_is_an_error_and_not_the_end() {
    let _watchdog = Watchdog::start("a_system_call_that_fails_is_an_error_and_not_the_end", 300);
    let mut random = Random::from_env("a_system_call_that_fails");
    for &(call, errno, first, passes) in FAILURES {
        for kind in [STRICT, SMALL] {
            let text = run_all(&format!("{call}=errno:{errno}@{}", first + random.below(passes)), LONG, &kind);
            assert_eq!(count(&text, "values"), 40, "{call} {kind:?}: {text}");
        }
    }
}

#[test]
fn nobody_relies_on_looks_from_time_to_time() {
    let _watchdog = Watchdog::start("nobody_relies_on_looks_from_time_to_time", 100);
    // Of 200 jobs, none needs them, but for some that happen to be published at the very moment of one. Where anybody relied on them, they were needed by every other.
    let plan = ["table", "caller", "supervisor"].map(|who| format!("{who}.woken_late=kill@50")).join(",");
    let output = Command::new(env!("CARGO_BIN_EXE_child-woken")).env("BILLIARD_FAULT", plan).output();
    let output = output.expect("the helper program runs");
    assert!(output.status.success(), "{}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_program_whose_children_never_come_up_fails_and_resolves_every_job() {
    let _watchdog = Watchdog::start("a_program_whose_children_never_come_up_fails_and_resolves_every_job", 300);
    let text = run_all("sys.context.fork=errno:11@*", LONG, &SMALL);
    assert_eq!(count(&text, "failed"), 40, "{text}");
    for plan in ["worker.start=kill@*", "table.claim=kill@1"] {
        let text = run_all(plan, LONG, &SMALL);
        assert_eq!(count(&text, "failed"), 40, "{text}");
    }
}
