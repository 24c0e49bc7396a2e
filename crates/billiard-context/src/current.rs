//! What a process knows of itself.

use std::sync::{
    OnceLock,
    atomic::{AtomicBool, Ordering},
};

use crate::Error;

static INITIALIZED: AtomicBool = AtomicBool::new(false);
static CHILD: OnceLock<Child> = OnceLock::new();

struct Child {
    name: String,
    daemon: bool,
    may_have_children: bool,
}

/// This process, as [`multiprocessing.current_process`](https://docs.python.org/3/library/multiprocessing.html#multiprocessing.current_process) has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Current {
    /// The name that its starter gave it; `MainProcess` for the program itself.
    pub name: &'static str,
    /// Whether it was started as a daemonic process.
    pub daemon: bool,
    /// Its pid.
    pub pid: u32,
}

/// Who this process is.
#[must_use]
pub fn current() -> Current {
    let (name, daemon) = CHILD.get().map_or(("MainProcess", false), |child| (&child.name, child.daemon));
    Current { name, daemon, pid: std::process::id() }
}

pub(crate) fn set_initialized() {
    INITIALIZED.store(true, Ordering::Relaxed);
}

pub(crate) fn become_child(name: String, daemon: bool, may_have_children: bool) {
    let _ = CHILD.set(Child { name, daemon, may_have_children });
}

/// Whether this process may start others at all.
pub(crate) fn may_start() -> Result<(), Error> {
    if !INITIALIZED.load(Ordering::Relaxed) {
        return Err(Error::NotInitialized);
    }
    match CHILD.get() {
        Some(child) if !child.may_have_children => Err(Error::DaemonicProcess),
        _ => Ok(()),
    }
}
