//! The algorithms over shared memory, model-checked: loom tries every order that their steps can take.

use std::time::Duration;

use anyhow::Result;

use super::{Check, Plan, attempt, flags::compile_with};

/// The check.
pub(super) const CHECK: Check =
    Check { name: "loom", about: "every order of the steps of the algorithms over shared memory", run };

/// Where the models are: beside the algorithms.
const TESTS: [&str; 8] = ["-p", "billiard-shm", "-p", "billiard-sync", "-p", "billiard-pool", "--lib", "--release"];

/// The models are bounded, and take the same time whatever the budget: beyond this, one does not end.
const LIMIT: Duration = Duration::from_secs(1200);

/// Builds, then runs, the models in a target folder of their own.
fn run(plan: &Plan<'_>) -> Result<()> {
    let models = |more: &[&str]| {
        let mut command = plan.workspace.cargo(["test", "--locked"]);
        command.args(TESTS).args(more);
        compile_with(plan, "loom", &mut command);
        command
    };
    attempt(&mut models(&["--no-run"]), None)?;
    attempt(&mut models(&[]), Some(LIMIT))
}
