//! How many CPUs this process can keep busy.
//!
//! Two things take CPUs away from a process: the set that it may run on, which the kernel tells, and the time that its
//! [control groups](crate::cgroup) may use, which is in their files. Neither is a matter of how many CPUs the machine has,
//! and this module does not ask.

use std::{
    io,
    num::NonZeroUsize,
    path::{Path, PathBuf},
};

use thiserror::Error;

use crate::{
    cgroup::{Texts, Version, is_missing},
    sys,
};

/// How many CPUs the calling thread, and what it starts, can keep busy: at least 1.
///
/// It is the smaller of two numbers:
///
/// - the CPUs that the thread may run on
///   ([`sched_getaffinity(2)`](https://man7.org/linux/man-pages/man2/sched_getaffinity.2.html), which knows of cpusets as well);
/// - the CPU time that the control group of this process may use, and each group around it, in whole CPUs and rounded down: who
///   keeps two CPUs busy where one and a half are allowed stands still a quarter of the time. Both versions of the kernel's
///   interface are read: `cpu.max` of [the second](https://docs.kernel.org/admin-guide/cgroup-v2.html#cpu-interface-files), `cpu.cfs_quota_us` of
///   [the first](https://docs.kernel.org/scheduler/sched-bwc.html).
///
/// A quota counts if this process can see it: groups outside a container, and those of a hierarchy that is not mounted, cannot be
/// seen. Python's [`os.cpu_count`](https://docs.python.org/3/library/os.html#os.cpu_count) counts the machine's CPUs
/// instead; its `os.process_cpu_count` knows the first number, not the second. The answer is not kept: it may be another when asked again.
///
/// ```
/// # fn main() -> Result<(), billiard_context::CpuCountError> {
/// let workers = billiard_context::cpu_count()?;
/// assert!(workers.get() >= 1);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// [`CpuCountError`] where the answer could be wrong: without `/proc`, and when a quota is there but cannot be read.
pub fn cpu_count() -> Result<NonZeroUsize, CpuCountError> {
    let allowed = sys::allowed_cpus().map_err(|source| CpuCountError::Affinity { source })?;
    let texts = Texts::read(None).map_err(|(path, source)| CpuCountError::NoProc { path, source })?;
    let whole = whole_cpus(Path::new("/"), &texts)?.map_or(allowed, |quota| quota.min(allowed));
    Ok(NonZeroUsize::new(whole).unwrap_or(NonZeroUsize::MIN))
}

/// Why [`cpu_count`] has no answer that is certainly right. A program that can live with less says so:
/// `cpu_count().unwrap_or(NonZero::<usize>::MIN)`.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CpuCountError {
    /// The kernel does not tell where this thread may run.
    #[error("the kernel does not tell on which CPUs this thread may run: say how many to use")]
    Affinity {
        /// Its answer to `sched_getaffinity`.
        source: io::Error,
    },
    /// `/proc` is not mounted, or hidden: whether this process has a quota cannot be known.
    #[error("{} cannot be read, so that a quota of CPU time would not be seen: mount `/proc`, or say how many to use", path.display())]
    NoProc {
        /// The file.
        path: PathBuf,
        /// Why it cannot be read.
        source: io::Error,
    },
    /// A file with a quota is there, but cannot be read.
    #[error("the quota of CPU time in {} cannot be read: say how many CPUs to use", path.display())]
    Quota {
        /// The file.
        path: PathBuf,
        /// Why it cannot be read.
        source: io::Error,
    },
}

/// The whole CPUs in the smallest quota of the group and of those around it; `None` without any quota.
fn whole_cpus(root: &Path, texts: &Texts) -> Result<Option<usize>, CpuCountError> {
    let Some(place) = texts.place(root, "cpu") else { return Ok(None) };
    let mut smallest: Option<usize> = None;
    for folder in place.upwards() {
        let quota = match place.version {
            Version::V1 => first_version(folder)?,
            Version::V2 => read(folder.join("cpu.max"), maximum)?.flatten(),
        };
        smallest = smallest.into_iter().chain(quota).min();
    }
    Ok(smallest)
}

/// The kernel's period in microseconds, where nobody has set another.
const PERIOD: u64 = 100_000;

/// `max 100000` is no quota, `150000 100000` one and a half CPUs. The outer option is `None` for what is neither.
fn maximum(text: &str) -> Option<Option<usize>> {
    let mut words = text.split_whitespace();
    let quota = words.next()?;
    let period = words.next().map_or(Some(PERIOD), |period| period.parse().ok())?;
    if quota == "max" { Some(None) } else { whole(quota.parse().ok()?, period).map(Some) }
}

/// The quota in two files: the time, where -1 is none, and the period.
fn first_version(folder: &Path) -> Result<Option<usize>, CpuCountError> {
    let quota = read(folder.join("cpu.cfs_quota_us"), |text| text.trim().parse::<i64>().ok())?;
    let Some(Ok(quota)) = quota.map(u64::try_from) else { return Ok(None) };
    let whole = read(folder.join("cpu.cfs_period_us"), |text| whole(quota, text.trim().parse().ok()?))?;
    Ok(whole.or(usize::try_from(quota / PERIOD).ok()))
}

fn whole(quota: u64, period: u64) -> Option<usize> {
    Some(usize::try_from(quota.checked_div(period)?).unwrap_or(usize::MAX))
}

/// What a file says; `None` when it is not there: the group has no such controller, or has just been removed.
fn read<T>(path: PathBuf, parse: impl FnOnce(&str) -> Option<T>) -> Result<Option<T>, CpuCountError> {
    let contents = match sys::read(&path) {
        Ok(contents) => contents,
        Err(error) if is_missing(&error) => return Ok(None),
        Err(source) => return Err(CpuCountError::Quota { path, source }),
    };
    let parsed = std::str::from_utf8(&contents).ok().and_then(parse);
    match parsed {
        Some(parsed) => Ok(Some(parsed)),
        None => {
            let what = format!("unknown contents: {}", contents.escape_ascii());
            Err(CpuCountError::Quota { path, source: io::Error::new(io::ErrorKind::InvalidData, what) })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::fixture::Machine;

    const V2: &str = "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
    const V1: &str = "32 31 0:29 / /cpu rw - cgroup cgroup rw,cpu,cpuacct\n";

    fn quota(mounts: &str, groups: &str, files: &[(&str, &str)]) -> Option<usize> {
        let machine = Machine::new(mounts, groups, files);
        whole_cpus(machine.root(), &machine.texts).unwrap()
    }

    #[test]
    fn the_smallest_quota_on_the_way_up_counts_wherever_it_is() {
        let at = |top, middle, own| {
            let files = [
                ("sys/fs/cgroup/cpu.max", top),
                ("sys/fs/cgroup/a/cpu.max", middle),
                ("sys/fs/cgroup/a/b/cpu.max", own),
            ];
            quota(V2, "0::/a/b\n", &files)
        };
        let none = "max 100000\n";
        assert_eq!(at(none, none, none), None);
        assert_eq!(at(none, none, "300000 100000\n"), Some(3));
        assert_eq!(at(none, "300000 100000\n", none), Some(3));
        assert_eq!(at("300000 100000\n", none, none), Some(3), "a container sees its own group as the topmost");
        assert_eq!(at(none, "200000 100000\n", "400000 100000\n"), Some(2));
        assert_eq!(at("800000 100000\n", "400000 100000\n", "40000 10000\n"), Some(4));
        assert_eq!(at(none, "200000 100000\n", "350000 50000\n"), Some(2));
    }

    #[test]
    fn quotas_are_rounded_down() {
        let of = |text| quota(V2, "0::/\n", &[("sys/fs/cgroup/cpu.max", text)]);
        assert_eq!(of("199999 100000\n"), Some(1));
        assert_eq!(of("250000"), Some(2), "without a period: the kernel's own");
        assert_eq!(of("1000 100000\n"), Some(0), "for `cpu_count` to say 1");
        assert_eq!(of("18446744073709551615 1\n"), Some(usize::MAX));
    }

    #[test]
    fn the_first_version_has_its_quota_in_two_files() {
        let of = |quota_us, period_us| {
            let files = [("cpu/a/cpu.cfs_quota_us", quota_us), ("cpu/a/cpu.cfs_period_us", period_us)];
            quota(V1, "3:cpu,cpuacct:/a\n", &files)
        };
        assert_eq!(of("-1\n", "100000\n"), None);
        assert_eq!(of("250000\n", "100000\n"), Some(2));
        assert_eq!(of("250000\n", "50000\n"), Some(5));
        let nested = [
            ("cpu/cpu.cfs_quota_us", "-1\n"),
            ("cpu/cpu.cfs_period_us", "100000\n"),
            ("cpu/a/cpu.cfs_quota_us", "200000\n"),
            ("cpu/a/b/cpu.cfs_quota_us", "-1\n"),
        ];
        assert_eq!(quota(V1, "3:cpu,cpuacct:/a/b\n", &nested), Some(2));
    }

    #[test]
    fn with_both_versions_the_quota_is_where_the_controller_is() {
        let mounts = format!("{V1}{V2}");
        let files = [
            ("sys/fs/cgroup/x/cpu.max", "100000 100000\n"),
            ("cpu/x/cpu.cfs_quota_us", "300000\n"),
            ("cpu/x/cpu.cfs_period_us", "100000\n"),
        ];
        assert_eq!(quota(&mounts, "3:cpu,cpuacct:/x\n0::/x\n", &files), Some(3));
        assert_eq!(quota(&mounts, "3:memory:/x\n0::/x\n", &files), Some(1));
    }

    #[test]
    fn without_files_groups_or_mounts_there_is_no_quota() {
        assert_eq!(quota(V2, "0::/a\n", &[("sys/fs/cgroup/a/cgroup.procs", "")]), None);
        assert_eq!(quota("", "0::/a\n", &[]), None);
        assert_eq!(quota(V2, "", &[]), None);
    }

    #[test]
    fn a_quota_that_cannot_be_read_is_an_error_that_names_the_file() {
        for text in ["", "many 100000\n", "100000 long\n", "100000 0\n", "-5 100000\n", "\u{1}"] {
            let machine = Machine::new(V2, "0::/a\n", &[("sys/fs/cgroup/a/cpu.max", text)]);
            let error = whole_cpus(machine.root(), &machine.texts).unwrap_err();
            assert!(error.to_string().contains("/a/cpu.max"), "{text:?}: {error}");
        }
        let machine = Machine::new(V2, "0::/a\n", &[("sys/fs/cgroup/a/cpu.max/a folder", "")]);
        assert!(matches!(whole_cpus(machine.root(), &machine.texts), Err(CpuCountError::Quota { .. })));
    }
}
