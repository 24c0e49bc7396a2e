//! Signals to processes that the tests have started.

use std::fs;

use crate::census::{descendants, eventually, is_alive, state};

/// Sends a signal to a process that descends from this one.
///
/// # Panics
///
/// When it does not.
pub fn signal(pid: u32, signal: i32) {
    assert!(try_signal(pid, signal), "{pid} is no descendant");
}

/// The same, if it still is one; whether it is.
pub fn try_signal(pid: u32, signal: i32) -> bool {
    let is_ours = descendants(std::process::id()).contains(&pid);
    if is_ours {
        // SAFETY: a signal to a process that descends from this one.
        unsafe { libc::kill(pid.cast_signed(), signal) };
    }
    is_ours
}

/// The living workers of this program's pools.
#[must_use]
pub fn pool_workers() -> Vec<u32> {
    let is_worker =
        |pid: &u32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.starts_with("PoolWorker"));
    descendants(std::process::id()).into_iter().filter(|pid| is_alive(*pid) && is_worker(pid)).collect()
}

/// Processes that are stopped. They go on at the latest when this is dropped, so that a test that fails ends.
#[derive(Debug)]
#[must_use = "they go on when this is dropped"]
pub struct Stopped(Vec<u32>);

impl Stopped {
    /// Stops them, and waits until they are.
    ///
    /// # Panics
    ///
    /// When one of them does not descend from this process, or does not stop.
    pub fn new(pids: &[u32]) -> Self {
        let stopped = Self(pids.to_vec());
        for &pid in pids {
            signal(pid, libc::SIGSTOP);
        }
        assert!(eventually(30, || pids.iter().all(|&pid| state(pid) == Some('T'))), "{pids:?} do not stop");
        stopped
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let family = descendants(std::process::id());
        for &pid in self.0.iter().filter(|pid| family.contains(pid)) {
            signal(pid, libc::SIGCONT);
        }
    }
}
