//! Primitives between real processes: what travels, what excludes, what the death of a holder leaves. Run in parallel.

use std::time::{Duration, Instant};

use billiard_connection::Connection;
use billiard_context::{Context, Message, Process};
use billiard_sync::{
    Barrier, BarrierError, BoundedSemaphore, Error, Event, Lock, LockError, Mutex, RLock, Semaphore, Value,
};
use billiard_test_support::{Watchdog, eventually};

billiard_context::init_for_tests!();

const BOTH: [fn() -> Context; 2] = [Context::forkserver, Context::spawn];

/// Long enough for a machine that is busy with something else.
const LONG: Duration = Duration::from_secs(30);

fn start<A: Message, R: Message>(function: fn(A) -> R, argument: A) -> Process<R> {
    Context::forkserver().process(function, argument).start().unwrap()
}

/// Runs `function` until it has set `ready`, and kills it.
fn kill_when_ready<A: Message>(function: fn((A, Event)), argument: A) {
    let ready = Event::new().unwrap();
    let mut victim = start(function, (argument, ready.clone()));
    assert!(ready.wait_timeout(LONG).unwrap());
    victim.kill().unwrap();
    assert_eq!(victim.join().unwrap().signal(), Some(libc::SIGKILL));
}

fn forever(ready: &Event) -> ! {
    ready.set().unwrap();
    loop {
        std::thread::park();
    }
}

type All =
    (Lock, RLock, Mutex<[u64; 2]>, Semaphore, BoundedSemaphore, Event, Barrier, Value<u8>, Value<u64>, Value<[u64; 4]>);

fn use_all((lock, rlock, mutex, semaphore, bounded, event, barrier, small, twice, large): All) {
    barrier.wait().unwrap();
    for n in 1..=1000 {
        let held = lock.lock().unwrap();
        small.set(small.get().wrapping_add(1));
        drop(held);
        let (outer, inner) = (rlock.lock().unwrap(), rlock.lock().unwrap());
        twice.set(twice.get() + 1);
        drop(outer); // the lock is this one's still
        twice.set(twice.get() + 1);
        drop(inner);
        let mut pair = mutex.lock().unwrap();
        pair[0] += 1;
        pair[1] += 2;
        drop(pair);
        semaphore.release().unwrap();
        let _permit = bounded.permit().unwrap();
        large.set([n; 4]);
        let seen = large.get();
        assert!(seen.iter().all(|word| *word == seen[0]), "torn: {seen:?}");
    }
    event.set().unwrap();
}

#[test]
fn all_travel_as_arguments_and_are_the_same_there() {
    let _watchdog = Watchdog::start("all_travel_as_arguments_and_are_the_same_there", 120);
    for context in BOTH {
        let all: All = (
            Lock::new().unwrap(),
            RLock::new().unwrap(),
            Mutex::new([0; 2]).unwrap(),
            Semaphore::new(0).unwrap(),
            BoundedSemaphore::new(2).unwrap(),
            Event::new().unwrap(),
            Barrier::new(4).unwrap(),
            Value::new(7).unwrap(),
            Value::new(0).unwrap(),
            Value::new([0; 4]).unwrap(),
        );
        let mut children: Vec<Process> =
            (0..3).map(|_| context().process(use_all, all.clone()).start().unwrap()).collect();
        use_all(all.clone());
        children.iter_mut().for_each(|child| assert!(child.join().unwrap().success()));
        let (lock, rlock, mutex, semaphore, bounded, event, barrier, small, twice, large) = all;
        assert_eq!(small.get(), ((7 + 4 * 1000) % 256) as u8);
        assert_eq!((twice.get(), rlock.is_locked()), (2 * 4 * 1000, false));
        assert_eq!(*mutex.lock().unwrap(), [4 * 1000, 8 * 1000]);
        assert_eq!((semaphore.value(), bounded.value()), (4 * 1000, 2));
        assert!(event.is_set() && !lock.is_locked() && !mutex.is_locked());
        assert_eq!((barrier.waiting(), barrier.is_broken()), (0, false));
        assert_eq!(large.get(), [1000; 4]);
    }
}

#[test]
fn what_is_received_has_to_be_what_was_sent() {
    let _watchdog = Watchdog::start("what_is_received_has_to_be_what_was_sent", 60);
    let (here, there) = Connection::pair().unwrap();
    let value = Value::new(5_u64).unwrap();
    for _ in 0..2 {
        here.send(&value).unwrap();
    }
    let refused = there.recv::<Value<i64>>().unwrap_err();
    assert!(format!("{refused:?}").contains("another type"), "{refused:?}");
    assert_eq!(there.recv::<Value<u64>>().unwrap().get(), 5);
    let bounded = BoundedSemaphore::new(1).unwrap();
    here.send(&Semaphore::new(1).unwrap()).unwrap();
    let refused = there.recv::<BoundedSemaphore>().unwrap_err();
    assert!(format!("{refused:?}").contains("sema version 1, not sema-bnd version 1"), "{refused:?}");
    here.send(&bounded).unwrap();
    let plain: Semaphore = there.recv().unwrap();
    assert!(matches!(plain.release(), Err(Error::OverRelease { bound: 1 })));
    here.send(&Event::new().unwrap()).unwrap();
    assert!(there.recv::<Lock>().is_err());
    here.send(&Mutex::new(1_u32).unwrap()).unwrap();
    assert!(there.recv::<Mutex<f32>>().is_err());
    here.send(&Lock::new().unwrap()).unwrap();
    let refused = there.recv::<RLock>().unwrap_err();
    assert!(format!("{refused:?}").contains("lock version 1, not rlock version 1"), "{refused:?}");
    here.send(&RLock::new().unwrap()).unwrap();
    assert!(there.recv::<Lock>().is_err());
    // The connection goes on, and what comes back is the same thing.
    here.send(&bounded).unwrap();
    let back: BoundedSemaphore = there.recv().unwrap();
    back.acquire().unwrap();
    assert_eq!(bounded.value(), 0);
}

fn die_with_lock((lock, ready): (Lock, Event)) {
    let _held = lock.lock().unwrap();
    forever(&ready)
}

#[test]
fn the_next_owner_is_told_that_the_last_one_died() {
    let _watchdog = Watchdog::start("the_next_owner_is_told_that_the_last_one_died", 120);
    let lock = Lock::new().unwrap();
    // Whoever comes later.
    for attempt in 0..3 {
        kill_when_ready(die_with_lock, lock.clone());
        assert!(lock.is_locked());
        let taken = match attempt {
            0 => lock.lock(),
            1 => lock.try_lock(),
            _ => lock.lock_timeout(LONG),
        };
        let error = taken.unwrap_err();
        assert!(matches!(error, LockError::OwnerDied(_)) && lock.is_locked());
        drop(error.forget());
        assert!(!lock.is_locked());
        drop(lock.lock().unwrap()); // nobody else is told
    }
    // Whoever waits already, in two processes.
    let ready = Event::new().unwrap();
    let mut victim = start(die_with_lock, (lock.clone(), ready.clone()));
    ready.wait().unwrap();
    let mut other = start(|lock: Lock| lock.lock().is_err(), lock.clone());
    let waiting = std::thread::spawn({
        let lock = lock.clone();
        move || lock.lock().is_err()
    });
    assert!(matches!(lock.lock_timeout(Duration::from_millis(150)), Err(LockError::TimedOut)), "it lives");
    victim.kill().unwrap();
    victim.join().unwrap();
    let died = Instant::now();
    let told = [other.take_result().unwrap(), waiting.join().unwrap()];
    println!("told {:?} after the end was known", died.elapsed());
    assert!(told == [true, false] || told == [false, true], "{told:?}");
}

fn die_with_rlock((lock, ready): (RLock, Event)) {
    let _held = [lock.lock().unwrap(), lock.try_lock().unwrap(), lock.lock_timeout(LONG).unwrap()];
    forever(&ready)
}

#[test]
fn who_inherits_a_recursive_lock_has_it_once() {
    let _watchdog = Watchdog::start("who_inherits_a_recursive_lock_has_it_once", 120);
    let lock = RLock::new().unwrap();
    for attempt in 0..3 {
        kill_when_ready(die_with_rlock, lock.clone());
        assert!(lock.is_locked());
        let taken = match attempt {
            0 => lock.lock(),
            1 => lock.try_lock(),
            _ => lock.lock_timeout(LONG),
        };
        let Err(LockError::OwnerDied(held)) = taken else { panic!("it died with the lock: {taken:?}") };
        assert!(!others_may_take(&lock));
        let again = lock.lock().unwrap(); // it is told once
        drop(held);
        assert!(!others_may_take(&lock));
        drop(again);
        assert!(!lock.is_locked() && others_may_take(&lock));
    }
    // Whoever waits already, in another process and in two threads of this one.
    let ready = Event::new().unwrap();
    let victim = start(die_with_rlock, (lock.clone(), ready.clone()));
    ready.wait().unwrap();
    let mut other = start(|lock: RLock| lock.lock().is_err(), lock.clone());
    let told = std::thread::scope(|scope| {
        let waiting = [(), ()].map(|()| scope.spawn(|| lock.lock().is_err()));
        assert!(matches!(lock.lock_timeout(Duration::from_millis(150)), Err(LockError::TimedOut)), "it lives");
        victim.kill().unwrap();
        waiting.map(|thread| usize::from(thread.join().unwrap())).iter().sum::<usize>()
    });
    assert_eq!(told + usize::from(other.take_result().unwrap()), 1);
}

/// Whether another thread of this process gets it.
fn others_may_take(lock: &RLock) -> bool {
    std::thread::scope(|scope| scope.spawn(|| lock.try_lock().is_ok()).join().unwrap())
}

/// Two handles that came by themselves, in a process that is not their maker's.
fn take_by_both((one, two, home): (RLock, RLock, Connection)) -> bool {
    let by_both = [one.lock().unwrap(), two.try_lock().unwrap(), one.lock().unwrap()];
    home.send_bytes(b"held").unwrap();
    home.recv_bytes().unwrap();
    let shut_out = !others_may_take(&one) && !others_may_take(&two);
    let [first, second, third] = by_both;
    drop((first, third));
    let still = one.is_locked() && !others_may_take(&two);
    drop(second);
    shut_out && still && others_may_take(&one) && others_may_take(&two)
}

#[test]
fn a_recursive_lock_that_came_twice_is_the_same_lock() {
    let _watchdog = Watchdog::start("a_recursive_lock_that_came_twice_is_the_same_lock", 60);
    let (here, there) = Connection::pair().unwrap();
    let lock = RLock::new().unwrap();
    (0..2).for_each(|_| here.send(&lock).unwrap());
    let (one, two): (RLock, RLock) = (there.recv().unwrap(), there.recv().unwrap());
    let held = [&lock, &one, &two].map(|handle| handle.try_lock().unwrap());
    assert!([&lock, &one, &two].iter().all(|handle| handle.is_locked() && !others_may_take(handle)));
    drop(held);
    assert!([&lock, &one, &two].iter().all(|handle| !handle.is_locked() && others_may_take(handle)));
    for context in BOTH {
        let (ours, theirs) = Connection::pair().unwrap();
        let mut child = context().process(take_by_both, (one.clone(), two.clone(), theirs)).start().unwrap();
        ours.recv_bytes().unwrap();
        assert!(matches!(lock.try_lock(), Err(LockError::WouldBlock)));
        ours.send_bytes(b"go on").unwrap();
        assert!(child.take_result().unwrap());
        drop(lock.try_lock().unwrap());
    }
}

fn die_in_the_middle((mutex, ready): (Mutex<[u64; 2]>, Event)) {
    let mut pair = mutex.lock().unwrap();
    pair[0] = 9;
    forever(&ready)
}

#[test]
fn a_mutex_shows_what_the_dead_owner_left() {
    let _watchdog = Watchdog::start("a_mutex_shows_what_the_dead_owner_left", 60);
    let mutex = Mutex::new([1_u64, 1]).unwrap();
    kill_when_ready(die_in_the_middle, mutex.clone());
    let Err(LockError::OwnerDied(mut pair)) = mutex.lock() else { panic!("it died with the lock") };
    assert_eq!(*pair, [9, 1]);
    *pair = [9, 9];
    drop(pair);
    assert_eq!(*mutex.lock().unwrap(), [9, 9]);
    kill_when_ready(die_in_the_middle, mutex.clone());
    assert_eq!(*mutex.lock().or_else(LockError::accept).unwrap(), [9, 9]);
}

fn die_with_permits((semaphore, ready): (Semaphore, Event)) {
    let _permits = (semaphore.permit().unwrap(), semaphore.permit().unwrap());
    semaphore.acquire().unwrap();
    forever(&ready)
}

#[test]
fn permits_of_the_dead_come_back_and_those_of_nobody_do_not() {
    let _watchdog = Watchdog::start("permits_of_the_dead_come_back_and_those_of_nobody_do_not", 60);
    let semaphore = Semaphore::new(3).unwrap();
    kill_when_ready(die_with_permits, semaphore.clone());
    let waiting = std::thread::spawn({
        let semaphore = semaphore.clone();
        move || semaphore.acquire().unwrap()
    });
    let permit = semaphore.permit().unwrap();
    waiting.join().unwrap();
    assert!(semaphore.try_permit().unwrap().is_none() && !semaphore.try_acquire().unwrap());
    drop(permit);
    semaphore.release_many(2).unwrap();
    assert_eq!(semaphore.value(), 3);
}

fn die_with_a_permit((semaphore, ready): (Semaphore, Event)) {
    let _permit = semaphore.permit().unwrap();
    forever(&ready)
}

/// Takes a permit and gives it back, again and again: nobody waits for long.
fn pass_permits_on((semaphore, begun, enough): (Semaphore, Event, Event)) {
    while !enough.is_set() {
        let permit = semaphore.permit().unwrap();
        begun.set().unwrap();
        std::thread::yield_now();
        drop(permit);
        std::thread::yield_now();
    }
}

#[test]
fn permits_of_the_dead_come_back_under_traffic() {
    let _watchdog = Watchdog::start("permits_of_the_dead_come_back_under_traffic", 60);
    let (semaphore, enough) = (Semaphore::new(2).unwrap(), Event::new().unwrap());
    // They take part before the other dies: so none of them has its record, and with that what it held.
    let mut traffic = [(); 3].map(|()| {
        let begun = Event::new().unwrap();
        let one = start(pass_permits_on, (semaphore.clone(), begun.clone(), enough.clone()));
        assert!(begun.wait_timeout(LONG).unwrap());
        one
    });
    kill_when_ready(die_with_a_permit, semaphore.clone());
    // While they go on: as many are free at some moment as there were.
    let all_back = eventually(10, || semaphore.value() == 2);
    enough.set().unwrap();
    traffic.iter_mut().for_each(|one| assert!(one.join().unwrap().success()));
    assert_eq!((all_back, semaphore.value()), (true, 2));
}

fn die_at_barrier((barrier, ready): (Barrier, Event)) {
    ready.set().unwrap();
    let _ = barrier.wait();
}

#[test]
fn a_death_inside_breaks_a_barrier_and_a_reset_mends_it() {
    let _watchdog = Watchdog::start("a_death_inside_breaks_a_barrier_and_a_reset_mends_it", 60);
    let barrier = Barrier::new(3).unwrap();
    let mut victim = start(die_at_barrier, (barrier.clone(), Event::new().unwrap()));
    assert!(eventually(30, || barrier.waiting() == 1));
    let waiting = std::thread::spawn({
        let barrier = barrier.clone();
        move || barrier.wait()
    });
    assert!(eventually(30, || barrier.waiting() == 2));
    victim.kill().unwrap();
    assert!(matches!(waiting.join().unwrap(), Err(BarrierError::ParticipantDied)));
    assert!(barrier.is_broken() && matches!(barrier.wait(), Err(BarrierError::Broken)));
    victim.join().unwrap();
    barrier.reset().unwrap();
    let others: Vec<Process<bool>> =
        (0..2).map(|_| start(|barrier: Barrier| barrier.wait().is_ok(), barrier.clone())).collect();
    assert!(barrier.wait().is_ok());
    others.into_iter().for_each(|mut other| assert!(other.take_result().unwrap()));
}

fn die_while_updating((value, ready): (Value<[u64; 3]>, Event)) {
    let _ = value.update(|value| {
        *value = [8; 3];
        forever(&ready)
    });
}

#[test]
fn a_value_survives_whoever_updates_it() {
    let _watchdog = Watchdog::start("a_value_survives_whoever_updates_it", 60);
    let value = Value::new([7_u64; 3]).unwrap();
    kill_when_ready(die_while_updating, value.clone());
    assert_eq!(value.get(), [7; 3]);
    assert_eq!(value.update(|value| std::mem::replace(value, [1, 2, 3])).unwrap(), [7; 3]);
    kill_when_ready(die_while_updating, value.clone());
    value.set([4, 5, 6]);
    assert_eq!(value.get(), [4, 5, 6]);
}

fn add_up(value: Value<i16>) {
    for _ in 0..2000 {
        value.update(|value| *value += 1).unwrap();
    }
}

#[test]
fn updates_of_a_small_value_are_not_lost() {
    let _watchdog = Watchdog::start("updates_of_a_small_value_are_not_lost", 60);
    let value = Value::new(-3000_i16).unwrap();
    let mut children = [start(add_up, value.clone()), start(add_up, value.clone())];
    add_up(value.clone());
    children.iter_mut().for_each(|child| assert!(child.join().unwrap().success()));
    assert_eq!(value.get(), 3000);
}

fn wait_for(event: Event) -> bool {
    event.wait_timeout(LONG).unwrap()
}

#[test]
fn an_event_that_is_cleared_at_once_has_woken_who_waited() {
    let _watchdog = Watchdog::start("an_event_that_is_cleared_at_once_has_woken_who_waited", 60);
    let event = Event::new().unwrap();
    let mut waiters = [start(wait_for, event.clone()), start(wait_for, event.clone())];
    // They may still be on their way: set and clear until both have seen it.
    assert!(eventually(30, || {
        event.set().unwrap();
        event.clear().unwrap();
        waiters.iter().all(|waiter| !waiter.is_alive())
    }));
    waiters.iter_mut().for_each(|waiter| assert!(waiter.take_result().unwrap()));
    assert!(!event.is_set());
}
