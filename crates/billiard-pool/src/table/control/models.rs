//! loom tries every order of these steps. A sleeper that nobody wakes is a deadlock, which it reports: the models do without the looks from time to time that help
//! where somebody was stopped or has died.

use loom::{
    cell::UnsafeCell,
    sync::{Arc, Mutex},
    thread,
};

use super::*;

/// A table, with the records that its words guard.
struct World {
    words: Words,
    inputs: Vec<UnsafeCell<u64>>,
    outputs: Vec<UnsafeCell<u64>>,
    /// Where the ring ends: the book's mutex.
    tail: Mutex<u64>,
    /// What the supervisor hears.
    bell: Futex,
}

impl World {
    fn new(slots: usize, seats: usize) -> Arc<Self> {
        let cells = || (0..slots).map(|_| UnsafeCell::new(0)).collect();
        let words = Words::new(slots, seats);
        Arc::new(Self { words, inputs: cells(), outputs: cells(), tail: Mutex::new(0), bell: Futex::new(0) })
    }

    fn control(&self) -> Control<'_> {
        self.words.control()
    }

    /// Hands a job in: the one with the slot's number.
    fn offer(&self, slot: usize, watch: u32) {
        let mut tail = self.tail.lock().unwrap();
        let job = 7 + slot as u64;
        // SAFETY: loom sees to it that nobody else is there.
        self.inputs[slot].with_mut(|input| unsafe { *input = job });
        self.control().offer(slot, job, watch, *tail);
        *tail += 1;
    }

    fn submit(&self, slot: usize) {
        self.offer(slot, 0);
        let _ = self.control().rouse();
    }

    /// Reads the record of a job that was claimed; and its slot.
    fn run(&self, claim: Claim) -> usize {
        // SAFETY: loom sees to it that nobody writes.
        self.inputs[claim.slot]
            .with(|input| assert_eq!(unsafe { *input }, claim.generation, "the record is the job's"));
        claim.slot
    }

    fn claim(&self, seat: usize) -> Option<usize> {
        self.control().claim(seat).map(|claim| self.run(claim))
    }

    /// A worker's life until it has a job.
    fn next(&self, seat: usize, searchers: u32) -> usize {
        match self.control().next(seat, 0, searchers) {
            Found::Job(claim) => self.run(claim),
            Found::Leave => panic!("nobody has told it to"),
        }
    }

    /// Takes the job in slot 0 for seat 0.
    fn begun(&self, watch: u32) -> Claim {
        self.offer(0, watch);
        self.control().claim(0).expect("it waits")
    }

    fn publish(&self, claim: Claim) -> bool {
        // SAFETY: loom sees to it that nobody else is there.
        self.outputs[claim.slot].with_mut(|output| unsafe { *output = claim.generation });
        self.control().publish(claim, 0)
    }

    /// Publishes, and wakes whom that concerns.
    fn finish(&self, claim: Claim) {
        assert!(self.publish(claim));
        if self.control().announce(claim.slot) {
            self.bell.value().store(1, Ordering::Release);
            self.bell.wake(1);
        }
    }

    /// Whether the job in slot 0 is done; then its result is there.
    fn is_done(&self) -> bool {
        let is_done = self.control().word(0).phase() == Some(Phase::Done);
        if is_done {
            // SAFETY: loom sees to it that nobody writes.
            self.outputs[0].with(|output| assert_eq!(unsafe { *output }, 7, "the record is the job's"));
        }
        is_done
    }

    fn is_pending(&self) -> bool {
        matches!(self.control().word(0).phase(), Some(Phase::Ready | Phase::Claimed))
    }

    fn await_job(&self) {
        while self.is_pending() {
            self.control().wait(0, || self.is_pending(), None);
        }
    }
}

fn bounded(preemptions: usize, run: impl Fn() + Send + Sync + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(preemptions);
    model.check(run);
}

fn spawn<T: 'static>(world: &Arc<World>, run: impl FnOnce(&World) -> T + 'static) -> thread::JoinHandle<T> {
    let world = world.clone();
    thread::spawn(move || run(&world))
}

fn sorted(mut slots: Vec<usize>) -> Vec<usize> {
    slots.sort_unstable();
    slots
}

// ---- the slot word

#[test]
fn a_job_is_claimed_once() {
    loom::model(|| {
        let world = World::new(1, 2);
        let other = spawn(&world, |world| world.claim(1));
        world.offer(0, 0);
        let mine = world.claim(0);
        let claims = [mine, other.join().unwrap()];
        assert_eq!(claims.into_iter().flatten().count(), 1, "{claims:?}");
    });
}

#[test]
fn a_job_is_claimed_or_cancelled() {
    loom::model(|| {
        let world = World::new(1, 1);
        world.offer(0, 0);
        let worker = spawn(&world, |world| world.claim(0));
        let cancelled = world.control().cancel(0, 7);
        assert_ne!(worker.join().unwrap().is_some(), cancelled);
    });
}

#[test]
fn a_job_is_done_or_doomed() {
    loom::model(|| {
        let world = World::new(1, 1);
        let claim = world.begun(0);
        let worker = spawn(&world, move |world| world.publish(claim));
        let doomed = world.control().doom(0, 7, 0);
        assert_eq!(world.is_done(), !doomed);
        assert_ne!(worker.join().unwrap(), doomed);
    });
}

/// A worker that finishes the items of a chunk; how many it has finished.
fn finish_items(world: &World, claim: Claim, has_limit: bool) -> usize {
    let is_its = |&item: &usize| {
        // SAFETY: loom sees to it that nobody else is there.
        world.outputs[item].with_mut(|output| unsafe { *output = 1 + item as u64 });
        world.control().advance(claim, item, has_limit)
    };
    (0..world.outputs.len()).take_while(is_its).count()
}

/// The outcomes of the items before that one are whole.
fn check_items(world: &World, count: usize) {
    for item in 0..count {
        // SAFETY: loom sees to it that nobody writes.
        world.outputs[item].with(|output| assert_eq!(unsafe { *output }, 1 + item as u64));
    }
}

#[test]
fn outcomes_of_finished_items_are_whole() {
    for has_limit in [false, true] {
        loom::model(move || {
            let world = World::new(3, 1);
            let claim = world.begun(0);
            world.control().begin_items(claim.slot, claim.generation, 0);
            let worker = spawn(&world, move |world| finish_items(world, claim, has_limit));
            let finished = world.control().item(claim.slot, claim.generation).unwrap();
            check_items(&world, finished);
            assert_eq!(worker.join().unwrap(), 3);
        });
    }
}

#[test]
fn an_item_is_finished_or_doomed() {
    loom::model(|| {
        let world = World::new(3, 1);
        let claim = world.begun(0);
        world.control().begin_items(claim.slot, claim.generation, 0);
        let worker = spawn(&world, move |world| finish_items(world, claim, true));
        let runs = world.control().item(claim.slot, claim.generation).unwrap();
        let doomed = world.control().doom_item(claim.slot, claim.generation, runs);
        let found = world.control().item(claim.slot, claim.generation).unwrap();
        assert!(if doomed { found == runs } else { found > runs || runs == 3 });
        check_items(&world, found);
        let finished = worker.join().unwrap();
        assert_eq!(finished, if doomed && runs < 3 { runs } else { 3 });
    });
}

#[test]
fn records_are_whole_when_they_are_read() {
    loom::model(|| {
        let world = World::new(1, 1);
        let worker = spawn(&world, |world| {
            if let Some(claim) = world.control().claim(0) {
                world.run(claim);
                assert!(world.publish(claim));
            }
        });
        world.offer(0, 0);
        if world.is_done() {
            // The slot is used again.
            world.control().free(0, 7);
            world.offer(0, 0);
        }
        worker.join().unwrap();
    });
}

// ---- the ring

#[test]
fn two_workers_share_two_jobs() {
    bounded(3, || {
        let world = World::new(2, 3);
        let workers = [1, 2].map(|seat| spawn(&world, move |world| world.claim(seat)));
        world.offer(0, 0);
        world.offer(1, 0);
        let mut claims: Vec<_> = workers.into_iter().filter_map(|worker| worker.join().unwrap()).collect();
        claims.extend(std::iter::from_fn(|| world.claim(0)));
        assert_eq!(sorted(claims), [0, 1]);
    });
}

#[test]
fn who_dies_after_a_claim_hides_no_job() {
    bounded(3, || {
        let world = World::new(2, 3);
        world.offer(0, 0);
        let dying = spawn(&world, |world| {
            let control = world.control();
            control.front().and_then(|head| control.take(head, 1)).map(|claim| world.run(claim))
        });
        let other = spawn(&world, |world| world.claim(2));
        world.offer(1, 0);
        let mut claims: Vec<_> = [dying, other].into_iter().filter_map(|worker| worker.join().unwrap()).collect();
        claims.extend(std::iter::from_fn(|| world.claim(0)));
        assert_eq!(sorted(claims), [0, 1]);
    });
}

#[test]
fn the_pool_passes_no_job_that_waits() {
    bounded(3, || {
        let world = World::new(2, 2);
        world.offer(0, 0);
        let worker = spawn(&world, |world| world.claim(1));
        let cancelled = world.control().cancel(0, 7);
        world.offer(1, 0);
        let begin = world.control().begin(0, 2);
        let claims: Vec<_> = worker.join().unwrap().into_iter().chain(std::iter::from_fn(|| world.claim(0))).collect();
        assert_eq!(sorted(claims), if cancelled { vec![1] } else { vec![0, 1] });
        assert!(!cancelled || begin > 0, "it was nobody's");
    });
}

// ---- who is awake

#[test]
fn a_worker_does_not_sleep_while_a_job_waits() {
    loom::model(|| {
        let world = World::new(1, 1);
        let worker = spawn(&world, |world| world.next(0, 1));
        world.submit(0);
        assert_eq!(worker.join().unwrap(), 0);
    });
}

fn a_burst_wakes_two(searchers: u32) {
    bounded(1, move || {
        let world = World::new(2, 2);
        let workers = [0, 1].map(|seat| spawn(&world, move |world| world.next(seat, searchers)));
        world.submit(0);
        world.submit(1);
        let jobs = workers.into_iter().map(|worker| worker.join().unwrap()).collect();
        assert_eq!(sorted(jobs), [0, 1]);
    });
}

#[test]
fn a_burst_wakes_two_who_search_in_turn() {
    a_burst_wakes_two(1);
}

#[test]
fn a_burst_wakes_two_who_search_at_once() {
    a_burst_wakes_two(2);
}

#[test]
fn two_who_hand_in_wake_two() {
    bounded(1, || {
        let world = World::new(2, 2);
        let workers = [0, 1].map(|seat| spawn(&world, move |world| world.next(seat, 2)));
        let other = spawn(&world, |world| world.submit(1));
        world.submit(0);
        other.join().unwrap();
        let jobs = workers.into_iter().map(|worker| worker.join().unwrap()).collect();
        assert_eq!(sorted(jobs), [0, 1]);
    });
}

#[test]
fn who_is_told_to_leave_leaves_and_no_job_with_it() {
    bounded(2, || {
        let world = World::new(1, 2);
        let workers = [0, 1].map(|seat| {
            spawn(&world, move |world| {
                let found = world.control().next(seat, 0, 2);
                if found != Found::Leave {
                    world.control().dismiss(1 - seat); // the other, once the job is taken
                }
                found
            })
        });
        world.control().dismiss(0);
        world.submit(0);
        let found = workers.map(|worker| worker.join().unwrap());
        assert_eq!(found.into_iter().filter(|found| matches!(found, Found::Job(_))).count(), 1, "{found:?}");
    });
}

#[test]
fn the_tick_wakes_a_sleeper_whom_nobody_sees() {
    bounded(3, || {
        let world = World::new(1, 2);
        // Left by who was stopped: a searching bit. And by who has died: no idle bit of a sleeper.
        world.control().head.searching[0].store(2, Ordering::Relaxed);
        let worker = spawn(&world, |world| world.next(0, 2));
        world.offer(0, 0);
        let _ = world.control().rouse();
        while world.control().word(0) == Word::ready(7) {
            world.control().rouse_any();
            thread::yield_now();
        }
        assert_eq!(worker.join().unwrap(), 0);
    });
}

// ---- who waits for a result

#[test]
fn a_caller_does_not_sleep_while_its_result_is_there() {
    loom::model(|| {
        let world = World::new(1, 1);
        let claim = world.begun(0);
        let caller = spawn(&world, |world| {
            world.await_job();
            assert!(world.is_done());
        });
        world.finish(claim);
        caller.join().unwrap();
    });
}

#[test]
fn two_callers_are_woken() {
    bounded(2, || {
        let world = World::new(1, 1);
        let claim = world.begun(0);
        let callers = [0, 1].map(|_| spawn(&world, World::await_job));
        world.finish(claim);
        callers.into_iter().for_each(|caller| caller.join().unwrap());
    });
}

#[test]
fn a_caller_is_woken_when_its_job_ends_otherwise() {
    loom::model(|| {
        let world = World::new(1, 1);
        world.offer(0, 0);
        let caller = spawn(&world, World::await_job);
        assert!(world.control().cancel(0, 7));
        world.control().wake_callers(0);
        caller.join().unwrap();
    });
}

/// Sleeps as the supervisor does, until the job is done.
fn supervise(world: &World) {
    loop {
        world.control().supervisor_sleeps();
        if world.is_done() {
            return;
        }
        world.bell.wait(0, None);
        world.bell.value().store(0, Ordering::Relaxed);
        world.control().supervisor_wakes();
    }
}

#[test]
fn the_supervisor_does_not_sleep_while_a_result_is_there_for_it() {
    loom::model(|| {
        let world = World::new(1, 1);
        let claim = world.begun(watch::SUPERVISOR);
        let supervisor = spawn(&world, supervise);
        world.finish(claim);
        supervisor.join().unwrap();
    });
}

#[test]
fn a_job_that_is_given_to_the_supervisor_is_seen_by_one_of_both() {
    bounded(3, || {
        let world = World::new(1, 1);
        let claim = world.begun(0);
        let caller = spawn(&world, |world| {
            world.control().watch(0, watch::SUPERVISOR);
            if !world.is_done() {
                supervise(world);
            }
        });
        world.finish(claim);
        caller.join().unwrap();
    });
}

#[test]
fn who_wants_room_does_not_sleep_while_there_is_some() {
    loom::model(|| {
        let world = World::new(1, 1);
        let claim = world.begun(0);
        let submitter = spawn(&world, |world| {
            while !world.is_done() {
                world.control().want_room();
                if !world.is_done() {
                    world.control().wait_room(None);
                }
            }
        });
        world.finish(claim);
        submitter.join().unwrap();
    });
}
