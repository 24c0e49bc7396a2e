//! Ending in order when a signal asks for it.

use std::{
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicI32, Ordering},
    },
    time::{Duration, Instant},
};

use billiard_wire::generation::Generation;

use crate::{Error, Signal, sys};

/// The signals that ask a worker to stop while the program goes on: the usual four.
const MINIMAL: &[Signal] = &[Signal::HUP, Signal::QUIT, Signal::TERM, Signal::USR1];

/// Nearly all that would end a process.
const FULL: &[Signal] = &[
    Signal::HUP,
    Signal::QUIT,
    Signal::TRAP,
    Signal::ABRT,
    Signal::SYS,
    Signal::PIPE,
    Signal::ALRM,
    Signal::TERM,
    Signal::XCPU,
    Signal::XFSZ,
    Signal::VTALRM,
    Signal::PROF,
    Signal::USR1,
    Signal::USR2,
];

/// The exit code of a process that is asked to stop a second time before it has.
pub(crate) const ASKED_TWICE: i32 = 70;

/// Which signals ask this process to stop in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum StopSignals {
    /// HUP, QUIT, TERM and USR1.
    #[default]
    Minimal,
    /// Those, and TRAP, ABRT, SYS, PIPE, ALRM, XCPU, XFSZ, VTALRM, PROF and USR2. ABRT only for one that was sent:
    /// `abort()` ends the process in any case.
    Full,
    /// These.
    These(Vec<Signal>),
}

/// The request to stop: whether one has come, and a way to wait for it.
#[derive(Clone, Copy, Debug)]
pub struct Stop(&'static OwnedFd);

/// The first signal that came; 0 before. Written by the handler.
static REQUESTED: AtomicI32 = AtomicI32::new(0);
/// What the handler makes readable, which is never closed; and the copy of the process that it was made in.
static EVENT: Mutex<Option<(Generation, &OwnedFd)>> = Mutex::new(None);
/// Its number, for the handler.
static EVENT_NUMBER: AtomicI32 = AtomicI32::new(-1);

impl Stop {
    /// Has `signals` ask this process to stop in order, instead of ending it at once.
    ///
    /// The first of them is noted: [`Stop::requested`] tells it, [`Stop::wait_timeout`] returns, system calls that wait are
    /// interrupted once. The process is expected to return from its function soon; a child started by a
    /// [`Context`](crate::Context) gives its value back as always and then ends by that very signal, so that its status says what
    /// happened. A second one ends the process at once, with exit code 70. Signals that are ignored stay so.
    ///
    /// To be called in the child, after whatever installs handlers of its own.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when this process may open no more files, or for a signal that cannot be caught.
    ///
    /// ```
    /// use billiard_context::{Stop, StopSignals};
    ///
    /// fn work() -> Result<u64, billiard_context::Error> {
    ///     let stop = Stop::install(&StopSignals::Minimal)?;
    ///     let mut done = 0;
    ///     while stop.requested().is_none() && done < 3 {
    ///         done += 1; // a piece of work
    ///     }
    ///     Ok(done)
    /// }
    /// # assert_eq!(work()?, 3);
    /// # Ok::<(), billiard_context::Error>(())
    /// ```
    pub fn install(signals: &StopSignals) -> Result<Self, Error> {
        let signals = match signals {
            StopSignals::Minimal => MINIMAL,
            StopSignals::Full => FULL,
            StopSignals::These(signals) => signals,
        };
        let event = own_event()?;
        EVENT_NUMBER.store(event.as_raw_fd(), Ordering::Relaxed);
        signals.iter().try_for_each(|&signal| sys::catch_unless_ignored(signal, on_signal))?;
        Ok(Self(event))
    }

    /// The signal that asked this process to stop, if one has.
    #[must_use]
    pub fn requested(self) -> Option<Signal> {
        requested()
    }

    /// Waits until this process is asked to stop, but no longer than `timeout`; the signal, if one came.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when the kernel refuses to wait.
    pub fn wait_timeout(self, timeout: Duration) -> Result<Option<Signal>, Error> {
        sys::wait_readable([self.as_fd()], Instant::now().checked_add(timeout))?;
        Ok(requested())
    }
}

impl AsFd for Stop {
    /// Readable once a request has come, and from then on.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn own_event() -> Result<&'static OwnedFd, Error> {
    let mut event = EVENT.lock().unwrap_or_else(PoisonError::into_inner);
    match *event {
        Some((generation, event)) if generation.is_current() => Ok(event),
        _ => {
            let new: &OwnedFd = Box::leak(Box::new(sys::event()?));
            *event = Some((Generation::current(), new));
            Ok(new)
        }
    }
}

/// In a copy of the process: what asked that one to stop does not ask this one.
pub(crate) fn forget() {
    REQUESTED.store(0, Ordering::Relaxed);
}

/// The signal that asked this process to stop.
pub(crate) fn requested() -> Option<Signal> {
    Signal::from_raw(REQUESTED.load(Ordering::Relaxed))
}

/// Runs in a signal handler: stores, and calls that are safe there.
extern "C" fn on_signal(number: libc::c_int) {
    if REQUESTED.compare_exchange(0, number, Ordering::Relaxed, Ordering::Relaxed).is_err() {
        sys::exit_in_handler(ASKED_TWICE);
    }
    sys::raise_event(EVENT_NUMBER.load(Ordering::Relaxed));
}
