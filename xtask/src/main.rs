//! `cargo xtask`: what the project does to itself. This file only says who does what.

mod bench;
mod ci;
mod keeper;
mod process;
mod verify;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use lexopt::prelude::*;

/// What `cargo xtask --help` prints.
const USAGE: &str = "\
The project's own commands.

Usage: cargo xtask COMMAND [ARGUMENTS]

Commands:
  ci      everything that must hold before a change lands
  verify  long checks with a printed seed: crashes, faults, random histories
  bench   measure ours beside what would be used instead

`cargo xtask COMMAND --help` says more.
";

fn main() -> ExitCode {
    match dispatch() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<lexopt::Error>() => {
            eprintln!("xtask: {error}\nxtask: `--help` prints the usage");
            ExitCode::from(2)
        }
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Gives the rest of the command line to the command that it names.
fn dispatch() -> Result<()> {
    let mut arguments = lexopt::Parser::from_env();
    let main = match arguments.next()? {
        Some(Value(command)) if command == "ci" => ci::main,
        Some(Value(command)) if command == "verify" => verify::main,
        Some(Value(command)) if command == "bench" => bench::main,
        Some(Value(command)) if command == keeper::ARGUMENT => return keeper::main(),
        Some(Long("help") | Short('h')) => {
            print!("{USAGE}");
            return Ok(());
        }
        Some(other) => return Err(other.unexpected().into()),
        None => return Err(lexopt::Error::from("a command is missing: ci, verify or bench").into()),
    };
    keeper::start()?;
    main(arguments)
}
