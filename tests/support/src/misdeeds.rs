//! What jobs should not do, and do.

/// Ignores SIGTERM from now on.
pub fn ignore_sigterm() {
    // SAFETY: ignoring a signal runs no code.
    unsafe { libc::signal(libc::SIGTERM, libc::SIG_IGN) };
}

/// Ends by SIGTERM from now on, as processes do that have said nothing.
pub fn heed_sigterm() {
    // SAFETY: defaulting runs no code.
    unsafe { libc::signal(libc::SIGTERM, libc::SIG_DFL) };
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

/// Writes to every socket but the standard streams, again and again, for ever.
pub fn flood_all_sockets(bytes: &[u8]) -> ! {
    let send = |fd| {
        // SAFETY: the buffer is as long as it says; what is no socket is an error and nothing more.
        unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), libc::MSG_NOSIGNAL) }
    };
    let sockets: Vec<_> = (3..1024).filter(|&fd| send(fd) > 0).collect();
    loop {
        for &fd in &sockets {
            send(fd);
        }
    }
}

/// Reads from address zero, which ends the process with SIGSEGV.
#[must_use]
pub fn segfault() -> u32 {
    // SAFETY: none; the process ends here, which is what is tested.
    unsafe { std::ptr::null::<u32>().read_volatile() }
}

/// Calls itself until the stack is full.
#[must_use]
pub fn overflow_the_stack(depth: u64) -> u64 {
    let frame = std::hint::black_box([depth; 64]);
    if depth == u64::MAX { 0 } else { overflow_the_stack(depth + 1) + frame[depth as usize % 64] }
}

/// Makes core files empty from now on, for this process and its descendants.
pub fn dump_no_core() {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the structure is whole.
    unsafe { libc::setrlimit(libc::RLIMIT_CORE, &none) };
}

/// Forks a process that does nothing until it is killed: out of its parent's group and session when it is `far`, and
/// then not even its child. Returns in the parent alone. The calling process has one thread.
pub fn leave_somebody(far: bool) {
    // SAFETY: this process has one thread, as the caller promises.
    if unsafe { libc::fork() } != 0 {
        return;
    }
    if far {
        // SAFETY: always.
        unsafe { libc::setsid() };
        // SAFETY: as above.
        if unsafe { libc::fork() } != 0 {
            // SAFETY: always.
            unsafe { libc::_exit(0) };
        }
    }
    loop {
        // SAFETY: always.
        unsafe { libc::pause() };
    }
}
