//! The tests under `cfg(billiard_fault)`: processes killed, stopped or refused at each named step of a protocol.

use std::time::Duration;

use anyhow::Result;

use super::{Check, Plan, attempt, flags::compile_with};

/// The check.
pub(super) const CHECK: Check =
    Check { name: "faults", about: "a process is killed or stopped between any two steps", run };

/// Where those tests are.
const TESTS: [&str; 6] = ["-p", "billiard-tests", "-p", "billiard-shm", "--test", "faults"];

/// Beyond twice the budget and this, a run counts as hung.
const GRACE: Duration = Duration::from_secs(600);

/// Builds, then runs, those tests in a target folder of their own.
fn run(plan: &Plan<'_>) -> Result<()> {
    let tests = |more: &[&str]| {
        let mut command = plan.workspace.cargo(["test", "--locked"]);
        command.args(TESTS).args(more);
        compile_with(plan, "billiard_fault", &mut command);
        command
    };
    attempt(&mut tests(&["--no-run"]), None)?;
    let mut tests = tests(&["--", "--nocapture", "--test-threads", "1"]);
    tests.env("BILLIARD_SEED", plan.seed.to_string()).env("BILLIARD_VERIFY_SECONDS", plan.seconds().to_string());
    attempt(&mut tests, Some(plan.budget * 2 + GRACE))
}
