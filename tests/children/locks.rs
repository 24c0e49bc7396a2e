//! What processes share, while those who use it are killed and stopped: nobody waits for the dead, nothing is lost, and who
//! is told of a death is told the truth.
//!
//! `locks --steps` kills and stops a process at every named step of every operation, and looks at what it left (in a build with
//! `--cfg billiard_fault` alone). `locks --seconds N --kills K --seed S` kills processes at random until both are reached.

use std::{
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use billiard_test_support::{Random, Watchdog};

#[path = "locks/random.rs"]
mod random;
#[cfg(billiard_fault)]
#[path = "locks/steps.rs"]
mod steps;

/// How long anything may take before it counts as a hang.
const PATIENCE: Duration = Duration::from_secs(20);

fn main() -> ExitCode {
    billiard::init();
    match arguments() {
        Ok(Some((seconds, kills, seed))) => {
            random::run(Duration::from_secs_f64(seconds), kills, Random::with_seed("locks", seed));
            ExitCode::SUCCESS
        }
        #[cfg(billiard_fault)]
        Ok(None) => {
            steps::run();
            ExitCode::SUCCESS
        }
        #[cfg(not(billiard_fault))]
        Ok(None) => {
            eprintln!("--steps needs a build with --cfg billiard_fault");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("{error}\nusage: locks --steps | locks --seconds N [--kills K] --seed S");
            ExitCode::FAILURE
        }
    }
}

/// Seconds, kills and seed; none for the steps.
fn arguments() -> Result<Option<(f64, u64, u64)>, lexopt::Error> {
    use lexopt::prelude::*;

    let (mut seconds, mut kills, mut seed, mut steps) = (10.0, 0, 1, false);
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("steps") => steps = true,
            Long("seconds") => seconds = parser.value()?.parse()?,
            Long("kills") => kills = parser.value()?.parse()?,
            Long("seed") => seed = parser.value()?.parse()?,
            other => return Err(other.unexpected()),
        }
    }
    Ok((!steps).then_some((seconds, kills, seed)))
}

/// Looks until `condition` holds.
fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < PATIENCE, "hangs: {what}");
        thread::sleep(Duration::from_micros(200));
    }
}

/// The watch over one part of a run.
fn watch(what: &'static str, seconds: u64) -> Watchdog {
    Watchdog::start(what, seconds)
}
