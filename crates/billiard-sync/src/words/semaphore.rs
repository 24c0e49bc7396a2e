//! The semaphore: a ledger of permits, and a bell for those who wait. `docs/design/locks.md`, "Semaphore".
//!
//! How permits move, and come back from the dead, is the affair of [`Ledger`]; here is only who waits and who wakes.

use billiard_shm::{
    futex::Futex,
    participants::{Ledger, Member},
    prim::{Ordering, fence},
};
use billiard_wire::fault;

use super::{NextLook, Peers, Rounds, Wait};

/// Somebody sleeps, or is about to.
const WAITING: u32 = 1 << 31;

/// Where waiters sleep: [`WAITING`], and how often it was rung.
///
/// # Peers
///
/// Anybody writes it, by read-modify-write alone. Who dies after adding permits and before ringing costs a sleeper the recheck time.
#[derive(Debug)]
#[cfg_attr(not(loom), repr(transparent))]
pub(crate) struct Bell(Futex);

/// There are as many permits as there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

/// The words of a semaphore.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Semaphore<'a> {
    pub(crate) ledger: Ledger<'a>,
    pub(crate) bell: &'a Bell,
    pub(crate) look: &'a NextLook,
}

// SAFETY: it is one atomic.
#[cfg(not(loom))]
unsafe impl billiard_shm::Words for Bell {}

impl Bell {
    #[cfg(test)]
    pub(crate) fn new() -> Self {
        Self(Futex::new(0))
    }

    /// Says that somebody is about to sleep; what to sleep on.
    fn announce(&self) -> u32 {
        // Relaxed: the fences order it.
        self.0.value().fetch_or(WAITING, Ordering::Relaxed) | WAITING
    }

    /// Wakes as many as there are new permits, if somebody sleeps.
    #[inline]
    fn ring(&self, permits: u32) {
        // PAIR semaphore.asleep: of the fence in `wait_until`. Either this one sees `WAITING`, or the waiter the permits.
        fence(Ordering::SeqCst);
        let mut bell = self.0.load(Ordering::Relaxed);
        while bell & WAITING != 0 {
            let rung = bell.wrapping_add(1) & !WAITING;
            match self.0.value().compare_exchange(bell, rung, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => {
                    fault::point("semaphore.rung");
                    self.0.wake(permits);
                    return;
                }
                Err(now) => bell = now,
            }
        }
    }
}

impl Semaphore<'_> {
    /// Takes a permit that nobody will own, if one is free.
    #[inline]
    pub(crate) fn try_acquire(self, peers: &impl Peers) -> bool {
        self.once(peers, || self.ledger.remove().is_ok())
    }

    /// As [`try_acquire`](Self::try_acquire), waiting for one; false when the wait is over.
    #[inline]
    pub(crate) fn acquire(self, peers: &impl Peers, wait: Wait) -> bool {
        let attempt = || self.ledger.remove().is_ok();
        attempt() || self.wait_until(peers, wait, attempt)
    }

    /// Takes a permit as a guard's, if one is free.
    pub(crate) fn try_take(self, me: Member, peers: &impl Peers) -> bool {
        self.once(peers, || self.ledger.take(me).is_ok())
    }

    /// As [`try_take`](Self::try_take), waiting for one; false when the wait is over.
    pub(crate) fn take(self, me: Member, peers: &impl Peers, wait: Wait) -> bool {
        let attempt = || self.ledger.take(me).is_ok();
        attempt() || self.wait_until(peers, wait, attempt)
    }

    /// Adds permits, all or none.
    #[inline]
    pub(crate) fn release(self, permits: u32) -> Result<(), Full> {
        fault::point("semaphore.release");
        self.ledger.add(permits).map_err(|_too_many| Full)?;
        fault::point("semaphore.released");
        self.bell.ring(permits);
        Ok(())
    }

    /// Gives a guard's permit back; nothing if that was done in this participant's name, since it was believed dead.
    pub(crate) fn give(self, me: Member) {
        fault::point("semaphore.give");
        if self.ledger.give_back(me).is_ok() {
            fault::point("semaphore.given");
            self.bell.ring(1);
        }
    }

    /// Gives back what the dead held; whether that was anything.
    pub(crate) fn sweep(self, peers: &impl Peers) -> bool {
        let freed = self.ledger.sweep(|member| !peers.is_gone(member));
        fault::point("semaphore.swept");
        if freed != 0 {
            self.bell.ring(freed);
        }
        freed != 0
    }

    #[inline]
    fn once(self, peers: &impl Peers, attempt: impl Fn() -> bool) -> bool {
        fault::point("semaphore.try");
        attempt() || self.sweep(peers) && attempt()
    }

    /// Tries, and sleeps, and tries again.
    #[cold]
    fn wait_until(self, peers: &impl Peers, wait: Wait, attempt: impl Fn() -> bool) -> bool {
        // Under traffic no wait may be long enough for a look of its own.
        if self.look.is_due(peers) && self.sweep(peers) && attempt() {
            return true;
        }
        let mut slept = false;
        let mut rounds = Rounds::new(wait, peers);
        loop {
            // Also by one that was woken, since its wake-up may have been the only one.
            let bell = self.bell.announce();
            // PAIR semaphore.asleep: of the fence in `ring`.
            fence(Ordering::SeqCst);
            if attempt() {
                // Whoever added these may have found `WAITING` cleared, by whoever woke this one: others sleep still.
                if slept && self.ledger.free() != 0 {
                    self.bell.ring(1);
                }
                return true;
            }
            fault::point("semaphore.waiting");
            let _ = self.bell.0.wait(bell, rounds.next());
            fault::point("semaphore.woken");
            slept = true;
            if rounds.is_due(peers) && !self.sweep(peers) && wait.is_over() {
                return attempt();
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::time::Duration;

    use billiard_shm::prim::{AtomicBool, AtomicU64};
    use billiard_test_support::Watchdog;

    use super::*;
    use crate::words::peers::{
        RECHECK,
        fake::{Fake, member},
    };

    struct Words(AtomicU64, Vec<AtomicU64>, Bell, NextLook);

    impl Words {
        fn new(permits: u32) -> Self {
            let holdings = (0..4).map(|_| AtomicU64::new(0)).collect();
            Self(AtomicU64::new(Ledger::initial(permits)), holdings, Bell::new(), NextLook::default())
        }

        fn semaphore(&self, bound: u32) -> Semaphore<'_> {
            Semaphore { ledger: Ledger::new(&self.0, &self.1).bounded(bound), bell: &self.2, look: &self.3 }
        }
    }

    #[test]
    fn permits_have_a_bound() {
        let words = Words::new(1);
        let (semaphore, peers) = (words.semaphore(2), Fake::mortal());
        assert_eq!(semaphore.release(2), Err(Full));
        assert_eq!(semaphore.release(1), Ok(()));
        assert_eq!(semaphore.release(1), Err(Full));
        assert!(semaphore.try_take(member(1), &peers));
        assert_eq!(semaphore.release(1), Ok(())); // one too many, which the guard notices
        semaphore.give(member(1));
        assert_eq!((semaphore.ledger.free(), semaphore.ledger.held_by(member(1))), (2, 0));
        semaphore.give(member(1)); // it has none any more
        assert!(semaphore.try_take(member(2), &peers));
        assert_eq!(semaphore.release(1), Ok(()));
        peers.kill(member(2).into());
        assert!(semaphore.sweep(&peers));
        assert_eq!((semaphore.ledger.free(), semaphore.ledger.held_by(member(2))), (2, 0));
    }

    #[test]
    fn what_the_dead_held_comes_back_to_who_waits() {
        let words = Words::new(3);
        let (semaphore, peers) = (words.semaphore(u32::MAX), Fake::mortal());
        for me in [1, 1, 2] {
            assert!(semaphore.try_take(member(me), &peers));
        }
        assert!(!semaphore.take(member(3), &peers, Wait::at_most(Duration::from_millis(1))));
        assert!(!semaphore.try_acquire(&peers));
        peers.kill(member(1).into());
        assert!(semaphore.try_take(member(3), &peers));
        assert_eq!(semaphore.ledger.free(), 1);
        semaphore.give(member(1)); // believed dead, it comes too late
        assert_eq!(semaphore.ledger.free(), 1);
    }

    #[test]
    fn who_finds_no_permit_looks_unless_its_process_just_has() {
        let _watchdog = Watchdog::start("who_finds_no_permit_looks_unless_its_process_just_has", 60);
        let words = Words::new(2);
        let hour = Duration::from_secs(3600);
        let (semaphore, peers) = (words.semaphore(2), Fake::looking_every(hour));
        assert!(semaphore.try_take(member(1), &peers) && semaphore.try_take(member(1), &peers));
        peers.kill(member(1).into());
        assert!(semaphore.take(member(2), &peers, Wait::at_most(hour)), "at once");
        assert_eq!((semaphore.ledger.free(), semaphore.ledger.held_by(member(1))), (1, 0));
        assert!(!words.3.is_due(&peers), "it has looked");
    }

    #[test]
    fn wake_ups_put_no_look_off() {
        let _watchdog = Watchdog::start("wake_ups_put_no_look_off", 60);
        let words = Words::new(1);
        let (semaphore, peers) = (words.semaphore(1), Fake::looking_every(RECHECK));
        assert!(semaphore.try_take(member(1), &peers));
        let taken = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                assert!(semaphore.take(member(2), &peers, Wait::ForEver));
                taken.store(true, Ordering::Relaxed);
            });
            // It has looked, and waits.
            while words.2.0.load(Ordering::Relaxed) & WAITING == 0 {
                std::thread::yield_now();
            }
            peers.kill(member(1).into());
            while !taken.load(Ordering::Relaxed) {
                words.2.ring(1);
                std::thread::yield_now();
            }
        });
        assert_eq!((semaphore.ledger.free(), semaphore.ledger.held_by(member(2))), (0, 1));
    }

    #[test]
    fn a_bell_nobody_waits_for_is_not_rung() {
        let words = Words::new(0);
        let semaphore = words.semaphore(5);
        semaphore.release(1).unwrap();
        assert_eq!(words.2.0.load(Ordering::Relaxed), 0);
        words.2.announce();
        semaphore.release(1).unwrap();
        assert_eq!(words.2.0.load(Ordering::Relaxed), 1);
    }
}

#[cfg(all(test, loom))]
mod models {
    use billiard_shm::prim::AtomicU64;
    use loom::{sync::Arc, thread};

    use super::*;
    use crate::words::peers::fake::{Fake, member};

    struct Shared {
        count: AtomicU64,
        holdings: Vec<AtomicU64>,
        bell: Bell,
        look: NextLook,
        peers: Fake,
    }

    impl Shared {
        fn new(permits: u32, peers: Fake) -> Arc<Self> {
            let holdings = (0..2).map(|_| AtomicU64::new(0)).collect();
            let count = AtomicU64::new(Ledger::initial(permits));
            Arc::new(Self { count, holdings, bell: Bell::new(), look: NextLook::default(), peers })
        }

        fn semaphore(&self) -> Semaphore<'_> {
            Semaphore { ledger: Ledger::new(&self.count, &self.holdings), bell: &self.bell, look: &self.look }
        }

        fn release(&self) {
            self.semaphore().release(1).expect("there is room");
        }

        fn acquire(&self) {
            assert!(self.semaphore().acquire(&self.peers, Wait::ForEver));
        }
    }

    fn bounded(preemptions: usize, run: impl Fn() + Send + Sync + 'static) {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(preemptions);
        model.check(run);
    }

    fn spawn(shared: &Arc<Shared>, run: impl FnOnce(&Shared) + 'static) -> thread::JoinHandle<()> {
        let shared = shared.clone();
        thread::spawn(move || run(&shared))
    }

    #[test]
    fn no_wake_up_is_lost() {
        bounded(3, || {
            let shared = Shared::new(0, Fake::immortal());
            let waiter = spawn(&shared, Shared::acquire);
            spawn(&shared, Shared::release).join().unwrap();
            waiter.join().unwrap();
            assert_eq!(shared.semaphore().ledger.free(), 0);
        });
    }

    #[test]
    fn two_permits_wake_two() {
        bounded(2, || {
            let shared = Shared::new(0, Fake::immortal());
            let waiters = [spawn(&shared, Shared::acquire), spawn(&shared, Shared::acquire)];
            let twice = spawn(&shared, |shared| {
                shared.release();
                shared.release();
            });
            twice.join().unwrap();
            waiters.into_iter().for_each(|waiter| waiter.join().unwrap());
            assert_eq!(shared.semaphore().ledger.free(), 0);
        });
    }

    #[test]
    fn one_permit_goes_round_and_nobody_sleeps_on() {
        bounded(2, || {
            let shared = Shared::new(1, Fake::immortal());
            let round = |shared: &Shared| {
                shared.acquire();
                shared.release();
            };
            let all = [spawn(&shared, round), spawn(&shared, round), spawn(&shared, round)];
            all.into_iter().for_each(|one| one.join().unwrap());
            assert_eq!(shared.semaphore().ledger.free(), 1);
        });
    }

    #[test]
    fn guards_wake_who_waits() {
        bounded(2, || {
            let shared = Shared::new(1, Fake::immortal());
            let pass = |me| {
                move |shared: &Shared| {
                    assert!(shared.semaphore().take(member(me), &shared.peers, Wait::ForEver));
                    shared.semaphore().give(member(me));
                }
            };
            let both = [spawn(&shared, pass(1)), spawn(&shared, pass(2))];
            both.into_iter().for_each(|one| one.join().unwrap());
            assert_eq!(shared.semaphore().ledger.free(), 1);
        });
    }

    #[test]
    fn one_who_gives_up_leaves_no_other_asleep() {
        bounded(2, || {
            let shared = Shared::new(0, Fake::immortal());
            let waiter = spawn(&shared, Shared::acquire);
            let hasty = spawn(&shared, |shared| {
                if shared.semaphore().acquire(&shared.peers, Wait::at_most(std::time::Duration::ZERO)) {
                    shared.release();
                }
            });
            spawn(&shared, Shared::release).join().unwrap();
            waiter.join().unwrap();
            hasty.join().unwrap();
        });
    }

    #[test]
    fn what_a_dying_one_held_reaches_a_waiter() {
        bounded(2, || {
            let shared = Shared::new(1, Fake::mortal());
            let dying = spawn(&shared, |shared| {
                shared.semaphore().try_take(member(1), &shared.peers);
                shared.peers.kill(member(1).into());
            });
            let waiter = spawn(&shared, |shared| {
                assert!(shared.semaphore().take(member(2), &shared.peers, Wait::ForEver));
            });
            waiter.join().unwrap();
            dying.join().unwrap();
            let ledger = shared.semaphore().ledger;
            assert_eq!(ledger.free() + ledger.held_by(member(1)) + ledger.held_by(member(2)), 1);
        });
    }
}
