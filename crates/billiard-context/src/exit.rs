//! How a process ended.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::Signal;

/// How a process ended, and what it used.
///
/// `Unknown` when nobody could tell: the guardian that would have reaped it was killed, or, of a child of
/// [`Context::fork`](crate::Context::fork), the host program reaped it itself or ignores SIGCHLD.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitStatus {
    end: End,
    usage: Option<ResourceUsage>,
    lifetime: Option<Duration>,
    ended_by: EndedBy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum End {
    Code(i32),
    Signal { number: i32, core_dumped: bool },
    Unknown,
}

/// Who ended a process, as far as one can know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum EndedBy {
    /// It ended with an exit code, whoever may have asked it to.
    Itself,
    /// This program sent the signal that ended it: through its handle, by dropping that, or at the end of a scope.
    Us,
    /// Most likely the kernel, which had run out of memory: it was ended by SIGKILL, not by us, and the kernel's count of such kills in its memory
    /// cgroup, or on the whole machine where there is no such count, had risen. The kernel does not say whom it
    /// has killed.
    OutOfMemory,
    /// A signal from elsewhere, or one that it raised itself, as by `abort()` or a fault.
    Unknown,
}

/// What a process used, from [`getrusage(2)`](https://man7.org/linux/man-pages/man2/getrusage.2.html); its reaped children included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceUsage {
    /// Time spent in its own code.
    pub user: Duration,
    /// Time spent in the kernel.
    pub system: Duration,
    /// The most memory that was resident at a time, in bytes. The kernel counts what a process has at its birth: with
    /// `forkserver` and `spawn` that is what the helper process has, a few MiB; with `fork`, all that its
    /// parent had resident.
    pub peak_memory: u64,
}

impl ExitStatus {
    /// The status of a process of which nobody could tell how it ended.
    #[must_use]
    pub fn unknown() -> Self {
        Self { end: End::Unknown, usage: None, lifetime: None, ended_by: EndedBy::Unknown }
    }

    /// What the kernel told of a process.
    pub(crate) fn of(end: End, usage: &libc::rusage) -> Self {
        let time = |time: libc::timeval| {
            Duration::from_secs(time.tv_sec.unsigned_abs()) + Duration::from_micros(time.tv_usec.unsigned_abs())
        };
        let usage = ResourceUsage {
            user: time(usage.ru_utime),
            system: time(usage.ru_stime),
            peak_memory: usage.ru_maxrss.unsigned_abs() << 10,
        };
        let ended_by = if matches!(end, End::Code(_)) { EndedBy::Itself } else { EndedBy::Unknown };
        Self { end, usage: Some(usage), lifetime: None, ended_by }
    }

    /// The same, with how long whoever reaped it has known it.
    pub(crate) fn lived(mut self, lifetime: Duration) -> Self {
        self.lifetime = Some(lifetime);
        self
    }

    /// The same, with who ended it: given the signals that this program has sent it, a bit for each number, and a way to look for
    /// the kernel's hand.
    pub(crate) fn judged(mut self, sent: u64, out_of_memory: impl FnOnce() -> bool) -> Self {
        if self.signal().is_some_and(|signal| sent & signal_bit(signal) != 0) {
            self.ended_by = EndedBy::Us;
        } else if self.signal() == Some(libc::SIGKILL) && out_of_memory() {
            self.ended_by = EndedBy::OutOfMemory;
        }
        self
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

    /// How long it lived, from the fork to when it was reaped; `None` when nobody could tell.
    #[must_use]
    pub fn lifetime(&self) -> Option<Duration> {
        self.lifetime
    }

    /// Who ended it.
    #[must_use]
    pub fn ended_by(&self) -> EndedBy {
        self.ended_by
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

/// A signal's place in a set of signals.
pub(crate) fn signal_bit(signal: i32) -> u64 {
    1 << (signal - 1).clamp(0, 63)
}

/// `exit code 3`, `signal 9 (SIGKILL)`; with `core dumped` where one was, and `out of memory, most likely`.
impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.end {
            End::Code(code) => write!(f, "exit code {code}"),
            End::Signal { number, core_dumped } => {
                match Signal::from_raw(number).and_then(Signal::name) {
                    Some(name) => write!(f, "signal {number} ({name})")?,
                    None => write!(f, "signal {number}")?,
                }
                f.write_str(if core_dumped { ", core dumped" } else { "" })?;
                f.write_str(if self.ended_by == EndedBy::OutOfMemory { ", out of memory, most likely" } else { "" })
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

    fn status(end: End) -> ExitStatus {
        // SAFETY: the structure is plain numbers.
        ExitStatus::of(end, &unsafe { std::mem::zeroed() })
    }

    fn signal(number: i32) -> ExitStatus {
        status(End::Signal { number, core_dumped: false })
    }

    #[test]
    fn it_reads_as_a_person_would_say_it() {
        assert_eq!(status(End::Code(3)).to_string(), "exit code 3");
        assert_eq!(signal(9).to_string(), "signal 9 (SIGKILL)");
        assert_eq!(signal(40).to_string(), "signal 40");
        let dumped = status(End::Signal { number: 11, core_dumped: true });
        assert_eq!(dumped.to_string(), "signal 11 (SIGSEGV), core dumped");
        let killed = signal(9).judged(0, || true);
        assert_eq!(killed.to_string(), "signal 9 (SIGKILL), out of memory, most likely");
        assert_eq!(ExitStatus::unknown().to_string(), "unknown exit status");
    }

    #[test]
    fn only_code_zero_is_success() {
        assert!(status(End::Code(0)).success() && status(End::Code(0)).exit_ok().is_ok());
        for bad in [status(End::Code(1)), signal(15), ExitStatus::unknown()] {
            assert!(!bad.success() && bad.exit_ok().is_err(), "{bad}");
        }
        assert_eq!((status(End::Code(3)).code(), status(End::Code(3)).signal()), (Some(3), None));
        assert_eq!((signal(9).code(), signal(9).signal()), (None, Some(9)));
    }

    #[test]
    fn who_ended_it_is_told_as_far_as_one_knows() {
        let sent = signal_bit(9) | signal_bit(64);
        let innocent = || panic!("only an unexplained SIGKILL is looked into");
        assert_eq!(status(End::Code(0)).judged(sent, innocent).ended_by(), EndedBy::Itself);
        assert_eq!(signal(9).judged(sent, innocent).ended_by(), EndedBy::Us);
        assert_eq!(signal(64).judged(sent, innocent).ended_by(), EndedBy::Us);
        assert_eq!(signal(15).judged(sent, innocent).ended_by(), EndedBy::Unknown);
        assert_eq!(signal(9).judged(signal_bit(15), || true).ended_by(), EndedBy::OutOfMemory);
        assert_eq!(signal(9).judged(0, || false).ended_by(), EndedBy::Unknown);
        assert_eq!(ExitStatus::unknown().judged(sent, innocent).ended_by(), EndedBy::Unknown);
    }
}
