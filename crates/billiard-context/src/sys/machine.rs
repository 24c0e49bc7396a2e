//! What this machine and process have: CPUs, files of the kernel, private folders, descriptors by number.

use std::{fs::File, io, os::fd::AsRawFd, path::Path};

use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
    process::{Resource, getrlimit},
};

use super::faulty;
use crate::Signal;

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
pub(crate) fn random<const N: usize>() -> io::Result<[u8; N]> {
    faulty("sys.context.getrandom")?;
    let mut bytes = [0; N];
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

/// What [`set_death_signal`] has set last.
pub(crate) fn death_signal() -> io::Result<Option<Signal>> {
    faulty("sys.context.prctl")?;
    Ok(rustix::process::parent_process_death_signal()?.and_then(|signal| Signal::from_raw(signal.as_raw())))
}

/// Asks for a signal, or none, when the thread ends that forked this process.
pub(crate) fn set_death_signal(signal: Option<Signal>) -> io::Result<()> {
    faulty("sys.context.prctl")?;
    Ok(rustix::process::set_parent_process_death_signal(signal.map(Signal::as_rustix))?)
}
