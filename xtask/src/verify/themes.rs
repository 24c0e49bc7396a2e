//! Tests that go on for as long as they are given: the themes of `tests/` that look at the environment for time and seed.

use std::{process::Command, time::Duration};

use anyhow::Result;

use super::{Check, Plan, attempt};

/// Programs, and the helper process, killed again and again.
pub(super) const ORPHANS: Check = Check {
    name: "orphans",
    about: "programs and their helper are killed at any instant: nothing is left",
    run: |plan| run(plan, &["billiard-tests"], &["orphans", "guardian"], |_| {}),
};

/// Children of a program whose threads hold every lock.
pub(super) const STARTS: Check = Check {
    name: "starts",
    about: "children of a program whose threads hold every lock: none sticks",
    run: |plan| run(plan, &["billiard-tests"], &["busy"], |_| {}),
};

/// Jobs that end at the worst moment.
pub(super) const ACCOUNTING: Check = Check {
    name: "accounting",
    about: "limits that strike at random, a worker for each job: every job has its own outcome",
    run: |plan| run(plan, &["billiard-tests"], &["accounting", "backpressure"], |_| {}),
};

/// Descriptors that go to workers and back.
pub(super) const DESCRIPTORS: Check = Check {
    name: "descriptors",
    about: "descriptors go to workers that are killed, and back: none stays open",
    run: |plan| run(plan, &["billiard-tests"], &["leaks"], |_| {}),
};

/// Beyond twice the budget and this, a run counts as hung.
pub(super) const GRACE: Duration = Duration::from_secs(600);

/// Builds, then runs, those tests of those packages, all by a command that `with` has changed.
pub(super) fn run(plan: &Plan<'_>, packages: &[&str], themes: &[&str], with: impl Fn(&mut Command)) -> Result<()> {
    let tests = |more: &[&str]| {
        let mut command = plan.workspace.cargo(["test", "--locked"]);
        command.args(packages.iter().flat_map(|package| ["-p", package]));
        command.args(themes.iter().flat_map(|theme| ["--test", theme])).args(more);
        with(&mut command);
        command
    };
    attempt(&mut tests(&["--no-run"]), None)?;
    let mut tests = tests(&["--", "--nocapture", "--test-threads", "1"]);
    tests.env("BILLIARD_SEED", plan.seed.to_string()).env("BILLIARD_VERIFY_SECONDS", plan.seconds().to_string());
    attempt(&mut tests, Some(plan.budget * 2 + GRACE))
}
