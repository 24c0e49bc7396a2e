//! Who is measured, and the protocol between xtask and a subject.
//!
//! A run of a subject is a fresh process: `PROGRAM SUBJECT GROUP/CASE --workers W --window K --count N`. It warms up,
//! measures inside itself, and prints one line of JSON:
//! `{"subject": …, "case": …, "value": …, "unit": …, "checksum": …, "version": …}`. The value is the sample, in the
//! case's unit; the checksum is what the results add up to, so that work left out is seen.

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
    /// The same by other options than the usual ones, beside itself. The same program answers for it.
    Variant,
    /// What ours stands on or could be built from without a package of its own kind: the kernel, the C library, the
    /// standard library, a lock. The group's program answers for it too, so that what differs is the subject alone.
    Ground,
    /// A crate: the program of `benches/peers/` that is named after it.
    Crate,
    /// A module of Python's standard library.
    PythonStandard,
    /// A package from Python's registry.
    PythonPackage,
}

impl Subject {
    /// A subject.
    const fn new(name: &'static str, kind: Kind) -> Self {
        Self { name, kind }
    }
}

/// This project.
pub(crate) static OURS: Subject = Subject::new("billiard-rs", Kind::Ours);
/// This project, nothing shared between the workers.
pub(crate) static OURS_STRICT: Subject = Subject::new("billiard-rs:strict", Kind::Variant);
/// This project with 2 workers, whatever the case's number is.
pub(crate) static OURS_2: Subject = Subject::new("billiard-rs:2", Kind::Variant);
/// The same with 16.
pub(crate) static OURS_16: Subject = Subject::new("billiard-rs:16", Kind::Variant);
/// The same with 64.
pub(crate) static OURS_64: Subject = Subject::new("billiard-rs:64", Kind::Variant);
/// The Python package that this project is named after.
pub(crate) static BILLIARD: Subject = Subject::new("billiard", Kind::PythonPackage);
/// Python's own.
pub(crate) static MULTIPROCESSING: Subject = Subject::new("multiprocessing", Kind::PythonStandard);
/// Python's own, children forked off the program.
pub(crate) static MULTIPROCESSING_FORK: Subject = Subject::new("multiprocessing:fork", Kind::PythonStandard);
/// Python's own, children forked off a server.
pub(crate) static MULTIPROCESSING_FORKSERVER: Subject =
    Subject::new("multiprocessing:forkserver", Kind::PythonStandard);
/// Python's own, children executed afresh.
pub(crate) static MULTIPROCESSING_SPAWN: Subject = Subject::new("multiprocessing:spawn", Kind::PythonStandard);
/// Python's other pool.
pub(crate) static CONCURRENT_FUTURES: Subject = Subject::new("concurrent.futures", Kind::PythonStandard);
/// A crate with a pool of processes.
pub(crate) static PROCSPAWN: Subject = Subject::new("procspawn", Kind::Crate);
/// A crate with channels between threads.
pub(crate) static CROSSBEAM_CHANNEL: Subject = Subject::new("crossbeam-channel", Kind::Crate);
/// A crate with channels between processes.
pub(crate) static IPC_CHANNEL: Subject = Subject::new("ipc-channel", Kind::Crate);
/// A crate with messages between processes in shared memory.
pub(crate) static ICEORYX2: Subject = Subject::new("iceoryx2", Kind::Crate);
/// Rust's standard library.
pub(crate) static STD: Subject = Subject::new("std", Kind::Ground);
/// What the kernel takes to copy a small process, end it and reap it.
pub(crate) static FORK: Subject = Subject::new("limit:fork", Kind::Ground);
/// What it takes until the copy of a small process has written a byte.
pub(crate) static FORK_BYTE: Subject = Subject::new("limit:fork-byte", Kind::Ground);
/// What the kernel takes to copy the parent, end the copy and reap it.
pub(crate) static FORK_HERE: Subject = Subject::new("limit:fork-here", Kind::Ground);
/// What the C library takes to execute a program.
pub(crate) static POSIX_SPAWN: Subject = Subject::new("limit:posix_spawn", Kind::Ground);

/// The C library's mutex between processes.
pub(crate) static PTHREAD: Subject = Subject::new("pthread", Kind::Ground);
/// The same that survives its owner.
pub(crate) static PTHREAD_ROBUST: Subject = Subject::new("pthread-robust", Kind::Ground);
/// The C library's semaphore between processes.
pub(crate) static SEM_T: Subject = Subject::new("sem_t", Kind::Ground);
/// What the kernel takes to put to sleep and to wake.
pub(crate) static FUTEX: Subject = Subject::new("limit:futex", Kind::Ground);
/// A crate with locks between threads.
pub(crate) static PARKING_LOT: Subject = Subject::new("parking_lot", Kind::Ground);

/// What a subject prints.
#[derive(Debug, Deserialize)]
struct Line {
    /// Who has run.
    subject: String,
    /// The case that it has run.
    case: String,
    /// The sample.
    value: f64,
    /// What the sample counts.
    unit: String,
    /// What the results add up to.
    checksum: u64,
    /// The version of the library under test; empty where that is the system or the compiler.
    version: String,
}

/// How a run came out.
#[derive(Debug, PartialEq)]
pub(crate) enum Outcome {
    /// A sample, verified.
    Sample {
        /// In the case's unit.
        value: f64,
        /// Of the library under test; none where that is the system or the compiler.
        version: Option<String>,
    },
    /// It did not end in time and was killed.
    Capped,
    /// It ended badly, and this is why.
    Failed(String),
}

/// Runs an entrant once. An error is a result that cannot be trusted: it spoils the whole run, whoever the subject is.
pub(crate) fn run_once(mut program: Command, case: &Case, subject: &Subject, count: u64) -> Result<Outcome> {
    program.args([subject.name, &case.full_name()]).env("RUST_BACKTRACE", "0"); // a failure's reason comes last
    for (option, value) in case.options.iter().copied().chain([("count", count)]) {
        program.args([format!("--{option}"), value.to_string()]);
    }
    let captured = process::capture(&mut program, Some(case.cap))?;
    judge(captured, case, subject, count).with_context(|| process::shown(&program))
}

/// What a run's end and output amount to.
fn judge(captured: Captured, case: &Case, subject: &Subject, count: u64) -> Result<Outcome> {
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
    ensure!(line.subject == subject.name, "{} ran instead of {}", line.subject, subject.name);
    ensure!(line.case == case.full_name(), "it ran {} instead of {}", line.case, case.full_name());
    ensure!(line.unit == case.unit, "it counted {} instead of {}", line.unit, case.unit);
    ensure!(line.value.is_finite() && line.value > 0.0, "{} {} cannot be", line.value, line.unit);
    let expected = (case.checksum)(count);
    ensure!(line.checksum == expected, "wrong results: checksum {} instead of {expected}", line.checksum);
    Ok(Outcome::Sample { value: line.value, version: Some(line.version).filter(|version| !version.is_empty()) })
}

#[cfg(test)]
mod tests {
    use std::{os::unix::process::ExitStatusExt as _, process::ExitStatus, time::Duration};

    use super::*;
    use crate::bench::cases::pool::CASES;

    /// The judgement on four jobs of ours in the first case.
    fn judged(raw_status: i32, stdout: &str) -> Result<Outcome> {
        let ended = Ended::Exited(ExitStatus::from_raw(raw_status));
        let captured = Captured { ended, stdout: stdout.into(), stderr: "first\nlast\n".into() };
        judge(captured, &CASES[0], &OURS, 4)
    }

    /// A line of ours.
    fn line(case: &str, value: &str, unit: &str, checksum: u64, version: &str) -> String {
        format!(
            r#"{{"subject":"billiard-rs","case":"{case}","value":{value},"unit":"{unit}","checksum":{checksum},"version":"{version}"}}"#
        )
    }

    #[test]
    fn a_right_line_is_a_sample() {
        let right = line("pool/tiny_oneway", "2.5e3", "jobs/s", 10, "1.2");
        let sample = Outcome::Sample { value: 2500.0, version: Some("1.2".into()) };
        assert_eq!(judged(0, &format!("{right}\n")).unwrap(), sample);
        assert!(judged(0, &format!("{right}\n{right}\n")).is_err(), "two lines");

        let sample = Outcome::Sample { value: 2500.0, version: None };
        assert_eq!(judged(0, &line("pool/tiny_oneway", "2500", "jobs/s", 10, "")).unwrap(), sample);
    }

    #[test]
    fn wrong_results_spoil_the_run() {
        let right = line("pool/tiny_oneway", "2500", "jobs/s", 10, "1.2");
        for wrong in [
            line("pool/tiny_oneway", "2500", "jobs/s", 11, ""),
            line("pool/tiny_map", "2500", "jobs/s", 10, ""),
            line("pool/tiny_oneway", "2500", "s", 10, ""),
            line("pool/tiny_oneway", "0", "jobs/s", 10, ""),
            right.replace("billiard-rs", "billiard"),
            right.replace(r#","version":"1.2""#, ""),
            String::new(),
        ] {
            assert!(judged(0, &wrong).is_err(), "{wrong}");
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
        assert_eq!(judge(captured, &CASES[0], &OURS, 4).unwrap(), Outcome::Capped);
    }
}
