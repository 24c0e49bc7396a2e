//! What each participant holds of one thing, exactly, whoever dies between which two steps.
//!
//! A [`Ledger`] is a count of what is free, and beside it, for each participant, how much that one holds. Taking one
//! changes two words, and a process can die between them. So the step is made in the count's own word, which also says who
//! made it; and whoever comes next writes down what the last one may not have come to, before he changes the count again. At
//! any moment, at most one change is not written down yet, and the count says which.
//!
//! It waits for nobody and wakes nobody: what to wait on is its user's affair. See `docs/design/shared-memory.md`.

use super::Member;
use crate::prim::{AtomicU64, Ordering};

/// The most that a ledger counts: `SEM_VALUE_MAX` of Linux.
pub const MAX_COUNT: u32 = i32::MAX as u32;

/// The most that one participant can hold of one thing.
pub const MAX_HELD: u32 = (1 << HELD_BITS) - 1;

const HELD_BITS: u32 = 20;
const SEQUENCE_MASK: u64 = (1 << 20) - 1;
const WHO_MASK: u64 = (1 << 11) - 1;
/// No participant has this index: the change needs no writing down.
const NOBODY: u64 = WHO_MASK;

/// The number of participants that the words have room for.
#[cfg(not(loom))]
pub(super) const MAX_MEMBERS: usize = NOBODY as usize;

/// What the last change did to the one who made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Took = 0,
    Gave = 1,
    /// All that the dead held was given back.
    Swept = 2,
}

/// ```text
/// 63      33 32    31 30 20 19      0
/// │  count  │ change │ who │ sequence │
/// ```
///
/// `sequence` is the one of `who`'s own changes: his word has it once the change is written down, and the one before it
/// until then. So the same value does not come back before a participant has made 2^20 changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Count(u64);

impl Count {
    fn new(count: u32, change: Change, who: u64, sequence: u64) -> Self {
        Self(u64::from(count) << 33 | (change as u64) << 31 | who << 20 | sequence & SEQUENCE_MASK)
    }

    /// The same, after a change that is nobody's.
    fn with(self, count: u32) -> Self {
        Self(u64::from(count) << 33 | self.0 & ((1 << 33) - 1))
    }

    fn count(self) -> u32 {
        (self.0 >> 33) as u32
    }

    fn change(self) -> Change {
        match self.0 >> 31 & 3 {
            0 => Change::Took,
            1 => Change::Gave,
            _ => Change::Swept,
        }
    }

    fn who(self) -> u64 {
        self.0 >> 20 & WHO_MASK
    }

    fn sequence(self) -> u64 {
        self.0 & SEQUENCE_MASK
    }
}

/// ```text
/// 63          40 39  20 19      0
/// │ generation  │ held │ sequence │
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Holding(u64);

impl Holding {
    fn new(generation: u32, held: u32, sequence: u64) -> Self {
        Self(u64::from(generation) << 40 | u64::from(held) << 20 | sequence & SEQUENCE_MASK)
    }

    fn generation(self) -> u32 {
        (self.0 >> 40) as u32
    }

    fn held(self) -> u32 {
        (self.0 >> 20) as u32 & MAX_HELD
    }

    fn sequence(self) -> u64 {
        self.0 & SEQUENCE_MASK
    }
}

/// Why a ledger did not change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// Nothing is free.
    #[error("nothing is free")]
    NothingFree,
    /// More would be free than may be.
    #[error("more was given back than there may be")]
    TooMany,
    /// The participant holds nothing of it, or the most that one can hold.
    #[error("the participant holds nothing that it could give back, or as much as one can hold")]
    NotHeld,
}

/// A count, and who holds what of it.
///
/// # Peers
///
/// | word | written by | after a death |
/// | --- | --- | --- |
/// | `count` | everybody, by compare-and-swap | stands as it is: each change of it is whole |
/// | `holdings[i]` | everybody, by compare-and-swap, to write down what `count` says participant `i` did last; `i` alone, to put its generation in | the last change of `i` may be missing: whoever changes `count` next writes it down first |
///
/// All calls with a [`Member`] panic when it is of a larger registry than the ledger has words for.
///
/// What the dead held is free again once somebody [sweeps](Self::sweep), or once his index belongs to another who uses the ledger.
#[derive(Clone, Copy, Debug)]
pub struct Ledger<'a> {
    count: &'a AtomicU64,
    holdings: &'a [AtomicU64],
    bound: u32,
}

impl<'a> Ledger<'a> {
    /// The ledger in these words, of which all are zero in the beginning: nothing is free, nobody holds anything. `holdings` has
    /// one word for each index of the [`Registry`](super::Registry).
    #[must_use]
    #[inline]
    pub fn new(count: &'a AtomicU64, holdings: &'a [AtomicU64]) -> Self {
        Self { count, holdings, bound: MAX_COUNT }
    }

    /// The same, of which no more than `bound` are free ever: adding more is an error, and what is given back beyond is dropped. All
    /// who use the words have to agree on it. [`MAX_COUNT`] unless it is smaller.
    #[must_use]
    #[inline]
    pub fn bounded(self, bound: u32) -> Self {
        Self { bound: bound.min(MAX_COUNT), ..self }
    }

    /// What the words of a new ledger have to be so that `count` are free: the value for its first word. Cut at [`MAX_COUNT`].
    #[must_use]
    pub fn initial(count: u32) -> u64 {
        Count::new(count.min(MAX_COUNT), Change::Took, NOBODY, 1).0
    }

    /// How many are free.
    #[must_use]
    #[inline]
    pub fn free(&self) -> u32 {
        self.load().count()
    }

    /// How many `member` holds.
    #[must_use]
    pub fn held_by(&self, member: Member) -> u32 {
        self.written_down();
        let holding = self.holding(member.index);
        if holding.generation() == member.generation { holding.held() } else { 0 }
    }

    /// Takes one for `member`, who holds it until it gives it back, or dies.
    ///
    /// # Errors
    ///
    /// [`LedgerError::NothingFree`]; [`LedgerError::NotHeld`] when it holds [`MAX_HELD`] already.
    #[inline]
    pub fn take(&self, member: Member) -> Result<(), LedgerError> {
        self.change(member, |count, holding| match (count.count(), holding.held()) {
            (0, _) => Err(LedgerError::NothingFree),
            (_, MAX_HELD) => Err(LedgerError::NotHeld),
            (free, _) => Ok((free - 1, Change::Took)),
        })
    }

    /// Gives back one that `member` holds.
    ///
    /// # Errors
    ///
    /// [`LedgerError::NotHeld`].
    #[inline]
    pub fn give_back(&self, member: Member) -> Result<(), LedgerError> {
        self.change(member, |count, holding| match holding.held() {
            0 => Err(LedgerError::NotHeld),
            _ => Ok((self.with_more(count, 1), Change::Gave)),
        })
    }

    /// Takes one for nobody: it does not come back by itself.
    ///
    /// # Errors
    ///
    /// [`LedgerError::NothingFree`].
    #[inline]
    pub fn remove(&self) -> Result<(), LedgerError> {
        self.change_for_nobody(|free| free.checked_sub(1).ok_or(LedgerError::NothingFree))
    }

    /// Adds `more`, unless that makes more free than may be.
    ///
    /// # Errors
    ///
    /// [`LedgerError::TooMany`].
    #[inline]
    pub fn add(&self, more: u32) -> Result<(), LedgerError> {
        self.change_for_nobody(|free| {
            free.checked_add(more).filter(|&free| free <= self.bound).ok_or(LedgerError::TooMany)
        })
    }

    /// What is free after somebody has given back `more`. Too many, if others have added what they had not taken.
    fn with_more(&self, count: Count, more: u32) -> u32 {
        count.count().saturating_add(more).min(self.bound).max(count.count())
    }

    /// Frees what those held who are not alive any more, and returns how much that was.
    pub fn sweep(&self, is_alive: impl Fn(Member) -> bool) -> u32 {
        self.written_down();
        let mut freed = 0;
        for index in 0..self.holdings.len() {
            let holding = self.holding(index as u16);
            let holder = Member { index: index as u16, generation: holding.generation() };
            if holding.held() > 0 && !is_alive(holder) {
                freed += self.sweep_one(holder);
            }
        }
        freed
    }

    /// Frees what `dead` held. Whoever else does so meanwhile, one of them counts it.
    fn sweep_one(&self, dead: Member) -> u32 {
        loop {
            let count = self.written_down();
            let holding = self.holding(dead.index);
            if holding.generation() != dead.generation || holding.held() == 0 {
                return 0;
            }
            let free = self.with_more(count, holding.held());
            let next = Count::new(free, Change::Swept, dead.index.into(), holding.sequence() + 1);
            if self.replace(count, next) {
                billiard_wire::fault::point("shm.ledger.swept");
                self.write_down(next);
                return holding.held();
            }
        }
    }

    fn change(
        &self,
        member: Member,
        decide: impl Fn(Count, Holding) -> Result<(u32, Change), LedgerError>,
    ) -> Result<(), LedgerError> {
        loop {
            let count = self.written_down();
            let holding = self.holding(member.index);
            if holding.generation() != member.generation {
                self.move_in(member, holding);
                continue;
            }
            let (free, change) = decide(count, holding)?;
            let next = Count::new(free, change, member.index.into(), holding.sequence() + 1);
            if self.replace(count, next) {
                billiard_wire::fault::point("shm.ledger.counted");
                self.write_down(next);
                billiard_wire::fault::point("shm.ledger.written");
                return Ok(());
            }
        }
    }

    /// The index belonged to somebody who died: frees what that one held, and puts the new generation in.
    fn move_in(&self, member: Member, former: Holding) {
        if former.held() > 0 {
            self.sweep_one(Member { index: member.index, generation: former.generation() });
        } else {
            let own = Holding::new(member.generation, 0, former.sequence());
            // AcqRel: pairs with the Acquire loads of the word. That it fails means that another thread was here.
            let _ = self.holdings[usize::from(member.index)].compare_exchange(
                former.0,
                own.0,
                Ordering::AcqRel,
                Ordering::Acquire,
            );
        }
    }

    fn change_for_nobody(&self, decide: impl Fn(u32) -> Result<u32, LedgerError>) -> Result<(), LedgerError> {
        loop {
            let count = self.written_down();
            if self.replace(count, count.with(decide(count.count())?)) {
                return Ok(());
            }
        }
    }

    fn load(&self) -> Count {
        // Acquire: pairs with the Release in `replace`. Who sees a count sees all holdings that were written down before it.
        Count(self.count.load(Ordering::Acquire))
    }

    fn replace(&self, count: Count, next: Count) -> bool {
        // AcqRel: the Release pairs with the Acquire in `load`, the Acquire with the Release of the former change.
        self.count.compare_exchange(count.0, next.0, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    fn holding(&self, index: u16) -> Holding {
        // Acquire: pairs with the Release in `write_down`, and keeps this load before the next of the count.
        Holding(self.holdings[usize::from(index)].load(Ordering::Acquire))
    }

    /// The count, once what its last change did to its maker is written down.
    fn written_down(&self) -> Count {
        let count = self.load();
        self.write_down(count);
        count
    }

    /// Writes down what `count` says its maker did, unless that is done, or the count has changed since: then it was done before.
    fn write_down(&self, count: Count) {
        let Some(word) = self.holdings.get(count.who() as usize) else { return };
        let holding = Holding(word.load(Ordering::Acquire));
        if holding.sequence() == count.sequence() || self.load() != count {
            return;
        }
        // As long as the count stands, this is the only change that the word can see; so a failure means that it has.
        let held = match count.change() {
            Change::Took => holding.held() + 1,
            Change::Gave => holding.held().saturating_sub(1),
            Change::Swept => 0,
        };
        let next = Holding::new(holding.generation(), held.min(MAX_HELD), count.sequence());
        // AcqRel: pairs with the Acquire loads of the word.
        let _ = word.compare_exchange(holding.0, next.0, Ordering::AcqRel, Ordering::Acquire);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const ONE: Member = Member { index: 0, generation: 1 };
    const TWO: Member = Member { index: 1, generation: 7 };

    fn words(count: u32) -> (AtomicU64, Vec<AtomicU64>) {
        (AtomicU64::new(Ledger::initial(count)), (0..3).map(|_| AtomicU64::new(0)).collect())
    }

    #[test]
    fn what_is_taken_is_held_until_it_is_given_back() {
        let (count, holdings) = words(2);
        let ledger = Ledger::new(&count, &holdings);
        assert_eq!(ledger.take(ONE), Ok(()));
        assert_eq!(ledger.take(TWO), Ok(()));
        assert_eq!(ledger.take(ONE), Err(LedgerError::NothingFree));
        assert_eq!((ledger.free(), ledger.held_by(ONE), ledger.held_by(TWO)), (0, 1, 1));
        assert_eq!(ledger.give_back(ONE), Ok(()));
        assert_eq!(ledger.give_back(ONE), Err(LedgerError::NotHeld));
        assert_eq!(ledger.remove(), Ok(()));
        assert_eq!(ledger.remove(), Err(LedgerError::NothingFree));
        assert_eq!(ledger.bounded(2).add(3), Err(LedgerError::TooMany));
        assert_eq!(ledger.bounded(2).add(2), Ok(()));
        // One that was added and never taken leaves no room for the one that is given back.
        assert_eq!(ledger.bounded(2).give_back(TWO), Ok(()));
        assert_eq!((ledger.free(), ledger.held_by(TWO)), (2, 0));
        assert_eq!(ledger.bounded(u32::MAX).add(1), Ok(()));
        assert_eq!(ledger.add(u32::MAX), Err(LedgerError::TooMany));
        assert_eq!(ledger.free(), 3);
    }

    #[test]
    fn the_dead_give_back_what_they_held_once() {
        let (count, holdings) = words(5);
        let ledger = Ledger::new(&count, &holdings);
        for _ in 0..2 {
            ledger.take(ONE).unwrap();
            ledger.take(TWO).unwrap();
        }
        assert_eq!(ledger.sweep(|member| member != TWO), 2);
        assert_eq!(ledger.sweep(|member| member != TWO), 0);
        assert_eq!((ledger.free(), ledger.held_by(ONE), ledger.held_by(TWO)), (3, 2, 0));
        // Another who has the index of a dead one inherits nothing.
        let heir = Member { index: 0, generation: 2 };
        assert_eq!(ledger.give_back(heir), Err(LedgerError::NotHeld));
        assert_eq!((ledger.free(), ledger.held_by(ONE)), (5, 0));
    }

    #[test]
    fn a_change_is_written_down_by_who_comes_next() {
        let (count, holdings) = words(1);
        let ledger = Ledger::new(&count, &holdings);
        // ONE moves in, and dies right after its change of the count.
        let _ = ledger.give_back(ONE);
        assert!(ledger.replace(ledger.load(), Count::new(0, Change::Took, 0, 1)));
        assert_eq!(Holding(holdings[0].load(Ordering::Relaxed)).held(), 0);
        assert_eq!(ledger.sweep(|_| false), 1);
        assert_eq!((ledger.free(), ledger.held_by(ONE)), (1, 0));
    }

    #[test]
    fn a_change_from_long_ago_fails_though_the_numbers_are_the_same() {
        let (count, holdings) = words(2);
        let ledger = Ledger::new(&count, &holdings);
        ledger.take(ONE).unwrap();
        for _ in 0..4 {
            ledger.add(1).unwrap();
            ledger.remove().unwrap();
        }
        // ONE has died. One who sweeps has read all that he needs, and is stopped.
        let (old, dead) = (ledger.written_down(), ledger.holding(0));
        assert_eq!((old.count(), dead.held()), (1, 1));
        // Another does the same, and others go on, until as much is free as then. If a plain change counted on from the
        // last number, that would be 6, then 9 as it was in `old`, then 12.
        assert_eq!(ledger.sweep(|_| false), 1);
        ledger.take(TWO).unwrap();
        ledger.give_back(TWO).unwrap();
        ledger.take(TWO).unwrap();
        for _ in 0..10 {
            ledger.add(2).unwrap();
            ledger.remove().unwrap();
            ledger.remove().unwrap();
            assert_eq!(ledger.free(), 1);
            assert!(!ledger.replace(old, Count::new(2, Change::Swept, 0, dead.sequence() + 1)));
        }
        assert_eq!((ledger.free(), ledger.held_by(ONE), ledger.held_by(TWO)), (1, 0, 1));
    }

    #[test]
    fn numbers_come_round() {
        let (count, holdings) = words(1);
        let ledger = Ledger::new(&count, &holdings);
        for _ in 0..(1 << 20) + 3 {
            ledger.take(ONE).unwrap();
            ledger.give_back(ONE).unwrap();
        }
        assert_eq!((ledger.free(), ledger.held_by(ONE)), (1, 0));
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use loom::sync::Arc;

    use super::*;

    struct Words {
        count: AtomicU64,
        holdings: Vec<AtomicU64>,
    }

    impl Words {
        fn new(count: u32) -> Arc<Self> {
            let holdings = (0..2).map(|_| AtomicU64::new(0)).collect();
            Arc::new(Self { count: AtomicU64::new(Ledger::initial(count)), holdings })
        }

        fn ledger(&self) -> Ledger<'_> {
            Ledger::new(&self.count, &self.holdings)
        }
    }

    fn model(check: impl Fn() + Send + Sync + 'static) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(3);
        builder.check(check);
    }

    fn member(index: u16, generation: u32) -> Member {
        Member { index, generation }
    }

    #[test]
    fn one_permit_has_one_holder() {
        model(|| {
            let words = Words::new(1);
            let takers: Vec<_> = (0..2)
                .map(|index| {
                    let words = words.clone();
                    loom::thread::spawn(move || {
                        let taken = words.ledger().take(member(index, 1)).is_ok();
                        if taken {
                            words.ledger().give_back(member(index, 1)).unwrap();
                        }
                        taken
                    })
                })
                .collect();
            let taken = takers.into_iter().map(|taker| taker.join().unwrap()).filter(|&taken| taken).count();
            assert!(taken >= 1);
            assert_eq!(words.ledger().free(), 1);
            assert_eq!(words.ledger().held_by(member(0, 1)) + words.ledger().held_by(member(1, 1)), 0);
        });
    }

    #[test]
    fn who_dies_between_the_two_steps_loses_nothing_and_gains_nothing() {
        model(|| {
            let words = Words::new(2);
            let dying = {
                let words = words.clone();
                loom::thread::spawn(move || {
                    let ledger = words.ledger();
                    let _ = ledger.give_back(member(0, 1)); // moves in
                    loop {
                        let count = ledger.written_down();
                        let next = Count::new(count.count() - 1, Change::Took, 0, 1);
                        if ledger.replace(count, next) {
                            return; // and does not write it down
                        }
                    }
                })
            };
            // A thread of its own: loom does not try what would come before the first thread's next step.
            let other = {
                let words = words.clone();
                loom::thread::spawn(move || words.ledger().take(member(1, 1)).unwrap())
            };
            other.join().unwrap();
            dying.join().unwrap();
            let sweeper = {
                let words = words.clone();
                loom::thread::spawn(move || words.ledger().sweep(|holder| holder != member(0, 1)))
            };
            let heir = {
                let words = words.clone();
                loom::thread::spawn(move || words.ledger().take(member(0, 2)).is_ok())
            };
            let heir = heir.join().unwrap();
            sweeper.join().unwrap();
            words.ledger().sweep(|holder| holder != member(0, 1));
            assert!(heir, "what the dead one held is free for who has its place");
            let ledger = words.ledger();
            assert_eq!((ledger.free(), ledger.held_by(member(0, 2)), ledger.held_by(member(1, 1))), (0, 1, 1));
        });
    }

    #[test]
    fn what_nobody_will_own_hides_no_change_of_the_dead() {
        model(|| {
            let words = Words::new(2);
            let dying = {
                let words = words.clone();
                loom::thread::spawn(move || {
                    let ledger = words.ledger();
                    let _ = ledger.give_back(member(0, 1)); // moves in
                    let count = ledger.written_down();
                    ledger.replace(count, Count::new(count.count() - 1, Change::Took, 0, 1))
                })
            };
            let other = {
                let words = words.clone();
                loom::thread::spawn(move || {
                    words.ledger().remove().unwrap();
                    words.ledger().add(1).unwrap();
                })
            };
            other.join().unwrap();
            let took = dying.join().unwrap();
            assert_eq!(words.ledger().free(), 2 - u32::from(took));
            assert_eq!(words.ledger().sweep(|_| false), u32::from(took));
            assert_eq!(words.ledger().free(), 2);
        });
    }

    #[test]
    fn what_the_dead_held_comes_back_once() {
        model(|| {
            let words = Words::new(2);
            words.ledger().take(member(0, 1)).unwrap();
            let sweepers: Vec<_> = (0..2)
                .map(|_| {
                    let words = words.clone();
                    loom::thread::spawn(move || words.ledger().sweep(|_| false))
                })
                .collect();
            let freed: u32 = sweepers.into_iter().map(|sweeper| sweeper.join().unwrap()).sum();
            assert_eq!((freed, words.ledger().free()), (1, 2));
        });
    }
}
