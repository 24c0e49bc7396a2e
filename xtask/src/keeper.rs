//! A second process of xtask that outlives it by a moment: however xtask ends, by an interrupt, by `SIGKILL`, the keeper
//! then kills the group of the program that was running.
//!
//! It is this same program, started as `xtask keep`, in a group of its own so that an interrupt from the terminal does
//! not reach it. xtask tells it over its standard input which group runs, one number a line, 0 for none; the end of the
//! input is the end of xtask.

use std::{
    env,
    io::{self, Write as _},
    os::unix::process::CommandExt as _,
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Mutex, OnceLock, PoisonError},
};

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process_group};

/// The argument that makes this program the keeper.
pub(crate) const ARGUMENT: &str = "keep";

/// The keeper of this process, once started.
static KEEPER: OnceLock<Keeper> = OnceLock::new();

/// How xtask sees its keeper.
#[derive(Debug)]
struct Keeper {
    /// Its process.
    pid: Pid,
    /// Where it listens.
    input: Mutex<ChildStdin>,
}

/// Starts the keeper of this process.
pub(crate) fn start() -> Result<()> {
    let mut command = Command::new(env::current_exe()?);
    command.arg(ARGUMENT).process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child: Child = command.spawn().context("starting the keeper")?;
    let input = child.stdin.take().context("the keeper has no input")?;
    // Not waited for: it ends after this process.
    let keeper = Keeper { pid: Pid::from_child(&child), input: Mutex::new(input) };
    KEEPER.set(keeper).map_err(|_| anyhow::anyhow!("there is a keeper already"))
}

/// Tells the keeper, if there is one, which group runs.
pub(crate) fn tell(running: Option<Pid>) -> io::Result<()> {
    let Some(keeper) = KEEPER.get() else { return Ok(()) };
    let mut input = keeper.input.lock().unwrap_or_else(PoisonError::into_inner);
    writeln!(input, "{}", Pid::as_raw(running))
}

/// Whether the process is the keeper.
pub(crate) fn is(process: Pid) -> bool {
    KEEPER.get().is_some_and(|keeper| keeper.pid == process)
}

/// The keeper's whole life: listens until xtask ends, then kills what it left.
pub(crate) fn main() -> Result<()> {
    match last_told(io::stdin().lock())? {
        Some(group) => Ok(kill_process_group(group, Signal::KILL)?),
        None => Ok(()),
    }
}

/// The group that was told last, if one was running then.
fn last_told(input: impl io::BufRead) -> io::Result<Option<Pid>> {
    let last = input.lines().last().transpose()?;
    Ok(last.and_then(|line| line.parse().ok()).and_then(Pid::from_raw))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_counts() {
        let told = |text: &str| last_told(text.as_bytes()).unwrap().map(|pid| pid.as_raw_nonzero().get());
        assert_eq!(told("12\n0\n13\n"), Some(13));
        assert_eq!(told("12\n0\n"), None);
        assert_eq!(told(""), None);
    }
}
