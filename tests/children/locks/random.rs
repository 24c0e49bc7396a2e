//! Kills at random.

use std::{
    thread,
    time::{Duration, Instant},
};

use billiard::{
    context::{Context, Process},
    sync::{Barrier, BarrierError, Event, Lock, LockError, LockGuard, Mutex, MutexGuard, RLock, Semaphore, Value},
};
use billiard_test_support::Random;
use serde::{Deserialize, Serialize};

use crate::{PATIENCE, until, watch};

const PERMITS: u32 = 3;

/// Those that are killed, at any time.
const VICTIMS: usize = 3;

/// What all share.
#[derive(Clone, Serialize, Deserialize)]
struct Shared {
    lock: Lock,
    /// Both are counted up under the lock. Who dies in between leaves them apart.
    pair: (Value<u64>, Value<u64>),
    rlock: RLock,
    /// The same under the recursive lock: the first with it taken once, the second with it taken twice.
    twice: (Value<u64>, Value<u64>),
    mutex: Mutex<[u64; 4]>,
    semaphore: Semaphore,
    large: Value<[u64; 5]>,
    small: Value<u64>,
    event: Event,
    barrier: Barrier,
    stop: Event,
    turns: Value<u64>,
}

/// How often what was found.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Found {
    turns: u64,
    lock_died: u64,
    rlock_died: u64,
    mutex_died: u64,
    barrier_met: u64,
    barrier_broke: u64,
}

/// Takes the lock, and repairs what a dead owner has left.
fn take_lock<'a>(shared: &'a Shared, found: &mut Found) -> LockGuard<'a> {
    let held = shared.lock.lock_timeout(PATIENCE).or_else(|error| {
        let held = error.accept()?;
        found.lock_died += 1;
        let (one, two) = (shared.pair.0.get(), shared.pair.1.get());
        assert!(one == two || one == two + 1, "more than one was in there: {one}, {two}");
        shared.pair.1.set(one);
        Ok::<_, LockError>(held)
    });
    let held = held.expect("the lock is to be had");
    assert_eq!(shared.pair.0.get(), shared.pair.1.get(), "nobody has died, and yet they differ");
    held
}

/// The same of the mutex.
fn take_mutex<'a>(shared: &'a Shared, found: &mut Found) -> MutexGuard<'a, [u64; 4]> {
    let guard = shared.mutex.lock_timeout(PATIENCE).or_else(|error| {
        let mut guard = error.accept()?;
        found.mutex_died += 1;
        let last = guard[3];
        assert!(guard.iter().all(|&word| word == last || word + 1 == last), "more than one was in there: {guard:?}");
        *guard = [last; 4];
        Ok::<_, LockError>(guard)
    });
    let guard = guard.expect("the mutex is to be had");
    assert!(guard.iter().all(|&word| word == guard[3]), "nobody has died, and yet they differ: {guard:?}");
    guard
}

/// Counts up under the recursive lock, taken once and taken twice.
fn count_twice(shared: &Shared, found: &mut Found, pause: impl Fn()) {
    let (one, two) = (&shared.twice.0, &shared.twice.1);
    let outer = shared.rlock.lock_timeout(PATIENCE).or_else(|error| {
        let held = error.accept()?;
        found.rlock_died += 1;
        assert!(one.get() == two.get() || one.get() == two.get() + 1, "more than one was in there");
        two.set(one.get());
        Ok::<_, LockError>(held)
    });
    let outer = outer.expect("the recursive lock is to be had");
    assert_eq!(one.get(), two.get(), "nobody has died, and yet they differ");
    one.set(one.get() + 1);
    pause();
    let inner = shared.rlock.try_lock().expect("this thread has it");
    drop(outer);
    pause();
    two.set(two.get() + 1);
    drop(inner);
}

/// Counts both up, and stays in the middle for a while.
fn count_up(shared: &Shared, found: &mut Found, pause: impl Fn()) {
    let held = take_lock(shared, found);
    shared.pair.0.set(shared.pair.0.get() + 1);
    pause();
    shared.pair.1.set(shared.pair.1.get() + 1);
    drop(held);
    count_twice(shared, found, &pause);
    let mut guard = take_mutex(shared, found);
    for index in [3, 0, 1, 2] {
        guard[index] += 1;
        pause();
    }
}

fn once(shared: &Shared, found: &mut Found) {
    count_up(shared, found, || ());
    let permit = shared.semaphore.permit_timeout(PATIENCE).expect("usable");
    drop(permit.expect("a permit is to be had"));

    let mark = u64::from(std::process::id());
    shared.large.set([mark; 5]);
    let seen = shared.large.get();
    assert!(seen.iter().all(|word| *word == seen[0]), "torn: {seen:?}");
    shared.small.update(|small| *small += 1).expect("usable");

    if found.turns.is_multiple_of(8) {
        shared.event.set().expect("usable");
        assert!(shared.event.wait_timeout(PATIENCE).expect("usable") || !shared.event.is_set());
        shared.event.clear().expect("usable");
        match shared.barrier.wait_timeout(Duration::from_millis(2)) {
            Ok(_) => found.barrier_met += 1,
            Err(BarrierError::Broken | BarrierError::TimedOut | BarrierError::ParticipantDied) => {
                found.barrier_broke += 1;
                shared.barrier.reset().expect("usable");
            }
            Err(other) => panic!("{other}"),
        }
    }
    found.turns += 1;
}

/// One that is in the middle of something most of the time, or one that does a little of everything.
fn victim((shared, dwells): (Shared, bool)) {
    let mut found = Found::default();
    loop {
        if dwells {
            dwell(&shared, &mut found);
        } else {
            once(&shared, &mut found);
        }
        let _ = shared.turns.update(|turns| *turns += 1);
    }
}

/// Holds what can be held, most of the time half-way through a change.
fn dwell(shared: &Shared, found: &mut Found) {
    let pause = || (0..200).for_each(|_| std::hint::spin_loop());
    count_up(shared, found, pause);
    let _permits = (shared.semaphore.permit(), shared.semaphore.try_permit());
    let _ = shared.small.update(|small| {
        *small += 1;
        pause();
    });
}

fn survivor(shared: Shared) -> Found {
    let mut found = Found::default();
    while !shared.stop.is_set() {
        once(&shared, &mut found);
    }
    found
}

fn signal(process: &Process, signal: libc::c_int) {
    // SAFETY: kill takes two numbers; the process is a child that was not joined, so that its number is its own.
    unsafe { libc::kill(process.pid() as libc::pid_t, signal) };
}

/// Kills until the time is over, and at least that many.
pub(crate) fn run(time: Duration, kills: u64, mut random: Random) {
    let _watchdog = watch("random kills", time.as_secs() * 2 + kills / 20 + 120);
    let shared = Shared {
        lock: Lock::new().unwrap(),
        pair: (Value::new(0).unwrap(), Value::new(0).unwrap()),
        rlock: RLock::new().unwrap(),
        twice: (Value::new(0).unwrap(), Value::new(0).unwrap()),
        mutex: Mutex::new([0; 4]).unwrap(),
        semaphore: Semaphore::new(PERMITS).unwrap(),
        large: Value::new([0; 5]).unwrap(),
        small: Value::new(0).unwrap(),
        event: Event::new().unwrap(),
        barrier: Barrier::new(2).unwrap(),
        stop: Event::new().unwrap(),
        turns: Value::new(0).unwrap(),
    };
    let context = Context::forkserver();
    let mut survivors: Vec<Process<Found>> =
        (0..2).map(|_| context.process(survivor, shared.clone()).start().expect("it starts")).collect();
    let start = |dwells| context.process(victim, (shared.clone(), dwells)).start().expect("it starts");
    let mut victims: Vec<Process> = (0..VICTIMS).map(|_| start(true)).collect();
    let begin = Instant::now();
    let mut killed = 0;
    while begin.elapsed() < time || killed < kills {
        let turns = shared.turns.get();
        if random.below(4) == 0 {
            until("nobody gets on", || shared.turns.get() > turns);
        }
        thread::sleep(Duration::from_micros(random.below(1500)));
        let dying = &mut victims[random.below(VICTIMS as u64) as usize];
        if random.below(10) == 0 {
            // Stopped, it is slow, and not dead: whoever waits for it goes on waiting.
            signal(dying, libc::SIGSTOP);
            thread::sleep(Duration::from_micros(random.below(100_000)));
            if random.below(2) == 0 {
                signal(dying, libc::SIGCONT);
                continue;
            }
        }
        dying.kill().expect("it can be killed");
        let status = dying.join().expect("it ends");
        assert_eq!(status.signal(), Some(libc::SIGKILL), "a victim found something wrong: {status}");
        *dying = start(random.below(2) == 0);
        killed += 1;
    }
    for mut victim in victims {
        victim.kill().expect("it can be killed");
        victim.join().expect("it ends");
    }
    shared.stop.set().expect("usable");
    let found: Vec<Found> =
        survivors.iter_mut().map(|survivor| survivor.take_result().expect("a survivor found nothing wrong")).collect();

    // Everything is whole, whoever died with it.
    let permits: Vec<_> = (0..PERMITS)
        .map(|_| shared.semaphore.permit_timeout(PATIENCE).expect("usable").expect("every permit came back"))
        .collect();
    assert!(shared.semaphore.try_permit().expect("usable").is_none(), "and no more than those");
    drop(permits);
    assert_eq!(shared.semaphore.value(), PERMITS);
    drop(shared.lock.lock_timeout(PATIENCE).or_else(LockError::accept).expect("it is free"));
    drop(shared.rlock.lock_timeout(PATIENCE).or_else(LockError::accept).expect("it is free"));
    drop(shared.mutex.lock_timeout(PATIENCE).or_else(LockError::accept).expect("it is free"));
    assert!(!shared.lock.is_locked() && !shared.rlock.is_locked() && !shared.mutex.is_locked());
    println!(
        "{killed} kills in {:.1} s, {} turns of victims, survivors: {found:?}",
        begin.elapsed().as_secs_f64(),
        shared.turns.get()
    );
}
