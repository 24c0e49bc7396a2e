//! `cargo xtask ci`: everything that must hold before a change lands, step by step, stopping at the first that fails.

mod examples;
mod table;
mod tidy;

use std::{
    collections::BTreeSet,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use lexopt::prelude::*;

use self::table::Entry;
use crate::{process, verify, workspace::Workspace};

/// What `cargo xtask ci --help` prints.
const USAGE: &str = "\
Everything that must hold before a change lands.

Usage: cargo xtask ci [STEP…]

Arguments:
  STEP…   run these steps only (all of them when none is named)

Options:
  --list  name the steps and stop
";

/// One step of the gate.
#[derive(Debug)]
struct Step {
    /// As the command line and the table name it.
    name: &'static str,
    /// What holds when it passes.
    about: &'static str,
    /// Does it.
    run: fn(&Workspace) -> Result<(), Failure>,
}

/// The gate, cheap steps first where the order is free.
static STEPS: &[Step] = &[
    Step { name: "tidy", about: "no unfinished words, no overlong file, each crate in the docs", run: tidy::step },
    Step { name: "format", about: "the sources are formatted", run: format },
    Step { name: "lint", about: "clippy has nothing to say", run: lint },
    Step { name: "test", about: "the tests pass", run: test },
    Step { name: "doc", about: "the documentation builds without a warning", run: document },
    Step { name: "alone", about: "each library crate builds by itself; the low ones need little", run: alone },
    Step { name: "examples", about: "each example runs to its end", run: examples::step },
    Step { name: "verify", about: "a short slice of each check of `cargo xtask verify`", run: verify_slices },
];

/// Crates that everything stands on, and how many crates they may need at the most, themselves included.
const LEAN: &[(&str, usize)] = &[("billiard-sync", 20)];

/// How long each check of `verify` runs here.
const SLICE: Duration = Duration::from_secs(15);

/// Why a step failed, and how to see it fail again.
#[derive(Debug)]
struct Failure {
    /// What went wrong.
    why: anyhow::Error,
    /// The command that shows it; the step's own when there is none shorter.
    again: Option<String>,
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(why: E) -> Self {
        Self { why: why.into(), again: None }
    }
}

/// Runs the steps that the command line names.
pub(crate) fn main(mut arguments: lexopt::Parser) -> Result<()> {
    let mut named = Vec::new();
    while let Some(argument) = arguments.next()? {
        match argument {
            Value(name) => named.push(step_named(&name.string()?)?),
            Long("list") => {
                STEPS.iter().for_each(|step| println!("{:<10}{}", step.name, step.about));
                return Ok(());
            }
            Long("help") | Short('h') => {
                print!("{USAGE}");
                return Ok(());
            }
            other => return Err(other.unexpected().into()),
        }
    }
    let workspace = Workspace::load()?;
    run(&workspace, &if named.is_empty() { STEPS.iter().collect() } else { named })
}

/// Runs `steps` up to the first that fails, and prints the table either way.
fn run(workspace: &Workspace, steps: &[&Step]) -> Result<()> {
    let begun = Instant::now();
    let mut entries: Vec<_> = steps.iter().map(|step| Entry::not_run(step.name)).collect();
    let mut outcome = Ok(());
    for (step, entry) in steps.iter().zip(&mut entries) {
        println!("\n=== {}: {}", step.name, step.about);
        let started = Instant::now();
        let result = (step.run)(workspace);
        entry.ended(started.elapsed(), result.is_ok());
        if let Err(Failure { why, again }) = result {
            let again = again.unwrap_or_else(|| format!("cargo xtask ci {}", step.name));
            eprintln!("\nstep `{}` failed: {why:#}\nagain, in the repository's top folder:\n    {again}", step.name);
            outcome = Err(anyhow::anyhow!("ci: step `{}` failed", step.name));
            break;
        }
    }
    print!("\n{}", table::render(&entries, begun.elapsed()));
    outcome
}

/// The step of this name.
fn step_named(name: &str) -> Result<&'static Step, lexopt::Error> {
    STEPS.iter().find(|step| step.name == name).ok_or_else(|| {
        let known: Vec<_> = STEPS.iter().map(|step| step.name).collect();
        lexopt::Error::from(format!("no step `{name}`: there are {}", known.join(", ")))
    })
}

/// Says which command comes, runs it, and makes its failure one that names it.
fn check(command: &mut Command, limit: Option<Duration>) -> Result<(), Failure> {
    let again = process::shown(command);
    println!("$ {again}");
    let ended = process::run(command, limit).and_then(process::Ended::ok);
    ended.map_err(|why| Failure { why, again: Some(again) })
}

/// `cargo fmt`.
fn format(workspace: &Workspace) -> Result<(), Failure> {
    check(&mut workspace.cargo(["fmt", "--all", "--", "--check"]), None)
}

/// `cargo clippy`.
fn lint(workspace: &Workspace) -> Result<(), Failure> {
    let arguments = ["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"];
    check(&mut workspace.cargo(arguments), None)
}

/// The command that the README gives.
fn test(workspace: &Workspace) -> Result<(), Failure> {
    check(&mut workspace.cargo(["test", "--workspace", "--locked"]), None)
}

/// `cargo doc`.
fn document(workspace: &Workspace) -> Result<(), Failure> {
    let mut command = workspace.cargo(["doc", "--workspace", "--no-deps", "--locked"]);
    check(command.env("RUSTDOCFLAGS", "-D warnings"), None)
}

/// `cargo check` of each library, so that none leans on a feature that only another crate turns on; and `cargo tree`.
fn alone(workspace: &Workspace) -> Result<(), Failure> {
    for package in workspace.libraries() {
        check(&mut workspace.cargo(["check", "--locked", "-p", &package.name]), None)?;
        if package.has_default_features() {
            check(&mut workspace.cargo(["check", "--locked", "-p", &package.name, "--no-default-features"]), None)?;
        }
    }
    LEAN.iter().try_for_each(|&(name, limit)| lean(workspace, name, limit))
}

/// Whether the crate needs no more than that many.
fn lean(workspace: &Workspace, name: &str, limit: usize) -> Result<(), Failure> {
    let mut command =
        workspace.cargo(["tree", "--locked", "-e", "normal", "--prefix", "none", "--no-dedupe", "-p", name]);
    let again = process::shown(&command);
    println!("$ {again}");
    let printed = process::capture(&mut command, None)?.ok()?;
    let needed = crates_in(&printed);
    println!("{name} needs {} crates, {limit} at the most", needed.len());
    if needed.len() <= limit {
        return Ok(());
    }
    let why = anyhow::anyhow!("{name} needs {} crates, more than {limit}: {needed:?}", needed.len());
    Err(Failure { why, again: Some(again) })
}

/// The names in what `cargo tree` prints, each once.
fn crates_in(printed: &str) -> BTreeSet<&str> {
    printed.lines().filter_map(|line| line.split_whitespace().next()).collect()
}

/// The checks of `cargo xtask verify`, a little of each, with a fresh seed.
fn verify_slices(workspace: &Workspace) -> Result<(), Failure> {
    let seed = verify::fresh_seed();
    println!("seed {seed}");
    for check in verify::CHECKS {
        let plan = verify::Plan { workspace, seed, budget: SLICE };
        check
            .run(&plan)
            .with_context(|| format!("check `{}`, seed {seed}", check.name))
            .map_err(|why| Failure { why, again: Some(plan.again(check)) })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_found_by_name() {
        assert_eq!(step_named("lint").unwrap().name, "lint");
        let error = step_named("lunch").unwrap_err().to_string();
        assert!(error.contains("`lunch`") && error.contains("tidy, format, lint"), "{error}");
    }

    #[test]
    fn crates_are_counted_once() {
        let printed = "sync v0.1.0 (/a b)\nserde v1.0.0\nquote v1.0.0\nserde v1.0.0\n\n";
        assert_eq!(crates_in(printed).into_iter().collect::<Vec<_>>(), ["quote", "serde", "sync"]);
    }

    #[test]
    fn a_failing_command_is_named_as_typed() {
        let failure = check(Command::new("/no/such/program").arg("a b"), None).unwrap_err();
        assert_eq!(failure.again.as_deref(), Some("/no/such/program 'a b'"));
    }
}
