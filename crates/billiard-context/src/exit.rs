//! How a process ended.

use std::{fmt, time::Duration};

use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// How a process ended, and what it used.
///
/// `Unknown` when nobody could tell: the guardian that would have reaped it was killed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitStatus {
    end: End,
    usage: Option<ResourceUsage>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum End {
    Code(i32),
    Signal { number: i32, core_dumped: bool },
    Unknown,
}

/// What a process used, from [`getrusage(2)`](https://man7.org/linux/man-pages/man2/getrusage.2.html); its reaped children included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceUsage {
    /// Time spent in its own code.
    pub user: Duration,
    /// Time spent in the kernel.
    pub system: Duration,
    /// The most memory that was resident at a time, in bytes. A forked child begins with what its parent had.
    pub peak_memory: u64,
}

impl ExitStatus {
    /// The status of a process of which nobody could tell how it ended.
    #[must_use]
    pub fn unknown() -> Self {
        Self { end: End::Unknown, usage: None }
    }

    /// From what `wait4` gave.
    pub(crate) fn from_wait(status: i32, usage: &libc::rusage) -> Self {
        let end = if libc::WIFEXITED(status) {
            End::Code(libc::WEXITSTATUS(status))
        } else {
            End::Signal { number: libc::WTERMSIG(status), core_dumped: libc::WCOREDUMP(status) }
        };
        let time = |time: libc::timeval| {
            Duration::from_secs(time.tv_sec.unsigned_abs()) + Duration::from_micros(time.tv_usec.unsigned_abs())
        };
        let usage = ResourceUsage {
            user: time(usage.ru_utime),
            system: time(usage.ru_stime),
            peak_memory: usage.ru_maxrss.unsigned_abs() << 10,
        };
        Self { end, usage: Some(usage) }
    }

    /// Whether it ended by itself with code 0.
    #[must_use]
    pub fn success(&self) -> bool {
        self.code() == Some(0)
    }

    /// The exit code, if it ended by itself.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        match self.end {
            End::Code(code) => Some(code),
            _ => None,
        }
    }

    /// The number of the signal that ended it, if one did.
    #[must_use]
    pub fn signal(&self) -> Option<i32> {
        match self.end {
            End::Signal { number, .. } => Some(number),
            _ => None,
        }
    }

    /// Whether the kernel wrote a core file.
    #[must_use]
    pub fn core_dumped(&self) -> bool {
        matches!(self.end, End::Signal { core_dumped: true, .. })
    }

    /// What it used; `None` when nobody could tell.
    #[must_use]
    pub fn usage(&self) -> Option<&ResourceUsage> {
        self.usage.as_ref()
    }

    /// An error unless it ended by itself with code 0.
    ///
    /// # Errors
    ///
    /// [`ExitError`] with this status.
    pub fn exit_ok(&self) -> Result<(), ExitError> {
        if self.success() { Ok(()) } else { Err(ExitError(self.clone())) }
    }
}

/// `exit code 3`, `signal 9 (SIGKILL)`, with `core dumped` where one was.
impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.end {
            End::Code(code) => write!(f, "exit code {code}"),
            End::Signal { number, core_dumped } => {
                match Signal::try_from(number) {
                    Ok(signal) => write!(f, "signal {number} ({})", signal.as_str())?,
                    Err(_) => write!(f, "signal {number}")?,
                }
                f.write_str(if core_dumped { ", core dumped" } else { "" })
            }
            End::Unknown => f.write_str("unknown exit status"),
        }
    }
}

/// A process that did not end well.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("the process ended with {0}")]
pub struct ExitError(pub ExitStatus);

#[cfg(test)]
mod tests {
    use super::*;

    fn status(wait: i32) -> ExitStatus {
        // SAFETY: the structure is plain numbers.
        ExitStatus::from_wait(wait, &unsafe { std::mem::zeroed() })
    }

    #[test]
    fn it_reads_as_a_person_would_say_it() {
        assert_eq!(status(3 << 8).to_string(), "exit code 3");
        assert_eq!(status(9).to_string(), "signal 9 (SIGKILL)");
        assert_eq!(status(11 | 0x80).to_string(), "signal 11 (SIGSEGV), core dumped");
        assert_eq!(status(40).to_string(), "signal 40");
        assert_eq!(ExitStatus::unknown().to_string(), "unknown exit status");
    }

    #[test]
    fn only_code_zero_is_success() {
        assert!(status(0).success() && status(0).exit_ok().is_ok());
        for bad in [status(1 << 8), status(15), ExitStatus::unknown()] {
            assert!(!bad.success() && bad.exit_ok().is_err(), "{bad}");
        }
        assert_eq!((status(3 << 8).code(), status(3 << 8).signal()), (Some(3), None));
        assert_eq!((status(9).code(), status(9).signal()), (None, Some(9)));
    }
}
