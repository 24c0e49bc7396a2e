//! The recursive lock: a lock's word, which of the owner's threads has it, and how often. `docs/design/locks.md`,
//! "RLock".

use billiard_shm::prim::{AtomicU32, AtomicU64, Ordering};
use billiard_wire::fault;

use super::{
    Owner,
    lock::{LockWord, Taken},
};

/// A thread of a participant: the owner in the upper 31 bits, the number of the thread in the lower 33. Never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Holder(u64);

impl Holder {
    const THREAD_BITS: u32 = 33;

    /// How many threads of one process can be told apart.
    pub(crate) const MAX_THREADS: u64 = (1 << Self::THREAD_BITS) - 1;

    /// The thread of that number, from 1; none beyond [`MAX_THREADS`](Self::MAX_THREADS).
    #[inline]
    pub(crate) fn new(owner: Owner, thread: u64) -> Option<Self> {
        let known = (1..=Self::MAX_THREADS).contains(&thread);
        known.then_some(Self(u64::from(owner.bits()) << Self::THREAD_BITS | thread))
    }

    /// Its process.
    #[inline]
    pub(crate) fn owner(self) -> Owner {
        Owner::from_bits((self.0 >> Self::THREAD_BITS) as u32).expect("an owner is never zero")
    }
}

/// One thread has it as often as can be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooDeep;

/// The words of a recursive lock.
///
/// # Peers
///
/// See [`LockWord`]: it alone decides. `depth` and `holder` are written by the thread that has the lock, and mean
/// something to that thread alone, which reads what it has written itself: nothing is handed over with them. What a
/// dead one has left there is overwritten by whoever takes the word from it.
#[derive(Debug)]
#[cfg_attr(not(loom), repr(C))]
pub(crate) struct RLockWords {
    word: LockWord,
    depth: AtomicU32,
    holder: AtomicU64,
}

// SAFETY: three atomics, `repr(C)`, without padding.
#[cfg(not(loom))]
unsafe impl billiard_shm::Words for RLockWords {}

impl RLockWords {
    /// A free lock.
    #[cfg(test)]
    pub(crate) fn new() -> Self {
        Self { word: LockWord::new(), depth: AtomicU32::new(0), holder: AtomicU64::new(0) }
    }

    /// Takes the lock once more if this thread has it; otherwise by `take`, which takes the word.
    #[inline]
    pub(crate) fn take(
        &self,
        me: Holder,
        take: impl FnOnce(&LockWord) -> Option<Taken>,
    ) -> Result<Option<Taken>, TooDeep> {
        if self.is_held_by(me) {
            fault::point("rlock.again");
            let depth = self.depth.load(Ordering::Relaxed).checked_add(1).ok_or(TooDeep)?;
            self.depth.store(depth, Ordering::Relaxed); // no pair: this thread alone looks at it
            fault::point("rlock.deeper");
            return Ok(Some(Taken::Free));
        }
        let taken = take(&self.word);
        if taken.is_some() {
            // No pairs, as above. Whatever was there before is a dead one's.
            self.depth.store(1, Ordering::Relaxed);
            fault::point("rlock.counted");
            self.holder.store(me.0, Ordering::Relaxed);
            fault::point("rlock.held");
        }
        Ok(taken)
    }

    /// Gives back one of the times that this thread has it, with the last one the lock; nothing if that was taken
    /// from this owner, who was believed dead.
    #[inline]
    pub(crate) fn release(&self, me: Holder) {
        if !self.is_held_by(me) {
            return;
        }
        fault::point("rlock.release");
        let depth = self.depth.load(Ordering::Relaxed);
        if depth > 1 {
            self.depth.store(depth - 1, Ordering::Relaxed); // no pair: this thread alone looks at it
            fault::point("rlock.shallower");
            return;
        }
        // No pair; before the word is freed: while another thread of this process has it, this one must not find
        // itself here.
        self.holder.store(0, Ordering::Relaxed);
        fault::point("rlock.left");
        self.word.unlock(me.owner());
    }

    /// Whether this very thread has the lock.
    #[inline]
    pub(crate) fn is_held_by(&self, me: Holder) -> bool {
        // No pairs: no other thread, of any process, writes this value; whoever reads it has written it, and not left
        // since. The word, for one that was believed dead.
        self.holder.load(Ordering::Relaxed) == me.0 && self.word.owner() == Some(me.owner())
    }

    /// Whose thread has it.
    pub(crate) fn owner(&self) -> Option<Owner> {
        self.word.owner()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::mem::offset_of;

    use super::*;
    use crate::words::{
        Wait,
        peers::fake::{Fake, owner},
    };

    fn holder(process: u16, thread: u64) -> Holder {
        Holder::new(owner(process), thread).expect("a small number")
    }

    impl RLockWords {
        /// Takes it if it can be had at once.
        fn try_take(&self, me: Holder, peers: &Fake) -> Option<Taken> {
            self.take(me, |word| word.try_lock(me.owner(), peers)).expect("not too deep")
        }

        fn now(&self) -> (Option<Owner>, u32, u64) {
            (self.owner(), self.depth.load(Ordering::Relaxed), self.holder.load(Ordering::Relaxed))
        }
    }

    #[test]
    fn the_words_are_pinned() {
        assert_eq!((size_of::<RLockWords>(), align_of::<RLockWords>()), (16, 8));
        assert_eq!((offset_of!(RLockWords, word), offset_of!(RLockWords, depth)), (0, 4));
        assert_eq!(offset_of!(RLockWords, holder), 8);
        let (words, peers, me) = (RLockWords::new(), Fake::mortal(), holder(5, 7));
        assert_eq!(words.take(me, |word| word.lock(owner(5), &peers, Wait::ForEver)), Ok(Some(Taken::Free)));
        assert_eq!(words.now(), (Some(owner(5)), 1, u64::from(owner(5).bits()) << 33 | 7));
        assert_eq!(words.try_take(me, &peers), Some(Taken::Free));
        assert_eq!(words.now(), (Some(owner(5)), 2, me.0));
        for other in [holder(5, 8), holder(6, 7)] {
            assert_eq!(words.try_take(other, &peers), None);
            words.release(other);
            assert!(words.is_held_by(me) && !words.is_held_by(other));
        }
        words.release(me);
        assert_eq!(words.now(), (Some(owner(5)), 1, me.0));
        words.release(me);
        assert_eq!(words.now(), (None, 1, 0));
        words.release(me);
        assert_eq!(words.try_take(holder(5, 8), &peers), Some(Taken::Free));
        assert_eq!(words.now(), (Some(owner(5)), 1, holder(5, 8).0));
    }

    #[test]
    fn holders_are_told_apart_in_64_bits() {
        assert_eq!(Holder::new(owner(1), 0), None);
        assert_eq!(Holder::new(owner(1), 1 << 33), None);
        let last = Owner::from_bits(Owner::MASK).expect("not zero");
        assert_eq!(Holder::new(last, Holder::MAX_THREADS), Some(Holder(u64::MAX)));
        assert_eq!(holder(3, Holder::MAX_THREADS).owner(), owner(3));
        assert_ne!(holder(1, 2), holder(2, 1));
    }

    #[test]
    fn a_count_that_is_full_is_an_error_and_stays() {
        let (words, peers, me) = (RLockWords::new(), Fake::immortal(), holder(1, 1));
        words.try_take(me, &peers);
        words.depth.store(u32::MAX - 1, Ordering::Relaxed);
        assert_eq!(words.try_take(me, &peers), Some(Taken::Free));
        assert_eq!(words.take(me, |_| panic!("it has it")), Err(TooDeep));
        assert_eq!(words.now(), (Some(owner(1)), u32::MAX, me.0));
        words.release(me);
        assert_eq!(words.now(), (Some(owner(1)), u32::MAX - 1, me.0));
    }

    #[test]
    fn what_the_dead_left_is_overwritten_by_the_heir_alone() {
        let (words, peers) = (RLockWords::new(), Fake::mortal());
        let (dead, heir, other) = (holder(1, 6), holder(2, 5), holder(2, 6));
        (0..3).for_each(|_| _ = words.try_take(dead, &peers));
        peers.kill(owner(1));
        // The heir has the word, and has written nothing else yet: its process's thread of the dead one's number is
        // not let in.
        let taken = words.take(heir, |word| {
            let taken = word.try_lock(owner(2), &peers);
            assert!(!words.is_held_by(other) && words.try_take(other, &peers).is_none());
            taken
        });
        assert_eq!((taken, words.now()), (Ok(Some(Taken::FromTheDead)), (Some(owner(2)), 1, heir.0)));
        // One that was only believed dead has it no longer, and leaves it alone.
        assert_eq!(words.try_take(dead, &peers), None);
        words.release(dead);
        assert_eq!(words.now(), (Some(owner(2)), 1, heir.0));
        words.release(heir);
        assert_eq!(words.owner(), None);
    }

    #[test]
    fn one_believed_dead_is_out_as_soon_as_the_word_is_taken() {
        let (words, peers, old) = (RLockWords::new(), Fake::mortal(), holder(1, 1));
        words.try_take(old, &peers);
        peers.kill(owner(1));
        let heir = holder(2, 1);
        let taken = words.take(heir, |word| {
            let taken = word.try_lock(owner(2), &peers);
            assert!(words.holder.load(Ordering::Relaxed) == old.0 && !words.is_held_by(old));
            words.release(old);
            taken
        });
        assert_eq!((taken, words.now()), (Ok(Some(Taken::FromTheDead)), (Some(owner(2)), 1, heir.0)));
    }

    #[test]
    fn any_garbage_is_somebody_elses_and_comes_to_an_end() {
        let (words, peers, me) = (RLockWords::new(), Fake::mortal(), holder(1, 1));
        words.depth.store(u32::MAX, Ordering::Relaxed);
        words.holder.store(me.0, Ordering::Relaxed);
        assert!(!words.is_held_by(me), "the word is free");
        assert_eq!(words.try_take(me, &peers), Some(Taken::Free));
        words.depth.store(0, Ordering::Relaxed);
        words.release(me);
        assert_eq!(words.now(), (None, 0, 0));
    }
}

#[cfg(all(test, loom))]
mod models {
    use loom::{cell::UnsafeCell, sync::Arc, thread};

    use super::*;
    use crate::words::{
        Wait,
        peers::fake::{Fake, owner},
    };

    /// A lock, what it guards, and those who use it.
    struct Guarded {
        words: RLockWords,
        counter: UnsafeCell<u32>,
        peers: Fake,
    }

    // SAFETY: the counter is what the lock guards; loom reports whoever touches it at the same time as another.
    unsafe impl Sync for Guarded {}
    // SAFETY: as above.
    unsafe impl Send for Guarded {}

    fn holder(process: u16, thread: u64) -> Holder {
        Holder::new(owner(process), thread).expect("a small number")
    }

    impl Guarded {
        fn new(peers: Fake) -> Arc<Self> {
            Arc::new(Self { words: RLockWords::new(), counter: UnsafeCell::new(0), peers })
        }

        fn count(&self) {
            // SAFETY: the caller has the lock; loom checks that.
            self.counter.with_mut(|counter| unsafe { *counter += 1 });
        }

        fn counted(&self) -> u32 {
            // SAFETY: as above.
            self.counter.with(|counter| unsafe { *counter })
        }

        fn take(&self, me: Holder) -> Taken {
            let take = |word: &LockWord| word.lock(me.owner(), &self.peers, Wait::ForEver);
            self.words.take(me, take).expect("not too deep").expect("it waits for ever")
        }

        fn try_take(&self, me: Holder) -> Option<Taken> {
            self.words.take(me, |word| word.try_lock(me.owner(), &self.peers)).expect("not too deep")
        }

        /// Takes the lock twice, counts with both, with one, and frees it.
        fn pass(&self, me: Holder) -> Taken {
            let taken = self.take(me);
            assert_eq!(self.take(me), Taken::Free);
            self.count();
            self.words.release(me);
            self.count();
            self.words.release(me);
            taken
        }
    }

    /// All at once, each in a thread of its own, `times` times.
    fn each(model: &loom::model::Builder, times: u32, holders: &'static [(u16, u64)]) {
        model.check(move || {
            let guarded = Guarded::new(Fake::immortal());
            let threads = holders.iter().map(|&(process, number)| {
                let shared = guarded.clone();
                thread::spawn(move || (0..times).for_each(|_| _ = shared.pass(holder(process, number))))
            });
            threads.collect::<Vec<_>>().into_iter().for_each(|thread| thread.join().unwrap());
            assert_eq!((guarded.counted(), guarded.words.owner()), (2 * times * holders.len() as u32, None));
        });
    }

    fn bounded(preemptions: usize) -> loom::model::Builder {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(preemptions);
        model
    }

    #[test]
    fn threads_of_one_process_exclude_each_other() {
        each(&loom::model::Builder::new(), 1, &[(1, 1), (1, 2)]);
        each(&bounded(3), 2, &[(1, 1), (1, 2)]); // who comes again has left
    }

    #[test]
    fn threads_of_the_same_number_in_two_processes_exclude_each_other() {
        each(&loom::model::Builder::new(), 1, &[(1, 1), (2, 1)]);
        each(&bounded(3), 2, &[(1, 1), (2, 1)]);
    }

    #[test]
    fn of_three_none_sleeps_on() {
        each(&bounded(2), 1, &[(1, 1), (1, 2), (2, 1)]);
    }

    #[test]
    fn a_death_at_depth_two_reaches_a_waiter_who_has_it_once() {
        loom::model(|| {
            let guarded = Guarded::new(Fake::mortal());
            let shared = guarded.clone();
            let dying = thread::spawn(move || {
                let me = holder(1, 1);
                shared.take(me);
                assert_eq!(shared.take(me), Taken::Free);
                shared.count();
                shared.peers.kill(owner(1)); // holding it twice
            });
            let shared = guarded.clone();
            let taken = thread::spawn(move || {
                let me = holder(2, 1);
                let taken = shared.take(me);
                shared.count();
                shared.words.release(me); // once
                taken
            });
            let taken = taken.join().unwrap();
            dying.join().unwrap();
            // Either this one inherited it, or was the first: then it was the other who died with it.
            assert_eq!(taken == Taken::FromTheDead, guarded.words.owner().is_none());
            assert_eq!(guarded.counted(), 2);
        });
    }

    #[test]
    fn the_dead_owner_has_one_heir_even_among_threads_of_its_own_number() {
        loom::model(|| {
            let guarded = Guarded::new(Fake::mortal());
            (0..2).for_each(|_| _ = guarded.take(holder(1, 6)));
            guarded.peers.kill(owner(1));
            let heirs = [5, 6].map(|number| {
                let shared = guarded.clone();
                thread::spawn(move || {
                    let me = holder(2, number);
                    let taken = shared.try_take(me)?;
                    assert_eq!(shared.try_take(me), Some(Taken::Free));
                    shared.count();
                    (0..2).for_each(|_| shared.words.release(me));
                    Some(taken)
                })
            });
            let all = heirs.map(|heir| heir.join().unwrap());
            assert_eq!(all.iter().filter(|taken| **taken == Some(Taken::FromTheDead)).count(), 1, "{all:?}");
            assert_eq!(guarded.words.owner(), None);
        });
    }
}
