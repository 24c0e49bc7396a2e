//! What jobs should not do, and do.

/// Ignores SIGTERM from now on.
pub fn ignore_sigterm() {
    // SAFETY: ignoring a signal runs no code.
    unsafe { libc::signal(libc::SIGTERM, libc::SIG_IGN) };
}

/// Closes every descriptor but the standard streams, as if this process owned them all.
pub fn close_all_descriptors() {
    for fd in 3..1024 {
        // SAFETY: closing a number that somebody else relies on is what is tested: the process is of no more use.
        unsafe { libc::close(fd) };
    }
}

/// Writes to every descriptor but the standard streams, whoever reads them.
pub fn write_to_all_descriptors(bytes: &[u8]) {
    for fd in 3..1024 {
        // SAFETY: the buffer is as long as it says; most numbers are not open, which is an error and nothing more.
        unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) };
    }
}

/// Reads from address zero, which ends the process with SIGSEGV.
#[must_use]
pub fn segfault() -> u32 {
    // SAFETY: none; the process ends here, which is what is tested.
    unsafe { std::ptr::null::<u32>().read_volatile() }
}
