//! Every system call of this crate, each behind a fault point.

use std::{
    ffi::c_void,
    io,
    num::NonZeroU32,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    ptr::NonNull,
    sync::atomic::AtomicU32,
    time::Duration,
};

use billiard_wire::fault;
use rustix::{
    fs::{AtFlags, FileType, MemfdFlags, Mode, OFlags, SealFlags},
    io::Errno,
    mm::{Advice, MapFlags, ProtFlags},
    thread::futex,
    time::{ClockId, Timespec},
};

use crate::futex::Wait;

/// A system call that failed.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) call: &'static str,
    pub(crate) source: io::Error,
}

fn checked<T>(call: &'static str, name: &'static str, make: impl Fn() -> Result<T, Errno>) -> Result<T, Failed> {
    loop {
        match fault::errno(name).map_err(Errno::from_raw_os_error).and_then(|()| make()) {
            Err(Errno::INTR) => continue,
            result => return result.map_err(|errno| Failed { call, source: errno.into() }),
        }
    }
}

/// A new memory file, close-on-exec and not in the place of a standard stream, that can be sealed.
pub(crate) fn memfd(name: &str) -> Result<OwnedFd, Failed> {
    checked("memfd_create", "sys.shm.memfd_create", || {
        let fd = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        if fd.as_raw_fd() > 2 { Ok(fd) } else { rustix::io::fcntl_dupfd_cloexec(&fd, 3) }
    })
}

pub(crate) fn set_len(fd: BorrowedFd<'_>, len: u64) -> Result<(), Failed> {
    checked("ftruncate", "sys.shm.ftruncate", || rustix::fs::ftruncate(fd, len))
}

pub(crate) fn add_seals(fd: BorrowedFd<'_>, seals: SealFlags) -> Result<(), Failed> {
    checked("fcntl(F_ADD_SEALS)", "sys.shm.add_seals", || rustix::fs::fcntl_add_seals(fd, seals))
}

/// The seals; none where the file is of a kind that has no seals.
pub(crate) fn seals(fd: BorrowedFd<'_>) -> Result<SealFlags, Failed> {
    checked("fcntl(F_GET_SEALS)", "sys.shm.get_seals", || match rustix::fs::fcntl_get_seals(fd) {
        Err(Errno::INVAL) => Ok(SealFlags::empty()),
        result => result,
    })
}

/// What a file is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FileInfo {
    pub(crate) is_regular: bool,
    pub(crate) len: u64,
    /// Device and number: two descriptors with the same are of the same file.
    pub(crate) identity: FileIdentity,
    pub(crate) owner: u32,
    /// So many blocks of 512 bytes are allocated.
    pub(crate) blocks: u64,
}

/// Device and inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileIdentity {
    pub(crate) device: u64,
    pub(crate) inode: u64,
}

pub(crate) fn info(fd: BorrowedFd<'_>) -> Result<FileInfo, Failed> {
    let stat = checked("fstat", "sys.shm.fstat", || rustix::fs::fstat(fd))?;
    Ok(FileInfo {
        is_regular: FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile,
        len: stat.st_size as u64,
        identity: FileIdentity { device: stat.st_dev, inode: stat.st_ino },
        owner: stat.st_uid,
        blocks: stat.st_blocks as u64,
    })
}

/// Reads at `offset`; how many bytes there were.
pub(crate) fn read_at(fd: BorrowedFd<'_>, into: &mut [u8], offset: u64) -> Result<usize, Failed> {
    let mut done = 0;
    while done < into.len() {
        let call = || fault::errno("sys.shm.pread").map_err(Errno::from_raw_os_error);
        match call().and_then(|()| rustix::io::pread(fd, &mut into[done..], offset + done as u64)) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(Failed { call: "pread", source: errno.into() }),
        }
    }
    Ok(done)
}

/// Writes `bytes` at `offset`.
pub(crate) fn write_at(fd: BorrowedFd<'_>, bytes: &[u8], offset: u64) -> Result<(), Failed> {
    let mut done = 0;
    while done < bytes.len() {
        let call = || fault::errno("sys.shm.pwrite").map_err(Errno::from_raw_os_error);
        match call().and_then(|()| rustix::io::pwrite(fd, &bytes[done..], offset + done as u64)) {
            Ok(count) => done += count,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(Failed { call: "pwrite", source: errno.into() }),
        }
    }
    Ok(())
}

/// How a file is mapped.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Map {
    /// How many bytes from its beginning on.
    pub(crate) len: usize,
    /// What the first one is aligned to.
    pub(crate) align: usize,
    pub(crate) writable: bool,
    /// Whether the kernel finds the pages now; but for what an alignment of more than a page leaves out in front.
    pub(crate) populate: bool,
}

/// Maps the file, shared, at a place of the kernel's choice.
pub(crate) fn map(fd: BorrowedFd<'_>, how: Map) -> Result<NonNull<u8>, Failed> {
    let mut protection = ProtFlags::READ;
    protection.set(ProtFlags::WRITE, how.writable);
    let page = rustix::param::page_size();
    let base = checked("mmap", "sys.shm.mmap", || {
        if how.align <= page {
            let mut flags = MapFlags::SHARED;
            flags.set(MapFlags::POPULATE, how.populate);
            // SAFETY: a new mapping, at a place of the kernel's choice, replaces nothing.
            return unsafe { rustix::mm::mmap(std::ptr::null_mut(), how.len, protection, flags, fd, 0) };
        }
        // The kernel aligns to pages alone: so reserve more, and put the mapping at an aligned place inside.
        let room = how.len.checked_add(how.align).ok_or(Errno::NOMEM)?;
        // SAFETY: as above.
        let reserved =
            unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), room, ProtFlags::empty(), MapFlags::PRIVATE) }?;
        let skipped = reserved.align_offset(how.align);
        let place = reserved.wrapping_byte_add(skipped);
        let flags = MapFlags::SHARED | MapFlags::FIXED;
        let lazy = if how.populate { how.align.min(how.len) } else { how.len };
        let pieces = [(0, lazy, flags), (lazy, how.len - lazy, flags | MapFlags::POPULATE)];
        let mut pieces = pieces.into_iter().filter(|&(_, len, _)| len > 0);
        let mapped = pieces.try_for_each(|(offset, len, flags)| {
            let place = place.wrapping_byte_add(offset);
            // SAFETY: the range lies inside what was just reserved, which nobody else knows of.
            unsafe { rustix::mm::mmap(place, len, protection, flags, fd, offset as u64) }.map(drop)
        });
        let mapped_len = how.len.next_multiple_of(page);
        let (rest, rest_len) = match mapped {
            Ok(()) => (place.wrapping_byte_add(mapped_len), room.saturating_sub(skipped + mapped_len)),
            Err(_) => (place, room - skipped),
        };
        for (begin, len) in [(reserved, skipped), (rest, rest_len)] {
            if len > 0 {
                // SAFETY: what was reserved and is not the mapping, which nobody else knows of.
                let _ = unsafe { rustix::mm::munmap(begin, len) };
            }
        }
        mapped.map(|()| place)
    })?;
    Ok(NonNull::new(base.cast()).expect("the kernel maps nothing at zero unless told to"))
}

/// Unmaps.
///
/// # Safety
///
/// The range is a mapping of the caller's own, to which nobody refers any more.
pub(crate) unsafe fn unmap(base: NonNull<u8>, len: usize) {
    // SAFETY: as the caller promises.
    let _ = unsafe { rustix::mm::munmap(base.as_ptr().cast::<c_void>(), len) };
}

/// What a mapping is spared.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Spare {
    /// Copies of the process made by a fork do not have it.
    Fork,
    /// A core dump does not show it.
    Dump,
}

/// Gives the advice.
///
/// # Safety
///
/// The range is a mapping of the caller's own.
pub(crate) unsafe fn spare(base: NonNull<u8>, len: usize, what: Spare) -> Result<(), Failed> {
    let advice = match what {
        Spare::Fork => Advice::LinuxDontFork,
        Spare::Dump => Advice::LinuxDontDump,
    };
    checked("madvise", "sys.shm.madvise", || {
        // SAFETY: neither changes what this process sees; the range is a mapping, as the caller promises.
        unsafe { rustix::mm::madvise(base.as_ptr().cast::<c_void>(), len, advice) }
    })
}

/// Time since the machine was started, by the clock that nobody sets.
pub(crate) fn monotonic_now() -> Duration {
    let now = rustix::time::clock_gettime(ClockId::Monotonic);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// `FUTEX_WAIT_BITSET`, between processes, until a moment of the monotonic clock.
pub(crate) fn futex_wait(word: &AtomicU32, expected: u32, until: Option<Duration>) -> Wait {
    let timeout = until.map(|until| Timespec {
        tv_sec: i64::try_from(until.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: until.subsec_nanos().into(),
    });
    let result = fault::errno("sys.shm.futex_wait")
        .map_err(Errno::from_raw_os_error)
        .and_then(|()| futex::wait_bitset(word, futex::Flags::empty(), expected, timeout.as_ref(), NonZeroU32::MAX));
    match result {
        Ok(()) => Wait::Woken,
        Err(Errno::AGAIN) => Wait::Changed,
        Err(Errno::TIMEDOUT) => Wait::TimedOut,
        Err(Errno::INTR) => Wait::Interrupted,
        Err(errno) => panic!("waiting on a shared word failed: {errno}"),
    }
}

/// `FUTEX_WAKE`, between processes.
pub(crate) fn futex_wake(word: &AtomicU32, count: u32) -> usize {
    // A wake-up can fail only where the memory is not there, and then nobody waits on it.
    futex::wake(word, futex::Flags::empty(), count).unwrap_or(0)
}

/// A number that nobody guesses.
pub(crate) fn random() -> Result<u64, Failed> {
    let mut bytes = [0; 8];
    checked("getrandom", "sys.shm.getrandom", || Ok(()))?;
    let filled = rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty());
    match filled {
        Ok(_) => Ok(u64::from_ne_bytes(bytes)), // so few bytes come whole
        Err(errno) => Err(Failed { call: "getrandom", source: errno.into() }),
    }
}

/// Another descriptor of the same open file, close-on-exec.
pub(crate) fn duplicate(fd: BorrowedFd<'_>) -> Result<OwnedFd, Failed> {
    checked("fcntl(F_DUPFD_CLOEXEC)", "sys.shm.dup", || rustix::io::fcntl_dupfd_cloexec(fd.as_fd(), 3))
}

/// The record lock on one byte of a file, by [fcntl(2)](https://man7.org/linux/man-pages/man2/fcntl.2.html): it belongs to
/// the process, a fork does not inherit it, and the kernel releases it when the process ends.
fn record(kind: i32, byte: u64) -> libc::flock {
    // SAFETY: zeros are a value of this struct of numbers.
    let mut record: libc::flock = unsafe { std::mem::zeroed() };
    record.l_type = kind as libc::c_short;
    record.l_whence = libc::SEEK_SET as libc::c_short;
    record.l_start = byte as libc::off_t;
    record.l_len = 1;
    record
}

fn fcntl_record(fd: BorrowedFd<'_>, command: i32, record: &mut libc::flock) -> Result<(), Errno> {
    // SAFETY: both commands that are used take a pointer to such a struct, which is valid.
    match unsafe { libc::fcntl(fd.as_raw_fd(), command, std::ptr::from_mut(record)) } {
        -1 => Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)),
        _ => Ok(()),
    }
}

/// Takes the lock on a byte for this process; false when another process has it. That it was taken before is no matter.
pub(crate) fn try_lock(fd: BorrowedFd<'_>, byte: u64) -> Result<bool, Failed> {
    checked("fcntl(F_SETLK)", "sys.shm.setlk", || {
        match fcntl_record(fd, libc::F_SETLK, &mut record(libc::F_WRLCK, byte)) {
            Ok(()) => Ok(true),
            Err(Errno::AGAIN | Errno::ACCESS) => Ok(false),
            Err(errno) => Err(errno),
        }
    })
}

/// Gives the lock back. That this process does not have it is no matter.
pub(crate) fn unlock(fd: BorrowedFd<'_>, byte: u64) {
    let _ = fcntl_record(fd, libc::F_SETLK, &mut record(libc::F_UNLCK, byte));
}

/// The process that has the lock, if it is another than this.
pub(crate) fn lock_holder(fd: BorrowedFd<'_>, byte: u64) -> Result<Option<u32>, Failed> {
    checked("fcntl(F_GETLK)", "sys.shm.getlk", || {
        let mut record = record(libc::F_WRLCK, byte);
        fcntl_record(fd, libc::F_GETLK, &mut record)?;
        let is_locked = record.l_type != libc::F_UNLCK as libc::c_short;
        Ok(is_locked.then_some(u32::try_from(record.l_pid).unwrap_or(0)))
    })
}

/// A descriptor of another process, opened anew to read and write; `None` when there is no such process, or it has
/// none of that number.
pub(crate) fn descriptor_of(pid: u32, number: u64) -> Result<Option<OwnedFd>, Failed> {
    let failed = |source| Failed { call: "open /proc/…/fd", source };
    fault::errno("sys.shm.proc_fd").map_err(|errno| failed(io::Error::from_raw_os_error(errno)))?;
    let open = |path: &str| rustix::fs::open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
    at_descriptor(pid, number, open).map_err(failed)
}

/// Which process of that pid it is: the moment when it was started, in ticks since the machine was. `None` when there
/// is no such process, or nothing but its status is left.
pub(crate) fn start_time(pid: u32) -> Result<Option<u64>, Failed> {
    let failed = |source| Failed { call: "read /proc/…/stat", source };
    fault::errno("sys.shm.proc_stat").map_err(|errno| failed(io::Error::from_raw_os_error(errno)))?;
    // Of its first thread, which can end before the others: the moment stays where it is.
    let Some(first) = thread(&format!("/proc/{pid}")).map_err(failed)? else { return Ok(None) };
    let lives = !first.has_ended || living_thread(pid).map_err(failed)?.is_some();
    Ok(lives.then_some(first.started))
}

/// Whether descriptor `number` of a process is of that file. `None` when that cannot be seen.
pub(crate) fn has_open(pid: u32, number: u32, file: FileIdentity) -> Option<bool> {
    match at_descriptor(pid, number.into(), |path| rustix::fs::stat(path)) {
        Ok(Some(stat)) => Some(stat.st_dev == file.device && stat.st_ino == file.inode),
        Ok(None) => Some(false),
        Err(_) => None,
    }
}

/// What the kernel shows of a thread.
#[derive(Clone, Copy, Debug)]
struct Thread {
    /// It runs no more of its program, and may have closed its descriptors.
    has_ended: bool,
    /// When it was started, in ticks since the machine was.
    started: u64,
}

/// The thread of that folder in `/proc`; `None` when there is none.
fn thread(folder: &str) -> io::Result<Option<Thread>> {
    /// `PF_EXITING` of the kernel: set before a thread closes anything.
    const EXITING: u64 = 4;

    let Some(stat) = unless_gone(std::fs::read_to_string(format!("{folder}/stat")))? else { return Ok(None) };
    // `pid (name) state …`, see proc_pid_stat(5): the name may contain anything, so read from its last parenthesis.
    // Field 3 is the state, field 9 the flags, field 22 the moment.
    let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let number = |field: usize| fields.get(field - 3).and_then(|field| field.parse::<u64>().ok());
    let (Some(flags), Some(started)) = (number(9), number(22)) else { return Err(io::ErrorKind::InvalidData.into()) };
    let is_zombie = matches!(fields[0], "Z" | "X" | "x");
    Ok(Some(Thread { has_ended: is_zombie || flags & EXITING != 0, started }))
}

/// A thread of that process that has not ended: the first one for as long as it lives. `None` when there is no such
/// process, or it is a zombie.
fn living_thread(pid: u32) -> io::Result<Option<u32>> {
    let mut seen = Vec::new();
    loop {
        let folder = unless_gone(std::fs::read_dir(format!("/proc/{pid}/task")))?;
        let names = folder.into_iter().flatten().flatten().map(|entry| entry.file_name());
        let threads: Vec<u32> = names.filter_map(|name| name.to_str()?.parse().ok()).collect();
        for &number in &threads {
            if thread(&format!("/proc/{pid}/task/{number}"))?.is_some_and(|thread| !thread.has_ended) {
                return Ok(Some(number));
            }
        }
        // One may have started another, and ended since.
        if threads == seen {
            return Ok(None);
        }
        seen = threads;
    }
}

/// What `look` finds at the path of a descriptor of that process; `None` when it has none of that number, or there is
/// no such process.
fn at_descriptor<T>(pid: u32, number: u64, look: impl Fn(&str) -> Result<T, Errno>) -> io::Result<Option<T>> {
    let mut thread = pid;
    loop {
        let refused = match look(&format!("/proc/{pid}/task/{thread}/fd/{number}")) {
            Ok(found) => return Ok(Some(found)),
            Err(errno @ (Errno::NOENT | Errno::SRCH | Errno::ACCESS)) => errno,
            Err(errno) => return Err(errno.into()),
        };
        // The threads have their descriptors in common, but one that ends shows none any more.
        match living_thread(pid)? {
            Some(living) if living != thread => thread = living,
            Some(_) if refused == Errno::ACCESS => return Err(refused.into()),
            _ => return Ok(None),
        }
    }
}

fn unless_gone<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        // ESRCH: it ended between the two steps of the reading.
        Err(error) if error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The world in which this process's pids mean something.
pub(crate) fn pid_namespace() -> Result<u64, Failed> {
    checked("stat /proc/self/ns/pid", "sys.shm.namespace", || {
        rustix::fs::stat("/proc/self/ns/pid").map(|stat| stat.st_ino)
    })
}

/// This process.
pub(crate) fn pid() -> u32 {
    std::process::id()
}

/// Where POSIX shared memory has its names, see [shm_overview(7)](https://man7.org/linux/man-pages/man7/shm_overview.7.html).
pub(crate) const NAMES: &str = "/dev/shm";

/// Where that name is.
pub(crate) fn path_of(name: &str) -> PathBuf {
    Path::new(NAMES).join(name)
}

/// A new file among the named ones, which has no name yet; for its user alone.
pub(crate) fn nameless_file() -> Result<OwnedFd, Failed> {
    checked("open(O_TMPFILE)", "sys.shm.tmpfile", || {
        let fd = rustix::fs::open(NAMES, OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR)?;
        if fd.as_raw_fd() > 2 { Ok(fd) } else { rustix::io::fcntl_dupfd_cloexec(&fd, 3) }
    })
}

/// Finds the room for the file now, so that nobody who touches it later is killed for want of it.
pub(crate) fn reserve(fd: BorrowedFd<'_>, len: u64) -> Result<(), Failed> {
    checked("fallocate", "sys.shm.fallocate", || rustix::fs::fallocate(fd, rustix::fs::FallocateFlags::empty(), 0, len))
}

/// Gives a nameless file its name; false when another has it.
pub(crate) fn give_name(fd: BorrowedFd<'_>, name: &str) -> Result<bool, Failed> {
    let from = format!("/proc/self/fd/{}", fd.as_raw_fd());
    checked("linkat", "sys.shm.linkat", || {
        let link = rustix::fs::linkat(rustix::fs::CWD, &from, rustix::fs::CWD, path_of(name), AtFlags::SYMLINK_FOLLOW);
        match link {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => Ok(false),
            Err(errno) => Err(errno),
        }
    })
}

/// The file of that name; `None` when there is none.
pub(crate) fn open_name(name: &str, writable: bool) -> Result<Option<OwnedFd>, Failed> {
    let access = if writable { OFlags::RDWR } else { OFlags::RDONLY };
    let flags = access | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    checked("shm_open", "sys.shm.shm_open", || match rustix::fs::open(path_of(name), flags, Mode::empty()) {
        Ok(fd) if fd.as_raw_fd() > 2 => Ok(Some(fd)),
        Ok(fd) => rustix::io::fcntl_dupfd_cloexec(&fd, 3).map(Some),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    })
}

/// Removes the name; false when there is none.
pub(crate) fn remove_name(name: &str) -> Result<bool, Failed> {
    checked("shm_unlink", "sys.shm.shm_unlink", || match rustix::fs::unlink(path_of(name)) {
        Ok(()) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(errno),
    })
}

/// Which file has that name.
pub(crate) fn identity_of_name(name: &str) -> Option<FileIdentity> {
    let stat = rustix::fs::lstat(path_of(name)).ok()?;
    Some(FileIdentity { device: stat.st_dev, inode: stat.st_ino })
}

/// Takes the lock on an open file, for as long as it is open anywhere; false when another open file has it.
pub(crate) fn try_own(fd: BorrowedFd<'_>) -> Result<bool, Failed> {
    checked("flock", "sys.shm.flock", || {
        match rustix::fs::flock(fd, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(true),
            Err(Errno::WOULDBLOCK) => Ok(false),
            Err(errno) => Err(errno),
        }
    })
}

/// The user that this process makes files as.
pub(crate) fn user() -> u32 {
    rustix::process::geteuid().as_raw()
}

#[cfg(test)]
mod tests {
    use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

    use super::*;

    #[test]
    fn a_zombie_is_gone() {
        let this = pid();
        assert!(start_time(this).unwrap().is_some());
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let id = WaitId::Pid(Pid::from_child(&child));
        waitid(id, WaitIdOptions::EXITED | WaitIdOptions::NOWAIT).unwrap(); // and does not reap it
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
        assert!(stat.contains(") Z "), "{stat}");
        assert_eq!(start_time(child.id()).unwrap(), None);
        assert!(descriptor_of(child.id(), 0).unwrap().is_none());
        let file = FileIdentity { device: 0, inode: 0 };
        assert_eq!(has_open(child.id(), 0, file), Some(false));
        child.wait().unwrap();
        assert_eq!(start_time(child.id()).unwrap(), None);
    }
}
