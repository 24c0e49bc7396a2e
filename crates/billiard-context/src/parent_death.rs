//! The signal that a process asks for at its parent's death.
//!
//! Children of this crate have one already, relative to the guardian: [`Process`](crate::Process) and `docs/design/guardian.md`
//! say why. This is for processes that were started by other means, and for children that want another.

use std::io;

use thiserror::Error;

use crate::{Signal, sys};

/// Asks the kernel to send this process a signal when its parent dies; `None` asks for none.
///
/// `expected_parent` is the pid of the parent that is meant: the signal is sent for a death that comes *after* the request, so it is
/// checked afterwards that this process is still that parent's child. A parent outside this pid namespace has number 0. With
/// `None` nothing is checked.
///
/// What to know of [PR_SET_PDEATHSIG](https://man7.org/linux/man-pages/man2/PR_SET_PDEATHSIG.2const.html):
///
/// - **The signal comes when the *thread* ends that forked this process**, though its process may live on. A
///   parent that forks from a short-lived thread, one of a thread pool perhaps, kills its child when that thread is done. Children
///   of a [`Context`](crate::Context) are forked by the one thread of the guardian.
/// - It is one setting for the whole process, forgotten by its own forked children, kept when it executes a program, unless
///   that program gives it other rights.
/// - In a child of a [`Context`](crate::Context), `None` or a signal other than KILL gives up a promise: should the guardian be killed,
///   this process is left behind.
///
/// ```
/// # fn main() -> Result<(), billiard_context::ParentDeathError> {
/// use billiard_context::Signal;
///
/// // A program takes its parent's number from its arguments, or whoever asks first: it may be too late already.
/// let parent = std::os::unix::process::parent_id();
/// billiard_context::set_parent_death_signal(Some(Signal::TERM), parent)?;
/// assert_eq!(billiard_context::parent_death_signal()?, Some(Signal::TERM));
/// billiard_context::set_parent_death_signal(None, parent)?;
/// assert_eq!(billiard_context::parent_death_signal()?, None);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// [`ParentDeathError`]; what was asked for before is in force then.
pub fn set_parent_death_signal(signal: Option<Signal>, expected_parent: u32) -> Result<(), ParentDeathError> {
    let before = sys::death_signal()?;
    sys::set_death_signal(signal)?;
    let found = sys::parent();
    if signal.is_some() && found != expected_parent {
        sys::set_death_signal(before)?;
        return Err(ParentDeathError::OtherParent { expected: expected_parent, found });
    }
    Ok(())
}

/// The signal that this process gets when its parent dies, if any.
///
/// # Errors
///
/// [`ParentDeathError::Refused`] when the kernel, or a filter of system calls, does not answer.
pub fn parent_death_signal() -> Result<Option<Signal>, ParentDeathError> {
    Ok(sys::death_signal()?)
}

/// Why no signal will come at the parent's death.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ParentDeathError {
    /// This process is not, or no longer, that parent's child. In a child whose parent has died, the thing to do is to end.
    #[error("the parent of this process is {found}, not {expected}: it has ended already, or was never {expected}")]
    OtherParent {
        /// The one that was meant.
        expected: u32,
        /// Who has adopted this process, or was its parent all the time.
        found: u32,
    },
    /// The kernel, or a filter of system calls around this process, refuses.
    #[error("the kernel refuses to be asked for a signal at the parent's death")]
    Refused {
        /// Its answer.
        #[from]
        source: io::Error,
    },
}
