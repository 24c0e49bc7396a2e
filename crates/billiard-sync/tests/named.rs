//! Primitives under a name: found by processes that were given nothing but the name.

use billiard_connection::Connection;
use billiard_context::Context;
use billiard_shm::{NamedError, SegmentError};
use billiard_sync::{Barrier, BoundedSemaphore, Error, Event, Lock, LockError, Mutex, Named, RLock, Semaphore, Value};
use billiard_test_support::Watchdog;

billiard_context::init_for_tests!();

fn name(what: &str) -> String {
    format!("billiard-test-{what}-{}", std::process::id())
}

fn count(name: String) -> u64 {
    let total = Mutex::<u64>::open(&name).unwrap();
    for _ in 0..1000 {
        *total.lock().map_err(LockError::forget).unwrap() += 1;
    }
    total.lock().map(|total| *total).map_err(LockError::forget).unwrap()
}

#[test]
fn processes_that_have_only_the_name_share_the_primitive() {
    let _watchdog = Watchdog::start("processes_that_have_only_the_name_share_the_primitive", 60);
    let (total, name) = (Mutex::new(0u64).unwrap(), name("total"));
    let published = total.publish(&name).unwrap();
    assert_eq!(published.name(), name);
    let context = Context::spawn();
    let children: Vec<_> = (0..4).map(|_| context.process(count, name.clone()).start().unwrap()).collect();
    let most = children.into_iter().map(|mut child| child.take_result().unwrap()).max();
    assert_eq!((most, *total.lock().map_err(LockError::forget).unwrap()), (Some(4000), 4000));
    drop(published);
    assert!(matches!(Mutex::<u64>::open(&name), Err(Error::Named(NamedError::NotFound(_)))));
}

fn hold((name, ready): (String, Connection)) {
    let lock = Lock::open(&name).unwrap();
    let _held = lock.lock().map_err(LockError::forget).unwrap();
    ready.send_bytes(b"held").unwrap();
    let _ = ready.recv_bytes();
}

#[test]
fn the_death_of_a_stranger_is_told() {
    let _watchdog = Watchdog::start("the_death_of_a_stranger_is_told", 60);
    let (lock, name) = (Lock::new().unwrap(), name("held"));
    let _published = lock.publish(&name).unwrap();
    let (ours, theirs) = Connection::pair().unwrap();
    let child = Context::forkserver().process(hold, (name, theirs)).start().unwrap();
    ours.recv_bytes().unwrap();
    assert!(matches!(lock.try_lock(), Err(LockError::WouldBlock)));
    child.kill().unwrap();
    assert!(matches!(lock.lock(), Err(LockError::OwnerDied(_))));
}

#[test]
fn each_is_found_as_what_it_is_and_as_nothing_else() {
    let _watchdog = Watchdog::start("each_is_found_as_what_it_is_and_as_nothing_else", 60);
    fn check<P: Named>(primitive: &P, name: &str) {
        let _published = primitive.publish(name).unwrap();
        assert!(matches!(primitive.publish(name), Err(Error::Named(NamedError::Exists(_)))));
        P::open(name).unwrap();
        let wrong = [
            Lock::open(name).is_ok(),
            RLock::open(name).is_ok(),
            Event::open(name).is_ok(),
            Barrier::open(name).is_ok(),
            Mutex::<u32>::open(name).is_ok(),
            Value::<u32>::open(name).is_ok(),
            Semaphore::open(name).is_ok(),
        ];
        assert_eq!(wrong.iter().filter(|found| **found).count(), 1, "{wrong:?}");
        assert!(matches!(
            Value::<i8>::open(name),
            Err(Error::Segment(SegmentError::WrongType { .. } | SegmentError::WrongKind { .. }))
        ));
    }
    check(&Lock::new().unwrap(), &name("lock"));
    check(&RLock::new().unwrap(), &name("rlock"));
    check(&Event::new().unwrap(), &name("event"));
    check(&Barrier::new(2).unwrap(), &name("barrier"));
    check(&Mutex::new(1u32).unwrap(), &name("mutex"));
    check(&Value::new(1u32).unwrap(), &name("value"));
    check(&Semaphore::new(1).unwrap(), &name("semaphore"));
    check(&BoundedSemaphore::new(1).unwrap(), &name("bounded"));

    let plain = billiard_shm::NamedMemory::create_named(&name("plain"), 64).unwrap();
    assert!(matches!(Lock::open(plain.name()), Err(Error::Named(NamedError::NotPublished(_)))));
    for bad in ["", "a/b", ".."] {
        assert!(matches!(Lock::new().unwrap().publish(bad), Err(Error::Named(NamedError::BadName(_)))), "{bad:?}");
    }
}

fn publish_and_die(name: String) {
    let lock = Lock::new().unwrap();
    let _published = lock.publish(&name).unwrap();
    // SAFETY: it takes numbers; the process is this one.
    unsafe { libc::raise(libc::SIGKILL) };
}

#[test]
fn what_a_killed_owner_left_is_no_use_and_no_obstacle() {
    let _watchdog = Watchdog::start("what_a_killed_owner_left_is_no_use_and_no_obstacle", 60);
    let name = name("left");
    let mut child = Context::forkserver().process(publish_and_die, name.clone()).start().unwrap();
    assert_eq!(child.join().unwrap().signal(), Some(libc::SIGKILL));
    assert!(matches!(Lock::open(&name), Err(Error::Named(NamedError::OwnerGone(_)))));
    let event = Event::new().unwrap();
    let published = event.publish(&name).unwrap();
    assert!(Event::open(&name).is_ok());
    drop(published);
    assert!(matches!(Event::open(&name), Err(Error::Named(NamedError::NotFound(_)))));
}
