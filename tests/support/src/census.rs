//! Counting what a process holds, and who descends from it.

use std::{
    collections::HashMap,
    fs,
    time::{Duration, Instant},
};

/// What a process holds at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Census {
    /// Open descriptors.
    pub descriptors: usize,
    /// Threads.
    pub threads: usize,
    /// Living descendants, zombies included.
    pub descendants: usize,
}

impl Census {
    /// Counts for this process.
    ///
    /// # Panics
    ///
    /// Without `/proc`.
    #[must_use]
    pub fn take() -> Self {
        let count = |path: &str| fs::read_dir(path).expect("/proc is there").count();
        Self {
            descriptors: count("/proc/self/fd") - 1, // the one that reads the folder
            threads: count("/proc/self/task"),
            descendants: descendants(std::process::id()).len(),
        }
    }
}

/// The parent of every process, by pid.
fn parents() -> HashMap<u32, u32> {
    let mut parents = HashMap::new();
    for entry in fs::read_dir("/proc").expect("/proc is there").flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // `pid (name) state ppid …`: the name may contain anything, so read from its last parenthesis.
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        let fields = stat.rsplit_once(')').map(|(_, fields)| fields.split_whitespace());
        if let Some(parent) = fields.and_then(|mut fields| fields.nth(1)).and_then(|ppid| ppid.parse().ok()) {
            parents.insert(pid, parent);
        }
    }
    parents
}

/// Every process that descends from `ancestor`, zombies included.
#[must_use]
pub fn descendants(ancestor: u32) -> Vec<u32> {
    let parents = parents();
    let descends = |mut pid: u32| {
        // A pid may be reused while the table is read: never follow more links than there are processes.
        for _ in 0..parents.len() {
            match parents.get(&pid) {
                Some(&parent) if parent == ancestor => return true,
                Some(&parent) => pid = parent,
                None => return false,
            }
        }
        false
    };
    parents.keys().copied().filter(|&pid| descends(pid)).collect()
}

/// Whether a process of that pid exists and is not a zombie.
#[must_use]
pub fn is_alive(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit_once(')').is_some_and(|(_, fields)| fields.trim_start().starts_with(['Z', 'X'])))
}

/// The letter that the kernel has for what a process does: `T` for a stopped one, `Z` for a zombie. `None` when there is no such process.
#[must_use]
pub fn state(pid: u32) -> Option<char> {
    fs::read_to_string(format!("/proc/{pid}/stat")).ok()?.rsplit_once(')')?.1.trim_start().chars().next()
}

/// The parent of a process; `None` when there is no such process.
#[must_use]
pub fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// The environment variable that marks whoever descends from a program, wherever that is reparented to.
const MARK: &str = "BILLIARD_TEST_MARK";

/// The living processes that were executed with `BILLIARD_TEST_MARK` set to this, and those that were forked off them.
///
/// # Panics
///
/// Without `/proc`.
#[must_use]
pub fn marked(mark: &str) -> Vec<u32> {
    let mark = format!("{MARK}={mark}");
    fs::read_dir("/proc")
        .expect("/proc is there")
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|&byte| byte == 0).any(|variable| variable == mark.as_bytes()) && is_alive(*pid)
        })
        .collect()
}

/// Looks again and again until `condition` holds; false when it did not within `seconds`.
#[must_use]
pub fn eventually(seconds: u64, mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + Duration::from_secs(seconds);
    while !condition() {
        if Instant::now() > end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    true
}
