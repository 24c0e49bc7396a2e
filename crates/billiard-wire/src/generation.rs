//! Which copy of the process this is: handles are checked against it after a fork.
//!
//! A handle that works in a copy of its process by accident does harm: two processes would read from one stream, or reap
//! each other's children. So a handle notes the [`Generation`] that it was made in, and asks it before it is used. A
//! process that was forked by hand has no generation until it makes a handle of its own: everything that it
//! has copied refuses. `Context::fork` of `billiard-context` goes on where its caller is: handles that may be
//! shared work in its child ([`Generation::is_usable`]), those with one owner do not ([`Generation::is_current`]).
//!
//! The number is on a page that the kernel empties in every copy
//! ([MADV_WIPEONFORK](https://man7.org/linux/man-pages/man2/madvise.2.html)), so that the check is a load and no system
//! call. Where the kernel has no such page, copies are not told apart.

use std::{
    ptr::NonNull,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use thiserror::Error;

use crate::sys;

/// The copy of the process that a handle was made in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generation(u64);

/// The handle is a copy: this process was forked from the one that made it.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error(
    "this handle belongs to the process that this one was forked from: make it anew here, or start this process \
     through a `Context`, and pass the handle in its argument"
)]
pub struct Forked;

/// What the wiped page holds. All loads and stores are relaxed: who writes is alone, or writes what the others would.
#[repr(C)]
struct Words {
    /// The generation of this process; 0 in a copy that has none yet.
    current: AtomicU64,
    /// The oldest generation whose shareable handles work here; 0 like the above.
    oldest: AtomicU64,
}

/// How many generations the line of processes up to this one had. Copied by a fork, unlike the page.
static COUNT: AtomicU64 = AtomicU64::new(0);

#[inline]
fn words() -> &'static Words {
    static PAGE: OnceLock<NonNullPage> = OnceLock::new();
    static UNWIPED: Words = Words { current: AtomicU64::new(0), oldest: AtomicU64::new(0) };

    struct NonNullPage(Option<NonNull<Words>>);
    // SAFETY: what it points to is made of atomics.
    unsafe impl Send for NonNullPage {}
    // SAFETY: as above.
    unsafe impl Sync for NonNullPage {}

    let page = PAGE.get_or_init(|| NonNullPage(sys::page_wiped_on_fork().map(NonNull::cast)));
    // SAFETY: the page is zeroed, which is a value of the atomics, large and aligned enough, and never unmapped.
    page.0.map_or(&UNWIPED, |words| unsafe { words.as_ref() })
}

impl Generation {
    /// The generation of this process.
    #[must_use]
    #[inline]
    pub fn current() -> Self {
        let words = words();
        match words.current.load(Ordering::Relaxed) {
            0 => Self(begin(words)),
            current => Self(current),
        }
    }

    /// The same as a number that is never zero: for those who keep it in an atomic.
    #[must_use]
    #[inline]
    pub fn number(self) -> u64 {
        self.0
    }

    /// Whether the handle was made in this very process.
    #[must_use]
    #[inline]
    pub fn is_current(self) -> bool {
        words().current.load(Ordering::Relaxed) == self.0
    }

    /// Whether the handle was made here, or in a process that has shared it with this one by `Context::fork`.
    #[must_use]
    #[inline]
    pub fn is_usable(self) -> bool {
        let oldest = words().oldest.load(Ordering::Relaxed);
        oldest != 0 && self.0 >= oldest
    }

    /// An error unless the handle [is current](Self::is_current): for those with one owner.
    ///
    /// # Errors
    ///
    /// [`Forked`].
    #[inline]
    pub fn check_current(self) -> Result<(), Forked> {
        if self.is_current() { Ok(()) } else { Err(Forked) }
    }

    /// An error unless the handle [is usable](Self::is_usable): for those that processes share.
    ///
    /// # Errors
    ///
    /// [`Forked`].
    #[inline]
    pub fn check_usable(self) -> Result<(), Forked> {
        if self.is_usable() { Ok(()) } else { Err(Forked) }
    }
}

/// The first generation of a process: nothing older works in it. Threads that come here at once agree on one.
#[cold]
fn begin(words: &Words) -> u64 {
    let next = COUNT.fetch_add(1, Ordering::Relaxed) + 1;
    let agree = |word: &AtomicU64, value| match word.compare_exchange(0, value, Ordering::Relaxed, Ordering::Relaxed) {
        Ok(_) => value,
        Err(others) => others,
    };
    let oldest = agree(&words.oldest, next);
    agree(&words.current, oldest)
}

/// What a child that goes on where its caller is has to know, noted before the fork.
#[derive(Clone, Copy, Debug)]
pub struct Heritage {
    oldest: u64,
}

impl Heritage {
    /// To be called by the process that forks.
    #[must_use]
    pub fn note() -> Self {
        let _ = Generation::current(); // so that there is one
        Self { oldest: words().oldest.load(Ordering::Relaxed) }
    }

    /// To be called in the child, while it has one thread: a generation of its own, in which what was shareable before
    /// the fork still works.
    pub fn accept(self) {
        let words = words();
        words.oldest.store(self.oldest, Ordering::Relaxed);
        words.current.store(COUNT.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs `check` in a copy of this process; whether it returned true.
    fn in_a_copy(check: impl Fn() -> bool) -> bool {
        // SAFETY: the child calls what is safe after a fork of a threaded process: loads and stores, and `_exit`.
        match unsafe { libc::fork() } {
            0 => {
                let code = if check() { 0 } else { 1 };
                // SAFETY: always.
                unsafe { libc::_exit(code) }
            }
            child => {
                let mut status = 0;
                // SAFETY: the place is valid, and the child this function's own.
                assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
                status == 0
            }
        }
    }

    #[test]
    fn a_copy_made_by_hand_knows_no_old_handle_and_makes_new_ones() {
        let old = Generation::current();
        assert!(old.is_current() && old.is_usable());
        assert!(in_a_copy(|| {
            let refused = !old.is_current() && !old.is_usable();
            let new = Generation::current();
            refused && new != old && new.is_current() && new.is_usable() && !old.is_current() && !old.is_usable()
        }));
        assert!(old.is_current());
    }

    #[test]
    fn a_copy_that_goes_on_shares_what_may_be_shared() {
        let old = Generation::current();
        let heritage = Heritage::note();
        assert!(in_a_copy(|| {
            heritage.accept();
            let shared = !old.is_current() && old.is_usable() && Generation::current().is_current();
            // And so does a child of that child, but none that it forks by hand.
            shared && Heritage::note().oldest == heritage.oldest && in_a_copy(|| !old.is_usable())
        }));
    }
}
