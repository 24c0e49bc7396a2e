//! Other processes: executing, forking, signalling, reaping.

use std::{
    ffi::{CStr, CString, OsStr, OsString, c_char, c_int, c_void},
    io,
    os::{
        fd::{AsRawFd, BorrowedFd, OwnedFd},
        unix::{ffi::OsStrExt, process::CommandExt},
    },
    process::{Command, Stdio},
};

use billiard_wire::generation::Heritage;
use rustix::{
    io::Errno,
    process::{Pid, PidfdFlags},
};

use super::{
    faulty, named,
    own::{block_all, flush_streams, restore_mask},
};
use crate::{
    Error, Signal,
    exit::{End, ExitStatus},
};

/// Executes this program afresh with one argument, `channel` as its standard input, and in a process group of its own; its pid. It has
/// this process's signal mask and environment.
pub(crate) fn execute(argument: &str, channel: OwnedFd) -> io::Result<u32> {
    faulty("sys.context.execute")?;
    let mut command = Command::new("/proc/self/exe");
    command.arg0(own_name()).arg(argument).stdin(Stdio::from(channel)).stdout(Stdio::null()).process_group(0);
    // The kernel executes nothing with a larger variable; children get theirs by another way.
    for (name, value) in std::env::vars_os() {
        if name.len() + value.len() > MAX_VARIABLE {
            command.env_remove(name);
        }
    }
    Ok(command.spawn()?.id())
}

fn own_name() -> OsString {
    std::env::args_os().next().unwrap_or_else(|| "billiard".into())
}

/// As [`execute`], with an environment of `NAME=value`, each ended by a NUL byte, out of a process with one thread and no
/// signal handlers, and much faster: the child borrows this process's memory until it executes, so that nothing is
/// copied, and has no dispositions to reset.
///
/// # Safety
///
/// The calling process has one thread, and no signal handler that would be called meanwhile.
pub(crate) unsafe fn execute_from_one_thread(
    argument: &CStr,
    channel: BorrowedFd<'_>,
    environment: &[u8],
) -> io::Result<u32> {
    /// What the child has to know; it has the very memory.
    struct Plan {
        arguments: [*const c_char; 3],
        variables: Vec<*const c_char>,
        channel: c_int,
        parent: libc::pid_t,
        /// Why it could not be executed.
        failure: c_int,
    }

    extern "C" fn child(plan: *mut c_void) -> c_int {
        // SAFETY: the caller passes its plan and waits meanwhile.
        let plan = unsafe { &mut *plan.cast::<Plan>() };
        // Kept by the execution: before `init()` too, it is not to outlive its parent.
        // SAFETY: numbers.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
        // SAFETY: it has no preconditions.
        if unsafe { libc::getppid() } != plan.parent {
            // SAFETY: always.
            unsafe { libc::_exit(127) };
        }
        // SAFETY: numbers.
        unsafe { libc::setpgid(0, 0) };
        // SAFETY: numbers; the copy is not close-on-exec.
        if unsafe { libc::dup2(plan.channel, 0) } == 0 {
            // SAFETY: both lists end with a null pointer, and all others lead to texts that end with a NUL byte.
            unsafe { libc::execve(c"/proc/self/exe".as_ptr(), plan.arguments.as_ptr(), plan.variables.as_ptr()) };
        }
        plan.failure = io::Error::last_os_error().raw_os_error().unwrap_or(libc::EINVAL);
        // SAFETY: always.
        unsafe { libc::_exit(127) }
    }

    faulty("sys.context.execute")?;
    let name = CString::new(own_name().as_bytes())?;
    // What does not end with a NUL byte is no variable.
    let whole = environment.split_inclusive(|&byte| byte == 0).filter(|variable| variable.ends_with(&[0]));
    let variables = whole.map(|variable| variable.as_ptr().cast()).chain([std::ptr::null()]).collect();
    let arguments = [name.as_ptr(), argument.as_ptr(), std::ptr::null()];
    let mut plan = Plan {
        arguments,
        variables,
        channel: channel.as_raw_fd(),
        parent: std::process::id().cast_signed(),
        failure: 0,
    };
    let mut stack = vec![0u128; STACK / size_of::<u128>()]; // for its alignment
    let top = stack.as_mut_ptr_range().end.cast();
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    // SAFETY: the child runs on a stack of its own, touches nothing but the plan, and ends by executing or exiting; this
    // process's one thread waits until it has, and no handler runs in it.
    let pid = unsafe { libc::clone(child, top, flags, (&raw mut plan).cast()) };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    if plan.failure != 0 {
        reap_now(pid.unsigned_abs());
        return Err(io::Error::from_raw_os_error(plan.failure));
    }
    Ok(pid.unsigned_abs())
}

/// More than enough for three system calls.
const STACK: usize = 64 << 10;

/// A little below the kernel's limit on one string, MAX_ARG_STRLEN: 32 pages.
const MAX_VARIABLE: usize = 120 << 10;

/// Names and values out of `NAME=value`, each ended by a NUL byte.
pub(super) fn split_environment(variables: &[u8]) -> impl Iterator<Item = (&OsStr, &OsStr)> {
    variables.split(|&byte| byte == 0).filter_map(|variable| {
        // The name of one that no function can set, though a program can be started with it, begins with the sign.
        let at = variable.iter().skip(1).position(|&byte| byte == b'=')? + 1;
        Some((OsStr::from_bytes(&variable[..at]), OsStr::from_bytes(&variable[at + 1..])))
    })
}

/// Who a fork returned to.
pub(crate) enum Forked {
    Parent(u32),
    Child,
}

/// Forks. The child goes on where this process is, with its shareable handles.
///
/// # Safety
///
/// The calling process has one thread, or what the child does can do without all that other threads hold.
pub(crate) unsafe fn fork() -> io::Result<Forked> {
    faulty("sys.context.fork")?;
    let heritage = Heritage::note();
    // SAFETY: as the caller promises.
    match unsafe { nix::unistd::fork() }? {
        nix::unistd::ForkResult::Parent { child } => Ok(Forked::Parent(child.as_raw().unsigned_abs())),
        nix::unistd::ForkResult::Child => {
            heritage.accept();
            Ok(Forked::Child)
        }
    }
}

/// Forks, when the streams have been written, and with every signal blocked in the child: a handler of this process must not run there.
///
/// # Safety
///
/// As [`fork`].
pub(crate) unsafe fn fork_blocked() -> io::Result<Forked> {
    flush_streams();
    let mask = block_all();
    // SAFETY: as the caller promises.
    let forked = unsafe { fork() };
    if !matches!(forked, Ok(Forked::Child)) {
        restore_mask(&mask);
    }
    forked
}

pub(super) fn pid(number: u32) -> Option<Pid> {
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

/// A descriptor of a child of this process. When there can be none, the child is ended and reaped.
pub(crate) fn pidfd_of_child(child: u32) -> Result<OwnedFd, Error> {
    pidfd_open(child).inspect_err(|_| {
        kill_child(child);
        reap_now(child);
    })
}

/// Sends a signal to the process of the pidfd; one that has ended is no error.
pub(crate) fn signal(pidfd: BorrowedFd<'_>, signal: Signal) -> Result<(), Error> {
    let result = faulty("sys.context.pidfd_send_signal")
        .and_then(|()| Ok(rustix::process::pidfd_send_signal(pidfd, signal.as_rustix())?));
    match result {
        Err(error) if Errno::from_io_error(&error) == Some(Errno::SRCH) => Ok(()),
        result => named("pidfd_send_signal", result),
    }
}

/// A signal to every process of the group that `leader` leads or led. The number must not have been reused.
pub(crate) fn signal_group(leader: u32, signal: Signal) {
    if let Some(group) = pid(leader) {
        let _ = rustix::process::kill_process_group(group, signal.as_rustix());
    }
}

/// A signal to every process of the group that the process of the pidfd leads or led, although it may have been reaped.
pub(crate) fn signal_group_of(pidfd: BorrowedFd<'_>, leader: u32, signal: Signal) {
    const PIDFD_SIGNAL_PROCESS_GROUP: libc::c_uint = 1 << 2;
    let no_info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: four numbers and a null pointer, which stands for the usual description of the signal.
    let sent = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal.as_raw(),
            no_info,
            PIDFD_SIGNAL_PROCESS_GROUP,
        )
    };
    // Before Linux 6.9 only the number will do: as long as the group has members nobody else can have it.
    // Of one that has ended and was reaped, a process that has the number now is another.
    let is_another = || super::is_readable(pidfd) && pid(leader).is_some_and(exists);
    if sent < 0 && io::Error::last_os_error().raw_os_error() == Some(libc::EINVAL) && !is_another() {
        signal_group(leader, signal);
    }
}

fn exists(pid: Pid) -> bool {
    !matches!(rustix::process::test_kill_process(pid), Err(Errno::SRCH))
}

/// KILL to a child of this process that was not reaped.
pub(crate) fn kill_child(child: u32) {
    if let Some(child) = pid(child) {
        let _ = rustix::process::kill_process(child, rustix::process::Signal::KILL);
    }
}

/// Ends what is left of the group of a child of this process that has ended, and reaps it; `None` when the host program has done so.
pub(crate) fn end_group_and_reap(pidfd: BorrowedFd<'_>, child: u32) -> Option<ExitStatus> {
    match ended(Whom::Of(pidfd), false) {
        Ok(Some(_)) => signal_group(child, Signal::KILL), // while the number is still the leader's
        _ => signal_group_of(pidfd, child, Signal::KILL),
    }
    ended(Whom::Of(pidfd), true).ok().flatten().map(|(_, status)| status)
}

/// Waits for a child that is about to end, and reaps it.
pub(crate) fn reap_now(child: u32) {
    let Some(child) = pid(child) else { return };
    let wait = || rustix::process::waitpid(Some(child), rustix::process::WaitOptions::empty());
    while matches!(wait(), Err(Errno::INTR)) {}
}

/// Which child of this process.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Whom<'a> {
    /// Whoever ended longest ago.
    Any,
    Pid(u32),
    Of(BorrowedFd<'a>),
}

/// A child that has ended: who, and how. `None` when none has. It stays unreaped, and its number taken, unless it is to be
/// `reap`ed.
///
/// An error when there is no such child: somebody else has reaped it.
pub(crate) fn ended(whom: Whom<'_>, reap: bool) -> io::Result<Option<(u32, ExitStatus)>> {
    let (kind, id) = match whom {
        Whom::Any => (libc::P_ALL, 0),
        Whom::Pid(pid) => (libc::P_PID, pid),
        Whom::Of(pidfd) => (libc::P_PIDFD, pidfd.as_raw_fd().unsigned_abs()),
    };
    let options = libc::WEXITED | libc::WNOHANG | if reap { 0 } else { libc::WNOWAIT };
    // SAFETY: the structure is plain numbers and bytes.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: as above.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    loop {
        let result = faulty("sys.context.waitid").and_then(|()| {
            // The C library's function has no place for the usage.
            // SAFETY: both places are valid for the answer.
            match unsafe { libc::syscall(libc::SYS_waitid, kind, id, &raw mut info, options, &raw mut usage) } {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        });
        match result {
            Ok(()) => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    // SAFETY: `waitid` filled the fields of a child, or left zeros.
    let child = unsafe { info.si_pid() };
    // SAFETY: as above.
    let status = unsafe { info.si_status() };
    let end = match info.si_code {
        libc::CLD_EXITED => End::Code(status),
        code => End::Signal { number: status, core_dumped: code == libc::CLD_DUMPED },
    };
    Ok((child > 0).then(|| (child.unsigned_abs(), ExitStatus::of(end, &usage))))
}

/// Whether that process has ended, or has begun to: it runs nothing of its program any more.
pub(crate) fn is_ending(pidfd: BorrowedFd<'_>, process: u32) -> bool {
    /// `PF_EXITING` of the kernel: set before a thread closes anything.
    const EXITING: u64 = 4;

    // Field 9 of proc_pid_stat(5). The number is still that process's where the pidfd says afterwards that it has not ended.
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let flags = stat.rsplit_once(')').and_then(|(_, fields)| fields.split_whitespace().nth(6)?.parse::<u64>().ok());
    super::is_readable(pidfd) || flags.is_some_and(|flags| flags & EXITING != 0)
}

/// Removes the name of that file (device and inode) if its owner is gone: who has its lock (flock(2)) owns it. False when it is somebody's.
pub(crate) fn remove_abandoned(path: &OsStr, file: (u64, u64)) -> bool {
    use rustix::fs::{FileType, FlockOperation, Mode, OFlags};

    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let Ok(opened) = rustix::fs::open(path, flags, Mode::empty()) else { return true };
    let is_it = |stat: rustix::fs::Stat| (stat.st_dev, stat.st_ino) == file;
    let Ok(stat) = rustix::fs::fstat(&opened) else { return true };
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || !is_it(stat) {
        return true; // by now the name is another's
    }
    if rustix::fs::flock(&opened, FlockOperation::NonBlockingLockExclusive).is_err() {
        return false;
    }
    // Another may have removed it before the lock was had, and given the name anew.
    if rustix::fs::lstat(path).is_ok_and(is_it) {
        let _ = rustix::fs::unlink(path);
    }
    true
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
