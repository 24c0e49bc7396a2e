//! The semaphore: permits in one word, and what is held by guards beside it. `docs/design/locks.md`, "Semaphore".

use billiard_shm::{
    futex::Futex,
    prim::{AtomicU32, AtomicU64, Ordering},
};
use billiard_wire::fault;

use super::{Owner, Peers, Wait};

/// The most permits: `SEM_VALUE_MAX` of POSIX.
pub(crate) const MAX: u32 = i32::MAX as u32;

/// A waiter has gone to sleep, or is about to.
const WAITING: u64 = 1 << 31;

/// The permits in the state.
const PERMITS: u64 = WAITING - 1;

/// How many seats a transfer can name.
pub(crate) const SEATS: usize = 1 << 12;

/// What a transfer does to the count of its holding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Move {
    /// One more is held.
    Take = 1,
    /// One less.
    Give = 2,
    /// None any more.
    GiveAll = 3,
}

/// The transfer that the upper half of the state names: kind (2 bits, 0: there never was one), seat (12), sequence (18).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Transfer(u32);

impl Transfer {
    const SEQUENCE: u32 = (1 << 18) - 1;

    fn new(kind: Move, seat: usize, count: Count) -> Self {
        debug_assert!(seat < SEATS);
        Self((kind as u32) << 30 | (seat as u32) << 18 | count.sequence() & Self::SEQUENCE)
    }

    fn of(state: u64) -> Self {
        Self((state >> 32) as u32)
    }

    fn kind(self) -> Option<Move> {
        match self.0 >> 30 {
            1 => Some(Move::Take),
            2 => Some(Move::Give),
            3 => Some(Move::GiveAll),
            _ => None,
        }
    }

    fn seat(self) -> usize {
        (self.0 >> 18) as usize & (SEATS - 1)
    }

    /// Whether a holding with this count has yet to hear of it.
    fn is_due(self, count: Count) -> bool {
        self.0 & Self::SEQUENCE == count.sequence() & Self::SEQUENCE
    }

    fn bits(self) -> u64 {
        u64::from(self.0) << 32
    }
}

/// The count of a holding: how many permits (lower half), and how many transfers it has had (upper half).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Count(u64);

impl Count {
    fn held(self) -> u32 {
        self.0 as u32
    }

    fn sequence(self) -> u32 {
        (self.0 >> 32) as u32
    }

    fn after(self, kind: Move) -> Self {
        let held = match kind {
            Move::Take => self.held().saturating_add(1),
            Move::Give => self.held().saturating_sub(1),
            Move::GiveAll => 0,
        };
        Self(u64::from(self.sequence().wrapping_add(1)) << 32 | u64::from(held))
    }
}

/// What the participant on one seat holds.
///
/// # Peers
///
/// `owner` is written by the participant that takes the seat, once its predecessor holds nothing; `count` by whoever
/// settles a transfer of this seat. Whoever dies in between leaves something for the next to settle or to give back.
#[derive(Debug, Default)]
#[cfg_attr(not(loom), repr(C))]
pub(crate) struct Holding {
    count: AtomicU64,
    owner: AtomicU32,
    _pad: u32,
}

/// The words of a semaphore.
///
/// # Peers
///
/// Anybody writes both, by read-modify-write alone. `state` decides; `bell` only wakes.
#[derive(Debug)]
#[cfg_attr(not(loom), repr(C))]
pub(crate) struct Permits {
    state: AtomicU64,
    bell: Futex,
    _pad: u32,
}

/// There are as many permits as there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

/// The words together with the holdings, one for each seat.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Semaphore<'a> {
    pub(crate) permits: &'a Permits,
    pub(crate) holdings: &'a [Holding],
    /// No more permits than these.
    pub(crate) bound: u32,
}

/// A participant and the seat that it has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seated {
    pub(crate) owner: Owner,
    pub(crate) seat: usize,
}

impl Permits {
    /// With that many.
    #[cfg(test)]
    pub(crate) fn new(permits: u32) -> Self {
        Self { state: AtomicU64::new(permits.into()), bell: Futex::new(0), _pad: 0 }
    }

    /// The first permits, before anybody else has the words.
    pub(crate) fn begin(&self, permits: u32) {
        self.state.store(permits.into(), Ordering::Relaxed);
    }
}

impl Semaphore<'_> {
    /// The permits that are free.
    pub(crate) fn value(self) -> u32 {
        (self.permits.state.load(Ordering::Relaxed) & PERMITS) as u32
    }

    /// Takes a permit that nobody will own, if one is free.
    #[inline]
    pub(crate) fn try_acquire(self, peers: &impl Peers) -> bool {
        let take = || self.take_plain(0).is_some();
        take() || self.reap(peers) && take()
    }

    /// As [`try_acquire`](Self::try_acquire), waiting for one; false when the wait is over.
    #[inline]
    pub(crate) fn acquire(self, peers: &impl Peers, wait: Wait) -> bool {
        self.take_plain(0).is_some() || self.wait_until(peers, wait, |waiting| self.take_plain(waiting))
    }

    /// Takes a permit as a guard's, if one is free.
    pub(crate) fn try_take(self, me: Seated, peers: &impl Peers) -> bool {
        self.sit_down(me);
        let take = || self.take(me, 0).is_some();
        take() || self.reap(peers) && take()
    }

    /// As [`try_take`](Self::try_take), waiting for one; false when the wait is over.
    pub(crate) fn take_waiting(self, me: Seated, peers: &impl Peers, wait: Wait) -> bool {
        self.sit_down(me);
        self.take(me, 0).is_some() || self.wait_until(peers, wait, |waiting| self.take(me, waiting))
    }

    /// Adds permits.
    #[inline]
    pub(crate) fn release(self, permits: u32) -> Result<(), Full> {
        fault::point("semaphore.release");
        let mut state = self.permits.state.load(Ordering::Relaxed);
        loop {
            let sum = (state & PERMITS) + u64::from(permits);
            if sum > self.bound.into() {
                return Err(Full);
            }
            // PAIR semaphore.permits: the Release is seen by the Acquire of whoever takes one. The Acquire: PAIR semaphore.bell.
            match self.permits.state.compare_exchange_weak(
                state,
                state & !(PERMITS | WAITING) | sum,
                Ordering::AcqRel,
                Ordering::Relaxed,
            ) {
                Ok(_) => break,
                Err(now) => state = now,
            }
        }
        fault::point("semaphore.released");
        self.wake(state, permits);
        Ok(())
    }

    /// Gives a guard's permit back; nothing if that was done in this participant's name, since it was believed dead.
    pub(crate) fn give(self, me: Seated) {
        loop {
            let state = self.permits.state.load(Ordering::Acquire);
            self.settle(state);
            let Some((holding, count)) = self.holding(me.seat) else { return };
            if count.held() == 0 || holding.owner.load(Ordering::Relaxed) != me.owner.bits() {
                return;
            }
            if self.give_some(state, Move::Give, me.seat, count, 1) {
                return;
            }
        }
    }

    /// Gives back what dead participants hold; whether that was anything.
    pub(crate) fn reap(self, peers: &impl Peers) -> bool {
        self.settle(self.permits.state.load(Ordering::Acquire));
        let is_dead = |holding: &Holding| {
            // PAIR semaphore.owner: Acquire, of the Release in `sit_down`, seen by way of `count`: a count is its owner's.
            Owner::from_bits(holding.owner.load(Ordering::Acquire)).is_none_or(|owner| peers.is_dead(owner))
        };
        let mut reaped = false;
        for (seat, holding) in self.holdings.iter().enumerate() {
            if Count(holding.count.load(Ordering::Acquire)).held() != 0 {
                reaped |= self.give_all(seat, is_dead);
            }
        }
        reaped
    }

    /// Gives back what a holding has, as long as `may` says so of it; whether that was anything.
    fn give_all(self, seat: usize, may: impl Fn(&Holding) -> bool) -> bool {
        loop {
            let state = self.permits.state.load(Ordering::Acquire);
            self.settle(state);
            match self.holding(seat) {
                Some((holding, count)) if count.held() != 0 && may(holding) => {
                    fault::point("semaphore.reap");
                    if self.give_some(state, Move::GiveAll, seat, count, count.held()) {
                        return true;
                    }
                }
                _ => return false,
            }
        }
    }

    /// Makes the seat's holding this participant's. What its predecessor held is given back first.
    fn sit_down(self, me: Seated) {
        let Some(holding) = self.holdings.get(me.seat) else { return };
        if holding.owner.load(Ordering::Relaxed) == me.owner.bits() {
            return;
        }
        self.settle(self.permits.state.load(Ordering::Acquire));
        self.give_all(me.seat, |_predecessor| true);
        fault::point("semaphore.sit");
        // PAIR semaphore.owner: Release; and a permit is counted here only after this.
        holding.owner.store(me.owner.bits(), Ordering::Release);
    }

    /// Takes a permit that nobody will own; how many are left. `waiting` is added to the state.
    #[inline]
    fn take_plain(self, waiting: u64) -> Option<u64> {
        fault::point("semaphore.acquire");
        let mut state = self.permits.state.load(Ordering::Relaxed);
        while state & PERMITS != 0 {
            // PAIR semaphore.permits: Acquire, of the Release in `release` and `give_some`.
            match self.permits.state.compare_exchange_weak(
                state,
                state - 1 | waiting,
                Ordering::Acquire,
                Ordering::Relaxed,
            ) {
                Ok(_) => {
                    fault::point("semaphore.acquired");
                    return Some((state & PERMITS) - 1);
                }
                Err(now) => state = now,
            }
        }
        None
    }

    /// Moves a permit to this participant's holding; how many are left. `waiting` is added to the state.
    fn take(self, me: Seated, waiting: u64) -> Option<u64> {
        loop {
            let state = self.permits.state.load(Ordering::Acquire);
            self.settle(state);
            let (_, count) = self.holding(me.seat)?;
            if state & PERMITS == 0 {
                return None;
            }
            fault::point("semaphore.take");
            let taken = (state & (PERMITS | WAITING)) - 1 | waiting | Transfer::new(Move::Take, me.seat, count).bits();
            if self.commit(state, taken) {
                fault::point("semaphore.taken");
                self.settle(taken);
                fault::point("semaphore.settled");
                return Some(taken & PERMITS);
            }
        }
    }

    /// Moves permits from a holding back, as many as there may be.
    fn give_some(self, state: u64, kind: Move, seat: usize, count: Count, permits: u32) -> bool {
        let sum = ((state & PERMITS) + u64::from(permits)).min(self.bound.into()).max(state & PERMITS);
        let given = sum | Transfer::new(kind, seat, count).bits();
        fault::point("semaphore.give");
        if !self.commit(state, given) {
            return false;
        }
        fault::point("semaphore.given");
        self.settle(given);
        self.wake(state, permits);
        true
    }

    /// The step at which a transfer has happened.
    fn commit(self, state: u64, next: u64) -> bool {
        // PAIR semaphore.permits: both sides. Together with the Acquire load of `state` in each transfer, it also carries
        // every settled count from who settled it to who begins the next transfer.
        self.permits.state.compare_exchange(state, next, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Brings the holding up to date that the last transfer concerns, if nobody has yet.
    fn settle(self, state: u64) {
        let transfer = Transfer::of(state);
        let (Some(kind), Some((holding, count))) = (transfer.kind(), self.holding(transfer.seat())) else { return };
        if !transfer.is_due(count) {
            return;
        }
        // The count was read first. If the transfer still stands, and the count does not change until the exchange, then it is
        // the one from which the transfer began: a settled one would have advanced.
        if Transfer::of(self.permits.state.load(Ordering::Acquire)) != transfer {
            return;
        }
        fault::point("semaphore.settle");
        // PAIR semaphore.count: Release, seen by the Acquire in `holding`: who sees the new count sees this state or a later one.
        let _ = holding.count.compare_exchange(count.0, count.after(kind).0, Ordering::AcqRel, Ordering::Relaxed);
    }

    /// The holding of a seat with its count as it is; none for a seat that there is not.
    fn holding(&self, seat: usize) -> Option<(&Holding, Count)> {
        let holding = self.holdings.get(seat)?;
        // PAIR semaphore.count: Acquire, of the Release in `settle`.
        Some((holding, Count(holding.count.load(Ordering::Acquire))))
    }

    /// Wakes as many as there are new permits, if somebody had gone to sleep in the state before.
    #[inline]
    fn wake(self, before: u64, permits: u32) {
        if before & WAITING != 0 {
            self.ring(permits);
        }
    }

    fn ring(self, permits: u32) {
        self.permits.bell.value().fetch_add(1, Ordering::Relaxed);
        self.permits.bell.wake(permits);
    }

    /// Tries, and sleeps, and tries again. `attempt` is given what it has to add to the state.
    #[cold]
    fn wait_until(self, peers: &impl Peers, wait: Wait, attempt: impl Fn(u64) -> Option<u64>) -> bool {
        let mut slept = 0;
        let attempt = |slept| match attempt(slept) {
            // Whoever added these found `WAITING` cleared, by whoever woke this one: others sleep still.
            Some(left) if left != 0 && slept != 0 => {
                self.ring(1);
                true
            }
            taken => taken.is_some(),
        };
        loop {
            // PAIR semaphore.bell: the Acquire keeps this before the Release of `WAITING`, which whoever rings has acquired:
            // so this reads the bell as it was before.
            let bell = self.permits.bell.load(Ordering::Acquire);
            let state = self.permits.state.load(Ordering::Relaxed);
            if state & PERMITS != 0 {
                if attempt(slept) {
                    return true;
                }
                continue;
            }
            // Also where it is set already: a release of this waiter's own.
            if self
                .permits
                .state
                .compare_exchange(state, state | WAITING, Ordering::Release, Ordering::Relaxed)
                .is_err()
            {
                continue;
            }
            fault::point("semaphore.waiting");
            let looked = self.permits.bell.wait(bell, wait.next(peers));
            fault::point("semaphore.woken");
            slept = WAITING; // its wake-up may have been the only one
            if looked == billiard_shm::futex::Wait::TimedOut && !self.reap(peers) && wait.is_over() {
                return attempt(slept);
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::words::peers::fake::{Fake, owner};

    fn seated(number: u32) -> Seated {
        Seated { owner: owner(number), seat: number as usize - 1 }
    }

    fn words(permits: u32, seats: usize) -> (Permits, Vec<Holding>) {
        (Permits::new(permits), (0..seats).map(|_| Holding::default()).collect())
    }

    #[test]
    fn the_words_are_pinned() {
        assert_eq!((size_of::<Permits>(), align_of::<Permits>()), (16, 8));
        assert_eq!((size_of::<Holding>(), align_of::<Holding>()), (16, 8));
        let (permits, holdings) = words(5, 4);
        let semaphore = Semaphore { permits: &permits, holdings: &holdings, bound: MAX };
        assert!(semaphore.try_take(seated(3), &Fake::mortal()));
        let state = 1 << 62 | 2 << 50 | 4; // take, seat 2, sequence 0, and what is left
        assert_eq!(permits.state.load(Ordering::Relaxed), state);
        assert_eq!(holdings[2].count.load(Ordering::Relaxed), 1 << 32 | 1);
        assert_eq!(holdings[2].owner.load(Ordering::Relaxed), 3);
        assert!(semaphore.try_acquire(&Fake::mortal()));
        assert_eq!(permits.state.load(Ordering::Relaxed), state - 1);
        semaphore.give(seated(3));
        assert_eq!(permits.state.load(Ordering::Relaxed), 2 << 62 | 2 << 50 | 1 << 32 | 4);
        assert_eq!(holdings[2].count.load(Ordering::Relaxed), 2 << 32);
    }

    #[test]
    fn permits_have_a_bound() {
        let (permits, holdings) = words(1, 2);
        let semaphore = Semaphore { permits: &permits, holdings: &holdings, bound: 2 };
        assert_eq!(semaphore.release(2), Err(Full));
        assert_eq!(semaphore.release(1), Ok(()));
        assert_eq!(semaphore.release(1), Err(Full));
        assert!(semaphore.try_take(seated(1), &Fake::mortal()));
        assert_eq!(semaphore.release(1), Ok(())); // one too many, which the guard notices
        semaphore.give(seated(1));
        assert_eq!(semaphore.value(), 2);
        semaphore.give(seated(1)); // it has none any more
        assert_eq!(semaphore.value(), 2);
        let semaphore = Semaphore { bound: MAX, ..semaphore };
        assert_eq!(semaphore.release(MAX - 2), Ok(()));
        assert_eq!(semaphore.release(1), Err(Full));
        assert_eq!(semaphore.value(), MAX);
    }

    #[test]
    fn what_the_dead_held_comes_back_once() {
        let (permits, holdings) = words(3, 3);
        let semaphore = Semaphore { permits: &permits, holdings: &holdings, bound: MAX };
        let peers = Fake::mortal();
        for me in [1, 1, 2] {
            assert!(semaphore.try_take(seated(me), &peers));
        }
        assert!(!semaphore.take_waiting(seated(3), &peers, Wait::at_most(Duration::from_millis(1))));
        peers.kill(owner(1));
        assert!(semaphore.try_take(seated(3), &peers));
        assert_eq!(semaphore.value(), 1);
        semaphore.give(seated(1)); // believed dead, it comes too late
        assert!(!semaphore.reap(&peers));
        assert_eq!(semaphore.value(), 1);
        // Another participant on the seat of one who died holding a permit.
        peers.kill(owner(2));
        assert!(semaphore.try_take(Seated { owner: owner(7), seat: 1 }, &peers));
        assert_eq!(semaphore.value(), 1);
    }

    #[test]
    fn garbage_names_no_seat() {
        let (permits, holdings) = words(0, 1);
        let semaphore = Semaphore { permits: &permits, holdings: &holdings, bound: MAX };
        for state in [u64::MAX, 1 << 62 | 4095 << 50, 3 << 62 | 1, 1 << 63] {
            permits.state.store(state, Ordering::Relaxed);
            semaphore.reap(&Fake::mortal());
            semaphore.try_take(seated(1), &Fake::mortal());
            semaphore.give(seated(1));
            semaphore.try_take(seated(9), &Fake::mortal());
            let _ = semaphore.release(1);
        }
    }
}

#[cfg(all(test, loom))]
mod models {
    use loom::{sync::Arc, thread};

    use super::*;
    use crate::words::peers::fake::{Fake, owner};

    struct Shared {
        permits: Permits,
        holdings: Vec<Holding>,
        peers: Fake,
    }

    impl Shared {
        fn new(permits: u32, seats: usize, peers: Fake) -> Arc<Self> {
            let holdings = (0..seats).map(|_| Holding::default()).collect();
            Arc::new(Self { permits: Permits::new(permits), holdings, peers })
        }

        fn semaphore(&self) -> Semaphore<'_> {
            Semaphore { permits: &self.permits, holdings: &self.holdings, bound: MAX }
        }

        /// The first half of a transfer: a participant that dies between committing and settling.
        fn half(&self, kind: Move, me: Seated) -> bool {
            let semaphore = self.semaphore();
            let state = self.permits.state.load(Ordering::Acquire);
            semaphore.settle(state);
            let (_, count) = semaphore.holding(me.seat).unwrap();
            let permits = state & (PERMITS | WAITING);
            let permits = match kind {
                Move::Take if permits & PERMITS == 0 => return false,
                Move::Take => permits - 1,
                _ => permits + 1,
            };
            semaphore.commit(state, permits | Transfer::new(kind, me.seat, count).bits())
        }

        /// All permits, wherever they are.
        fn all(&self) -> u32 {
            let semaphore = self.semaphore();
            semaphore.settle(self.permits.state.load(Ordering::Acquire));
            semaphore.value()
                + self.holdings.iter().map(|holding| Count(holding.count.load(Ordering::Acquire)).held()).sum::<u32>()
        }
    }

    fn seated(number: u32) -> Seated {
        Seated { owner: owner(number), seat: number as usize - 1 }
    }

    fn bounded(run: impl Fn() + Send + Sync + 'static) {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(2);
        model.check(run);
    }

    #[test]
    fn plain_permits_wake_who_waits() {
        bounded(|| {
            let shared = Shared::new(0, 0, Fake::immortal());
            let waiters: Vec<_> = (0..2)
                .map(|_| {
                    let shared = shared.clone();
                    thread::spawn(move || assert!(shared.semaphore().acquire(&shared.peers, Wait::ForEver)))
                })
                .collect();
            shared.semaphore().release(1).unwrap();
            shared.semaphore().release(1).unwrap();
            waiters.into_iter().for_each(|waiter| waiter.join().unwrap());
            assert_eq!(shared.semaphore().value(), 0);
        });
    }

    #[test]
    fn one_permit_goes_round_and_nobody_sleeps_on() {
        bounded(|| {
            let shared = Shared::new(1, 0, Fake::immortal());
            let round = |shared: &Shared| {
                assert!(shared.semaphore().acquire(&shared.peers, Wait::ForEver));
                shared.semaphore().release(1).unwrap();
            };
            let others: Vec<_> = (0..2)
                .map(|_| {
                    let shared = shared.clone();
                    thread::spawn(move || round(&shared))
                })
                .collect();
            round(&shared);
            others.into_iter().for_each(|other| other.join().unwrap());
            assert_eq!(shared.semaphore().value(), 1);
        });
    }

    #[test]
    fn guards_take_and_give_beside_plain_permits() {
        bounded(|| {
            let shared = Shared::new(1, 2, Fake::immortal());
            let other = {
                let shared = shared.clone();
                thread::spawn(move || {
                    assert!(shared.semaphore().take_waiting(seated(2), &shared.peers, Wait::ForEver));
                    shared.semaphore().give(seated(2));
                })
            };
            assert!(shared.semaphore().take_waiting(seated(1), &shared.peers, Wait::ForEver));
            shared.semaphore().release(1).unwrap();
            shared.semaphore().give(seated(1));
            other.join().unwrap();
            assert_eq!((shared.semaphore().value(), shared.all()), (2, 2));
        });
    }

    /// Two threads of one participant, and another participant: the same seat is used from two sides.
    #[test]
    fn permits_are_neither_lost_nor_made() {
        bounded(|| {
            let shared = Shared::new(2, 2, Fake::immortal());
            shared.semaphore().sit_down(seated(1));
            let threads: Vec<_> = [seated(1), seated(2)]
                .into_iter()
                .map(|me| {
                    let shared = shared.clone();
                    thread::spawn(move || {
                        if shared.semaphore().try_take(me, &shared.peers) && me.seat == 1 {
                            shared.semaphore().give(me);
                        }
                    })
                })
                .collect();
            shared.semaphore().try_take(seated(1), &shared.peers);
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            assert_eq!(shared.all(), 2);
        });
    }

    #[test]
    fn a_death_between_two_steps_costs_no_permit() {
        for kind in [Move::Take, Move::Give] {
            bounded(move || {
                let shared = Shared::new(2, 3, Fake::mortal());
                for me in [1, 3] {
                    shared.semaphore().sit_down(seated(me));
                }
                if kind == Move::Give {
                    assert!(shared.semaphore().try_take(seated(1), &shared.peers));
                }
                let dying = {
                    let shared = shared.clone();
                    thread::spawn(move || {
                        let _ = shared.half(kind, seated(1)); // may lose against the others: then it dies before
                        shared.peers.kill(owner(1));
                    })
                };
                let other = {
                    let shared = shared.clone();
                    thread::spawn(move || {
                        if shared.semaphore().try_take(seated(3), &shared.peers) {
                            shared.semaphore().give(seated(3));
                        }
                    })
                };
                shared.semaphore().reap(&shared.peers);
                dying.join().unwrap();
                other.join().unwrap();
                shared.semaphore().reap(&shared.peers);
                assert_eq!((shared.semaphore().value(), shared.all()), (2, 2));
            });
        }
    }

    #[test]
    fn two_reapers_give_back_once() {
        bounded(|| {
            let shared = Shared::new(1, 1, Fake::mortal());
            assert!(shared.semaphore().try_take(seated(1), &shared.peers));
            shared.peers.kill(owner(1));
            let other = {
                let shared = shared.clone();
                thread::spawn(move || shared.semaphore().reap(&shared.peers))
            };
            shared.semaphore().reap(&shared.peers);
            // What was given back may be taken before the other reaper is done.
            let taken = shared.semaphore().take_plain(0).is_some();
            other.join().unwrap();
            assert_eq!(shared.semaphore().value() + u32::from(taken), 1);
        });
    }
}
