//! A kill and a stop at every named step of every operation.
//!
//! One process, the victim, does one thing with a plan in its environment that kills or stops it there. Then this process
//! looks at what it finds: while the victim is stopped, and once it is dead.

use std::{env, fs, thread, time::Duration};

use billiard::{
    context::{Context, Process},
    sync::{Barrier, BarrierError, BoundedSemaphore, Event, Lock, LockError, RLock, Semaphore, Value},
};
use serde::{Deserialize, Serialize};

use crate::{PATIENCE, until, watch};

/// Long enough for a waiter to have looked whether the owner lives.
const A_WHILE: Duration = Duration::from_millis(120);

/// What the victim and this process share; new for each case.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Shared {
    lock: Lock,
    rlock: RLock,
    semaphore: Semaphore,
    bounded: BoundedSemaphore,
    event: Event,
    barrier: Barrier,
    value: Value<[u64; 2]>,
}

/// What the victim does.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum Deed {
    Lock,
    LockTwice,
    Release,
    Permit,
    Acquire,
    TryAnother,
    Set,
    Clear,
    WaitForEvent,
    SetValue,
    Meet,
    MeetAndAct,
    MeetBriefly,
    Abort,
    Reset,
}

fn victim((deed, shared): (Deed, Shared)) {
    match deed {
        Deed::Lock => drop(shared.lock.lock().or_else(LockError::accept).expect("usable")),
        Deed::LockTwice => {
            let outer = shared.rlock.lock().or_else(LockError::accept).expect("usable");
            let inner = shared.rlock.lock().expect("this thread has it");
            drop(outer);
            drop(inner);
        }
        Deed::Release => shared.bounded.release().expect("there is room"),
        Deed::Permit => drop(shared.semaphore.permit().expect("usable")),
        Deed::Acquire => assert!(shared.bounded.try_acquire().expect("usable")),
        Deed::TryAnother => assert!(shared.semaphore.try_acquire().expect("usable")),
        Deed::Set => shared.event.set().expect("usable"),
        Deed::Clear => shared.event.clear().expect("usable"),
        Deed::WaitForEvent => shared.event.wait().expect("usable"),
        Deed::SetValue => shared.value.set([2; 2]),
        Deed::Meet => drop(shared.barrier.wait()),
        Deed::MeetAndAct => drop(shared.barrier.wait_and(|| ())),
        Deed::MeetBriefly => drop(shared.barrier.wait_timeout(Duration::from_millis(1))),
        Deed::Abort => shared.barrier.abort().expect("usable"),
        Deed::Reset => shared.barrier.reset().expect("usable"),
    }
}

/// What there is before the victim comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    Nothing,
    /// The lock is held by this process, until the victim waits for it.
    LockHeld,
    /// The lock was held by a process that is dead.
    LockOfADead,
    /// The recursive lock is held by this process, until the victim waits for it.
    RLockHeld,
    /// The recursive lock was held, twice, by a process that is dead.
    RLockOfADead,
    /// A process that is dead held both permits of the semaphore.
    PermitsOfADead,
    /// This process has all permits, until the victim waits for one.
    PermitsHeld,
    /// The event is set.
    Set,
    /// A party waits at the barrier already, in a thread of this process.
    Waiting,
    /// The barrier is broken.
    Broken,
}

/// What is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    /// The lock is free.
    Free,
    /// The lock can be had, and its last owner has died.
    OwnerDied,
    /// The lock is held.
    Held,
    /// The recursive lock is free.
    RFree,
    /// The recursive lock can be had, once, and its last owner has died.
    ROwnerDied,
    /// The recursive lock is held.
    RHeld,
    /// So many permits of the semaphore can be had.
    Permits(u32),
    /// What the bounded semaphore has.
    Bounded(u32),
    /// The event, and whether one who waits for it goes on.
    Event(bool),
    Value(u64),
    /// The barrier lets two parties meet.
    Whole,
    /// This process, or the thread that waited before, was told that a participant died.
    ParticipantDied,
    /// The barrier is broken, or was.
    BarrierBroken,
    /// The party that waited before was let go.
    Met,
    /// The party that waited before still does.
    NotYet,
    /// Nobody but the victim can go on, and it waits for the victim.
    Nobody,
}

use Before as B;
use Deed as D;
use Found as F;

/// Deed, step and pass; before; found while the victim is stopped there; found when it has died there.
type Case = (Deed, &'static str, u32, Before, Found, Found);

#[rustfmt::skip]
const CASES: &[Case] = &[
    (D::Lock, "lock.take", 1, B::Nothing, F::Free, F::Free),
    (D::Lock, "lock.taken", 1, B::Nothing, F::Held, F::OwnerDied),
    (D::Lock, "lock.unlock", 1, B::Nothing, F::Held, F::OwnerDied),
    (D::Lock, "lock.unlocked", 1, B::Nothing, F::Free, F::Free),
    (D::Lock, "lock.waiting", 1, B::LockHeld, F::Free, F::Free),
    (D::Lock, "lock.woken", 1, B::LockHeld, F::Free, F::Free),
    (D::Lock, "lock.taken", 1, B::LockHeld, F::Held, F::OwnerDied),
    (D::Lock, "lock.inherit", 1, B::LockOfADead, F::OwnerDied, F::OwnerDied),
    (D::Lock, "lock.inherited", 1, B::LockOfADead, F::Held, F::OwnerDied),

    (D::LockTwice, "lock.take", 1, B::Nothing, F::RFree, F::RFree),
    (D::LockTwice, "lock.taken", 1, B::Nothing, F::RHeld, F::ROwnerDied),
    (D::LockTwice, "rlock.counted", 1, B::Nothing, F::RHeld, F::ROwnerDied),
    (D::LockTwice, "rlock.held", 1, B::Nothing, F::RHeld, F::ROwnerDied),
    (D::LockTwice, "rlock.again", 1, B::Nothing, F::RHeld, F::ROwnerDied),
    (D::LockTwice, "rlock.deeper", 1, B::Nothing, F::RHeld, F::ROwnerDied),
    (D::LockTwice, "rlock.release", 1, B::Nothing, F::RHeld, F::ROwnerDied),
    (D::LockTwice, "rlock.shallower", 1, B::Nothing, F::RHeld, F::ROwnerDied),
    (D::LockTwice, "rlock.release", 2, B::Nothing, F::RHeld, F::ROwnerDied),
    (D::LockTwice, "rlock.left", 1, B::Nothing, F::RHeld, F::ROwnerDied),
    (D::LockTwice, "lock.unlock", 1, B::Nothing, F::RHeld, F::ROwnerDied),
    (D::LockTwice, "lock.unlocked", 1, B::Nothing, F::RFree, F::RFree),
    (D::LockTwice, "lock.waiting", 1, B::RLockHeld, F::RFree, F::RFree),
    (D::LockTwice, "lock.taken", 1, B::RLockHeld, F::RHeld, F::ROwnerDied),
    (D::LockTwice, "lock.inherit", 1, B::RLockOfADead, F::ROwnerDied, F::ROwnerDied),
    (D::LockTwice, "lock.inherited", 1, B::RLockOfADead, F::RHeld, F::ROwnerDied),
    (D::LockTwice, "rlock.counted", 1, B::RLockOfADead, F::RHeld, F::ROwnerDied),
    (D::LockTwice, "rlock.held", 1, B::RLockOfADead, F::RHeld, F::ROwnerDied),
    (D::LockTwice, "rlock.deeper", 1, B::RLockOfADead, F::RHeld, F::ROwnerDied),
    (D::LockTwice, "rlock.left", 1, B::RLockOfADead, F::RHeld, F::ROwnerDied),
    (D::LockTwice, "lock.unlocked", 1, B::RLockOfADead, F::RFree, F::RFree),
    (D::Lock, "lock.unlock", 1, B::LockOfADead, F::Held, F::OwnerDied),

    (D::Permit, "shm.ledger.counted", 1, B::Nothing, F::Permits(1), F::Permits(2)),
    (D::Permit, "shm.ledger.counted", 2, B::Nothing, F::Permits(2), F::Permits(2)),
    (D::Permit, "shm.ledger.written", 1, B::Nothing, F::Permits(1), F::Permits(2)),
    (D::Permit, "semaphore.give", 1, B::Nothing, F::Permits(1), F::Permits(2)),
    (D::Permit, "semaphore.given", 1, B::Nothing, F::Permits(2), F::Permits(2)),
    (D::Permit, "semaphore.waiting", 1, B::PermitsHeld, F::Permits(2), F::Permits(2)),
    (D::Permit, "semaphore.woken", 1, B::PermitsHeld, F::Permits(2), F::Permits(2)),
    (D::Permit, "shm.ledger.swept", 1, B::PermitsOfADead, F::Permits(2), F::Permits(2)),
    (D::TryAnother, "semaphore.swept", 1, B::PermitsOfADead, F::Permits(2), F::Permits(2)),
    (D::Permit, "semaphore.give", 1, B::PermitsOfADead, F::Permits(1), F::Permits(2)),
    (D::Release, "semaphore.release", 1, B::Nothing, F::Bounded(1), F::Bounded(1)),
    (D::Release, "semaphore.released", 1, B::Nothing, F::Bounded(2), F::Bounded(2)),
    (D::Acquire, "semaphore.try", 1, B::Nothing, F::Bounded(1), F::Bounded(1)),

    (D::Set, "event.set", 1, B::Nothing, F::Event(false), F::Event(false)),
    (D::Set, "event.was_set", 1, B::Nothing, F::Event(true), F::Event(true)),
    (D::Clear, "event.clear", 1, B::Set, F::Event(true), F::Event(true)),
    (D::WaitForEvent, "event.waiting", 1, B::Nothing, F::Event(false), F::Event(false)),
    (D::WaitForEvent, "event.woken", 1, B::Nothing, F::Event(false), F::Event(false)),

    (D::SetValue, "lock.taken", 1, B::Nothing, F::Value(1), F::Value(1)),
    (D::SetValue, "value.word", 1, B::Nothing, F::Value(1), F::Value(1)),
    (D::SetValue, "value.word", 2, B::Nothing, F::Value(1), F::Value(1)),
    (D::SetValue, "value.written", 1, B::Nothing, F::Value(1), F::Value(1)),
    (D::SetValue, "value.named", 1, B::Nothing, F::Value(2), F::Value(2)),

    (D::Meet, "barrier.arrive", 1, B::Nothing, F::Whole, F::Whole),
    (D::Meet, "barrier.arrived", 1, B::Waiting, F::Met, F::ParticipantDied),
    (D::Meet, "barrier.complete", 1, B::Waiting, F::Met, F::ParticipantDied),
    (D::Meet, "barrier.advanced", 1, B::Waiting, F::Met, F::Met),
    (D::MeetAndAct, "barrier.act", 1, B::Waiting, F::NotYet, F::ParticipantDied),
    (D::Meet, "barrier.arrived", 1, B::Nothing, F::Nobody, F::ParticipantDied),
    (D::Meet, "barrier.waiting", 1, B::Nothing, F::Nobody, F::ParticipantDied),
    (D::Meet, "barrier.woken", 1, B::Nothing, F::Nobody, F::ParticipantDied),
    (D::MeetBriefly, "barrier.break", 1, B::Nothing, F::Nobody, F::ParticipantDied),
    (D::MeetBriefly, "barrier.broken", 1, B::Nothing, F::BarrierBroken, F::BarrierBroken),
    (D::Abort, "barrier.break", 1, B::Nothing, F::Whole, F::Whole),
    (D::Abort, "barrier.broken", 1, B::Waiting, F::BarrierBroken, F::BarrierBroken),
    (D::Reset, "barrier.reset", 1, B::Broken, F::BarrierBroken, F::BarrierBroken),
    (D::Reset, "barrier.advanced", 1, B::Broken, F::Whole, F::Whole),
    (D::Reset, "barrier.advanced", 1, B::Waiting, F::BarrierBroken, F::BarrierBroken),
];

/// All cases, twice: a kill at once, and a stop first.
pub(crate) fn run() {
    let _watchdog = watch("a kill and a stop at every step", 280);
    // This process reads its own plan, which is none, before it puts one into the environment for its children.
    drop(Event::new().expect("an event").set());
    for &case in CASES {
        for stops in [false, true] {
            run_case(case, stops);
        }
    }
    println!("{} steps, a kill and a stop at each", CASES.len());
}

fn run_case((deed, step, pass, before, while_stopped, when_dead): Case, stops: bool) {
    let what = format!("{deed:?} at {step}, pass {pass}, {before:?}, {}", if stops { "stopped" } else { "killed" });
    let shared = Shared {
        lock: Lock::new().expect("a lock"),
        rlock: RLock::new().expect("a lock"),
        semaphore: Semaphore::new(2).expect("a semaphore"),
        bounded: BoundedSemaphore::new(2).expect("a semaphore"),
        event: Event::new().expect("an event"),
        barrier: Barrier::new(2).expect("a barrier"),
        value: Value::new([1; 2]).expect("a value"),
    };
    shared.bounded.acquire().expect("there are two");

    let held = (before == B::LockHeld).then(|| shared.lock.lock().expect("it is free"));
    let recursive = (before == B::RLockHeld).then(|| shared.rlock.lock().expect("it is free"));
    let permits = (before == B::PermitsHeld).then(|| [(); 2].map(|()| shared.semaphore.permit().expect("it is free")));
    let waiter = (before == B::Waiting).then(|| {
        let barrier = shared.barrier.clone();
        thread::spawn(move || barrier.wait())
    });
    match before {
        B::LockOfADead => die_with(|shared| std::mem::forget(shared.lock.lock()), &shared),
        B::RLockOfADead => die_with(|shared| (0..2).for_each(|_| std::mem::forget(shared.rlock.lock())), &shared),
        B::PermitsOfADead => {
            die_with(|shared| (0..2).for_each(|_| std::mem::forget(shared.semaphore.permit())), &shared)
        }
        B::Set => shared.event.set().expect("usable"),
        B::Broken => shared.barrier.abort().expect("usable"),
        B::Waiting => until("the other party waits", || shared.barrier.waiting() == 1),
        _ => {}
    }

    let action = if stops { "stop" } else { "kill" };
    let mut process = start(&format!("{step}={action}@{pass}"), victim, (deed, shared.clone()));
    if held.is_some() || recursive.is_some() || permits.is_some() {
        thread::sleep(Duration::from_millis(20)); // so that it waits: whether it does changes which step comes first, no more
    }
    drop(held);
    drop(recursive);
    drop(permits);
    if stops {
        until(&what, || is_stopped(process.pid()));
    } else {
        let status = process.join_timeout(PATIENCE).expect("it can be waited for");
        let status = status.unwrap_or_else(|| panic!("{what}: the step was not passed"));
        assert_eq!(status.signal(), Some(libc::SIGKILL), "{what}: {status}");
    }

    let expected = if stops { while_stopped } else { when_dead };
    let mut waiter = waiter;
    let mut look = |expected| {
        let found = find(expected, &shared, waiter.take(), &what);
        assert_eq!(found, expected, "{what}");
    };
    look(expected);
    if stops {
        process.kill().expect("it can be killed");
        process.join().expect("it ends");
        // What was looked at while it was stopped is not as it was; but nothing waits for the dead.
        works(&shared, &what);
    }
    println!("{what}: {expected:?}");
}

fn start<A: billiard::Message>(plan: &str, function: fn(A), argument: A) -> Process {
    // SAFETY: the other threads of this process do not look at the environment.
    unsafe { env::set_var("BILLIARD_FAULT", plan) };
    let process = Context::forkserver().process(function, argument).start().expect("it starts");
    // SAFETY: as above.
    unsafe { env::remove_var("BILLIARD_FAULT") };
    process
}

/// A process takes something, and dies with it.
fn die_with(take: fn(Shared), shared: &Shared) {
    let mut process = start("", take, shared.clone());
    assert!(process.join().expect("it ends").success());
}

fn is_stopped(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, fields)| fields.trim_start().starts_with('T'))
}

/// How long to wait for what should come, or should not.
fn time(should_come: bool) -> Duration {
    if should_come { PATIENCE } else { A_WHILE }
}

/// Looks at that of which `expected` is a state.
fn find(
    expected: Found,
    shared: &Shared,
    waiter: Option<thread::JoinHandle<Result<usize, BarrierError>>>,
    what: &str,
) -> Found {
    match expected {
        F::Free | F::OwnerDied | F::Held => match shared.lock.lock_timeout(time(expected != F::Held)) {
            Ok(_guard) => F::Free,
            Err(LockError::OwnerDied(_guard)) => F::OwnerDied,
            Err(LockError::TimedOut) => F::Held,
            Err(other) => panic!("{what}: {other}"),
        },
        F::RFree | F::ROwnerDied | F::RHeld => match shared.rlock.lock_timeout(time(expected != F::RHeld)) {
            Ok(_guard) => F::RFree,
            Err(LockError::OwnerDied(once)) => {
                drop(once);
                assert!(!shared.rlock.is_locked(), "{what}: it was inherited more than once");
                F::ROwnerDied
            }
            Err(LockError::TimedOut) => F::RHeld,
            Err(other) => panic!("{what}: {other}"),
        },
        F::Permits(permits) => {
            let permit = |n| shared.semaphore.permit_timeout(time(n < permits)).expect("usable");
            let all: Vec<_> = (0..3).map_while(permit).collect();
            F::Permits(all.len() as u32)
        }
        F::Bounded(_) => F::Bounded(shared.bounded.value()),
        F::Event(_) => F::Event(shared.event.wait_timeout(time(expected == F::Event(true))).expect("usable")),
        F::Value(_) => {
            let value = shared.value.get();
            assert_eq!(value[0], value[1], "{what}: torn");
            F::Value(value[0])
        }
        F::Met => match waiter.expect("there is one").join().expect("it ends") {
            Ok(0) => F::Met,
            other => panic!("{what}: {other:?}"),
        },
        F::ParticipantDied | F::BarrierBroken => {
            // Whoever waited before; or this process, which comes as the last.
            let ended = match waiter {
                Some(waiter) => waiter.join().expect("it ends"),
                None => shared.barrier.wait_timeout(PATIENCE),
            };
            match ended {
                Err(BarrierError::ParticipantDied) => F::ParticipantDied,
                Err(BarrierError::Broken) => F::BarrierBroken,
                other => panic!("{what}: {other:?}"),
            }
        }
        F::NotYet => {
            thread::sleep(A_WHILE);
            assert!(waiter.is_some_and(|waiter| !waiter.is_finished()), "{what}");
            F::NotYet
        }
        F::Nobody => {
            assert_eq!((shared.barrier.waiting(), shared.barrier.is_broken()), (1, false), "{what}");
            F::Nobody
        }
        F::Whole => {
            meet(shared, what);
            F::Whole
        }
    }
}

/// Two parties meet.
fn meet(shared: &Shared, what: &str) {
    let barrier = shared.barrier.clone();
    let other = thread::spawn(move || barrier.wait_timeout(PATIENCE));
    let here = shared.barrier.wait_timeout(PATIENCE);
    let other = other.join().expect("it ends");
    assert!(here.is_ok() && other.is_ok(), "{what}: {here:?}, {other:?}");
}

/// Everything can be used, now that whoever was in the way is dead.
fn works(shared: &Shared, what: &str) {
    drop(
        shared.lock.lock_timeout(PATIENCE).or_else(LockError::accept).unwrap_or_else(|error| panic!("{what}: {error}")),
    );
    assert!(matches!(shared.lock.lock_timeout(PATIENCE), Ok(_)), "{what}");
    let once = shared.rlock.lock_timeout(PATIENCE).or_else(LockError::accept);
    drop(once.unwrap_or_else(|error| panic!("{what}: {error}")));
    assert!(!shared.rlock.is_locked(), "{what}: it was had more than once");
    let twice = [(); 2].map(|()| shared.rlock.lock_timeout(PATIENCE).expect("usable, and nobody died with it"));
    drop(twice);
    let permits = [(); 2].map(|()| shared.semaphore.permit_timeout(PATIENCE).expect("usable"));
    assert!(permits.iter().all(Option::is_some), "{what}");
    assert!(shared.semaphore.try_permit().expect("usable").is_none(), "{what}: a permit too many");
    shared.value.set([3; 2]);
    assert_eq!(shared.value.get(), [3; 2], "{what}");
    shared.event.set().expect("usable");
    assert!(shared.event.wait_timeout(PATIENCE).expect("usable"), "{what}");
    shared.barrier.reset().expect("usable");
    meet(shared, what);
}
