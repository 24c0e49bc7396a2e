//! The tests under `cfg(billiard_fault)`: processes killed, stopped or refused at each named step of a protocol.

use std::{env, ffi::OsString};

use anyhow::Result;

use super::{Check, Plan, themes};

/// The check.
pub(super) const CHECK: Check =
    Check { name: "faults", about: "a process is killed or stopped between any two steps", run };

/// What compiles the fail-points in.
const FLAG: [&str; 2] = ["--cfg", "billiard_fault"];

/// Builds, then runs, those tests in a target folder of their own.
fn run(plan: &Plan<'_>) -> Result<()> {
    let (variable, flags) = flags(env::var_os("CARGO_ENCODED_RUSTFLAGS"), env::var_os("RUSTFLAGS"));
    themes::run(plan, &["faults", "start_faults"], |command| {
        command.env(variable, &flags).env("CARGO_TARGET_DIR", plan.workspace.target.join("fault"));
    })
}

/// The variable in which cargo takes flags, and the flags of the caller with ours behind them.
fn flags(encoded: Option<OsString>, plain: Option<OsString>) -> (&'static str, OsString) {
    let (variable, flags, separator) = match encoded {
        Some(flags) => ("CARGO_ENCODED_RUSTFLAGS", flags, "\x1f"), // where it is set, cargo looks at no other
        None => ("RUSTFLAGS", plain.unwrap_or_default(), " "),
    };
    let ours = FLAG.map(OsString::from);
    let all: Vec<_> = [flags].into_iter().filter(|flags| !flags.is_empty()).chain(ours).collect();
    (variable, all.join(separator.as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_added_to_those_that_are_there() {
        let of = |encoded: Option<&str>, plain: Option<&str>| {
            let (variable, flags) = flags(encoded.map(OsString::from), plain.map(OsString::from));
            (variable, flags.into_string().unwrap())
        };
        assert_eq!(of(None, None), ("RUSTFLAGS", "--cfg billiard_fault".into()));
        assert_eq!(of(None, Some("-g")), ("RUSTFLAGS", "-g --cfg billiard_fault".into()));
        let encoded = of(Some("-C\x1fdebuginfo=0"), Some("-g"));
        assert_eq!(encoded, ("CARGO_ENCODED_RUSTFLAGS", "-C\x1fdebuginfo=0\x1f--cfg\x1fbilliard_fault".into()));
    }
}
