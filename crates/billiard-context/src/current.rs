//! What a process knows of itself and of its parent.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::atomic::{AtomicBool, AtomicPtr, Ordering},
    time::{Duration, Instant},
};

use crate::{Error, protocol::ChildIdentity, sys};

static INITIALIZED: AtomicBool = AtomicBool::new(false);
/// Null in the program itself; in a child, what it was told, which it keeps for ever.
static CHILD: AtomicPtr<ChildIdentity> = AtomicPtr::new(std::ptr::null_mut());

/// This process, as [`multiprocessing.current_process`](https://docs.python.org/3/library/multiprocessing.html#multiprocessing.current_process) has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Current {
    /// The name that its starter gave it; `MainProcess` for the program itself.
    pub name: &'static str,
    /// Whether it was started as a daemonic process.
    pub daemon: bool,
    /// Its pid.
    pub pid: u32,
    /// The number that its starter gave it among its like: that of a pool's worker, for example.
    pub index: Option<u32>,
}

/// Who this process is.
#[must_use]
pub fn current() -> Current {
    let child = child();
    Current {
        name: child.map_or("MainProcess", |child| &child.name),
        daemon: child.is_some_and(|child| child.daemon),
        pid: std::process::id(),
        index: child.and_then(|child| child.index),
    }
}

fn child() -> Option<&'static ChildIdentity> {
    // Acquire: pairs with the Release in `become_child`.
    let child = CHILD.load(Ordering::Acquire);
    // SAFETY: it is null or was leaked by `become_child`, and nobody writes to it.
    unsafe { child.as_ref() }
}

/// The process that started this one: [`multiprocessing.parent_process`](https://docs.python.org/3/library/multiprocessing.html#multiprocessing.parent_process).
///
/// For a child of `forkserver` and `spawn` that is not its parent to the kernel, which is the helper process. When it ends, this
/// process ends within milliseconds, by SIGKILL.
#[derive(Debug)]
pub struct Parent {
    name: &'static str,
    pid: u32,
    pidfd: OwnedFd,
}

/// The process that started this one; `None` in the program itself.
///
/// # Errors
///
/// [`Error::Io`] when it has ended, or when this process may open no more files.
pub fn parent() -> Result<Option<Parent>, Error> {
    let Some(child) = child() else { return Ok(None) };
    let (pid, name) = (child.starter.0, child.starter.1.as_str());
    Ok(Some(Parent { name, pid, pidfd: sys::pidfd_open(pid)? }))
}

impl Parent {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Its pid.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether it has not ended yet.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        !sys::is_readable(self.pidfd.as_fd())
    }

    /// Waits until it has ended, but no longer than `timeout`; whether it has.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when the kernel refuses to wait.
    pub fn join_timeout(&self, timeout: Duration) -> Result<bool, Error> {
        let [ended] = sys::wait_readable([self.pidfd.as_fd()], Instant::now().checked_add(timeout))?;
        Ok(ended)
    }
}

impl AsFd for Parent {
    /// Readable once it has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

pub(crate) fn set_initialized() {
    INITIALIZED.store(true, Ordering::Relaxed);
}

pub(crate) fn become_child(child: ChildIdentity) -> &'static ChildIdentity {
    let child = Box::leak(Box::new(child));
    // Release: pairs with the Acquire in `child`.
    CHILD.store(child, Ordering::Release);
    child
}

/// Whether this process may start others at all.
pub(crate) fn may_start() -> Result<(), Error> {
    if !INITIALIZED.load(Ordering::Relaxed) {
        return Err(Error::NotInitialized);
    }
    match child() {
        Some(child) if !child.may_have_children => Err(Error::DaemonicProcess),
        _ => Ok(()),
    }
}
