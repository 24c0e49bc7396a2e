//! The tests under `cfg(billiard_fault)`: processes killed, stopped or refused at each named step of a protocol.

use anyhow::Result;

use super::{Check, Plan, flags::compile_with, themes};

/// The check.
pub(super) const CHECK: Check =
    Check { name: "faults", about: "a process is killed or stopped between any two steps", run };

/// Builds, then runs, those tests in a target folder of their own.
fn run(plan: &Plan<'_>) -> Result<()> {
    themes::run(plan, &["billiard-tests", "billiard-shm"], &["faults", "start_faults"], |command| {
        compile_with(plan, "billiard_fault", command);
    })
}
