//! Programs compiled with a `cfg` of ours: the fail-points, or loom's atomics.

use std::{
    env,
    ffi::{OsStr, OsString},
    process::Command,
};

use super::Plan;

/// Makes cargo compile with `--cfg name`, in a target folder of that name.
pub(super) fn compile_with(plan: &Plan<'_>, name: &str, command: &mut Command) {
    let (variable, flags) = flags(name, env::var_os("CARGO_ENCODED_RUSTFLAGS"), env::var_os("RUSTFLAGS"));
    command.env(variable, flags).env("CARGO_TARGET_DIR", plan.workspace.target.join(name));
}

/// The variable in which cargo takes flags, and the flags of the caller with ours behind them.
fn flags(name: &str, encoded: Option<OsString>, plain: Option<OsString>) -> (&'static str, OsString) {
    let (variable, flags, separator) = match encoded {
        Some(flags) => ("CARGO_ENCODED_RUSTFLAGS", flags, "\x1f"), // where it is set, cargo looks at no other
        None => ("RUSTFLAGS", plain.unwrap_or_default(), " "),
    };
    let ours = ["--cfg", name].map(OsString::from);
    let all: Vec<_> = [flags].into_iter().filter(|flags| !flags.is_empty()).chain(ours).collect();
    (variable, all.join(OsStr::new(separator)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_added_to_those_that_are_there() {
        let of = |encoded: Option<&str>, plain: Option<&str>| {
            let (variable, flags) = flags("loom", encoded.map(OsString::from), plain.map(OsString::from));
            (variable, flags.into_string().unwrap())
        };
        assert_eq!(of(None, None), ("RUSTFLAGS", "--cfg loom".into()));
        assert_eq!(of(None, Some("-g")), ("RUSTFLAGS", "-g --cfg loom".into()));
        let encoded = of(Some("-C\x1fdebuginfo=0"), Some("-g"));
        assert_eq!(encoded, ("CARGO_ENCODED_RUSTFLAGS", "-C\x1fdebuginfo=0\x1f--cfg\x1floom".into()));
    }
}
