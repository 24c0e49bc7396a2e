//! A word that one process waits on and another wakes.
//!
//! [`Futex`] is 32 bits in shared memory, used as [futex(2)](https://man7.org/linux/man-pages/man2/futex.2.html) has it and
//! never with `FUTEX_PRIVATE_FLAG`, which would lose wake-ups between processes. What the value means is its user's
//! affair. Under `cfg(loom)` the same type is a model of the kernel's, so that the algorithms above can be checked.
//!
//! If a process dies while it waits, it is no longer counted. If one dies between changing the value and waking, nobody
//! is woken: whoever must not wait for the dead gives [`Futex::wait`] a deadline and looks again.

use std::time::Duration;

use crate::prim::{AtomicU32, Ordering};

/// Why [`Futex::wait`] returned. Whatever it says, the value has to be looked at again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Somebody woke this waiter; or, rarely, it woke by itself.
    Woken,
    /// The value was not the expected one: it did not wait.
    Changed,
    /// The deadline passed.
    TimedOut,
    /// A signal handler ran in this thread.
    Interrupted,
}

/// A moment on the clock that nobody sets (`CLOCK_MONOTONIC`), the same for all processes of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline {
    /// Since the machine was started.
    since_boot: Duration,
}

impl Deadline {
    /// The moment `time` from now; the end of time where that is beyond what can be counted.
    #[must_use]
    pub fn after(time: Duration) -> Self {
        Self { since_boot: now().saturating_add(time) }
    }

    /// How long it is until then; zero when it has passed.
    #[must_use]
    pub fn remaining(self) -> Duration {
        self.since_boot.saturating_sub(now())
    }

    /// Whether it has passed.
    #[must_use]
    pub fn has_passed(self) -> bool {
        self.remaining().is_zero()
    }

    /// The moment as the kernel counts it: nanoseconds since the machine was started, cut at what 64 bits hold (584 years).
    #[must_use]
    pub fn as_nanos(self) -> u64 {
        u64::try_from(self.since_boot.as_nanos()).unwrap_or(u64::MAX)
    }

    /// The inverse of [`as_nanos`](Self::as_nanos): for a moment that was written into shared memory.
    #[must_use]
    pub fn from_nanos(nanos: u64) -> Self {
        Self { since_boot: Duration::from_nanos(nanos) }
    }
}

#[cfg(not(loom))]
fn now() -> Duration {
    crate::sys::monotonic_now()
}

/// A model has no time: a deadline passes at once, at any place between the steps of the others.
#[cfg(loom)]
fn now() -> Duration {
    Duration::ZERO
}

/// The word. All zeros is a value, and so is everything else.
///
/// ```
/// use std::time::Duration;
///
/// use billiard_shm::{
///     futex::{Deadline, Futex, Wait},
///     prim::Ordering,
/// };
///
/// let word = Futex::new(0);
/// assert_eq!(word.wait(0, Some(Deadline::after(Duration::from_millis(1)))), Wait::TimedOut);
/// word.value().store(1, Ordering::Release);
/// assert_eq!(word.wait(0, None), Wait::Changed);
/// assert_eq!(word.wake(1), 0); // nobody waits
/// ```
#[derive(Debug)]
#[cfg_attr(not(loom), repr(transparent))]
pub struct Futex {
    value: AtomicU32,
    #[cfg(loom)]
    kernel: model::Kernel,
}

impl Futex {
    /// A word with this value.
    #[must_use]
    pub fn new(value: u32) -> Self {
        Self {
            value: AtomicU32::new(value),
            #[cfg(loom)]
            kernel: model::Kernel::default(),
        }
    }

    /// The value.
    #[must_use]
    pub fn value(&self) -> &AtomicU32 {
        &self.value
    }

    /// The value now; [`value`](Self::value) has the other operations.
    #[inline]
    pub fn load(&self, ordering: Ordering) -> u32 {
        self.value.load(ordering)
    }

    /// Waits while the value is `expected`, until somebody wakes this waiter, or until `deadline`.
    ///
    /// The kernel compares and begins to wait in one step, and both calls are full fences: whoever changes the value and then
    /// [wakes](Self::wake) either finds this waiter or is seen by the comparison.
    ///
    /// # Panics
    ///
    /// When the kernel refuses for another reason than those of [`Wait`]: the memory is not there (futex(2): EFAULT).
    pub fn wait(&self, expected: u32, deadline: Option<Deadline>) -> Wait {
        #[cfg(not(loom))]
        return crate::sys::futex_wait(&self.value, expected, deadline.map(|deadline| deadline.since_boot));
        #[cfg(loom)]
        return self.kernel.wait(&self.value, expected, deadline.is_some());
    }

    /// Wakes at most `count` waiters, of any process, and returns how many it woke.
    pub fn wake(&self, count: u32) -> usize {
        #[cfg(not(loom))]
        return crate::sys::futex_wake(&self.value, count);
        #[cfg(loom)]
        return self.kernel.wake(count);
    }

    /// Wakes all.
    pub fn wake_all(&self) -> usize {
        self.wake(i32::MAX as u32)
    }
}

/// What the kernel does, for loom: the comparison and the beginning of the wait are one step, under the lock of the
/// kernel's queue, with a full fence before each.
#[cfg(loom)]
mod model {
    use loom::sync::{Condvar, Mutex};

    use super::Wait;
    use crate::prim::{AtomicU32, Ordering, fence};

    #[derive(Debug, Default)]
    pub(super) struct Kernel {
        queue: Mutex<Queue>,
        woken: Condvar,
    }

    /// Waiters are woken in the order in which they came.
    #[derive(Debug, Default)]
    struct Queue {
        came: usize,
        woken: usize,
    }

    impl Kernel {
        pub(super) fn wait(&self, value: &AtomicU32, expected: u32, may_time_out: bool) -> Wait {
            let mut queue = self.queue.lock().unwrap();
            fence(Ordering::SeqCst);
            if value.load(Ordering::Relaxed) != expected {
                return Wait::Changed;
            }
            if may_time_out {
                drop(queue);
                loom::thread::yield_now();
                return Wait::TimedOut;
            }
            let place = queue.came;
            queue.came += 1;
            while queue.woken <= place {
                queue = self.woken.wait(queue).unwrap();
            }
            Wait::Woken
        }

        pub(super) fn wake(&self, count: u32) -> usize {
            fence(Ordering::SeqCst);
            let mut queue = self.queue.lock().unwrap();
            let woken = (queue.came - queue.woken).min(count as usize);
            queue.woken += woken;
            self.woken.notify_all();
            woken
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::{thread, time::Instant};

    use billiard_test_support::{Watchdog, eventually};

    use super::*;

    #[test]
    fn a_waiter_is_woken_once() {
        let _watchdog = Watchdog::start("a_waiter_is_woken_once", 60);
        let word = Futex::new(0);
        thread::scope(|scope| {
            let waiter = scope.spawn(|| word.wait(0, None));
            assert!(eventually(30, || word.wake(1) == 1));
            assert_eq!(waiter.join().unwrap(), Wait::Woken);
            assert_eq!(word.wake_all(), 0);
        });
    }

    #[test]
    fn a_deadline_is_kept_and_never_early() {
        let _watchdog = Watchdog::start("a_deadline_is_kept_and_never_early", 60);
        let word = Futex::new(7);
        let begin = Instant::now();
        let deadline = Deadline::after(Duration::from_millis(20));
        while word.wait(7, Some(deadline)) != Wait::TimedOut {}
        assert!(begin.elapsed() >= Duration::from_millis(20) && deadline.has_passed());
        assert_eq!(word.wait(7, Some(Deadline::after(Duration::ZERO))), Wait::TimedOut);
        assert_eq!(word.wait(8, Some(deadline)), Wait::Changed);
        // Far beyond what the kernel's clock can count: it waits, and is woken.
        let forever = Deadline::after(Duration::MAX);
        assert!(Deadline::from_nanos(forever.as_nanos()).remaining() > Duration::from_secs(1 << 30));
        thread::scope(|scope| {
            let waiter = scope.spawn(|| word.wait(7, Some(forever)));
            assert!(eventually(30, || word.wake(1) == 1));
            assert_eq!(waiter.join().unwrap(), Wait::Woken);
        });
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use loom::sync::Arc;

    use super::*;

    #[test]
    fn no_wake_up_is_lost() {
        loom::model(|| {
            let word = Arc::new(Futex::new(0));
            let waker = {
                let word = word.clone();
                loom::thread::spawn(move || {
                    word.value().store(1, Ordering::Relaxed);
                    word.wake(1);
                })
            };
            while word.load(Ordering::Relaxed) == 0 {
                word.wait(0, None); // loom reports a deadlock if the wake-up is lost
            }
            waker.join().unwrap();
        });
    }
}
