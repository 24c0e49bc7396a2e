//! Every system call of this crate, each behind a fault point.

use std::{
    ffi::{CString, OsStr},
    fs::File,
    io::{self, Seek, Write},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::FileExt, process::CommandExt},
    },
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use billiard_wire::fault;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use rustix::{
    event::{PollFd, PollFlags, Timespec},
    fs::{MemfdFlags, Mode, OFlags, SealFlags},
    io::{Errno, FdFlags},
    process::{Pid, PidfdFlags, Resource, Rlimit, getrlimit, setrlimit},
};

use crate::{Error, exit::ExitStatus};

fn faulty(name: &'static str) -> io::Result<()> {
    fault::errno(name).map_err(io::Error::from_raw_os_error)
}

fn named<T>(call: &'static str, result: io::Result<T>) -> Result<T, Error> {
    result.map_err(|source| Error::Io { call, source })
}

// --- other processes ---------------------------------------------------------------------------

/// Executes this program as the guardian, with `control` as its standard input, in a group of its own; its pid.
pub(crate) fn execute_guardian(marker: &str, control: OwnedFd) -> io::Result<u32> {
    faulty("sys.context.execute")?;
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0(std::env::args_os().next().unwrap_or_else(|| "billiard".into()))
        .arg(marker)
        .stdin(Stdio::from(control))
        .stdout(Stdio::null())
        .process_group(0);
    // The kernel executes nothing with a larger variable; children get theirs by another way.
    for (name, value) in std::env::vars_os() {
        if name.len() + value.len() > MAX_VARIABLE {
            command.env_remove(name);
        }
    }
    Ok(command.spawn()?.id())
}

/// A little below the kernel's limit on one string, MAX_ARG_STRLEN: 32 pages.
const MAX_VARIABLE: usize = 120 << 10;

/// Replaces this process by the same program, started afresh with these arguments. Returns only on failure.
pub(crate) fn execute_afresh(arguments: &[&str]) -> io::Error {
    let name = std::env::args_os().next().unwrap_or_else(|| "billiard".into());
    let arguments = std::iter::once(name.as_os_str()).chain(arguments.iter().map(OsStr::new));
    let arguments: Result<Vec<CString>, _> = arguments.map(|argument| CString::new(argument.as_bytes())).collect();
    match (arguments, faulty("sys.context.execv")) {
        (Ok(arguments), Ok(())) => match nix::unistd::execv(c"/proc/self/exe", &arguments) {
            Ok(never) => match never {},
            Err(errno) => errno.into(),
        },
        (Err(nul), _) => nul.into(),
        (_, Err(fault)) => fault,
    }
}

/// Who a fork returned to.
pub(crate) enum Forked {
    Parent(u32),
    Child,
}

/// Forks.
///
/// # Safety
///
/// The calling process has one thread.
pub(crate) unsafe fn fork() -> io::Result<Forked> {
    faulty("sys.context.fork")?;
    // SAFETY: with one thread there is no lock that another could hold in the copy.
    match unsafe { nix::unistd::fork() }? {
        nix::unistd::ForkResult::Parent { child } => Ok(Forked::Parent(child.as_raw().unsigned_abs())),
        nix::unistd::ForkResult::Child => Ok(Forked::Child),
    }
}

/// Ends this process at once: no destructor, no exit hook. What the standard streams hold is written, but other threads
/// of the process, which may hold the streams' locks, cannot keep it from ending for long.
pub(crate) fn exit_now(code: i32) -> ! {
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
    // SAFETY: always.
    unsafe { libc::_exit(code) }
}

fn flush() {
    let _ = io::stdout().flush();
    // SAFETY: a null stream stands for all; C code that the process ran may have written to them.
    unsafe { libc::fflush(std::ptr::null_mut()) };
}

fn pid(number: u32) -> Option<Pid> {
    Pid::from_raw(i32::try_from(number).ok()?)
}

/// A descriptor of the process, readable when it has ended. It refers to the right process only if the
/// caller knows that the number was not reused.
pub(crate) fn pidfd_open(process: u32) -> Result<OwnedFd, Error> {
    let pid = pid(process).ok_or(Error::Io { call: "pidfd_open", source: io::ErrorKind::InvalidInput.into() })?;
    let result =
        faulty("sys.context.pidfd_open").and_then(|()| Ok(rustix::process::pidfd_open(pid, PidfdFlags::empty())?));
    match result {
        Err(error) if matches!(Errno::from_io_error(&error), Some(Errno::NOSYS | Errno::PERM)) => {
            Err(Error::Unsupported { call: "pidfd_open" })
        }
        result => named("pidfd_open", result),
    }
}

/// Sends a signal to the process of the pidfd; one that has ended is no error.
pub(crate) fn signal(pidfd: BorrowedFd<'_>, signal: Signal) -> Result<(), Error> {
    let number = rustix::process::Signal::from_named_raw(signal as i32)
        .ok_or(Error::Io { call: "pidfd_send_signal", source: io::ErrorKind::InvalidInput.into() })?;
    let result =
        faulty("sys.context.pidfd_send_signal").and_then(|()| Ok(rustix::process::pidfd_send_signal(pidfd, number)?));
    match result {
        Err(error) if Errno::from_io_error(&error) == Some(Errno::SRCH) => Ok(()),
        result => named("pidfd_send_signal", result),
    }
}

/// KILL to every process of the group that `leader` leads or led. The number must not have been reused.
pub(crate) fn kill_group(leader: u32) {
    if let Some(group) = pid(leader) {
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
}

/// KILL to every process of the group that the process of the pidfd leads or led, although it may have been reaped.
pub(crate) fn kill_group_of(pidfd: BorrowedFd<'_>, leader: u32) {
    const PIDFD_SIGNAL_PROCESS_GROUP: libc::c_uint = 1 << 2;
    let no_info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: four numbers and a null pointer, which stands for the usual description of the signal.
    let sent = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            libc::SIGKILL,
            no_info,
            PIDFD_SIGNAL_PROCESS_GROUP,
        )
    };
    // Before Linux 6.9 only the number will do: as long as the group has members nobody else can have it.
    if sent < 0 && io::Error::last_os_error().raw_os_error() == Some(libc::EINVAL) {
        kill_group(leader);
    }
}

/// How the child of the pidfd has ended, if it has, reaping it; none where the host program reaps everything.
pub(crate) fn reap_by_pidfd(pidfd: BorrowedFd<'_>) -> Option<String> {
    let options = rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOHANG;
    let status = rustix::process::waitid(rustix::process::WaitId::PidFd(pidfd), options).ok()??;
    Some(match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => format!("it ended with exit code {code}"),
        (_, Some(signal)) => format!("it was ended by signal {signal}"),
        _ => "it ended".to_owned(),
    })
}

/// KILL to a child of this process that was not reaped.
pub(crate) fn kill_child(child: u32) {
    if let Some(child) = pid(child) {
        let _ = rustix::process::kill_process(child, rustix::process::Signal::KILL);
    }
}

/// The child that ended longest ago and was not reaped. It stays unreaped, so that its number stays taken.
pub(crate) fn ended_child() -> Option<u32> {
    // SAFETY: the structure is plain numbers and bytes.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: `info` is a valid place for the answer.
    let result = unsafe { libc::waitid(libc::P_ALL, 0, &mut info, options) };
    if result != 0 {
        return None;
    }
    // SAFETY: `waitid` filled the fields of a child, or left zeros.
    let child = unsafe { info.si_pid() };
    (child > 0).then_some(child.unsigned_abs())
}

/// Reaps a child of this process that has ended.
pub(crate) fn reap(child: u32) -> Option<ExitStatus> {
    let (mut status, child) = (0, i32::try_from(child).ok()?);
    // SAFETY: the structure is plain numbers.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: both places are valid for the answer.
        let reaped = unsafe { libc::wait4(child, &mut status, 0, &mut usage) };
        if reaped == child {
            return Some(ExitStatus::from_wait(status, &usage));
        }
        if io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return None;
        }
    }
}

/// Waits until any child has ended, and reaps it. False when there is none.
pub(crate) fn reap_any() -> bool {
    loop {
        // SAFETY: a null status is allowed.
        if unsafe { libc::waitpid(-1, std::ptr::null_mut(), 0) } > 0 {
            return true;
        }
        if io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return false;
        }
    }
}

/// The children of this process, which has one thread.
pub(crate) fn children() -> Vec<u32> {
    let listed = std::fs::read_to_string("/proc/thread-self/children");
    if let Ok(listed) = listed {
        return listed.split_whitespace().filter_map(|pid| pid.parse().ok()).collect();
    }
    // A kernel without that list: look at everybody's parent.
    let this = std::process::id().to_string();
    let is_child = |stat: &str| {
        stat.rsplit_once(')').and_then(|(_, fields)| fields.split_whitespace().nth(1)).is_some_and(|ppid| ppid == this)
    };
    std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| std::fs::read_to_string(entry.path().join("stat")).is_ok_and(|stat| is_child(&stat)))
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

// --- this process ------------------------------------------------------------------------------

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
    std::fs::read_dir("/proc/self/task").ok().map(Iterator::count)
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
    // SAFETY: as above.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}

/// Blocks exactly these signals.
pub(crate) fn set_mask(signals: &[Signal]) {
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&signals.iter().copied().collect::<SigSet>()), None);
}

/// A descriptor that is readable while SIGCHLD is pending. The signal has to be blocked.
pub(crate) fn child_signals() -> Result<OwnedFd, Error> {
    let set = SigSet::from_iter([Signal::SIGCHLD]);
    // SAFETY: the set is valid, and -1 asks for a new descriptor.
    let fd = unsafe { libc::signalfd(-1, set.as_ref(), libc::SFD_NONBLOCK | libc::SFD_CLOEXEC) };
    if fd < 0 {
        return Err(Error::Io { call: "signalfd", source: io::Error::last_os_error() });
    }
    // SAFETY: the call has just made it, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Takes what is pending off a signalfd.
pub(crate) fn drain_signals(signals: &OwnedFd) {
    let mut record = [0u8; 128 * 4];
    while rustix::io::read(signals, &mut record).is_ok_and(|len| len > 0) {}
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
    // SAFETY: closing numbers that nobody in this process has: nothing was opened before.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, PLACE + 1, u32::MAX, 0) };
    if closed < 0 {
        let open = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
        let numbers = open.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        // Collected first, so that the folder is closed before its own number is tried.
        for fd in numbers.collect::<Vec<_>>().into_iter().filter(|&fd| fd > PLACE) {
            // SAFETY: as above.
            unsafe { libc::close(fd) };
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
    for variable in variables.split(|&byte| byte == 0) {
        // A variable without a name cannot be set, though a program can be started with one.
        if let Some(at @ 1..) = variable.iter().position(|&byte| byte == b'=') {
            let (name, value) = (OsStr::from_bytes(&variable[..at]), OsStr::from_bytes(&variable[at + 1..]));
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

/// Whether the descriptor closes when a program is executed.
pub(crate) fn set_close_on_exec(fd: BorrowedFd<'_>, close: bool) -> io::Result<()> {
    Ok(rustix::io::fcntl_setfd(fd, if close { FdFlags::CLOEXEC } else { FdFlags::empty() })?)
}

/// Makes `fd` standard input (0), output (1) or error (2).
pub(crate) fn set_stream(fd: BorrowedFd<'_>, stream: i32) -> io::Result<()> {
    match stream {
        0 => rustix::stdio::dup2_stdin(fd)?,
        1 => rustix::stdio::dup2_stdout(fd)?,
        _ => rustix::stdio::dup2_stderr(fd)?,
    }
    Ok(())
}

/// Standard output (1) or error (2), if it is open.
pub(crate) fn stream(number: i32) -> Option<OwnedFd> {
    let stream = if number == 1 { rustix::stdio::stdout() } else { rustix::stdio::stderr() };
    above_streams(stream).ok()
}

/// `/dev/null`, to read and to write.
pub(crate) fn null() -> io::Result<OwnedFd> {
    Ok(rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?)
}

/// The working directory; `None` for one that this process may not look at.
pub(crate) fn working_directory() -> Option<OwnedFd> {
    rustix::fs::open(".", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok()
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

// --- waiting and memory files ------------------------------------------------------------------

/// Waits until one of `fds` is readable or at its end, at most until `deadline`; which are.
pub(crate) fn wait_readable<const N: usize>(
    fds: [BorrowedFd<'_>; N],
    deadline: Option<Instant>,
) -> Result<[bool; N], Error> {
    let mut polled = fds.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let timeout = left.map(|left| Timespec::try_from(left).unwrap_or(Timespec { tv_sec: i64::MAX, tv_nsec: 0 }));
        let result = faulty("sys.context.ppoll").and_then(|()| Ok(rustix::event::poll(&mut polled, timeout.as_ref())?));
        match result {
            Ok(0) if left != Some(Duration::ZERO) => {}
            Ok(_) => return Ok(polled.each_ref().map(|fd| !fd.revents().is_empty())),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(source) => return Err(Error::Io { call: "ppoll", source }),
        }
    }
}

/// Waits until `fd` has room or `ended` is readable, at most until `deadline`.
pub(crate) fn wait_room(fd: BorrowedFd<'_>, ended: BorrowedFd<'_>, deadline: Instant) {
    let left = deadline.saturating_duration_since(Instant::now());
    let mut polled = [PollFd::from_borrowed_fd(fd, PollFlags::OUT), PollFd::from_borrowed_fd(ended, PollFlags::IN)];
    if let Ok(left) = Timespec::try_from(left) {
        let _ = rustix::event::poll(&mut polled, Some(&left)); // the caller looks again, whatever it says
    }
}

/// Whether `fd` is readable or at its end now.
pub(crate) fn is_readable(fd: BorrowedFd<'_>) -> bool {
    wait_readable([fd], Some(Instant::now())).is_ok_and(|[ready]| ready)
}

/// A memory file with these contents that nobody can change any more.
pub(crate) fn sealed_file(contents: &[u8]) -> io::Result<File> {
    faulty("sys.context.memfd_create")?;
    let mut file = File::from(rustix::fs::memfd_create("billiard", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?);
    file.write_all(contents)?;
    file.rewind()?;
    rustix::fs::fcntl_add_seals(
        file.as_fd(),
        SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL,
    )?;
    Ok(file)
}

/// All of a file that was made by [`sealed_file`].
pub(crate) fn read_sealed(file: &File) -> io::Result<Vec<u8>> {
    if !rustix::fs::fcntl_get_seals(file)?.contains(SealFlags::SHRINK | SealFlags::WRITE) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the memory file is not sealed"));
    }
    let len = usize::try_from(file.metadata()?.len()).map_err(|_| io::ErrorKind::OutOfMemory)?;
    let mut contents = vec![0; len];
    file.read_exact_at(&mut contents, 0)?;
    Ok(contents)
}

// --- what this machine and process have ---

/// A small file, whole.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    faulty("sys.context.read")?;
    std::fs::read(path)
}

/// How many CPUs the calling thread may run on.
pub(crate) fn allowed_cpus() -> io::Result<usize> {
    const MOST: usize = 1 << 17; // words: for more CPUs than any kernel can be built for
    faulty("sys.context.sched_getaffinity")?;
    let mut mask: Vec<libc::c_ulong> = vec![0; 16];
    loop {
        let len = std::mem::size_of_val(&mask[..]);
        // SAFETY: the mask has `len` bytes to be written.
        let written = unsafe { libc::syscall(libc::SYS_sched_getaffinity, 0, len, mask.as_mut_ptr()) };
        if written >= 0 {
            return Ok(mask.iter().map(|word| word.count_ones() as usize).sum());
        }
        // EINVAL: the kernel's own mask is longer.
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::EINVAL) || mask.len() >= MOST {
            return Err(error);
        }
        mask.resize(mask.len() * 2, 0);
    }
}

/// Makes a folder for this user alone.
pub(crate) fn make_private_folder(path: &Path) -> io::Result<()> {
    faulty("sys.context.mkdir")?;
    Ok(rustix::fs::mkdir(path, Mode::RWXU)?)
}

/// A folder, opened to be read; a symbolic link is none.
pub(crate) fn open_folder(path: &Path) -> io::Result<File> {
    faulty("sys.context.open")?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?.into())
}

/// Gives the owner of a folder, which is no symbolic link, all rights in it and nobody else any.
pub(crate) fn open_up_folder(path: &Path) -> io::Result<()> {
    faulty("sys.context.chmod")?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = rustix::fs::open(path, flags, Mode::empty())?;
    // `fchmod` does not take such a descriptor, its name in `/proc` does.
    Ok(rustix::fs::chmod(format!("/proc/self/fd/{}", folder.as_raw_fd()), Mode::RWXU)?)
}

/// Locks the open file, until it is closed here and in every copy of this process; false when it is locked already.
pub(crate) fn try_lock(file: &File) -> io::Result<bool> {
    faulty("sys.context.flock")?;
    match rustix::fs::flock(file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Bytes that nobody can guess.
pub(crate) fn random() -> io::Result<[u8; 16]> {
    faulty("sys.context.getrandom")?;
    let mut bytes = [0; 16];
    let len = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    // So few bytes come at once or not at all.
    if len == bytes.len() { Ok(bytes) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// Closes the numbers from `first` to `last`, those that are open.
///
/// # Safety
///
/// Nobody uses descriptors of these numbers any more.
pub(crate) unsafe fn close_range(first: u32, last: u32) -> io::Result<()> {
    faulty("sys.context.close_range")?;
    // SAFETY: the caller's promise. Three numbers.
    if unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Closes a number; one that is not open is no error.
///
/// # Safety
///
/// Nobody uses a descriptor of this number any more.
pub(crate) unsafe fn close(number: u32) {
    // SAFETY: the caller's promise. It is closed even when the call reports an error.
    unsafe { libc::close(number.cast_signed()) };
}

/// The numbers of all open descriptors; one of them was the listing's own, and is closed.
pub(crate) fn open_numbers() -> io::Result<Vec<u32>> {
    faulty("sys.context.open_numbers")?;
    let number = |entry: io::Result<std::fs::DirEntry>| {
        entry.map(|entry| entry.file_name().to_str().and_then(|name| name.parse().ok())).transpose()
    };
    std::fs::read_dir("/proc/self/fd")?.filter_map(number).collect()
}

/// How many descriptors this process may have open; `None` for any number.
pub(crate) fn descriptor_limit() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

/// What [`set_death_signal`] has set last; 0 for nothing.
pub(crate) fn death_signal() -> io::Result<i32> {
    faulty("sys.context.prctl")?;
    Ok(rustix::process::parent_process_death_signal()?.map_or(0, rustix::process::Signal::as_raw))
}

/// Asks for a signal, 0 for none, when the thread ends that forked this process.
pub(crate) fn set_death_signal(number: i32) -> io::Result<()> {
    use rustix::process::Signal;

    faulty("sys.context.prctl")?;
    let signal = match Signal::from_named_raw(number) {
        None if (libc::SIGRTMIN()..=libc::SIGRTMAX()).contains(&number) => {
            // SAFETY: from SIGRTMIN on, the C library keeps no signal to itself.
            Some(unsafe { Signal::from_raw_unchecked(number) })
        }
        None if number != 0 => return Err(io::ErrorKind::InvalidInput.into()),
        named_or_none => named_or_none,
    };
    Ok(rustix::process::set_parent_process_death_signal(signal)?)
}
