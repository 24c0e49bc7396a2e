//! The standard library's `Command`, which executes this same program.

use std::{
    env,
    error::Error,
    io::{Read as _, Write as _},
    path::Path,
    process::{Command, ExitCode, Stdio},
    time::Instant,
};

use billiard_benches::{
    ballast::Ballast,
    frame::{self, Answer, Request},
    timing,
};

use crate::{CHILD_ENDS, CHILD_SPEAKS, Start, WORD, expect_word};

/// Each case that executes a program.
pub(crate) fn run(request: &Request) -> Result<Answer, Box<dyn Error>> {
    let start: fn(&Path) -> Start = match request.case.as_str() {
        "context/spawn_start" | "context/spawn_start_1gib" => to_first_byte,
        "context/spawn_start_join" | "context/spawn_start_join_1gib" => to_joined,
        _ => return Err(frame::unknown_case()),
    };
    let program = env::current_exe()?;
    let _ballast = Ballast::touched(request.option("parent-mib")?)?;
    timing::median_time(request, || start(&program))
}

/// The `main` of a child that says a word.
pub(crate) fn speak() -> ExitCode {
    let mut output = std::io::stdout();
    let said = output.write_all(&WORD).and_then(|()| output.flush());
    if said.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// From the request until a byte from the child is here, through a pipe.
fn to_first_byte(program: &Path) -> Start {
    let mut command = Command::new(program);
    command.arg(CHILD_SPEAKS).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut word = [0; WORD.len()];
    let begun = Instant::now();
    let mut child = command.spawn()?;
    child.stdout.as_mut().ok_or("the child has no output")?.read_exact(&mut word)?;
    let time = begun.elapsed();
    expect_word(&word)?;
    Ok((time, child.wait()?.success().into()))
}

/// From the request until the status is here.
fn to_joined(program: &Path) -> Start {
    let mut command = Command::new(program);
    command.arg(CHILD_ENDS).stdin(Stdio::null());
    let begun = Instant::now();
    let status = command.spawn()?.wait()?;
    Ok((begun.elapsed(), status.success().into()))
}
