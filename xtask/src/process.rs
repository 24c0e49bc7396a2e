//! Programs that xtask runs, and the promise that none of them outlives it.
//!
//! Each program leads a process group of its own. The group is killed when the program ends, when its time limit
//! passes, and, by the keeper, when xtask itself ends before it. What runs under a time limit is a program under test,
//! so whatever it leaves behind in *other* groups is adopted and killed as well.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{self, Read as _, Seek as _},
    os::{fd::OwnedFd, unix::process::CommandExt as _},
    process::{Command, ExitStatus, Stdio},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::MemfdFlags,
    io::Errno,
    process::{
        Pid, PidfdFlags, Signal, WaitOptions, getpid, kill_process, kill_process_group, pidfd_open,
        set_child_subreaper, waitpid,
    },
};

use crate::keeper;

/// Held while a program runs: one at a time.
static TURN: Mutex<()> = Mutex::new(());

/// How a program came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// By itself, or by a signal that was not ours.
    Exited(ExitStatus),
    /// Killed, since it was still running after this long.
    OverLimit(Duration),
}

impl Ended {
    /// An error that says how the program ended, unless it ended well.
    pub(crate) fn ok(self) -> Result<()> {
        match self {
            Self::Exited(status) if status.success() => Ok(()),
            Self::Exited(status) => anyhow::bail!("{status}"),
            Self::OverLimit(limit) => anyhow::bail!("still running after {limit:?}: killed"),
        }
    }
}

/// A program's end together with what it printed.
#[derive(Debug)]
pub(crate) struct Captured {
    /// How it ended.
    pub(crate) ended: Ended,
    /// Its standard output.
    pub(crate) stdout: String,
    /// Its standard error.
    pub(crate) stderr: String,
}

impl Captured {
    /// The standard output of a program that ended well; otherwise an error with the last line that it printed.
    pub(crate) fn ok(self) -> Result<String> {
        match self.ended.ok() {
            Ok(()) => Ok(self.stdout),
            Err(error) => match last_line(&self.stderr) {
                Some(line) => Err(error.context(line.to_owned())),
                None => Err(error),
            },
        }
    }
}

/// Runs `command` to its end, or to its limit; what it prints goes where `command` says.
pub(crate) fn run(command: &mut Command, limit: Option<Duration>) -> Result<Ended> {
    contained(command, limit).with_context(|| format!("cannot run {}", command.get_program().display()))
}

/// Runs `command` as [`run`] does and keeps what it prints.
pub(crate) fn capture(command: &mut Command, limit: Option<Duration>) -> Result<Captured> {
    // Files, not pipes: a process that is left behind with a pipe open would keep a reader waiting.
    let mut stdout = unnamed_file()?;
    let mut stderr = unnamed_file()?;
    command.stdout(Stdio::from(stdout.try_clone()?)).stderr(Stdio::from(stderr.try_clone()?));
    Ok(Captured { ended: run(command, limit)?, stdout: text_of(&mut stdout)?, stderr: text_of(&mut stderr)? })
}

/// The command as one would type it, variables included.
pub(crate) fn shown(command: &Command) -> String {
    let variables =
        command.get_envs().filter_map(|(name, value)| Some(format!("{}={}", name.to_string_lossy(), quoted(value?))));
    let words = std::iter::once(command.get_program()).chain(command.get_args()).map(quoted);
    variables.chain(words).collect::<Vec<_>>().join(" ")
}

/// The last line that says something; a Rust panic's advice on backtraces does not.
pub(crate) fn last_line(text: &str) -> Option<&str> {
    text.lines().map(str::trim).rfind(|line| !line.is_empty() && !line.starts_with("note: "))
}

/// Starts, awaits and clears up.
fn contained(command: &mut Command, limit: Option<Duration>) -> io::Result<Ended> {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    if limit.is_some() {
        set_child_subreaper(Some(getpid()))?; // its orphans become children of this process
    }
    let mut child = command.stdin(Stdio::null()).process_group(0).spawn()?;
    let group = Pid::from_child(&child);
    let in_time = keeper::tell(Some(group)).and_then(|()| ends_within(group, limit));

    // The leader, if dead, is not reaped yet: until then its number cannot become another's.
    let _ = kill_process_group(group, Signal::KILL);
    let told = keeper::tell(None);
    let status = child.wait()?;
    if limit.is_some() {
        kill_children();
        set_child_subreaper(None)?;
    }
    told?;
    Ok(match (in_time?, limit) {
        (false, Some(limit)) => Ended::OverLimit(limit),
        _ => Ended::Exited(status),
    })
}

/// Whether the process ends before the limit. It is not reaped.
fn ends_within(process: Pid, limit: Option<Duration>) -> io::Result<bool> {
    let begun = Instant::now();
    let pidfd: OwnedFd = pidfd_open(process, PidfdFlags::empty())?;
    loop {
        let left = limit.map(|limit| limit.saturating_sub(begun.elapsed()));
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], timeout.as_ref()) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Kills and reaps the children of this process, adopted orphans included, until only the keeper is left.
fn kill_children() {
    loop {
        let children = children();
        if children.is_empty() {
            return;
        }
        for &child in &children {
            let _ = kill_process(child, Signal::KILL);
        }
        for &child in &children {
            let _ = waitpid(Some(child), WaitOptions::empty()); // its children are ours by now
        }
    }
}

/// The children of this process but for the keeper, as the kernel lists them for each thread.
fn children() -> Vec<Pid> {
    let Ok(threads) = fs::read_dir("/proc/self/task") else { return Vec::new() };
    threads
        .filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("children")).ok())
        .flat_map(|list| list.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
        .filter_map(|number| Pid::from_raw(number.parse().ok()?))
        .filter(|&child| !keeper::is(child))
        .collect()
}

/// A file without a name, gone when closed.
fn unnamed_file() -> Result<File> {
    Ok(File::from(rustix::fs::memfd_create("output", MemfdFlags::CLOEXEC)?))
}

/// All that was written to `file`; what is not UTF-8 is replaced.
fn text_of(file: &mut File) -> Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A word as a shell takes it.
fn quoted(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./=:,@+%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.into_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A shell that runs `script`.
    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_program_ends_and_leaves_nothing() {
        let said = capture(&mut shell("echo out; echo err >&2"), None).unwrap();
        assert_eq!((said.stdout.as_str(), said.stderr.as_str()), ("out\n", "err\n"));
        assert!(said.ended.ok().is_ok());

        let failed = capture(&mut shell("echo why >&2; exit 3"), None).unwrap().ok().unwrap_err();
        assert_eq!(format!("{failed:#}"), "why: exit status: 3");

        let limit = Duration::from_millis(300);
        assert_eq!(run(&mut shell("sleep 100"), Some(limit)).unwrap(), Ended::OverLimit(limit));

        // A child in a session of its own, out of reach of the group's signal, is found and killed.
        let mut strays = shell("setsid sleep 1000 & echo $!; sleep 0.2");
        let stray = capture(&mut strays, Some(Duration::from_secs(60))).unwrap().ok().unwrap();
        assert!(!std::path::Path::new("/proc").join(stray.trim()).exists());

        assert!(run(&mut Command::new("/no/such/program"), None).is_err());
    }

    #[test]
    fn commands_are_shown_as_typed() {
        let mut command = Command::new("cargo");
        command.args(["doc", "it's"]).env("RUSTDOCFLAGS", "-D warnings");
        assert_eq!(shown(&command), r"RUSTDOCFLAGS='-D warnings' cargo doc 'it'\''s'");
    }

    #[test]
    fn last_line_skips_what_says_nothing() {
        assert_eq!(last_line("a\n b \nnote: c\n\n"), Some("b"));
        assert_eq!(last_line("\n"), None);
    }
}
