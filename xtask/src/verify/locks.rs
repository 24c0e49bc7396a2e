//! What processes share, while those who use it are killed and stopped: at each named step, and at random.

use std::time::Duration;

use anyhow::Result;

use super::{Check, Plan, attempt, flags::compile_with, themes::GRACE};

/// The check.
pub(super) const CHECK: Check =
    Check { name: "locks", about: "locks, permits, barriers, values: nobody waits for the dead, nothing is lost", run };

/// The program that does it.
const PROGRAM: [&str; 5] = ["--locked", "-p", "billiard-tests", "--bin", "locks"];

/// How many kills a run of a minute or more makes at least.
const KILLS: &str = "10000";

/// Builds the program with the fail-points and without; then runs the steps, and the kills at random.
fn run(plan: &Plan<'_>) -> Result<()> {
    let cargo = |subcommand: &str, steps: bool| {
        let mut command = plan.workspace.cargo([subcommand]);
        command.args(PROGRAM);
        match steps {
            true => compile_with(plan, "billiard_fault", &mut command),
            false => drop(command.arg("--release")),
        }
        command
    };
    for steps in [true, false] {
        attempt(&mut cargo("build", steps), None)?;
    }
    attempt(cargo("run", true).args(["--", "--steps"]), Some(GRACE))?;
    let kills = if plan.budget >= Duration::from_secs(60) { KILLS } else { "0" };
    let mut random = cargo("run", false);
    random.args(["--", "--seconds", &plan.seconds().to_string(), "--kills", kills, "--seed", &plan.seed.to_string()]);
    attempt(&mut random, Some(plan.budget * 2 + GRACE))
}
