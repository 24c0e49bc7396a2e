//! Every system call of this crate that its libraries do not make.

use std::{io, os::fd::OwnedFd};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// Ctrl-C at a terminal is for the program: what becomes of its jobs is its decision.
pub(crate) fn ignore_interrupts() {
    let ignore = SigAction::new(SigHandler::SigIgn, SaFlags::empty(), SigSet::empty());
    // SAFETY: ignoring runs no code of ours.
    let _ = unsafe { sigaction(Signal::SIGINT, &ignore) };
}

/// What a worker rings the supervisor with: an eventfd, see [eventfd(2)](https://man7.org/linux/man-pages/man2/eventfd.2.html).
pub(crate) fn bell() -> io::Result<OwnedFd> {
    use rustix::event::{EventfdFlags, eventfd};

    Ok(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)
}

/// Rings. One that nobody has heard for 2⁶⁴ times rings already.
pub(crate) fn ring(bell: &OwnedFd) {
    let _ = rustix::io::write(bell, &1u64.to_ne_bytes());
}

/// Whether the kernel lacks something for now, so that the same may go well a little later: room, memory, or descriptors, of which too many are on the way.
pub(crate) fn is_shortage(error: &io::Error) -> bool {
    use rustix::io::Errno;

    let short =
        [Errno::AGAIN, Errno::INTR, Errno::NOBUFS, Errno::NOMEM, Errno::TOOMANYREFS, Errno::MFILE, Errno::NFILE];
    Errno::from_io_error(error).is_some_and(|errno| short.contains(&errno))
}
