//! The other process of a case between two.

use std::error::Error;

use billiard::context::fork_unchecked;
use billiard_benches::forked::Forked;

/// Starts it, and gives a way to wait for it that says whether what it did went well.
pub(crate) type Start = fn(&dyn Fn() -> bool) -> Result<EndsWell, Box<dyn Error>>;

/// Waits for the other process.
pub(crate) type EndsWell = Box<dyn FnOnce() -> bool>;

/// By the C library's `fork`: for what is measured without this project.
pub(crate) fn forked(work: &dyn Fn() -> bool) -> Result<EndsWell, Box<dyn Error>> {
    // SAFETY: this program has one thread unless it is asked for a lock between threads.
    let other = unsafe { Forked::start(work) }?;
    Ok(Box::new(|| other.ends_well().is_ok_and(|well| well)))
}

/// As a process of this project, whose handles refuse in any other copy.
pub(crate) fn ours(work: &dyn Fn() -> bool) -> Result<EndsWell, Box<dyn Error>> {
    // SAFETY: this program has one thread, and what is borrowed are handles, which look for themselves.
    let mut other = unsafe { fork_unchecked(work) }.start()?;
    Ok(Box::new(move || other.take_result().is_ok_and(|well| well)))
}
