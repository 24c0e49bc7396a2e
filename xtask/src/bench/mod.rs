//! `cargo xtask bench`: ours beside what would be used instead, measured in the same minutes on the same machine.
//!
//! `case` and `cases` say what is measured and `subject` who, both as data; `prepare` and `python` bring the subjects about;
//! `measure` runs the rounds; `report` and `render` show what came of it.

mod case;
mod cases;
mod machine;
mod measure;
mod options;
mod prepare;
mod python;
mod render;
mod report;
mod stats;
mod subject;
mod table;

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

use anyhow::{Result, ensure};

use self::{
    case::{Case, Entrant},
    machine::Machine,
    options::Options,
    prepare::Subjects,
    report::{Report, Row},
    subject::{Kind, Outcome},
};
use crate::workspace::Workspace;

/// Measures what the command line asks for.
pub(crate) fn main(mut arguments: lexopt::Parser) -> Result<()> {
    let options = Options::parse(&mut arguments)?;
    if let Some(text) = &options.print {
        print!("{text}");
        return Ok(());
    }
    let workspace = Workspace::load()?;
    let folder = options.out.clone().unwrap_or_else(|| workspace.target.join("bench"));

    let mut machine = Machine::look(&workspace);
    if machine.is_busy() {
        eprintln!("this machine is at work already: the figures will be poor");
    }
    let subjects = Subjects::prepare(&workspace, &options.cases, options.peers)?;
    machine.python = subjects.python_version();

    let left_out = left_out(&options, &subjects);
    left_out.iter().for_each(|line| eprintln!("left out: {line}"));

    let mut rows = Vec::new();
    for case in &options.cases {
        rows.extend(measure_case(case, &options, &subjects)?);
    }
    let report = Report { machine, rows, left_out };
    report.write(&folder, &options.cases)?;
    options.cases.iter().for_each(|case| println!("\n{}", report.summary(case).trim_end()));
    println!("\nwritten: {0}/report.json, {0}/report.md", folder.display());

    let is_ours = |name: &str| name.split(':').next() == Some(subject::OURS.name);
    let ours_missing = |row: &&Row| is_ours(row.subject) && row.note.is_some();
    let failed: Vec<_> = report.rows.iter().filter(ours_missing).map(|row| row.case.as_str()).collect();
    ensure!(failed.is_empty(), "bench: ours failed in {}", failed.join(", "));
    Ok(())
}

/// The entrants of `case` that are asked for, each with its program or the reason why it cannot take part.
fn asked_for<'a>(
    case: &'a Case,
    options: &Options,
    subjects: &Subjects,
) -> impl Iterator<Item = (&'a Entrant, Result<Command, String>)> {
    let asked_for = case.entrants.iter().filter(|entrant| options.peers.include(entrant.subject.kind));
    asked_for.map(|entrant| (entrant, subjects.command(entrant.subject, case.group)))
}

/// A line for each reason why peers cannot take part.
fn left_out(options: &Options, subjects: &Subjects) -> Vec<String> {
    let mut names_by_reason = BTreeMap::<String, BTreeSet<&str>>::new();
    for (entrant, program) in options.cases.iter().flat_map(|case| asked_for(case, options, subjects)) {
        if let Err(reason) = program {
            names_by_reason.entry(reason).or_default().insert(entrant.subject.name);
        }
    }
    let line = |(reason, names): (String, BTreeSet<&str>)| {
        format!("{}: {reason}", names.into_iter().collect::<Vec<_>>().join(", "))
    };
    names_by_reason.into_iter().map(line).collect()
}

/// Runs the rounds of one case, each run with a line of progress.
fn measure_case(case: &Case, options: &Options, subjects: &Subjects) -> Result<Vec<Row>> {
    let can_run = |(entrant, program): (_, Result<_, _>)| program.is_ok().then_some(entrant);
    let entrants: Vec<_> = asked_for(case, options, subjects).filter_map(can_run).collect();
    let is_ours = |entrant: &&Entrant| entrant.subject.kind == Kind::Ours;
    ensure!(entrants.iter().any(is_ours), "no program of ours for {}", case.full_name());
    let runs = options.rounds() * entrants.len();
    let mut number = 0;
    measure::measure(case, &entrants, options.rounds(), |entrant| {
        number += 1;
        let subject = entrant.subject;
        let program = subjects.command(subject, case.group).map_err(anyhow::Error::msg)?;
        let outcome = subject::run_once(program, case, subject, options.count(entrant))?;
        let shown = match &outcome {
            Outcome::Sample { value, .. } => format!("{} {}", render::figure(*value), case.unit),
            Outcome::Capped => format!("still running after {:?}: killed", case.cap),
            Outcome::Failed(why) => format!("failed: {why}"),
        };
        eprintln!("[{number:>3}/{runs}] {} {:<26} {shown}", case.full_name(), subject.name);
        Ok(outcome)
    })
}
