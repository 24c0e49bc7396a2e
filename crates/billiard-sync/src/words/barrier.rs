//! The barrier: a cell for each party, and one word that decides. `docs/design/locks.md`, "Barrier".

use billiard_shm::{
    futex::Futex,
    prim::{AtomicU64, Ordering},
};
use billiard_wire::fault;

use super::{Owner, Peers, Rounds, Wait};

/// The phase was broken off, and so are all that come, until a reset.
const BROKEN: u64 = 1 << 31;

/// The phase, in the state as in a cell.
const PHASE: u64 = BROKEN - 1;

/// What is no more ahead than this is later, and earlier otherwise: phases begin again at 0.
const LATER: u64 = PHASE >> 1;

/// In the last cell: its owner runs an action before it closes the phase.
const ACTING: u64 = BROKEN;

/// How many phases back the state tells how they ended.
const HISTORY: u64 = 32;

/// The words of a barrier.
///
/// # Peers
///
/// Anybody writes both, by read-modify-write alone. `state` decides: phase and [`BROKEN`] in the lower half, how the phases before
/// ended in the upper (the lowest bit is the last; 1 is a reset). `bell` only wakes.
#[derive(Debug)]
#[cfg_attr(not(loom), repr(C))]
pub(crate) struct Phases {
    state: AtomicU64,
    bell: Futex,
    _pad: u32,
}

// SAFETY: atomics, `repr(C)`, and padding that nobody looks at.
#[cfg(not(loom))]
unsafe impl billiard_shm::Words for Phases {}

/// The words together with the cells, one for each party: the phase for which it was claimed last, and by whom.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Barrier<'a> {
    pub(crate) phases: &'a Phases,
    pub(crate) cells: &'a [AtomicU64],
}

/// Why a wait did not end as it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failed {
    /// The barrier is broken, was reset, or broke while this one waited.
    Broken,
    /// This wait was over, which broke the barrier.
    TimedOut,
    /// A participant was found dead, which broke the barrier.
    Died,
}

impl Phases {
    #[cfg(test)]
    pub(crate) fn new() -> Self {
        Self { state: AtomicU64::new(1), bell: Futex::new(0), _pad: 0 }
    }

    /// The first phase, before anybody else has the words. It is not 0: that is what is in a new cell.
    pub(crate) fn begin(&self) {
        self.state.store(1, Ordering::Relaxed);
    }
}

fn phase(word: u64) -> u64 {
    word & PHASE
}

/// Whether the cell was claimed for a phase after that one.
fn is_later(cell: u64, than: u64) -> bool {
    matches!(phase(cell).wrapping_sub(than) & PHASE, 1..=LATER)
}

/// A cell that `owner` has claimed for that phase.
fn claimed(phase: u64, owner: Owner) -> u64 {
    u64::from(owner.bits()) << 32 | phase
}

/// What is known of the cells.
enum Arrived {
    All,
    /// This many, and then a cell with this in it.
    UpTo(usize, u64),
}

impl Barrier<'_> {
    /// Whether it is broken.
    pub(crate) fn is_broken(self) -> bool {
        self.phases.state.load(Ordering::Acquire) & BROKEN != 0
    }

    /// How many wait.
    pub(crate) fn arrived(self) -> usize {
        let state = self.phases.state.load(Ordering::Acquire);
        match self.cells_of(phase(state)) {
            _ if state & BROKEN != 0 => 0,
            Arrived::All => 0,
            Arrived::UpTo(count, _) => count,
        }
    }

    /// Arrives, and waits until all have; the place among them. Whoever comes last runs its `action`, if it has one, before
    /// anybody goes on.
    pub(crate) fn wait(
        self,
        me: Owner,
        peers: &impl Peers,
        wait: Wait,
        action: Option<impl FnOnce()>,
    ) -> Result<usize, Failed> {
        let (phase, place) = self.arrive(me, peers, wait, action.is_some())?;
        fault::point("barrier.arrived");
        if place + 1 == self.cells.len() {
            self.act(phase, action);
            self.close(phase, peers, true)?;
        }
        let mut rounds = Rounds::new(wait, peers);
        loop {
            // PAIR barrier.bell: Acquire, before `state`, which whoever rings has changed first.
            let bell = self.phases.bell.load(Ordering::Acquire);
            if let Some(ended) = self.ended(phase) {
                return ended.map(|()| place);
            }
            fault::point("barrier.waiting");
            self.phases.bell.wait(bell, rounds.next());
            fault::point("barrier.woken");
            if rounds.is_due(peers) {
                self.look(phase, peers, wait)?;
            }
        }
    }

    /// Breaks it, for all who wait and all who come.
    pub(crate) fn abort(self) {
        let mut state = self.phases.state.load(Ordering::Acquire);
        while state & BROKEN == 0 && !self.break_off(phase(state)) {
            state = self.phases.state.load(Ordering::Acquire);
        }
    }

    /// Begins a new phase, whole again. Whoever waits is told that the barrier broke.
    pub(crate) fn reset(self) {
        fault::point("barrier.reset");
        let mut state = self.phases.state.load(Ordering::Relaxed);
        while let Err(now) = self.advance(state, 1) {
            state = now;
        }
    }

    /// Claims the first free cell; the phase, and the number of the cell.
    fn arrive(self, me: Owner, peers: &impl Peers, wait: Wait, acts: bool) -> Result<(u64, usize), Failed> {
        fault::point("barrier.arrive");
        loop {
            let state = self.phases.state.load(Ordering::Acquire);
            if state & BROKEN != 0 {
                return Err(Failed::Broken);
            }
            if let Some(place) = self.claim(phase(state), me, peers, wait, acts)? {
                return Ok((phase(state), place)); // the phase may have ended meanwhile, but not as completed
            }
        }
    }

    /// Claims the first free cell, if the phase is this one still; the number of the cell.
    fn claim(self, phase: u64, me: Owner, peers: &impl Peers, wait: Wait, acts: bool) -> Result<Option<usize>, Failed> {
        match self.cells_of(phase) {
            // Whoever claimed the last has not closed the phase yet.
            Arrived::All => {
                // PAIR barrier.bell: as in `wait`.
                let bell = self.phases.bell.load(Ordering::Acquire);
                self.close(phase, peers, false)?;
                if self.ended(phase).is_none() {
                    // It acts still.
                    let looked = self.phases.bell.wait(bell, wait.next(peers));
                    if looked == billiard_shm::futex::Wait::TimedOut && wait.is_over() {
                        self.break_for(phase, Failed::TimedOut)?;
                    }
                }
                Ok(None)
            }
            // The phase is over; unless it is not, and there is garbage in the cell.
            Arrived::UpTo(_, cell) if is_later(cell, phase) && self.is_over(phase) => Ok(None),
            Arrived::UpTo(place, cell) => {
                // PAIR barrier.cells: Release, seen by the Acquire in `cells_of` of all who claim a later one.
                let acting = if acts && place + 1 == self.cells.len() { ACTING } else { 0 };
                let next = claimed(phase, me) | acting;
                let before = self.cells[place].compare_exchange(cell, next, Ordering::AcqRel, Ordering::Relaxed);
                Ok(before.is_ok().then_some(place))
            }
        }
    }

    /// All have arrived: completes the phase, unless one of them has died since. While the last of them acts, nobody else
    /// completes it.
    fn close(self, phase: u64, peers: &impl Peers, is_last: bool) -> Result<(), Failed> {
        if self.has_dead(self.cells.len(), peers) {
            return self.break_for(phase, Failed::Died);
        }
        if is_last || !self.last_acts(phase) {
            self.complete(phase);
        }
        Ok(())
    }

    /// Runs the action of the last to arrive. If it panics, the barrier is broken.
    fn act(self, phase: u64, action: Option<impl FnOnce()>) {
        struct Unless<'a>(Barrier<'a>, u64);
        impl Drop for Unless<'_> {
            fn drop(&mut self) {
                self.0.break_off(self.1);
            }
        }
        if let Some(action) = action {
            let unwinding = Unless(self, phase);
            fault::point("barrier.act");
            action();
            std::mem::forget(unwinding);
        }
    }

    /// Whether the last to arrive in that phase runs an action, or is about to close the phase after it.
    fn last_acts(self, of: u64) -> bool {
        self.cells.last().is_some_and(|cell| {
            let word = cell.load(Ordering::Relaxed);
            phase(word) == of && word & ACTING != 0
        })
    }

    /// Whether one of the first `count` to arrive has died.
    fn has_dead(self, count: usize, peers: &impl Peers) -> bool {
        let is_dead = |cell: &AtomicU64| {
            let owner = Owner::from_bits((cell.load(Ordering::Relaxed) >> 32) as u32);
            owner.is_none_or(|owner| peers.is_dead(owner))
        };
        self.cells[..count].iter().any(is_dead)
    }

    fn is_over(self, of: u64) -> bool {
        phase(self.phases.state.load(Ordering::Acquire)) != of
    }

    /// Which cells are claimed for that phase.
    fn cells_of(&self, of: u64) -> Arrived {
        for (place, cell) in self.cells.iter().enumerate() {
            // PAIR barrier.cells: Acquire.
            let word = cell.load(Ordering::Acquire);
            if phase(word) != of {
                return Arrived::UpTo(place, word);
            }
        }
        Arrived::All
    }

    /// All have arrived.
    fn complete(self, of: u64) {
        let mut state = self.phases.state.load(Ordering::Relaxed);
        fault::point("barrier.complete");
        while phase(state) == of && state & BROKEN == 0 {
            match self.advance(state, 0) {
                Ok(()) => return,
                Err(now) => state = now,
            }
        }
    }

    /// From `state` to the next phase; what the state is, when it has changed.
    fn advance(self, state: u64, how: u64) -> Result<(), u64> {
        let history = (state >> 32 << 1 | how) & u64::from(u32::MAX);
        let next = history << 32 | state.wrapping_add(1) & PHASE;
        // PAIR barrier.state: Release, of all that was done before any arrival; seen by the Acquire in `ended`.
        self.phases.state.compare_exchange(state, next, Ordering::AcqRel, Ordering::Relaxed)?;
        fault::point("barrier.advanced");
        self.ring();
        Ok(())
    }

    /// Breaks that phase; whether this call did.
    fn break_off(self, of: u64) -> bool {
        fault::point("barrier.break");
        let mut state = self.phases.state.load(Ordering::Relaxed);
        while phase(state) == of && state & BROKEN == 0 {
            match self.phases.state.compare_exchange(state, state | BROKEN, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => {
                    fault::point("barrier.broken");
                    self.ring();
                    return true;
                }
                Err(now) => state = now,
            }
        }
        false
    }

    fn ring(self) {
        // PAIR barrier.bell: Release, after the state has changed.
        self.phases.bell.value().fetch_add(1, Ordering::Release);
        self.phases.bell.wake_all();
    }

    /// How that phase ended, if it has.
    fn ended(self, of: u64) -> Option<Result<(), Failed>> {
        // PAIR barrier.state: Acquire.
        let state = self.phases.state.load(Ordering::Acquire);
        let since = phase(state).wrapping_sub(of) & PHASE;
        match since {
            0 if state & BROKEN == 0 => None,
            0 => Some(Err(Failed::Broken)),
            1..=HISTORY if state >> 32 >> (since - 1) & 1 == 0 => Some(Ok(())),
            _ => Some(Err(Failed::Broken)),
        }
    }

    /// Looks after the phase when nobody has woken this waiter; an error if there was a reason to break it.
    fn look(self, phase: u64, peers: &impl Peers, wait: Wait) -> Result<(), Failed> {
        match self.cells_of(phase) {
            // Whoever claimed the last cell has died, or is slow.
            Arrived::All => {
                self.close(phase, peers, false)?;
                if wait.is_over() && self.last_acts(phase) { self.break_for(phase, Failed::TimedOut) } else { Ok(()) }
            }
            Arrived::UpTo(count, _) if self.has_dead(count, peers) => self.break_for(phase, Failed::Died),
            Arrived::UpTo(..) if wait.is_over() => self.break_for(phase, Failed::TimedOut),
            Arrived::UpTo(..) => Ok(()),
        }
    }

    /// Breaks that phase; the reason, unless it has ended before.
    fn break_for(self, phase: u64, why: Failed) -> Result<(), Failed> {
        if self.break_off(phase) { Err(why) } else { Ok(()) }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::words::peers::fake::{Fake, owner};

    const NOTHING: Option<fn()> = None;

    fn words(parties: usize) -> (Phases, Vec<AtomicU64>) {
        (Phases::new(), (0..parties).map(|_| AtomicU64::new(0)).collect())
    }

    #[test]
    fn the_words_are_pinned() {
        assert_eq!((size_of::<Phases>(), align_of::<Phases>()), (16, 8));
        let (phases, cells) = words(2);
        let barrier = Barrier { phases: &phases, cells: &cells };
        assert_eq!(barrier.arrive(owner(5), &Fake::immortal(), Wait::ForEver, false), Ok((1, 0)));
        assert_eq!(barrier.arrived(), 1);
        assert_eq!(barrier.wait(owner(6), &Fake::immortal(), Wait::ForEver, NOTHING), Ok(1));
        assert_eq!(cells[0].load(Ordering::Relaxed), u64::from(owner(5).bits()) << 32 | 1);
        assert_eq!(phases.state.load(Ordering::Relaxed), 2);
        assert_eq!(barrier.ended(1), Some(Ok(())));
        barrier.reset();
        assert_eq!(phases.state.load(Ordering::Relaxed), 1 << 32 | 3);
        assert_eq!((barrier.ended(2), barrier.ended(1)), (Some(Err(Failed::Broken)), Some(Ok(()))));
        barrier.abort();
        assert_eq!(phases.state.load(Ordering::Relaxed), 1 << 32 | BROKEN | 3);
        assert_eq!(barrier.ended(3), Some(Err(Failed::Broken)));
    }

    #[test]
    fn phases_go_round_and_long_ago_is_broken() {
        let (phases, cells) = words(1); // the cell seems to be of a later phase: garbage is overwritten
        let barrier = Barrier { phases: &phases, cells: &cells };
        phases.state.store(PHASE - 20, Ordering::Relaxed);
        for _ in 0..40 {
            assert_eq!(barrier.wait(owner(1), &Fake::immortal(), Wait::ForEver, NOTHING), Ok(0));
        }
        assert_eq!(phases.state.load(Ordering::Relaxed), 19);
        assert_eq!(barrier.ended(PHASE - 12), Some(Ok(())));
        assert_eq!(barrier.ended(PHASE - 13), Some(Err(Failed::Broken)));
        assert!(is_later(3, PHASE - 3) && !is_later(PHASE - 3, 3));
    }

    #[test]
    fn a_straggler_takes_no_place_of_a_later_phase() {
        let (phases, cells) = words(2);
        let barrier = Barrier { phases: &phases, cells: &cells };
        for me in 1..=3 {
            assert!(barrier.arrive(owner(me), &Fake::immortal(), Wait::ForEver, false).is_ok()); // the third completes the first phase, and is in the second
        }
        // One that has read the state before all that.
        assert_eq!(barrier.claim(1, owner(4), &Fake::immortal(), Wait::ForEver, false), Ok(None));
        assert_eq!(barrier.arrive(owner(4), &Fake::immortal(), Wait::ForEver, false), Ok((2, 1)));
        assert_eq!(cells[0].load(Ordering::Relaxed), claimed(2, owner(3)));
    }

    #[test]
    fn a_death_or_a_timeout_inside_breaks_it_until_it_is_reset() {
        let (phases, cells) = words(3);
        let (barrier, peers) = (Barrier { phases: &phases, cells: &cells }, Fake::mortal());
        assert_eq!(barrier.wait(owner(1), &peers, Wait::at_most(Duration::ZERO), NOTHING), Err(Failed::TimedOut));
        assert_eq!(barrier.wait(owner(1), &peers, Wait::ForEver, NOTHING), Err(Failed::Broken));
        barrier.reset();
        assert!(!barrier.is_broken());
        barrier.arrive(owner(2), &peers, Wait::ForEver, false).unwrap();
        peers.kill(owner(2));
        assert_eq!(barrier.wait(owner(1), &peers, Wait::ForEver, NOTHING), Err(Failed::Died));
        assert!(barrier.is_broken());
    }

    #[test]
    fn the_last_to_arrive_may_die_or_stop_before_it_says_so() {
        for dies in [false, true] {
            let (phases, cells) = words(2);
            let (barrier, peers) = (Barrier { phases: &phases, cells: &cells }, Fake::mortal());
            assert_eq!(barrier.arrive(owner(1), &peers, Wait::ForEver, false), Ok((1, 0)));
            assert_eq!(barrier.arrive(owner(2), &peers, Wait::ForEver, false), Ok((1, 1)));
            if dies {
                peers.kill(owner(2));
                assert_eq!(barrier.wait(owner(3), &peers, Wait::ForEver, NOTHING), Err(Failed::Died));
                assert_eq!(barrier.ended(1), Some(Err(Failed::Broken)));
            } else {
                // A newcomer finds the phase full: it completes it, and waits in the next, where nobody else comes.
                assert_eq!(
                    barrier.wait(owner(3), &peers, Wait::at_most(Duration::ZERO), NOTHING),
                    Err(Failed::TimedOut)
                );
                assert_eq!(barrier.ended(1), Some(Ok(())));
            }
        }
    }

    #[test]
    fn the_last_to_arrive_looks_who_has_died() {
        let (phases, cells) = words(2);
        let (barrier, peers) = (Barrier { phases: &phases, cells: &cells }, Fake::mortal());
        assert_eq!(barrier.arrive(owner(1), &peers, Wait::ForEver, false), Ok((1, 0)));
        peers.kill(owner(1));
        assert_eq!(barrier.wait(owner(2), &peers, Wait::ForEver, NOTHING), Err(Failed::Died));
    }
}

#[cfg(all(test, loom))]
mod models {
    use loom::{cell::UnsafeCell, sync::Arc, thread};

    use super::*;
    use crate::words::peers::fake::{Fake, owner};

    const NOTHING: Option<fn()> = None;

    struct Shared {
        phases: Phases,
        cells: Vec<AtomicU64>,
        peers: Fake,
        /// One for each party: written before it arrives, read by all after.
        done: Vec<UnsafeCell<u16>>,
    }

    // SAFETY: who writes `done` when is what the barrier decides; loom reports whoever does otherwise.
    unsafe impl Sync for Shared {}
    // SAFETY: as above.
    unsafe impl Send for Shared {}

    impl Shared {
        fn new(parties: usize, peers: Fake) -> Arc<Self> {
            Arc::new(Self {
                phases: Phases::new(),
                cells: (0..parties).map(|_| AtomicU64::new(0)).collect(),
                peers,
                done: (0..parties).map(|_| UnsafeCell::new(0)).collect(),
            })
        }

        fn barrier(&self) -> Barrier<'_> {
            Barrier { phases: &self.phases, cells: &self.cells }
        }

        /// Does something, meets the others, and looks at what they did.
        fn meet(&self, me: u16) -> usize {
            // SAFETY: this party's own, until all have met; loom checks that.
            self.done[usize::from(me) - 1].with_mut(|done| unsafe { *done = me });
            let place = self.barrier().wait(owner(me), &self.peers, Wait::ForEver, NOTHING).expect("nothing breaks it");
            for (party, done) in (1..).zip(&self.done) {
                // SAFETY: nobody writes any more; loom checks that.
                assert_eq!(done.with(|done| unsafe { *done }), party);
            }
            place
        }
    }

    fn bounded(preemptions: usize, run: impl Fn() + Send + Sync + 'static) {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(preemptions);
        model.check(run);
    }

    #[test]
    fn all_meet_and_see_what_the_others_did() {
        bounded(2, || {
            let shared = Shared::new(3, Fake::immortal());
            let parties = [1, 2, 3].map(|me| {
                let shared = shared.clone();
                thread::spawn(move || shared.meet(me))
            });
            let mut places = parties.map(|party| party.join().unwrap());
            places.sort_unstable();
            assert_eq!(places, [0, 1, 2]);
        });
    }

    #[test]
    fn two_meet_again_and_again() {
        bounded(3, || {
            let shared = Shared::new(2, Fake::immortal());
            let twice = |me, shared: &Shared| {
                for _ in 0..2 {
                    shared.barrier().wait(owner(me), &shared.peers, Wait::ForEver, NOTHING).expect("nothing breaks it");
                }
            };
            let parties = [1, 2].map(|me| {
                let shared = shared.clone();
                thread::spawn(move || twice(me, &shared))
            });
            parties.into_iter().for_each(|party| party.join().unwrap());
            assert_eq!(phase(shared.phases.state.load(Ordering::Relaxed)), 3);
        });
    }

    #[test]
    fn a_reset_and_an_arrival_agree() {
        bounded(2, || {
            let shared = Shared::new(2, Fake::immortal());
            let waiters: Vec<_> = [1, 2]
                .into_iter()
                .map(|me| {
                    let shared = shared.clone();
                    thread::spawn(move || {
                        let ended = shared.barrier().wait(owner(me), &shared.peers, Wait::ForEver, NOTHING);
                        // Whoever was sent away by the reset comes again; the other may wait for it.
                        if ended.is_err() {
                            shared.barrier().abort();
                        }
                        ended.is_ok()
                    })
                })
                .collect();
            let resetting = shared.clone();
            thread::spawn(move || resetting.barrier().reset()).join().unwrap();
            let ended: Vec<_> = waiters.into_iter().map(|waiter| waiter.join().unwrap()).collect();
            assert!(ended == [true, true] || ended == [false, false], "{ended:?}");
        });
    }

    #[test]
    fn a_break_and_the_last_arrival_agree() {
        bounded(2, || {
            let shared = Shared::new(2, Fake::immortal());
            let waiters = [1, 2].map(|me| {
                let shared = shared.clone();
                thread::spawn(move || shared.barrier().wait(owner(me), &shared.peers, Wait::ForEver, NOTHING).is_ok())
            });
            let aborting = {
                let shared = shared.clone();
                thread::spawn(move || shared.barrier().abort())
            };
            let [one, two] = waiters.map(|waiter| waiter.join().unwrap());
            assert_eq!(one, two);
            aborting.join().unwrap();
        });
    }
}
