//! The event: one futex word. `docs/design/locks.md`, "Event".

use billiard_shm::{futex::Futex, prim::Ordering};
use billiard_wire::fault;

use super::{Peers, Wait};

/// The event is set.
const SET: u32 = 1 << 31;

/// Somebody may sleep.
const WAITING: u32 = 1 << 30;

/// How often it was set.
const GENERATION: u32 = WAITING - 1;

/// The word: [`SET`], [`WAITING`], and the generation.
///
/// # Peers
///
/// Anybody writes it, by read-modify-write alone. A setter that dies before it wakes costs the sleepers the recheck time.
#[derive(Debug)]
#[cfg_attr(not(loom), repr(transparent))]
pub(crate) struct EventWord(Futex);

// SAFETY: it is one atomic.
#[cfg(not(loom))]
unsafe impl billiard_shm::Words for EventWord {}

impl EventWord {
    /// Not set.
    #[cfg(test)]
    pub(crate) fn new() -> Self {
        Self(Futex::new(0))
    }

    /// Whether it is set.
    #[inline]
    pub(crate) fn is_set(&self) -> bool {
        // PAIR event.set: Acquire, of the Release in `set`.
        self.0.load(Ordering::Acquire) & SET != 0
    }

    /// Sets it, and wakes all.
    pub(crate) fn set(&self) {
        let next = |word: u32| match word & SET {
            0 => word.wrapping_add(1) & GENERATION | SET,
            _ => word, // written all the same: what this one did before is to be seen too
        };
        fault::point("event.set");
        let before = self.update(next);
        fault::point("event.was_set");
        if before & WAITING != 0 {
            self.0.wake_all();
        }
    }

    /// Clears it.
    pub(crate) fn clear(&self) {
        fault::point("event.clear");
        self.update(|word| word & !SET);
    }

    /// Waits until it is set, or was; false when the wait is over.
    pub(crate) fn wait(&self, peers: &impl Peers, wait: Wait) -> bool {
        // PAIR event.set: each Acquire here, of the Release in `set`.
        let mut word = self.0.load(Ordering::Acquire);
        let found = word & GENERATION;
        loop {
            if word & SET != 0 || word & GENERATION != found {
                return true;
            }
            if word & WAITING == 0 {
                match self.0.value().compare_exchange(word, word | WAITING, Ordering::Relaxed, Ordering::Acquire) {
                    Ok(_) => word |= WAITING,
                    Err(now) => {
                        word = now;
                        continue;
                    }
                }
            }
            fault::point("event.waiting");
            let looked = self.0.wait(word, wait.next(peers));
            fault::point("event.woken");
            word = self.0.load(Ordering::Acquire);
            if looked == billiard_shm::futex::Wait::TimedOut && wait.is_over() {
                return word & SET != 0 || word & GENERATION != found;
            }
        }
    }

    /// Replaces the word; what it was.
    fn update(&self, next: impl Fn(u32) -> u32) -> u32 {
        let mut word = self.0.load(Ordering::Relaxed);
        loop {
            // PAIR event.set: Release. A later `clear` is a read-modify-write and Release too: the chain is not broken.
            match self.0.value().compare_exchange_weak(word, next(word), Ordering::Release, Ordering::Relaxed) {
                Ok(before) => return before,
                Err(now) => word = now,
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::words::peers::fake::Fake;

    #[test]
    fn the_word_is_pinned() {
        assert_eq!((size_of::<EventWord>(), align_of::<EventWord>()), (4, 4));
        let (event, peers) = (EventWord::new(), Fake::mortal());
        assert!(!event.is_set() && !event.wait(&peers, Wait::at_most(Duration::ZERO)));
        assert_eq!(event.0.load(Ordering::Relaxed), WAITING);
        event.set();
        event.set();
        assert_eq!(event.0.load(Ordering::Relaxed), SET | 1);
        assert!(event.is_set() && event.wait(&peers, Wait::ForEver));
        event.clear();
        assert_eq!(event.0.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn generations_begin_anew() {
        let event = EventWord(Futex::new(GENERATION));
        event.set();
        assert_eq!(event.0.load(Ordering::Relaxed), SET);
    }
}

#[cfg(all(test, loom))]
mod models {
    use loom::{cell::UnsafeCell, sync::Arc, thread};

    use super::*;
    use crate::words::peers::fake::Fake;

    struct Shared {
        event: EventWord,
        peers: Fake,
        news: UnsafeCell<u32>,
    }

    // SAFETY: the news are written before the event is set, and read after; loom reports whoever does otherwise.
    unsafe impl Sync for Shared {}
    // SAFETY: as above.
    unsafe impl Send for Shared {}

    fn shared() -> Arc<Shared> {
        Arc::new(Shared { event: EventWord::new(), peers: Fake::immortal(), news: UnsafeCell::new(0) })
    }

    #[test]
    fn who_sleeps_when_it_is_set_and_cleared_wakes_with_true() {
        loom::model(|| {
            let shared = shared();
            let waiter = {
                let shared = shared.clone();
                thread::spawn(move || assert!(shared.event.wait(&shared.peers, Wait::ForEver)))
            };
            let setter = thread::spawn(move || {
                // Only once it waits: from then on it may not miss what comes.
                while shared.event.0.load(Ordering::Relaxed) & WAITING == 0 {
                    thread::yield_now();
                }
                shared.event.set();
                shared.event.clear();
            });
            setter.join().unwrap();
            waiter.join().unwrap();
        });
    }

    #[test]
    fn what_was_done_before_is_seen_after() {
        loom::model(|| {
            let shared = shared();
            let setter = {
                let shared = shared.clone();
                thread::spawn(move || {
                    // SAFETY: nobody reads before the event is set; loom checks that.
                    shared.news.with_mut(|news| unsafe { *news = 7 });
                    shared.event.set();
                })
            };
            let waiter = thread::spawn(move || {
                assert!(shared.event.wait(&shared.peers, Wait::ForEver));
                // SAFETY: as above.
                assert_eq!(shared.news.with(|news| unsafe { *news }), 7);
            });
            setter.join().unwrap();
            waiter.join().unwrap();
        });
    }
}
