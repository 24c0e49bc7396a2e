//! Whether the kernel's OOM killer was at work, as its counters say.
//!
//! A process that it kills has died of SIGKILL, like any other that somebody killed. What tells them apart is a
//! counter, which the kernel raises *before* it sends that signal: so whoever reaps such a process finds it raised. The counter is
//! that of the [control group](crate::cgroup) which the victim belonged to, whosesoever limit was reached; it does not say which
//! process of the group was hit. This module reads counters. It does not know who died.

use std::{
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    cgroup::{Texts, Version, is_missing},
    sys,
};

/// Watches for kills by the kernel's OOM killer among the processes of a control group.
///
/// Made before a process is started, and asked after one was found to have died by SIGKILL that nobody here has sent. The
/// answer is a likelihood: the counter is the group's, so a process of the same group that was killed at about the same time is taken
/// for it. Where there is no control group with memory accounting, the counter is that of the whole machine.
///
/// It reads two small files each time, and holds no descriptor. It never fails: what cannot be read is no evidence. A fork
/// copies it, and both copies count from there.
///
/// ```
/// use billiard_context::OomWatch;
///
/// let mut watch = OomWatch::of_this_process();
/// // … a child is started, and dies by SIGKILL …
/// if watch.killed_since() {
///     println!("likely killed by the kernel, for want of memory");
/// }
/// ```
#[derive(Clone, Debug)]
pub struct OomWatch {
    /// Of the watched group, if it has one.
    group: Option<Counter>,
    machine: Counter,
}

impl OomWatch {
    /// Watches the control group that this process is in; its children are in the same, unless somebody moves them.
    #[must_use]
    pub fn of_this_process() -> Self {
        Self::new(Texts::read(None).ok())
    }

    /// Watches the control group that the process of this pid is in now. Without such a process it watches the machine.
    #[must_use]
    pub fn of(pid: u32) -> Self {
        Self::new(Texts::read(Some(pid)).ok())
    }

    fn new(texts: Option<Texts>) -> Self {
        let group = texts.and_then(|texts| counter_file(Path::new("/"), &texts));
        Self { group: group.map(|(_, file)| Counter::new(file)), machine: Counter::new("/proc/vmstat".into()) }
    }

    /// Whether the OOM killer has killed a process of the group since this was made, one more than earlier calls have told of.
    ///
    /// Each call that returns true uses up one kill, so that two children that died of one shortage are both found. A kill that nobody
    /// asked for is forgotten ten seconds after the call that could have told of it.
    pub fn killed_since(&mut self) -> bool {
        self.killed_since_at(Instant::now())
    }

    fn killed_since_at(&mut self, now: Instant) -> bool {
        let machine = self.machine.take(now);
        self.group.as_mut().map_or(machine, |group| group.take(now))
    }

    /// As [`killed_since`](Self::killed_since), for a child that may have been moved to another group: its pid, which must not have been
    /// reaped yet.
    ///
    /// If it is in another group, that group's counter has to be above zero, and the machine's has to have risen. The first version of
    /// control groups no longer tells where a dead process was: there, this is the same as `killed_since`.
    pub fn killed(&mut self, child: u32) -> bool {
        let texts = Texts::read(Some(child)).unwrap_or_default();
        self.killed_in(Path::new("/"), &texts, Instant::now())
    }

    fn killed_in(&mut self, root: &Path, texts: &Texts, now: Instant) -> bool {
        match counter_file(root, texts) {
            Some((Version::V2, file)) if self.group.as_ref().is_none_or(|group| group.file != file) => {
                let machine = self.machine.take(now);
                machine && count(&file).is_some_and(|kills| kills > 0)
            }
            _ => self.killed_since_at(now),
        }
    }
}

/// Over the children of this process.
static OURS: Mutex<Option<OomWatch>> = Mutex::new(None);

/// Begins to watch over the children of this process, or looks again after a while: a kill from long ago was none of those that are
/// to come.
pub(crate) fn watch() {
    let now = Instant::now();
    match &mut *ours() {
        Some(watch) if now.saturating_duration_since(watch.machine.looked) < ONE_SHORTAGE => {}
        Some(watch) => {
            watch.machine.look(now);
            watch.group.iter_mut().for_each(|group| group.look(now));
        }
        none => *none = Some(OomWatch::of_this_process()),
    }
}

/// Whether the OOM killer has killed one of the children of this process, most likely, that is not accounted for.
pub(crate) fn killed_one_of_ours() -> bool {
    ours().as_mut().is_some_and(OomWatch::killed_since)
}

fn ours() -> MutexGuard<'static, Option<OomWatch>> {
    OURS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The file with the counter of the process's group: its own, or the nearest around it with memory accounting.
///
/// The second version counts for each group what happens in those inside it too, and beside that, in `memory.events.local`, what hits its
/// own processes: the better evidence.
fn counter_file(root: &Path, texts: &Texts) -> Option<(Version, PathBuf)> {
    let place = texts.place(root, "memory")?;
    let names: &[&str] = match place.version {
        Version::V1 => &["memory.oom_control"],
        Version::V2 => &["memory.events.local", "memory.events"],
    };
    let mut files = place.upwards().flat_map(|folder| names.iter().map(|name| folder.join(name)));
    let file = files.find(|file| !sys::read(file).is_err_and(|error| is_missing(&error)))?;
    Some((place.version, file))
}

/// The number in the line `oom_kill N` of a file: those of both versions of control groups and `/proc/vmstat` have it alike.
fn count(file: &Path) -> Option<u64> {
    let contents = sys::read(file).ok()?;
    let mut lines = contents.split(|&byte| byte == b'\n');
    let number = lines.find_map(|line| line.strip_prefix(b"oom_kill "))?;
    std::str::from_utf8(number).ok()?.trim().parse().ok()
}

/// A counter that is looked at now and then.
#[derive(Clone, Debug)]
struct Counter {
    file: PathBuf,
    /// What it was at the last look; `None` while it could not be read.
    seen: Option<u64>,
    /// Of the kills seen, those not told of.
    left: u64,
    looked: Instant,
}

/// The victims of one shortage end within this time of each other. A kill that is left over longer was somebody else.
const ONE_SHORTAGE: Duration = Duration::from_secs(10);

impl Counter {
    fn new(file: PathBuf) -> Self {
        Self { seen: count(&file), file, left: 0, looked: Instant::now() }
    }

    /// Notes the kills up to now, so that they are forgotten in time.
    fn look(&mut self, now: Instant) {
        if now.saturating_duration_since(self.looked) > ONE_SHORTAGE {
            self.left = 0;
        }
        let count = count(&self.file);
        // A counter that could not be read before, or has become smaller, is another group's of the same name: it is new.
        self.left += count.zip(self.seen).map_or(0, |(count, seen)| count.saturating_sub(seen));
        (self.seen, self.looked) = (count, now);
    }

    /// Tells of one kill, if there is one.
    fn take(&mut self, now: Instant) -> bool {
        self.look(now);
        let told = self.left > 0;
        self.left -= u64::from(told);
        told
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::cgroup::fixture::Machine;

    const V2: &str = "30 23 0:26 / /cg rw - cgroup2 cgroup2 rw\n";
    const V1: &str = "32 31 0:29 / /mem rw - cgroup cgroup rw,memory\n30 23 0:26 / /cg rw - cgroup2 cgroup2 rw\n";

    fn watch(machine: &Machine) -> OomWatch {
        let group = counter_file(machine.root(), &machine.texts).map(|(_, file)| Counter::new(file));
        OomWatch { group, machine: Counter::new(machine.root().join("vmstat")) }
    }

    fn set(machine: &Machine, file: &str, kills: u64) {
        fs::write(machine.root().join(file), format!("low 0\noom 7\noom_kill {kills}\noom_group_kill 9\n")).unwrap();
    }

    #[test]
    fn each_version_has_its_counter() {
        let files = [("mem/a/memory.oom_control", "oom_kill_disable 1\nunder_oom 0\noom_kill 3\n")];
        let machine = Machine::new(V1, "3:memory:/a\n0::/a\n", &files);
        let (version, file) = counter_file(machine.root(), &machine.texts).unwrap();
        assert_eq!((version, count(&file)), (Version::V1, Some(3)));

        let files = [("cg/a/memory.events", "oom_kill 5\n"), ("cg/a/memory.events.local", "oom 9\noom_kill 4\n")];
        let machine = Machine::new(V2, "0::/a\n", &files);
        let (version, file) = counter_file(machine.root(), &machine.texts).unwrap();
        assert_eq!((version, count(&file)), (Version::V2, Some(4)), "the group's own processes alone");
    }

    #[test]
    fn a_group_without_accounting_counts_for_the_one_around_it() {
        let files = [("cg/a/memory.events", "oom_kill 5\n"), ("cg/a/b/c/cgroup.procs", "")];
        let machine = Machine::new(V2, "0::/a/b/c\n", &files);
        assert_eq!(counter_file(machine.root(), &machine.texts).and_then(|(_, file)| count(&file)), Some(5));
        let machine = Machine::new(V2, "0::/a/b/c\n", &files[1..]);
        assert_eq!(counter_file(machine.root(), &machine.texts), None);
    }

    #[test]
    fn each_kill_is_told_of_once_and_old_ones_are_forgotten() {
        let machine = Machine::new(V2, "0::/a\n", &[("cg/a/memory.events.local", "oom_kill 2\n")]);
        let file = "cg/a/memory.events.local";
        let (mut watch, begin) = (watch(&machine), Instant::now());
        assert!(!watch.killed_since_at(begin), "what was before does not count");
        set(&machine, file, 4);
        let told = [(); 3].map(|()| watch.killed_since_at(begin));
        assert_eq!(told, [true, true, false]);

        set(&machine, file, 7);
        assert!(watch.killed_since_at(begin + ONE_SHORTAGE));
        assert!(watch.killed_since_at(begin + ONE_SHORTAGE * 2), "one more, as long ago as may be");
        assert!(!watch.killed_since_at(begin + ONE_SHORTAGE * 3 + Duration::from_millis(1)), "and one too long ago");

        set(&machine, file, 8);
        let long_after = begin + ONE_SHORTAGE * 1000;
        assert!(watch.killed_since_at(long_after), "nobody has looked since: who knows when it was");
    }

    #[test]
    fn the_machine_counts_where_no_group_does() {
        let machine = Machine::new("", "", &[("vmstat", "pgfault 12\noom_kill 1\n")]);
        let (mut watch, now) = (watch(&machine), Instant::now());
        set(&machine, "vmstat", 2);
        assert_eq!([(); 2].map(|()| watch.killed_since_at(now)), [true, false]);
    }

    #[test]
    fn unreadable_and_renewed_counters_are_no_evidence() {
        let file = "cg/a/memory.events.local";
        let machine = Machine::new(V2, "0::/a\n", &[(file, "oom_kill 5\n"), ("vmstat", "oom_kill 5\n")]);
        let (mut watch, now) = (watch(&machine), Instant::now());
        for contents in ["", "oom_kill\n", "oom_kill many\n", "oom_kill 2\n", "\u{0}"] {
            fs::write(machine.root().join(file), contents).unwrap();
            assert!(!watch.killed_since_at(now), "{contents:?}");
        }
        fs::remove_file(machine.root().join(file)).unwrap();
        assert!(!watch.killed_since_at(now));
        set(&machine, file, 9);
        assert!(!watch.killed_since_at(now), "it could not be read before: when were they?");
        set(&machine, file, 10);
        assert!(watch.killed_since_at(now));
    }

    #[test]
    fn a_child_in_another_group_needs_two_witnesses() {
        let files = [("cg/a/memory.events.local", "oom_kill 0\n"), ("cg/b/memory.events.local", "oom_kill 0\n")];
        let machine = Machine::new(V2, "0::/a\n", &files);
        set(&machine, "vmstat", 3);
        let (mut watch, now) = (watch(&machine), Instant::now());
        let moved = Texts { cgroup: b"0::/b\n".into(), ..machine.texts.clone() };
        let mut killed = |texts: &Texts| watch.killed_in(machine.root(), texts, now);
        assert!(!killed(&moved));
        set(&machine, "cg/b/memory.events.local", 1);
        assert!(!killed(&moved), "the machine's counter did not rise");
        set(&machine, "vmstat", 4);
        assert!(!killed(&machine.texts), "the watched group's did not");
        set(&machine, "vmstat", 5);
        assert!(killed(&moved));
        assert!(!killed(&moved));
        set(&machine, "cg/a/memory.events.local", 1);
        set(&machine, "vmstat", 6);
        assert!(killed(&machine.texts));
        assert!(!killed(&moved), "that kill was told of");
    }

    #[test]
    fn this_machine_counts() {
        assert!(OomWatch::of_this_process().machine.seen.is_some());
        assert!(OomWatch::of(u32::MAX).group.is_none());
    }
}
