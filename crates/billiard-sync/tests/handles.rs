//! Primitives within one process: bad input, timeouts, what is shown, and layouts.

use std::{os::fd::AsFd, thread, time::Duration};

use billiard_shm::{Kind, Plain, Segment, participants::Registry};
use billiard_sync::{
    Barrier, BarrierError, BoundedSemaphore, Error, Event, Lock, LockError, Mutex, RLock, Semaphore, Value,
};
use billiard_test_support::{Watchdog, eventually};
use billiard_wire::{attachments::Received, codec};

const SHORT: Duration = Duration::from_millis(20);

#[test]
fn nonsense_is_refused() {
    assert!(matches!(Barrier::new(0), Err(Error::BadParties(0))));
    assert!(matches!(Barrier::new(65_537), Err(Error::BadParties(65_537))));
    assert!(matches!(Semaphore::new(1 << 31), Err(Error::TooManyPermits(_))));
    assert!(matches!(BoundedSemaphore::new(u32::MAX), Err(Error::TooManyPermits(u32::MAX))));
    let full = Semaphore::new(i32::MAX as u32).unwrap();
    assert!(matches!(full.release(), Err(Error::OverRelease { bound: 0x7fff_ffff })));
    assert_eq!(full.value(), i32::MAX as u32);
    let bounded = BoundedSemaphore::new(0).unwrap();
    assert!(matches!(bounded.release(), Err(Error::OverRelease { bound: 0 })));
    bounded.release_many(0).unwrap();
}

#[test]
fn two_who_release_too_much_do_not_both_succeed() {
    let _watchdog = Watchdog::start("two_who_release_too_much_do_not_both_succeed", 60);
    let bounded = BoundedSemaphore::new(1).unwrap();
    for _ in 0..500 {
        bounded.acquire().unwrap();
        let released = thread::scope(|scope| {
            let both = [(), ()].map(|()| scope.spawn(|| bounded.release().is_ok()));
            both.map(|one| usize::from(one.join().unwrap())).iter().sum::<usize>()
        });
        assert_eq!((released, bounded.value()), (1, 1));
    }
}

#[test]
fn timeouts_are_kept_and_what_is_free_is_had_at_once() {
    let _watchdog = Watchdog::start("timeouts_are_kept_and_what_is_free_is_had_at_once", 60);
    let (lock, semaphore, event) = (Lock::new().unwrap(), Semaphore::new(1).unwrap(), Event::new().unwrap());
    let held = lock.lock_timeout(Duration::ZERO).unwrap();
    let begin = std::time::Instant::now();
    assert!(matches!(lock.lock_timeout(SHORT), Err(LockError::TimedOut)));
    assert!(semaphore.acquire_timeout(Duration::ZERO).unwrap());
    assert!(!semaphore.acquire_timeout(SHORT).unwrap());
    assert!(semaphore.permit_timeout(SHORT).unwrap().is_none());
    assert!(!event.wait_timeout(SHORT).unwrap());
    assert!(matches!(Barrier::new(2).unwrap().wait_timeout(SHORT), Err(BarrierError::TimedOut)));
    assert!(begin.elapsed() >= 5 * SHORT);
    // Longer than any wait in one go.
    assert!(matches!(lock.lock_timeout(Duration::from_millis(120)), Err(LockError::TimedOut)));
    assert!(begin.elapsed() >= 5 * SHORT + Duration::from_millis(120));
    thread::scope(|scope| {
        let waiter = scope.spawn(|| lock.lock_timeout(Duration::MAX).is_ok());
        drop(held);
        assert!(waiter.join().unwrap());
    });
}

#[test]
fn the_memory_of_a_primitive_is_had_by_its_protocol_alone() {
    let fds = |message: &codec::Encoded| -> Received {
        message.attachments().fds().map(|fd| fd.try_clone_to_owned().unwrap()).collect::<Vec<_>>().into()
    };
    let mutex = Mutex::new(7_u64).unwrap();
    let message = codec::encode(&mutex).unwrap();
    let bytes = codec::decode::<(Segment, Registry)>(message.body(), &mut fds(&message));
    assert!(bytes.is_err(), "its bytes could be written while a guard lends them");
    let again: Mutex<u64> = codec::decode(message.body(), &mut fds(&message)).unwrap();
    assert_eq!(*again.lock().unwrap(), 7);
    // Nor does memory that others can write pass for a primitive.
    let registry = Registry::of_this_process().unwrap();
    let segment = Segment::create(Kind::new("mutex", 1).of::<u64>(), 16).unwrap();
    let message = codec::encode(&(segment, &registry)).unwrap();
    assert!(codec::decode::<Mutex<u64>>(message.body(), &mut fds(&message)).is_err());
    // Nor can the owner of a lock be declared dead, so that there are two.
    let message = codec::encode(&registry).unwrap();
    assert!(codec::decode::<Segment>(message.body(), &mut fds(&message)).is_err());
    let fd = registry.as_fd().try_clone_to_owned().unwrap();
    assert!(Segment::attach(fd, Kind::new("members", 1)).is_err());
}

#[test]
fn the_memory_of_a_primitive_goes_with_its_registry_alone() {
    let mutex = Mutex::new(7_u64).unwrap();
    let _held = mutex.lock().unwrap();
    let message = codec::encode(&(&mutex, Registry::with_capacity(4).unwrap())).unwrap();
    let fds: Vec<_> = message.attachments().fds().map(|fd| fd.try_clone_to_owned().unwrap()).collect();
    let [segment, _, other] = <[_; 3]>::try_from(fds).unwrap();
    // In another registry the owner is nobody, and its lock would be had twice.
    let forged = codec::decode::<Mutex<u64>>(&[0, 1], &mut vec![segment, other].into()).unwrap_err();
    let mut why: &dyn std::error::Error = &forged;
    while let Some(source) = why.source() {
        why = source;
    }
    assert!(why.to_string().contains("do not belong together"), "{why}");
}

#[test]
fn handles_say_what_they_are() {
    let (lock, mutex) = (Lock::new().unwrap(), Mutex::new(3_u8).unwrap());
    assert_eq!(format!("{lock:?}"), r#"Lock { owner: "nobody" }"#);
    let (held, guard) = (lock.lock().unwrap(), mutex.lock().unwrap());
    assert_eq!(format!("{lock:?} {held:?}"), r#"Lock { owner: "this process" } LockGuard { .. }"#);
    assert_eq!(format!("{mutex:?} {guard:?}"), r#"Mutex { owner: "this process", .. } MutexGuard(3)"#);
    let lock = RLock::new().unwrap();
    assert_eq!(format!("{lock:?}"), r#"RLock { owner: "nobody" }"#);
    let held = lock.lock().unwrap();
    assert_eq!(format!("{lock:?} {held:?}"), r#"RLock { owner: "this thread" } RLockGuard { .. }"#);
    let there = thread::scope(|scope| scope.spawn(|| format!("{lock:?}")).join().unwrap());
    assert_eq!(there, r#"RLock { owner: "this process" }"#);
    let (semaphore, bounded) = (Semaphore::new(2).unwrap(), BoundedSemaphore::new(2).unwrap());
    let permit = bounded.permit().unwrap();
    let shown = format!("{semaphore:?} {bounded:?} {permit:?}");
    assert_eq!(shown, "Semaphore { value: 2 } BoundedSemaphore { value: 1, bound: 2 } Permit { .. }");
    assert_eq!(format!("{:?}", Event::new().unwrap()), "Event { is_set: false }");
    let barrier = format!("{:?}", Barrier::new(2).unwrap());
    assert_eq!(barrier, "Barrier { parties: 2, waiting: 0, is_broken: false }");
    assert_eq!(format!("{:?}", Value::new(1.5).unwrap()), "Value(1.5)");
}

#[test]
fn a_forgotten_guard_keeps_the_lock_and_the_handle_may_go() {
    let lock = Lock::new().unwrap();
    let other = lock.clone();
    std::mem::forget(lock.lock().unwrap());
    drop(lock);
    assert!(matches!(other.try_lock(), Err(LockError::WouldBlock)));
}

#[test]
fn a_thread_takes_its_recursive_lock_again_and_another_waits() {
    let _watchdog = Watchdog::start("a_thread_takes_its_recursive_lock_again_and_another_waits", 60);
    let lock = RLock::new().unwrap();
    let others = || thread::scope(|scope| scope.spawn(|| lock.try_lock().map(drop).map_err(LockError::forget)).join());
    let is_held = || matches!(others(), Ok(Err(LockError::WouldBlock)));
    // Dropped in any order, the last one frees it.
    for order in [[0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2]] {
        let clone = lock.clone();
        let mut held = [
            Some(lock.lock().unwrap()),
            Some(lock.try_lock().unwrap()),
            Some(lock.lock_timeout(Duration::ZERO).unwrap()),
            Some(clone.lock().unwrap()),
        ];
        for place in order {
            assert!(lock.is_locked() && is_held());
            held[place] = None;
        }
        assert!(!lock.is_locked() && !is_held());
    }
    let (outer, inner) = (lock.lock().unwrap(), lock.lock().unwrap());
    thread::scope(|scope| {
        let impatient = scope.spawn(|| matches!(lock.lock_timeout(SHORT), Err(LockError::TimedOut)));
        assert!(impatient.join().unwrap());
        let waiter = scope.spawn(|| (lock.lock().is_ok(), lock.lock().is_ok()));
        drop(outer);
        assert!(is_held());
        drop(inner);
        assert_eq!(waiter.join().unwrap(), (true, true));
    });
}

#[test]
fn a_recursive_lock_of_a_thread_that_has_ended_is_nobody_elses() {
    let _watchdog = Watchdog::start("a_recursive_lock_of_a_thread_that_has_ended_is_nobody_elses", 60);
    let lock = RLock::new().unwrap();
    thread::scope(|scope| scope.spawn(|| std::mem::forget(lock.lock().unwrap())).join().unwrap());
    // Threads that come later have its stack, its thread-locals, and maybe its number in the kernel.
    for _ in 0..100 {
        let taken = thread::scope(|scope| scope.spawn(|| lock.try_lock().is_ok()).join().unwrap());
        assert!(!taken && lock.is_locked());
    }
    assert!(matches!(lock.lock_timeout(Duration::from_millis(120)), Err(LockError::TimedOut)), "its process lives");
}

#[test]
fn threads_exclude_each_other_at_every_depth() {
    let _watchdog = Watchdog::start("threads_exclude_each_other_at_every_depth", 120);
    let (lock, total) = (RLock::new().unwrap(), Value::new(0_u64).unwrap());
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for turn in 0..3000 {
                    let mut held: Vec<_> = (0..=turn % 3).map(|_| lock.lock().unwrap()).collect();
                    while !held.is_empty() {
                        total.set(total.get() + 1);
                        drop(held.swap_remove(turn % held.len()));
                    }
                }
            });
        }
    });
    assert_eq!((total.get(), lock.is_locked()), (4 * 3000 * 2, false));
}

#[test]
fn threads_exclude_each_other() {
    let _watchdog = Watchdog::start("threads_exclude_each_other", 120);
    let mutex = Mutex::new([0_u64; 3]).unwrap();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..5000 {
                    let mut all = mutex.lock().unwrap();
                    let next = all[0] + 1;
                    *all = [next; 3];
                }
            });
        }
    });
    assert_eq!(*mutex.lock().unwrap(), [20_000; 3]);
}

#[test]
fn a_guard_comes_back_through_a_panic() {
    let mutex = Mutex::new(1_u8).unwrap();
    let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _guard = mutex.lock().unwrap();
        panic!("as planned");
    }));
    assert!(unwound.is_err() && !mutex.is_locked());
    let lock = RLock::new().unwrap();
    let outer = lock.lock().unwrap();
    let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _inner = lock.lock().unwrap();
        panic!("as planned");
    }));
    assert!(unwound.is_err() && lock.is_locked());
    drop(outer);
    assert!(!lock.is_locked());
}

#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C, align(128))]
struct Wide([u8; 128]);

// SAFETY: bytes, as many as it is aligned to.
unsafe impl Plain for Wide {}

fn comes_back<T: Plain + PartialEq + std::fmt::Debug>(first: T, second: T) {
    let (value, mutex) = (Value::new(first).unwrap(), Mutex::new(first).unwrap());
    assert_eq!((value.get(), *mutex.lock().unwrap()), (first, first));
    value.set(second);
    *mutex.lock().unwrap() = second;
    assert_eq!((value.get(), *mutex.lock().unwrap()), (second, second));
    assert_eq!(value.update(|value| std::mem::replace(value, first)).unwrap(), second);
    assert_eq!(value.get(), first);
    let guard = mutex.lock().unwrap();
    assert!((&raw const *guard).is_aligned());
}

#[test]
fn values_of_every_size_and_alignment_come_back() {
    comes_back((), ());
    comes_back(1_u8, 255);
    comes_back([1_u8, 2, 3], [9, 8, 7]);
    comes_back(-1_i64, i64::MIN);
    comes_back(f64::MIN, f64::MAX);
    comes_back([1_u8; 9], [2; 9]);
    comes_back([1_u16; 7], [2; 7]);
    comes_back(1_u128, u128::MAX);
    comes_back([0_u64; 1000], [u64::MAX; 1000]);
    comes_back(Wide([1; 128]), Wide([2; 128]));
}

#[test]
fn a_large_value_is_never_torn() {
    let _watchdog = Watchdog::start("a_large_value_is_never_torn", 120);
    let value = Value::new([0_u64; 64]).unwrap();
    thread::scope(|scope| {
        for writer in 1..=2 {
            let value = value.clone();
            scope.spawn(move || (0..20_000).for_each(|n| value.set([n * 2 + writer; 64])));
        }
        scope.spawn(|| {
            for _ in 0..20_000 {
                let seen = value.get();
                assert!(seen.iter().all(|word| *word == seen[0]), "{seen:?}");
            }
        });
    });
}

#[test]
fn a_barrier_is_used_again_and_again() {
    let _watchdog = Watchdog::start("a_barrier_is_used_again_and_again", 120);
    let barrier = Barrier::new(3).unwrap();
    let total = Value::new(0_usize).unwrap();
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for round in 1..=300 {
                    let place = barrier.wait().unwrap();
                    total.update(|total| *total += place).unwrap();
                    barrier.wait().unwrap();
                    assert_eq!(total.get(), 3 * round, "each place once");
                    barrier.wait().unwrap();
                }
            });
        }
    });
    thread::scope(|scope| {
        let waiter = scope.spawn(|| barrier.wait());
        assert!(eventually(30, || barrier.waiting() == 1));
        barrier.abort().unwrap();
        assert!(matches!(waiter.join().unwrap(), Err(BarrierError::Broken)));
    });
}

#[test]
fn the_last_to_come_acts_before_the_others_go_on() {
    let _watchdog = Watchdog::start("the_last_to_come_acts_before_the_others_go_on", 60);
    let (barrier, done) = (Barrier::new(3).unwrap(), Value::new(0_u32).unwrap());
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let act = || {
                    thread::sleep(Duration::from_millis(150)); // the others look meanwhile whether it lives
                    done.set(done.get() + 1);
                };
                barrier.wait_and(act).unwrap();
                assert_eq!(done.get(), 1);
            });
        }
    });
    thread::scope(|scope| {
        let act = || barrier.wait_and(|| panic!("as planned"));
        let parties = [scope.spawn(act), scope.spawn(act), scope.spawn(act)];
        let ended = parties.map(|party| party.join());
        assert_eq!(ended.iter().filter(|end| end.is_err()).count(), 1, "one panicked");
        assert_eq!(ended.iter().filter(|end| matches!(end, Ok(Err(BarrierError::Broken)))).count(), 2);
    });
    assert!(barrier.is_broken());
}

#[test]
fn who_comes_while_the_last_acts_waits_for_its_own_turn() {
    let _watchdog = Watchdog::start("who_comes_while_the_last_acts_waits_for_its_own_turn", 60);
    let (barrier, acting, acted) = (Barrier::new(1).unwrap(), Event::new().unwrap(), Event::new().unwrap());
    thread::scope(|scope| {
        let first = scope.spawn(|| {
            barrier.wait_and(|| {
                acting.set().unwrap();
                thread::sleep(Duration::from_millis(150));
                acted.set().unwrap();
            })
        });
        acting.wait().unwrap();
        assert_eq!((barrier.wait().unwrap(), acted.is_set()), (0, true));
        assert_eq!(first.join().unwrap().unwrap(), 0);
    });
    acting.clear().unwrap();
    let enough = Event::new().unwrap();
    thread::scope(|scope| {
        let first = scope.spawn(|| {
            barrier.wait_and(|| {
                acting.set().unwrap();
                enough.wait().unwrap();
            })
        });
        acting.wait().unwrap();
        assert!(matches!(barrier.wait_timeout(SHORT), Err(BarrierError::TimedOut)));
        enough.set().unwrap();
        assert!(matches!(first.join().unwrap(), Err(BarrierError::Broken)));
    });
}
