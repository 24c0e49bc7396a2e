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

/// Leaves a child in the group of this process that waits for SIGTERM, then does this, and ends. It waits from before this returns.
pub fn fork_and_await_sigterm(then: impl FnOnce()) {
    // SAFETY: zeros are a set of signals; it is made empty.
    let mut term: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: a set, and a signal that there is.
    unsafe { libc::sigaddset(&raw mut term, libc::SIGTERM) };
    // SAFETY: two sets. Blocked before the fork, so that none is missed.
    unsafe { libc::sigprocmask(libc::SIG_BLOCK, &raw const term, std::ptr::null_mut()) };
    // SAFETY: the process has one thread, so that its copy may do anything.
    if unsafe { libc::fork() } == 0 {
        heed_sigterm(); // an ignored signal would not be waited for
        let mut signal = 0;
        // SAFETY: a set that is blocked, and where to say which.
        unsafe { libc::sigwait(&raw const term, &raw mut signal) };
        then();
        // SAFETY: it ends the process.
        unsafe { libc::_exit(0) };
    }
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

/// Writes to every socket but the standard streams, again and again, until nobody is left who could read it; then the process ends.
pub fn flood_all_sockets(bytes: &[u8]) -> ! {
    let send = |fd| {
        // SAFETY: the buffer is as long as it says; what is no socket is an error and nothing more.
        unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), libc::MSG_NOSIGNAL) }
    };
    let sockets: Vec<_> = (3..1024).filter(|&fd| send(fd) > 0).collect();
    loop {
        if sockets.iter().all(|&fd| send(fd) < 0) {
            // SAFETY: it ends the process, whatever that was.
            unsafe { libc::_exit(0) };
        }
    }
}

/// Leaves a copy of this process in a session of its own, which [floods](flood_all_sockets) all sockets, and ends.
pub fn end_and_flood_on(bytes: &[u8]) -> ! {
    // SAFETY: the copy makes system calls alone.
    match unsafe { libc::fork() } {
        0 => {
            // SAFETY: no preconditions.
            unsafe { libc::setsid() };
            flood_all_sockets(bytes)
        }
        // SAFETY: it ends the process, as is wanted.
        _ => unsafe { libc::_exit(0) },
    }
}

/// Writes this over words of the segments of that kind of which this process has descriptors: so many, from a place on, and so far apart. How many it has
/// overwritten.
pub fn overwrite_words(kind: &str, place: usize, (count, apart): (usize, usize), value: u64) -> usize {
    /// Of a segment: its kind is at this offset, and what it holds begins at that.
    const HEADER: (usize, usize) = (16, 64);

    let mut overwritten = 0;
    for fd in 3..1024 {
        let mut found = [0_u8; 8];
        // SAFETY: the buffer is as long as it says; what is no file is an error and nothing more.
        unsafe { libc::pread(fd, found.as_mut_ptr().cast(), found.len(), HEADER.0 as i64) };
        for at in 0..if found.starts_with(kind.as_bytes()) { count } else { 0 } {
            let offset = (HEADER.1 + place + apart * at) as i64;
            // SAFETY: eight bytes of a number; that others rely on what was there is what is tested.
            let written = unsafe { libc::pwrite(fd, (&raw const value).cast(), 8, offset) };
            overwritten += usize::from(written == 8);
        }
    }
    overwritten
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
