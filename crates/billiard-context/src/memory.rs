//! How much memory a process has now.
//!
//! What the kernel's `getrusage` gives, and Python's `mem_rss` passes on, is the most that a process ever had: after one large
//! task it stays "over the limit" for good. Here is what it has at this moment, from
//! [`/proc/<pid>/status`](https://man7.org/linux/man-pages/man5/proc_pid_status.5.html). Limits, and what follows when one is
//! passed, are the pool's.

use std::{
    io,
    path::{Path, PathBuf},
};

use thiserror::Error;

use crate::sys;

/// The memory of a process that is resident, in bytes: in the machine's memory, not in swap and not merely reserved.
///
/// The kernel counts on each CPU for itself and adds up now and then, so each figure may be off by some hundred KiB per CPU.
///
/// ```
/// # fn main() -> Result<(), billiard_context::MemoryError> {
/// use billiard_context::MemoryUsage;
///
/// let before = MemoryUsage::of_this_process()?;
/// let large = vec![1u8; 64 << 20];
/// let after = MemoryUsage::of_this_process()?;
/// assert!(after.anonymous > before.anonymous + (32 << 20));
/// drop(large);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryUsage {
    /// All of it: the sum of the three kinds below.
    pub resident: u64,
    /// What the process has for itself: heap, stacks, what it has written to of private mappings. Pages that it still shares with the
    /// process that it was forked from are counted in both. This is what a limit on a process is best about.
    pub anonymous: u64,
    /// Pages of mapped files, its program and libraries among them: shared by all who map them, and given up under pressure.
    pub file: u64,
    /// Shared memory: memory files, POSIX and System V segments. Counted in every process that touches it.
    pub shared: u64,
    /// The most that was resident at a time, if the kernel tells. It begins anew when a program is executed; a forked child begins
    /// with what it was given.
    pub peak: Option<u64>,
}

impl MemoryUsage {
    /// Of this process, all its threads together.
    ///
    /// # Errors
    ///
    /// [`MemoryError::Unreadable`] without `/proc`.
    pub fn of_this_process() -> Result<Self, MemoryError> {
        Self::read(Path::new("/proc/self/status"), std::process::id())
    }

    /// Of the process of this pid. It is for the caller to know that the number was not reused: of a child that was not reaped
    /// it is certain.
    ///
    /// # Errors
    ///
    /// [`MemoryError`]; [`Ended`](MemoryError::Ended) when there is no such process, or it died before it was looked at or while it was.
    pub fn of(pid: u32) -> Result<Self, MemoryError> {
        Self::read(&PathBuf::from(format!("/proc/{pid}/status")), pid)
    }

    fn read(path: &Path, pid: u32) -> Result<Self, MemoryError> {
        let unreadable = |source| MemoryError::Unreadable { pid, source };
        match sys::read(path) {
            Ok(status) => parse(&String::from_utf8_lossy(&status), pid),
            Err(error) if is_no_process(&error) && sys::read(Path::new("/proc/self/status")).is_ok() => {
                Err(MemoryError::Ended { pid })
            }
            Err(source) => Err(unreadable(source)),
        }
    }
}

/// The folder is not there, or was there and its process ended.
fn is_no_process(error: &io::Error) -> bool {
    use rustix::io::Errno;

    matches!(Errno::from_io_error(error), Some(Errno::NOENT | Errno::SRCH))
}

fn parse(status: &str, pid: u32) -> Result<MemoryUsage, MemoryError> {
    let field = |name: &str| {
        let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        value.trim().strip_suffix("kB")?.trim_end().parse::<u64>().ok()?.checked_mul(1 << 10)
    };
    // A process that has ended and was not reaped has no memory, and neither has a thread of the kernel.
    let Some(resident) = field("VmRSS") else { return Err(MemoryError::Ended { pid }) };
    let kinds = (field("RssAnon"), field("RssFile"), field("RssShmem"));
    let (Some(anonymous), Some(file), Some(shared)) = kinds else {
        let source = io::Error::new(io::ErrorKind::InvalidData, "RssAnon, RssFile or RssShmem is missing");
        return Err(MemoryError::Unreadable { pid, source });
    };
    Ok(MemoryUsage { resident, anonymous, file, shared, peak: field("VmHWM") })
}

/// Why a process's memory is not known.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum MemoryError {
    /// There is no such process, or it has ended and was not reaped yet, or it is a thread of the kernel: it has no memory.
    #[error("process {pid} has no memory: it has ended, or there is none of that number")]
    Ended {
        /// Its pid.
        pid: u32,
    },
    /// The kernel does not tell.
    #[error("the memory of process {pid} cannot be read: is `/proc` mounted?")]
    Unreadable {
        /// Its pid.
        pid: u32,
        /// Why not.
        source: io::Error,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Name:\tVmRSS: 7 kB\nState:\tR (running)\nVmPeak:\t  999999 kB\nVmHWM:\t    5000 kB\nVmRSS:\t    4000 kB\n\
        RssAnon:\t    1000 kB\nRssFile:\t    2500 kB\nRssShmem:\t     500 kB\nThreads:\t1\n";

    #[test]
    fn the_fields_are_read_in_bytes() {
        let usage = parse(STATUS, 7).unwrap();
        assert_eq!((usage.resident, usage.anonymous), (4000 << 10, 1000 << 10));
        assert_eq!((usage.file, usage.shared, usage.peak), (2500 << 10, 500 << 10, Some(5000 << 10)));
        assert_eq!(parse(&STATUS.replace("VmHWM", "VmXYZ"), 7).unwrap().peak, None);
    }

    #[test]
    fn what_is_missing_is_an_error_not_a_zero() {
        assert!(matches!(parse("Name:\tx\nState:\tZ (zombie)\n", 7), Err(MemoryError::Ended { pid: 7 })));
        for field in ["RssAnon", "RssFile", "RssShmem"] {
            let status = STATUS.replace(field, "RssOther");
            assert!(matches!(parse(&status, 7), Err(MemoryError::Unreadable { pid: 7, .. })), "{field}");
        }
        let too_large = STATUS.replace("1000 kB", "18446744073709551615 kB");
        assert!(matches!(parse(&too_large, 7), Err(MemoryError::Unreadable { .. })));
    }
}
