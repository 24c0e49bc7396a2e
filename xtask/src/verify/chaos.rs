//! Pools under a storm of kills, time limits and restarts, every job accounted for.

use std::time::Duration;

use anyhow::Result;

use super::{Check, Plan, attempt};

/// The check.
pub(super) const CHECK: Check =
    Check { name: "chaos", about: "pools under a storm of kills: each job has one outcome, nothing is left", run };

/// Beyond twice the budget and this, a run counts as hung.
const GRACE: Duration = Duration::from_secs(120);

/// Builds, then runs, the program of that name.
fn run(plan: &Plan<'_>) -> Result<()> {
    let program = ["--release", "--locked", "-p", "billiard-tests", "--bin", "chaos"];
    attempt(plan.workspace.cargo(["build"]).args(program), None)?;
    let mut chaos = plan.workspace.cargo(["run"]);
    chaos.args(program).args(["--", "--seconds", &plan.seconds().to_string(), "--seed", &plan.seed.to_string()]);
    attempt(&mut chaos, Some(plan.budget * 2 + GRACE))
}
