//! What a forked child does before anything else.

use std::sync::{Mutex, PoisonError};

static HOOKS: Mutex<Vec<fn()>> = Mutex::new(Vec::new());

/// Has `hook` called in every process that is forked off this one by a [`Context`](crate::Context), before its function, in the
/// order in which they were registered: `multiprocessing.util.register_after_fork`.
///
/// It is for state that must not be the same twice: a crate that seeds a random generator once for the process
/// (most, the crate `rand` among them, look for a fork themselves), that caches the pid, or that holds a
/// connection to a server. Children of [`Context::fork`](crate::Context::fork) are forked off their starter. Children of
/// `forkserver` are forked off a helper process: there, only what a preload function registered is called. Those of
/// `spawn` begin afresh and need none.
///
/// A hook that panics ends the child, as a panic of its function would.
///
/// ```
/// billiard_context::after_fork(|| { /* seed the generator anew */ });
/// ```
pub fn after_fork(hook: fn()) {
    HOOKS.lock().unwrap_or_else(PoisonError::into_inner).push(hook);
}

/// Calls them. The list is copied first: a hook may register another.
pub(crate) fn run() {
    let hooks = HOOKS.lock().unwrap_or_else(PoisonError::into_inner).clone();
    hooks.iter().for_each(|hook| hook());
}
