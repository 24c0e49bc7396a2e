//! `cargo xtask verify`: named checks that look for what ordinary tests do not reach, each from a printed seed.
//!
//! A check is an entry of [`CHECKS`]; it takes its randomness from the plan's seed alone, so that a failure can be
//! replayed, and its time from the plan's budget.

mod chaos;
mod faults;
mod flags;
mod locks;
mod loom;
mod themes;

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher as _, Hasher as _},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::Result;
use lexopt::prelude::*;

use crate::{process, workspace::Workspace};

/// What `cargo xtask verify --help` prints.
const USAGE: &str = "\
Long checks with a printed seed: what ordinary tests do not reach.

Usage: cargo xtask verify [OPTIONS] [CHECK…|all]

Arguments:
  CHECK…         the checks to run (default: all)

Options:
  --minutes N    time for all the checks together (default: one minute for each)
  --seed S       replay with this seed, decimal or 0x… (default: a fresh one)
  --list         name the checks and stop
";

/// The checks, in the order in which `all` runs them.
pub(crate) static CHECKS: &[Check] = &[
    loom::CHECK,
    faults::CHECK,
    locks::CHECK,
    themes::ORPHANS,
    themes::STARTS,
    themes::ACCOUNTING,
    themes::DESCRIPTORS,
    chaos::CHECK,
];

/// Something that must hold, looked at for as long as one likes.
#[derive(Debug)]
pub(crate) struct Check {
    /// As the command line names it.
    pub(crate) name: &'static str,
    /// What it looks for.
    about: &'static str,
    /// Looks.
    run: fn(&Plan<'_>) -> Result<()>,
}

/// What a check is given.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    /// What is checked.
    pub(crate) workspace: &'a Workspace,
    /// Where all randomness comes from.
    pub(crate) seed: u64,
    /// How long to look.
    pub(crate) budget: Duration,
}

impl Check {
    /// Announces and runs the check.
    pub(crate) fn run(&self, plan: &Plan<'_>) -> Result<()> {
        println!("\n--- {}: {} ({} s, seed {})", self.name, self.about, plan.seconds(), plan.seed);
        (self.run)(plan)
    }
}

impl Plan<'_> {
    /// The budget as checks take it: whole seconds, at least one.
    fn seconds(&self) -> u64 {
        (self.budget.as_secs_f64().round() as u64).max(1)
    }

    /// The command that runs `check` as this plan does.
    pub(crate) fn again(&self, check: &Check) -> String {
        replay(check.name, self.seed, self.budget)
    }
}

/// What the command line asks for.
#[derive(Debug)]
struct Options {
    /// The checks to run, in order.
    checks: Vec<&'static Check>,
    /// Time for all of them.
    minutes: Option<f64>,
    /// The seed to replay with.
    seed: Option<u64>,
    /// Print this and stop.
    print: Option<String>,
}

impl Options {
    /// Reads them.
    fn parse(arguments: &mut lexopt::Parser) -> Result<Self, lexopt::Error> {
        let mut options = Self { checks: Vec::new(), minutes: None, seed: None, print: None };
        while let Some(argument) = arguments.next()? {
            match argument {
                Value(name) if name == "all" => options.checks.extend(CHECKS),
                Value(name) => options.checks.push(check_named(&name.string()?)?),
                Long("minutes") => options.minutes = Some(arguments.value()?.parse_with(minutes)?),
                Long("seed") => options.seed = Some(arguments.value()?.parse_with(seed)?),
                Long("list") => {
                    let lines = CHECKS.iter().map(|check| format!("{:<10}{}\n", check.name, check.about));
                    options.print = Some(lines.collect());
                }
                Long("help") | Short('h') => options.print = Some(USAGE.to_owned()),
                other => return Err(other.unexpected()),
            }
        }
        if options.checks.is_empty() {
            options.checks.extend(CHECKS);
        }
        Ok(options)
    }

    /// The time for each check.
    fn budget(&self) -> Duration {
        let all = self.minutes.map_or(self.checks.len() as f64, |minutes| minutes);
        Duration::from_secs_f64(all * 60.0 / self.checks.len() as f64)
    }
}

/// Runs the checks that the command line names, all of them even where one fails.
pub(crate) fn main(mut arguments: lexopt::Parser) -> Result<()> {
    let options = Options::parse(&mut arguments)?;
    if let Some(text) = &options.print {
        print!("{text}");
        return Ok(());
    }
    let workspace = Workspace::load()?;
    let seed = options.seed.unwrap_or_else(fresh_seed);
    let plan = Plan { workspace: &workspace, seed, budget: options.budget() };
    println!("seed {seed}");

    let mut failed = Vec::new();
    for check in &options.checks {
        let started = Instant::now();
        match check.run(&plan) {
            Ok(()) => println!("{}: passed in {:.1} s", check.name, started.elapsed().as_secs_f64()),
            Err(why) => {
                eprintln!("{}: FAILED: {why:#}\nreplay: {}", check.name, plan.again(check));
                failed.push(check.name);
            }
        }
    }
    anyhow::ensure!(failed.is_empty(), "verify: failed: {}", failed.join(", "));
    Ok(())
}

/// A seed that nobody has seen.
pub(crate) fn fresh_seed() -> u64 {
    RandomState::new().build_hasher().finish() // keyed by the system's randomness
}

/// The command that runs a check once more in the same way.
fn replay(name: &str, seed: u64, budget: Duration) -> String {
    format!("cargo xtask verify {name} --seed {seed} --minutes {:.2}", budget.as_secs_f64() / 60.0)
}

/// Says which command comes, runs it, and makes an error of its failure.
fn attempt(command: &mut Command, limit: Option<Duration>) -> Result<()> {
    let shown = process::shown(command);
    println!("$ {shown}");
    process::run(command, limit)?.ok().map_err(|why| why.context(shown))
}

/// The check of this name.
fn check_named(name: &str) -> Result<&'static Check, lexopt::Error> {
    CHECKS.iter().find(|check| check.name == name).ok_or_else(|| {
        let known: Vec<_> = CHECKS.iter().map(|check| check.name).collect();
        lexopt::Error::from(format!("no check `{name}`: there are {} and all", known.join(", ")))
    })
}

/// A time in minutes, fractions included.
fn minutes(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(minutes) if (0.0..=100_000.0).contains(&minutes) && minutes > 0.0 => Ok(minutes),
        _ => Err("not a number of minutes".to_owned()),
    }
}

/// A seed, decimal or hexadecimal.
fn seed(text: &str) -> Result<u64, std::num::ParseIntError> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parses a command line.
    fn parse(line: &str) -> Result<Options, lexopt::Error> {
        Options::parse(&mut lexopt::Parser::from_args(line.split_whitespace()))
    }

    #[test]
    fn all_checks_share_the_minutes() {
        for line in ["", "all"] {
            assert_eq!(parse(line).unwrap().checks.len(), CHECKS.len());
        }
        let each = 120.0 / CHECKS.len() as f64;
        assert_eq!(parse("--minutes 2").unwrap().budget(), Duration::from_secs_f64(each));
        assert_eq!(parse("chaos --minutes 0.5").unwrap().budget(), Duration::from_secs(30));
        assert_eq!(parse("").unwrap().budget(), Duration::from_secs(60));
    }

    #[test]
    fn seeds_are_decimal_or_hexadecimal() {
        assert_eq!(parse("--seed 17").unwrap().seed, Some(17));
        assert_eq!(parse("--seed=0xff").unwrap().seed, Some(255));
        assert_eq!(parse("").unwrap().seed, None);
        assert_ne!(fresh_seed(), fresh_seed());
    }

    #[test]
    fn wrong_lines_are_refused() {
        for line in ["nonsense", "--minutes", "--minutes 0", "--minutes NaN", "--minutes x", "--seed x", "--speed"] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn a_replay_names_check_seed_and_time() {
        let shown = replay("faults", 7, Duration::from_secs(15));
        assert_eq!(shown, "cargo xtask verify faults --seed 7 --minutes 0.25");
    }
}
