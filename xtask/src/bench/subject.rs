//! Who is measured, and the protocol between xtask and a subject.
//!
//! A run of a subject is a fresh process: `PROGRAM CASE --workers W --window K --jobs N`. It warms up, measures inside
//! itself, and prints one line of JSON: `{"case": …, "value": …, "unit": …, "checksum": …, "version": …}`. The value is
//! the sample, in the case's unit; the checksum is what the jobs' results add up to, so that work left out is seen.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use super::case::Case;
use crate::process::{self, Captured, Ended, last_line};

/// An implementation that cases are put to.
#[derive(Debug)]
pub(crate) struct Subject {
    /// As reports name it.
    pub(crate) name: &'static str,
    /// How it is brought about.
    pub(crate) kind: Kind,
}

/// How a subject is brought about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// This workspace's own: the program of `benches/` that is named after the group.
    Ours,
    /// A crate: the program of `benches/peers/` that is named after it.
    Crate,
    /// A module of Python's standard library.
    PythonStandard,
    /// A package from Python's registry.
    PythonPackage,
}

/// This project.
pub(crate) const OURS: Subject = Subject { name: "billiard-rs", kind: Kind::Ours };
/// The Python package that this project is named after.
pub(crate) const BILLIARD: Subject = Subject { name: "billiard", kind: Kind::PythonPackage };
/// Python's own.
pub(crate) const MULTIPROCESSING: Subject = Subject { name: "multiprocessing", kind: Kind::PythonStandard };
/// A crate with a pool of processes.
pub(crate) const PROCSPAWN: Subject = Subject { name: "procspawn", kind: Kind::Crate };

/// What a subject prints.
#[derive(Debug, Deserialize)]
struct Line {
    /// The case that it has run.
    case: String,
    /// The sample.
    value: f64,
    /// What the sample counts.
    unit: String,
    /// What the results add up to.
    checksum: u64,
    /// The version of the library under test.
    version: String,
}

/// How a run came out.
#[derive(Debug, PartialEq)]
pub(crate) enum Outcome {
    /// A sample, verified.
    Sample {
        /// In the case's unit.
        value: f64,
        /// Of the library under test.
        version: String,
    },
    /// It did not end in time and was killed.
    Capped,
    /// It ended badly, and this is why.
    Failed(String),
}

/// Runs a subject once. An error is a result that cannot be trusted: it spoils the whole run, whoever the subject is.
pub(crate) fn run_once(mut program: Command, case: &Case, jobs: u64) -> Result<Outcome> {
    program.arg(case.name).env("RUST_BACKTRACE", "0"); // a failure's reason comes last
    for (option, value) in case.options.iter().copied().chain([("jobs", jobs)]) {
        program.args([format!("--{option}"), value.to_string()]);
    }
    let captured = process::capture(&mut program, Some(case.cap))?;
    judge(captured, case, jobs).with_context(|| process::shown(&program))
}

/// What a run's end and output amount to.
fn judge(captured: Captured, case: &Case, jobs: u64) -> Result<Outcome> {
    match captured.ended {
        Ended::OverLimit(_) => return Ok(Outcome::Capped),
        Ended::Exited(status) if !status.success() => {
            eprint!("{}", captured.stderr); // all of it here, one line of it in the report
            let said = last_line(&captured.stderr).map_or_else(String::new, |line| format!(": {line}"));
            return Ok(Outcome::Failed(format!("{status}{said}")));
        }
        Ended::Exited(_) => {}
    }
    let line: Line = serde_json::from_str(&captured.stdout)
        .with_context(|| format!("not one line of JSON as agreed: {:?}", captured.stdout))?;
    ensure!(line.case == case.name, "it ran {} instead of {}", line.case, case.name);
    ensure!(line.unit == case.unit, "it counted {} instead of {}", line.unit, case.unit);
    ensure!(line.value.is_finite() && line.value > 0.0, "{} {} cannot be", line.value, line.unit);
    let expected = (case.checksum)(jobs);
    ensure!(line.checksum == expected, "wrong results: checksum {} instead of {expected}", line.checksum);
    Ok(Outcome::Sample { value: line.value, version: line.version })
}

#[cfg(test)]
mod tests {
    use std::{os::unix::process::ExitStatusExt as _, process::ExitStatus, time::Duration};

    use super::*;
    use crate::bench::case::CASES;

    /// The judgement on four jobs of the first case.
    fn judged(raw_status: i32, stdout: &str) -> Result<Outcome> {
        let ended = Ended::Exited(ExitStatus::from_raw(raw_status));
        let captured = Captured { ended, stdout: stdout.into(), stderr: "first\nlast\n".into() };
        judge(captured, &CASES[0], 4)
    }

    #[test]
    fn a_right_line_is_a_sample() {
        let line = r#"{"case":"tiny_oneway","value":2.5e3,"unit":"jobs/s","checksum":10,"version":"1.2"}"#;
        let sample = Outcome::Sample { value: 2500.0, version: "1.2".into() };
        assert_eq!(judged(0, &format!("{line}\n")).unwrap(), sample);
        assert!(judged(0, &format!("{line}\n{line}\n")).is_err(), "two lines");
    }

    #[test]
    fn wrong_results_spoil_the_run() {
        for line in [
            r#"{"case":"tiny_oneway","value":2500,"unit":"jobs/s","checksum":11,"version":""}"#,
            r#"{"case":"tiny_map","value":2500,"unit":"jobs/s","checksum":10,"version":""}"#,
            r#"{"case":"tiny_oneway","value":2500,"unit":"s","checksum":10,"version":""}"#,
            r#"{"case":"tiny_oneway","value":0,"unit":"jobs/s","checksum":10,"version":""}"#,
            r#"{"case":"tiny_oneway","value":2500,"unit":"jobs/s","checksum":10}"#,
            "",
        ] {
            assert!(judged(0, line).is_err(), "{line}");
        }
    }

    #[test]
    fn a_bad_end_is_told_with_its_last_words() {
        assert_eq!(judged(256, "").unwrap(), Outcome::Failed("exit status: 1: last".into()));
    }

    #[test]
    fn a_hang_is_capped() {
        let ended = Ended::OverLimit(Duration::from_secs(60));
        let captured = Captured { ended, stdout: String::new(), stderr: String::new() };
        assert_eq!(judge(captured, &CASES[0], 4).unwrap(), Outcome::Capped);
    }
}
