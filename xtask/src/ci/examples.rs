//! The examples are what a newcomer tries first: each is run to its end, and a hang is a failure that says which.

use std::time::Duration;

use super::{Failure, check};
use crate::workspace::Workspace;

/// How long an example may take.
const LIMIT: Duration = Duration::from_secs(120);

/// Builds, then runs, the examples of every library.
pub(super) fn step(workspace: &Workspace) -> Result<(), Failure> {
    for package in workspace.libraries() {
        if package.examples().next().is_none() {
            continue;
        }
        // Built first, so that the limit is on the run alone.
        check(&mut workspace.cargo(["build", "--release", "--locked", "-p", &package.name, "--examples"]), None)?;
        for example in package.examples() {
            let arguments = ["run", "--release", "--locked", "-p", &package.name, "--example", example];
            check(&mut workspace.cargo(arguments), Some(LIMIT)).map_err(|failure| Failure {
                why: failure.why.context(format!("example `{example}` of {}", package.name)),
                ..failure
            })?;
        }
    }
    Ok(())
}
