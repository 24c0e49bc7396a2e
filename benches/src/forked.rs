//! A child made by the C library's `fork` alone, for what is measured without this project's processes.

use nix::{
    sys::wait::{WaitStatus, waitpid},
    unistd::{ForkResult, Pid, fork},
};

/// A child that was not waited for yet.
#[derive(Debug)]
#[must_use = "it stays a zombie until it is waited for"]
pub struct Forked(Pid);

impl Forked {
    /// Forks a child that calls `life` and ends with status 0 if that gives true. Its memory is a copy, and nothing in it
    /// is dropped.
    ///
    /// # Safety
    ///
    /// This process has one thread: a copy of it has no other, and finds held for ever what others held.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub unsafe fn start(life: impl FnOnce() -> bool) -> nix::Result<Self> {
        // SAFETY: the caller sees to it that there is one thread.
        match unsafe { fork() }? {
            ForkResult::Parent { child } => Ok(Self(child)),
            ForkResult::Child => {
                let status = i32::from(!life());
                // SAFETY: it ends this process, which has nothing that others would miss.
                unsafe { libc::_exit(status) }
            }
        }
    }

    /// Waits for it, and says whether it ended with status 0.
    ///
    /// # Errors
    ///
    /// The kernel's, for instance when somebody else has reaped it.
    pub fn ends_well(self) -> nix::Result<bool> {
        Ok(waitpid(self.0, None)? == WaitStatus::Exited(self.0, 0))
    }
}
