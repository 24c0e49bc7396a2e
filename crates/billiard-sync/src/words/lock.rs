//! The lock: one futex word that names its owner. States and deaths: `docs/design/locks.md`, "Lock".

use billiard_shm::{
    futex::Futex,
    prim::{Ordering, spin_loop},
};
use billiard_wire::fault;

use super::{Owner, Peers, Rounds, Wait};

/// Somebody may sleep: whoever frees the word wakes one.
const WAITING: u32 = !Owner::MASK;

/// How often to look before going to sleep. What is held for longer than these is not worth a busy CPU.
const SPINS: u32 = if cfg!(loom) { 0 } else { 100 };

/// How the lock was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It was free.
    Free,
    /// Its owner died with it.
    FromTheDead,
}

/// The word: the owner (0: free), and [`WAITING`].
///
/// # Peers
///
/// Anybody sets `WAITING`, and puts itself into a free word, or in place of a dead owner; the owner alone frees it. An owner that dies
/// anywhere is found by whoever waits. One that dies after freeing the word and before waking costs a sleeper the recheck time.
#[derive(Debug)]
#[cfg_attr(not(loom), repr(transparent))]
pub(crate) struct LockWord(Futex);

// SAFETY: it is one atomic.
#[cfg(not(loom))]
unsafe impl billiard_shm::Words for LockWord {}

impl LockWord {
    /// A free lock.
    #[cfg(test)]
    pub(crate) fn new() -> Self {
        Self(Futex::new(0))
    }

    /// Takes the lock if nobody has it, or if its owner is dead.
    #[inline]
    pub(crate) fn try_lock(&self, me: Owner, peers: &impl Peers) -> Option<Taken> {
        match self.take_free(me) {
            Ok(()) => Some(Taken::Free),
            Err(value) => self.inherit(value, me, peers).then_some(Taken::FromTheDead),
        }
    }

    /// Takes the lock, waiting for it; `None` when the wait is over.
    #[inline]
    pub(crate) fn lock(&self, me: Owner, peers: &impl Peers, wait: Wait) -> Option<Taken> {
        match self.take_free(me) {
            Ok(()) => Some(Taken::Free),
            Err(value) => self.lock_slowly(value, me, peers, wait),
        }
    }

    /// Frees the lock; nothing if it was taken from this owner, who was believed dead.
    #[inline]
    pub(crate) fn unlock(&self, me: Owner) {
        fault::point("lock.unlock");
        let mut value = me.bits();
        // PAIR lock.free: the Release is seen by the Acquire in `take_free` and `lock_slowly`.
        while let Err(now) = self.0.value().compare_exchange(value, 0, Ordering::Release, Ordering::Relaxed) {
            if now & Owner::MASK != me.bits() {
                return;
            }
            value = now; // somebody has begun to wait
        }
        fault::point("lock.unlocked");
        if value & WAITING != 0 {
            self.0.wake(1);
        }
    }

    /// Who has it.
    #[inline]
    pub(crate) fn owner(&self) -> Option<Owner> {
        Owner::from_bits(self.0.load(Ordering::Relaxed))
    }

    /// Takes the word if it is free; otherwise what it was.
    #[inline]
    pub(crate) fn take_free(&self, me: Owner) -> Result<(), u32> {
        fault::point("lock.take");
        // PAIR lock.free: Acquire, of the Release in `unlock`.
        self.0.value().compare_exchange(0, me.bits(), Ordering::Acquire, Ordering::Relaxed)?;
        fault::point("lock.taken");
        Ok(())
    }

    /// Takes the word from the owner that it names, if that one is dead.
    fn inherit(&self, mut value: u32, me: Owner, peers: &impl Peers) -> bool {
        let dead = value & Owner::MASK;
        if !Owner::from_bits(dead).is_some_and(|owner| peers.is_dead(owner)) {
            return false;
        }
        fault::point("lock.inherit");
        while value & Owner::MASK == dead {
            // No pair: the dead release nothing. Acquire, for those who freed the word before the dead one took it.
            // `WAITING`, since a sleeper's wake-up may have been taken by the dead one.
            let heir = me.bits() | WAITING;
            match self.0.value().compare_exchange(value, heir, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => {
                    fault::point("lock.inherited");
                    return true;
                }
                Err(now) => value = now,
            }
        }
        false
    }

    #[cold]
    fn lock_slowly(&self, mut value: u32, me: Owner, peers: &impl Peers, wait: Wait) -> Option<Taken> {
        let word = self.0.value();
        let mut slept = 0; // `WAITING` once this one has slept: its wake-up may have been the only one
        value = self.spin(value);
        let mut rounds = Rounds::new(wait, peers);
        loop {
            if value & Owner::MASK == 0 {
                // PAIR lock.free: Acquire, of the Release in `unlock`.
                match word.compare_exchange(value, me.bits() | value | slept, Ordering::Acquire, Ordering::Relaxed) {
                    Ok(_) => {
                        fault::point("lock.taken");
                        return Some(Taken::Free);
                    }
                    Err(now) => value = now,
                }
                continue;
            }
            if value & WAITING == 0 {
                // Relaxed: it says nothing about the memory that the lock guards.
                match word.compare_exchange(value, value | WAITING, Ordering::Relaxed, Ordering::Relaxed) {
                    Ok(_) => value |= WAITING,
                    Err(now) => {
                        value = now;
                        continue;
                    }
                }
            }
            fault::point("lock.waiting");
            let _ = self.0.wait(value, rounds.next());
            fault::point("lock.woken");
            slept = WAITING;
            value = word.load(Ordering::Relaxed);
            if rounds.is_due(peers) && value & Owner::MASK != 0 {
                if self.inherit(value, me, peers) {
                    return Some(Taken::FromTheDead);
                }
                if wait.is_over() {
                    return None;
                }
            }
            value = self.spin(value);
        }
    }

    /// Looks for a while whether the word becomes free; what it is in the end. Not where others sleep already.
    fn spin(&self, mut value: u32) -> u32 {
        for _ in 0..SPINS {
            if value & Owner::MASK == 0 || value & WAITING != 0 {
                break;
            }
            spin_loop();
            value = self.0.load(Ordering::Relaxed);
        }
        value
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::words::peers::fake::{Fake, owner};

    #[test]
    fn the_word_is_pinned() {
        assert_eq!((size_of::<LockWord>(), align_of::<LockWord>()), (4, 4));
        let word = LockWord::new();
        assert_eq!(word.lock(owner(5), &Fake::immortal(), Wait::ForEver), Some(Taken::Free));
        assert_eq!(word.0.load(Ordering::Relaxed), owner(5).bits());
        assert_eq!(word.lock(owner(6), &Fake::mortal(), Wait::at_most(Duration::ZERO)), None);
        assert_eq!(word.0.load(Ordering::Relaxed), owner(5).bits() | WAITING);
        word.unlock(owner(6)); // not the owner
        assert_eq!(word.owner(), Some(owner(5)));
        word.unlock(owner(5));
        assert_eq!(word.0.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn any_garbage_is_an_owner_who_is_asked_about() {
        let (word, peers) = (LockWord(Futex::new(u32::MAX)), Fake::mortal());
        assert_eq!(word.try_lock(owner(1), &peers), None);
        peers.kill(owner(3));
        for flag in [0, WAITING] {
            let word = LockWord(Futex::new(owner(3).bits() | flag));
            assert_eq!(word.try_lock(owner(1), &peers), Some(Taken::FromTheDead));
            // The dead one may have been woken in place of a sleeper.
            assert_eq!(word.0.load(Ordering::Relaxed), owner(1).bits() | WAITING);
        }
    }
}

#[cfg(all(test, loom))]
mod models {
    use loom::{
        cell::UnsafeCell,
        sync::Arc,
        thread::{self, JoinHandle},
    };

    use super::*;
    use crate::words::peers::fake::{Fake, owner};

    /// A lock, what it guards, and those who use it.
    struct Guarded {
        word: LockWord,
        counter: UnsafeCell<u32>,
        peers: Fake,
    }

    // SAFETY: the counter is what the lock guards; loom reports whoever touches it at the same time as another.
    unsafe impl Sync for Guarded {}
    // SAFETY: as above.
    unsafe impl Send for Guarded {}

    impl Guarded {
        fn new(peers: Fake) -> Arc<Self> {
            Arc::new(Self { word: LockWord::new(), counter: UnsafeCell::new(0), peers })
        }

        fn count(&self) {
            // SAFETY: the caller has the lock; loom checks that.
            self.counter.with_mut(|counter| unsafe { *counter += 1 });
        }

        fn counted(&self) -> u32 {
            // SAFETY: as above.
            self.counter.with(|counter| unsafe { *counter })
        }

        /// Takes the lock, waiting for ever, counts, and frees it.
        fn pass(&self, me: u16) -> Taken {
            let taken = self.word.lock(owner(me), &self.peers, Wait::ForEver).expect("it waits for ever");
            self.count();
            self.word.unlock(owner(me));
            taken
        }
    }

    fn each(numbers: impl IntoIterator<Item = u16>, run: impl Fn(u16) + Clone + 'static) {
        let threads: Vec<JoinHandle<()>> = numbers
            .into_iter()
            .map(|number| {
                let run = run.clone();
                thread::spawn(move || run(number))
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }

    #[test]
    fn one_at_a_time_and_no_wake_up_is_lost() {
        loom::model(|| {
            let guarded = Guarded::new(Fake::immortal());
            let shared = guarded.clone();
            each([1, 2], move |me| {
                assert_eq!(shared.pass(me), Taken::Free);
            });
            assert_eq!((guarded.counted(), guarded.word.owner()), (2, None));
        });
    }

    #[test]
    fn of_three_none_sleeps_on() {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(2);
        model.check(|| {
            let guarded = Guarded::new(Fake::immortal());
            let shared = guarded.clone();
            each([1, 2, 3], move |me| {
                shared.pass(me);
            });
            assert_eq!(guarded.counted(), 3);
        });
    }

    #[test]
    fn one_who_gives_up_leaves_no_other_asleep() {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(2);
        model.check(|| {
            let guarded = Guarded::new(Fake::immortal());
            let shared = guarded.clone();
            each([1, 2, 3], move |me| match me {
                1 => {
                    let wait = Wait::at_most(std::time::Duration::ZERO);
                    if shared.word.lock(owner(me), &shared.peers, wait).is_some() {
                        shared.count();
                        shared.word.unlock(owner(me));
                    }
                }
                _ => drop(shared.pass(me)),
            });
            assert!(guarded.counted() >= 2 && guarded.word.owner().is_none());
        });
    }

    #[test]
    fn a_death_reaches_a_waiter() {
        loom::model(|| {
            let guarded = Guarded::new(Fake::mortal());
            let shared = guarded.clone();
            let dying = thread::spawn(move || {
                shared.word.lock(owner(1), &shared.peers, Wait::ForEver).expect("it waits for ever");
                shared.count();
                shared.peers.kill(owner(1)); // holding it
            });
            let shared = guarded.clone();
            let taken = thread::spawn(move || shared.pass(2)).join().unwrap();
            dying.join().unwrap();
            // Either this one inherited it, or was the first: then it was the other who died with it.
            assert_eq!(taken == Taken::FromTheDead, guarded.word.owner().is_none());
            assert_eq!(guarded.counted(), 2);
        });
    }

    #[test]
    fn the_dead_owner_has_one_heir() {
        loom::model(|| {
            let guarded = Guarded::new(Fake::mortal());
            guarded.word.lock(owner(1), &guarded.peers, Wait::ForEver).expect("it is free");
            guarded.peers.kill(owner(1));
            let heir = |me, guarded: &Guarded| {
                let taken = guarded.word.try_lock(owner(me), &guarded.peers)?;
                guarded.count();
                guarded.word.unlock(owner(me));
                Some(taken)
            };
            let heirs = [2, 3].map(|me| {
                let shared = guarded.clone();
                thread::spawn(move || heir(me, &shared))
            });
            let all = heirs.map(|heir| heir.join().unwrap());
            assert_eq!(all.iter().filter(|taken| **taken == Some(Taken::FromTheDead)).count(), 1);
            assert!(guarded.word.owner().is_none());
        });
    }
}
