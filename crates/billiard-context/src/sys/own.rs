//! This process: its signals, descriptors, limits and end.

use std::{
    ffi::CString,
    io::{self, Write},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::MetadataExt},
    },
    time::{Duration, Instant},
};

use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use rustix::{
    fs::{Mode, OFlags},
    process::{Pid, Resource, Rlimit, getrlimit, setrlimit},
};

use super::{
    machine::{close, close_range, open_numbers},
    named,
    others::{pid, split_environment},
};
use crate::{Error, Signal};

/// Ends this process at once: no destructor, no exit hook. What the standard streams hold is written, but other threads
/// of the process, which may hold the streams' locks, cannot keep it from ending for long.
pub(crate) fn exit_now(code: i32) -> ! {
    flush_streams();
    // SAFETY: always.
    unsafe { libc::_exit(code) }
}

/// Writes what the standard streams hold.
pub(crate) fn flush_streams() {
    const PATIENCE: Duration = Duration::from_secs(1);
    if threads().is_none_or(|threads| threads > 1) {
        let flushed = std::thread::Builder::new().spawn(flush);
        let begin = Instant::now();
        while flushed.as_ref().is_ok_and(|thread| !thread.is_finished()) && begin.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(1));
        }
    } else {
        flush();
    }
}

fn flush() {
    let _ = io::stdout().flush();
    // SAFETY: a null stream stands for all; C code that the process ran may have written to them.
    unsafe { libc::fflush(std::ptr::null_mut()) };
}

/// The parent's number; 0 where it is outside this pid namespace.
pub(crate) fn parent() -> u32 {
    rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get().unsigned_abs())
}

/// Makes this process die by KILL when the thread that forked it ends; false if that has happened already.
pub(crate) fn die_with(parent_process: u32) -> bool {
    let asked = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
    asked.is_ok() && parent() == parent_process
}

/// Makes this process go on, should it be stopped, whenever a thread of its parent ends, the last one included.
pub(crate) fn go_on_without_parent() {
    // It only fails for a number that is no signal.
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::CONT));
}

/// Makes orphaned descendants children of this process.
pub(crate) fn become_subreaper() -> Result<(), Error> {
    named("prctl", rustix::process::set_child_subreaper(Pid::from_raw(1)).map_err(Into::into))
}

/// Puts a process, this one or a child, at the head of a group of its own.
pub(crate) fn lead_group(process: Option<u32>) {
    // It fails only when the other side of the fork did it already, or the child is gone.
    let _ = rustix::process::setpgid(process.and_then(pid), None);
}

/// How many threads this process has; `None` without `/proc`.
pub(crate) fn threads() -> Option<usize> {
    const TASKS: &str = "/proc/self/task";
    // The folder has a link for each thread beside the two that every folder has: one call instead of a listing.
    let links = std::fs::metadata(TASKS).ok()?.nlink();
    match usize::try_from(links) {
        Ok(links @ 3..) => Some(links - 2),
        _ => std::fs::read_dir(TASKS).ok().map(Iterator::count),
    }
}

/// The name in lists of processes.
pub(crate) fn set_title(name: &str) {
    let cut = &name[..name.floor_char_boundary(15)];
    if let Ok(name) = CString::new(cut) {
        let _ = rustix::thread::set_name(&name);
    }
}

/// Gives every signal the disposition that a Rust program begins with: the default, those beyond the named ones
/// included; but PIPE ignored, and SEGV and BUS left as they are, by whose handlers the standard library tells a stack overflow.
pub(crate) fn default_dispositions() {
    const HIGHEST: i32 = 64;
    for number in (1..=HIGHEST).filter(|number| ![libc::SIGSEGV, libc::SIGBUS].contains(number)) {
        // SAFETY: defaulting runs no code of ours. KILL, STOP and what the C library keeps to itself are refused.
        unsafe { libc::signal(number, libc::SIG_DFL) };
    }
    ignore_broken_pipes();
}

/// Lets writing to a pipe that nobody reads be an error, as Rust programs expect.
pub(crate) fn ignore_broken_pipes() {
    // SAFETY: ignoring runs no code of ours.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}

/// Signals that are blocked.
pub(crate) type Mask = SigSet;

fn mask_of(signals: &[Signal]) -> Mask {
    let named = signals.iter().filter_map(|signal| nix::sys::signal::Signal::try_from(signal.as_raw()).ok());
    named.collect()
}

/// Blocks exactly these signals.
pub(crate) fn set_mask(signals: &[Signal]) {
    restore_mask(&mask_of(signals));
}

/// Blocks every signal that can be blocked; those that were before.
pub(super) fn block_all() -> Mask {
    // It cannot fail with a valid set.
    SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK).unwrap_or_else(|_| SigSet::empty())
}

/// Blocks exactly those of a mask.
pub(super) fn restore_mask(mask: &Mask) {
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(mask), None);
}

/// Lets writing beyond the limit of file sizes be an error.
pub(crate) fn ignore_file_size_signal() {
    // SAFETY: ignoring runs no code of ours.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}

/// Has `handler` called for a signal, once or more, unless the signal is ignored.
pub(crate) fn catch_unless_ignored(signal: Signal, handler: extern "C" fn(libc::c_int)) -> Result<(), Error> {
    let failed = || Error::Io { call: "sigaction", source: io::Error::last_os_error() };
    // SAFETY: the structure is plain numbers.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: a null action changes nothing; `action` is a place for what there is.
    if unsafe { libc::sigaction(signal.as_raw(), std::ptr::null(), &mut action) } != 0 {
        return Err(failed());
    }
    if action.sa_sigaction == libc::SIG_IGN {
        return Ok(());
    }
    // SAFETY: as above.
    action = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler as *const () as usize;
    // SAFETY: the handler does what is safe in one, and its type is that of one without SA_SIGINFO.
    if unsafe { libc::sigaction(signal.as_raw(), &action, std::ptr::null_mut()) } != 0 {
        return Err(failed());
    }
    Ok(())
}

/// Ends this process by a signal, as if it had never been caught. It returns only for one that ends nobody.
pub(crate) fn raise_by_default(signal: Signal) {
    // SAFETY: defaulting runs no code.
    unsafe { libc::signal(signal.as_raw(), libc::SIG_DFL) };
    set_mask(&[]);
    // SAFETY: this process itself gets it.
    unsafe { libc::raise(signal.as_raw()) };
}

/// Ends this process at once, from a signal handler.
pub(crate) fn exit_in_handler(code: i32) -> ! {
    // SAFETY: it is safe in a handler, and always.
    unsafe { libc::_exit(code) }
}

/// A descriptor that is readable once [`raise_event`] was called with its number.
pub(crate) fn event() -> Result<OwnedFd, Error> {
    let flags = rustix::event::EventfdFlags::CLOEXEC | rustix::event::EventfdFlags::NONBLOCK;
    named("eventfd", rustix::event::eventfd(0, flags).map_err(Into::into))
}

/// Makes the event readable, from a signal handler.
pub(crate) fn raise_event(number: i32) {
    let one = 1u64.to_ne_bytes();
    // SAFETY: the buffer is as long as it says. The call succeeds, and so leaves the errno of whom it interrupts alone.
    unsafe { libc::write(number, one.as_ptr().cast(), one.len()) };
}

/// A descriptor that is readable while SIGCHLD is pending. The signal has to be blocked.
pub(crate) fn child_signals() -> Result<OwnedFd, Error> {
    let set = mask_of(&[Signal::CHLD]);
    // SAFETY: the set is valid, and -1 asks for a new descriptor.
    let fd = unsafe { libc::signalfd(-1, set.as_ref(), libc::SFD_NONBLOCK | libc::SFD_CLOEXEC) };
    if fd < 0 {
        return Err(Error::Io { call: "signalfd", source: io::Error::last_os_error() });
    }
    // SAFETY: the call has just made it, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Takes what is pending off a signalfd of one signal, of which no more than one can be.
pub(crate) fn take_signal(signals: &OwnedFd) {
    let mut record = [0u8; size_of::<libc::signalfd_siginfo>()];
    let _ = rustix::io::read(signals, &mut record);
}

/// Closes every descriptor but 0, 1, 2 and `keep`, which becomes number 3. Returns the one that is kept.
pub(crate) fn keep_only(keep: OwnedFd) -> OwnedFd {
    const PLACE: i32 = 3;
    let keep = if keep.as_raw_fd() == PLACE {
        keep
    } else {
        // SAFETY: `dup3` fills number 3, whatever it was: everything beyond 2 is closed here anyway.
        if unsafe { libc::dup3(keep.as_raw_fd(), PLACE, libc::O_CLOEXEC) } < 0 {
            return keep;
        }
        drop(keep);
        // SAFETY: `dup3` has just made it.
        unsafe { OwnedFd::from_raw_fd(PLACE) }
    };
    let beyond = PLACE.unsigned_abs() + 1;
    // SAFETY: numbers that nobody in this process uses: nothing was opened before.
    if unsafe { close_range(beyond, u32::MAX) }.is_err() {
        for number in open_numbers().unwrap_or_default().into_iter().filter(|&number| number >= beyond) {
            // SAFETY: as above.
            unsafe { close(number) };
        }
    }
    keep
}

/// Raises the limit of open descriptors as far as this process may; what it was.
pub(crate) fn raise_descriptor_limit() -> Option<Rlimit> {
    let before = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: before.maximum, maximum: before.maximum };
    setrlimit(Resource::Nofile, raised).ok().map(|()| before)
}

/// Sets the limit of open descriptors.
pub(crate) fn set_descriptor_limit(limit: Rlimit) {
    let _ = setrlimit(Resource::Nofile, limit);
}

/// Sets what the kernel limits. A hard limit is only ever lowered.
pub(crate) fn set_limit(resource: Resource, value: u64) -> io::Result<()> {
    let maximum = getrlimit(resource).maximum.map_or(value, |maximum| maximum.min(value));
    Ok(setrlimit(resource, Rlimit { current: Some(maximum), maximum: Some(maximum) })?)
}

/// Adds to the niceness of this process.
pub(crate) fn add_niceness(niceness: i32) -> io::Result<()> {
    let now = rustix::process::getpriority_process(None)?;
    Ok(rustix::process::setpriority_process(None, now.saturating_add(niceness).clamp(-20, 19))?)
}

/// Lets this process run on these CPUs alone.
pub(crate) fn set_cpus(cpus: &[u32]) -> io::Result<()> {
    const BITS: u32 = usize::BITS;
    let words = cpus.iter().max().map_or(0, |&highest| highest / BITS + 1);
    let mut set = vec![0usize; words as usize];
    for &cpu in cpus {
        set[(cpu / BITS) as usize] |= 1 << (cpu % BITS);
    }
    // The kernel takes a set of any length, which rustix's type does not have.
    // SAFETY: the pointer leads to so many bytes.
    let result = unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, size_of_val(&set[..]), set.as_ptr()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// From now on nothing that this process executes gives it more rights.
pub(crate) fn give_up_new_privileges() -> io::Result<()> {
    Ok(rustix::thread::set_no_new_privs(true)?)
}

/// The user and group that this process acts as, and those that it belongs to.
pub(crate) fn credentials() -> [u32; 4] {
    use rustix::process::{getegid, geteuid, getgid, getuid};

    [getuid().as_raw(), geteuid().as_raw(), getgid().as_raw(), getegid().as_raw()]
}

/// The process that made the socket pair of which this is an end.
pub(crate) fn maker_of(socket: BorrowedFd<'_>) -> Option<u32> {
    let credentials = rustix::net::sockopt::socket_peercred(socket).ok()?;
    Some(credentials.pid.as_raw_nonzero().get().unsigned_abs())
}

/// Whether this process was given rights that its caller does not have.
pub(crate) fn has_elevated_rights() -> bool {
    // SAFETY: it reads a word that the kernel passed at start.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

/// Sets the environment to `NAME=value`, each ended by a NUL byte.
///
/// # Safety
///
/// The calling process has one thread.
pub(crate) unsafe fn set_environment(variables: &[u8]) {
    // SAFETY: nobody reads it meanwhile, as the caller promises.
    unsafe { libc::clearenv() };
    for (name, value) in split_environment(variables) {
        // A variable whose name begins with the sign cannot be set.
        if !name.as_bytes().starts_with(b"=") {
            // SAFETY: as above.
            unsafe { std::env::set_var(name, value) };
        }
    }
}

/// Descriptor `number`, if it is open, as this process's own.
///
/// # Safety
///
/// Nobody else in this process owns that number.
pub(crate) unsafe fn adopt(number: i32) -> Option<OwnedFd> {
    // SAFETY: F_GETFD reads the flags of any number.
    if unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
        return None;
    }
    // SAFETY: it is open, and the caller promises that nobody owns it.
    Some(unsafe { OwnedFd::from_raw_fd(number) })
}

/// A duplicate of `fd` with a number above the standard streams, close-on-exec.
pub(crate) fn above_streams(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    Ok(rustix::io::fcntl_dupfd_cloexec(fd, 3)?)
}

/// A duplicate of `fd` whose number is none of `taken`, in its place.
pub(crate) fn away_from(mut fd: OwnedFd, taken: &[i32]) -> io::Result<OwnedFd> {
    let mut before = Vec::new(); // kept open, so that a number that is taken is not found again
    while taken.contains(&fd.as_raw_fd()) {
        let next = rustix::io::fcntl_dupfd_cloexec(&fd, fd.as_raw_fd() + 1)?;
        before.push(std::mem::replace(&mut fd, next));
    }
    Ok(fd)
}

/// Makes descriptor `number` a duplicate of `fd`, close-on-exec, whatever it was before.
///
/// # Safety
///
/// Nobody in this process relies on what that number was.
pub(crate) unsafe fn place(fd: BorrowedFd<'_>, number: i32) -> io::Result<()> {
    // SAFETY: it takes numbers, and nobody relies on the one that is replaced, as the caller promises.
    if unsafe { libc::dup3(fd.as_raw_fd(), number, libc::O_CLOEXEC) } < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Makes `fd` standard input (0), output (1) or error (2).
pub(crate) fn set_stream(fd: BorrowedFd<'_>, stream: usize) -> io::Result<()> {
    match stream {
        0 => rustix::stdio::dup2_stdin(fd)?,
        1 => rustix::stdio::dup2_stdout(fd)?,
        _ => rustix::stdio::dup2_stderr(fd)?,
    }
    Ok(())
}

/// A duplicate of standard input (0), output (1) or error (2), if it is open.
pub(crate) fn stream(number: usize) -> Option<OwnedFd> {
    let stream = [rustix::stdio::stdin, rustix::stdio::stdout, rustix::stdio::stderr][number]();
    above_streams(stream).ok()
}

/// `/dev/null`, to read and to write.
pub(crate) fn null() -> io::Result<OwnedFd> {
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    // Where a standard stream is closed, it would take its place, and leave it again when it is closed.
    if null.as_raw_fd() > 2 { Ok(null) } else { above_streams(null.as_fd()) }
}

/// A folder, to make it the working directory.
pub(crate) fn folder(path: &std::path::Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// The working directory; `None` for one that this process may not look at.
pub(crate) fn working_directory() -> Option<OwnedFd> {
    folder(std::path::Path::new(".")).ok()
}

/// Makes it the working directory.
pub(crate) fn enter(directory: BorrowedFd<'_>) -> io::Result<()> {
    Ok(rustix::process::fchdir(directory)?)
}

/// The umask, without changing it even for a moment; `None` without `/proc`.
pub(crate) fn umask() -> Option<u32> {
    let status = std::fs::read_to_string("/proc/thread-self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("Umask:"))?;
    u32::from_str_radix(line.trim(), 8).ok()
}

/// Sets the umask.
pub(crate) fn set_umask(mask: u32) {
    rustix::process::umask(Mode::from_raw_mode(mask));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_counted() {
        let listed = || std::fs::read_dir("/proc/self/task").unwrap().count();
        std::thread::scope(|scope| {
            let (go, wait) = std::sync::mpsc::channel::<()>();
            scope.spawn(move || wait.recv());
            // Other tests start and end threads meanwhile.
            assert!((0..1000).any(|_| threads() == Some(listed()) && threads().unwrap() >= 2));
            drop(go);
        });
    }

    #[test]
    fn a_descriptor_makes_way_for_numbers_that_are_wanted() {
        let fd = null().unwrap();
        let number = fd.as_raw_fd();
        let wanted: Vec<i32> = (number..number + 5).collect();
        let away = away_from(fd, &wanted).unwrap();
        assert!(!wanted.contains(&away.as_raw_fd()));
        let number = away.as_raw_fd();
        assert_eq!(away_from(away, &wanted).unwrap().as_raw_fd(), number, "it was out of the way");
    }
}
