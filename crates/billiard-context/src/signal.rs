//! Signals by name.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A signal, as [signal(7)](https://man7.org/linux/man-pages/man7/signal.7.html) lists them.
///
/// ```
/// use billiard_context::Signal;
///
/// assert_eq!(Signal::TERM.to_string(), "SIGTERM");
/// assert_eq!("SIGUSR1".parse(), Ok(Signal::USR1));
/// assert_eq!(Signal::from_raw(9), Some(Signal::KILL));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "i32", into = "i32")]
pub struct Signal(i32);

/// It is no signal.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{0} is no signal: expected a name such as SIGTERM, or a number from 1 to {max}", max = Signal::MAX)]
pub struct NoSuchSignal(String);

macro_rules! signals {
    ($($name:ident $number:ident $about:literal;)*) => {
        impl Signal {
            $(
                #[doc = $about]
                pub const $name: Self = Self(libc::$number);
            )*

            /// Its name, if it has one: real-time signals have none.
            #[must_use]
            pub fn name(self) -> Option<&'static str> {
                match self.0 {
                    $(libc::$number => Some(stringify!($number)),)*
                    _ => None,
                }
            }

            const NAMED: &'static [Self] = &[$(Self::$name),*];
        }
    };
}

signals! {
    HUP SIGHUP "The terminal is gone, or: read your configuration anew.";
    INT SIGINT "Ctrl-C.";
    QUIT SIGQUIT "Ctrl-\\\\: end with a core dump.";
    ILL SIGILL "An instruction that the processor does not have.";
    TRAP SIGTRAP "A breakpoint.";
    ABRT SIGABRT "`abort()`.";
    BUS SIGBUS "Memory that is mapped but not there.";
    FPE SIGFPE "An arithmetic error, such as an integer division by zero.";
    KILL SIGKILL "Ends a process; cannot be caught.";
    USR1 SIGUSR1 "For the program's own use.";
    SEGV SIGSEGV "Memory that is not mapped; a stack overflow.";
    USR2 SIGUSR2 "For the program's own use.";
    PIPE SIGPIPE "Nobody reads what is written; ignored by Rust programs.";
    ALRM SIGALRM "A timer of `alarm()`.";
    TERM SIGTERM "Asks a process to end.";
    STKFLT SIGSTKFLT "Unused.";
    CHLD SIGCHLD "A child ended or stopped.";
    CONT SIGCONT "Lets a stopped process go on.";
    STOP SIGSTOP "Stops a process; cannot be caught.";
    TSTP SIGTSTP "Ctrl-Z.";
    TTIN SIGTTIN "A background process reads from its terminal.";
    TTOU SIGTTOU "A background process writes to its terminal.";
    URG SIGURG "Urgent data on a socket.";
    XCPU SIGXCPU "More processor time than allowed.";
    XFSZ SIGXFSZ "A larger file than allowed.";
    VTALRM SIGVTALRM "A timer of processor time.";
    PROF SIGPROF "A timer of a profiler.";
    WINCH SIGWINCH "The terminal has another size.";
    IO SIGIO "A descriptor is ready.";
    PWR SIGPWR "The power fails.";
    SYS SIGSYS "A system call that a filter forbids.";
}

impl Signal {
    /// The highest number of a signal.
    pub const MAX: i32 = 64;

    /// The signal of that number, real-time signals included.
    #[must_use]
    pub fn from_raw(number: i32) -> Option<Self> {
        (1..=Self::MAX).contains(&number).then_some(Self(number))
    }

    /// Its number.
    #[must_use]
    pub fn as_raw(self) -> i32 {
        self.0
    }

    pub(crate) fn as_rustix(self) -> rustix::process::Signal {
        // SAFETY: the number is that of a signal. Those that the C library keeps to itself are sent or refused by the
        // kernel as any other; this type is only ever used to send, and to ask for a parent-death signal.
        unsafe { rustix::process::Signal::from_raw_unchecked(self.0) }
    }
}

/// `SIGTERM`; `signal 40` for one without a name.
impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "signal {}", self.0),
        }
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A name with or without `SIG`, or a number.
impl FromStr for Signal {
    type Err = NoSuchSignal;

    fn from_str(text: &str) -> Result<Self, NoSuchSignal> {
        let bare = text.strip_prefix("SIG").unwrap_or(text);
        let named = Self::NAMED.iter().find(|signal| signal.name().is_some_and(|name| &name[3..] == bare));
        let signal = named.copied().or_else(|| Self::from_raw(text.parse().ok()?));
        signal.ok_or_else(|| NoSuchSignal(format!("{text:?}")))
    }
}

impl TryFrom<i32> for Signal {
    type Error = NoSuchSignal;

    fn try_from(number: i32) -> Result<Self, NoSuchSignal> {
        Self::from_raw(number).ok_or_else(|| NoSuchSignal(number.to_string()))
    }
}

impl From<Signal> for i32 {
    fn from(signal: Signal) -> Self {
        signal.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_find_each_other() {
        for &signal in Signal::NAMED {
            let name = signal.name().unwrap();
            assert_eq!((name.parse(), name[3..].parse()), (Ok(signal), Ok(signal)));
            assert_eq!((signal.to_string().as_str(), Signal::try_from(signal.as_raw())), (name, Ok(signal)));
            assert_eq!(signal.as_raw().to_string().parse(), Ok(signal));
        }
        assert_eq!(Signal::from_raw(40).unwrap().to_string(), "signal 40");
        for wrong in ["", "SIG", "TERMINATE", "0", "65", "-9"] {
            assert!(wrong.parse::<Signal>().unwrap_err().to_string().contains(wrong), "{wrong}");
        }
    }
}
