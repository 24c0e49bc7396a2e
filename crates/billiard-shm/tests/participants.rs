//! Who lives and who does not, told by real processes.

use std::{
    io::Read,
    os::fd::{AsFd, AsRawFd},
    sync::atomic::{AtomicU64, Ordering},
};

use billiard_connection::Connection;
use billiard_context::{Context, Process};
use billiard_shm::{
    Kind, Segment, SegmentError,
    participants::{Ledger, LedgerError, Member, Registry, RegistryError},
};
use billiard_test_support::{Random, Watchdog, eventually, state};
use billiard_wire::codec;

billiard_context::init_for_tests!();

/// A thing that participants hold: the count, and a word for each of them.
const THING: Kind = Kind::new("thing", 1);

fn thing(registry: &Registry, count: u32) -> Segment {
    let segment = Segment::create(THING, 8 + 8 * registry.capacity()).unwrap();
    segment.place::<AtomicU64>(0).unwrap().store(Ledger::initial(count), Ordering::Relaxed);
    segment
}

fn with_ledger<R>(registry: &Registry, segment: &Segment, work: impl FnOnce(Ledger<'_>) -> R) -> R {
    let count = segment.place::<AtomicU64>(0).unwrap();
    let holdings = segment.places::<AtomicU64>(8, registry.capacity()).unwrap();
    work(Ledger::new(&count, &holdings))
}

/// Joins, says who it is, and stays.
fn join_and_stay((registry, report): (Registry, Connection)) {
    let member = registry.member().unwrap();
    report.send(&(member.index() as u16, member.generation())).unwrap();
    loop {
        std::thread::park();
    }
}

fn start(registry: &Registry) -> (Process, Member) {
    let (here, there) = Connection::pair().unwrap();
    let child = Context::forkserver().process(join_and_stay, (registry.clone(), there)).start().unwrap();
    let (index, generation) = here.recv().unwrap();
    (child, Member::from_parts(index, generation))
}

#[test]
fn a_killed_process_is_dead_and_its_record_is_used_again() {
    let _watchdog = Watchdog::start("a_killed_process_is_dead_and_its_record_is_used_again", 60);
    let registry = Registry::with_capacity(3).unwrap();
    let me = registry.member().unwrap();
    assert_eq!(registry.member().unwrap(), me);
    let (mut child, member) = start(&registry);
    assert!(registry.is_alive(me).unwrap() && registry.is_alive(member).unwrap());
    assert_ne!(me.index(), member.index());
    child.kill().unwrap();
    child.join().unwrap();
    assert!(!registry.is_alive(member).unwrap());
    let (mut next, heir) = start(&registry);
    assert_eq!(heir.index(), member.index());
    assert_ne!(heir, member);
    assert!(registry.is_alive(heir).unwrap() && !registry.is_alive(member).unwrap());
    assert!(!registry.is_alive(Member::from_parts(2, 1)).unwrap(), "nobody has ever had that record");
    assert!(!registry.is_alive(Member::from_parts(999, 1)).unwrap(), "there is no such record");
    next.kill().unwrap();
    next.join().unwrap();
}

#[test]
fn a_stopped_process_lives() {
    let _watchdog = Watchdog::start("a_stopped_process_lives", 60);
    let registry = Registry::with_capacity(3).unwrap();
    let (mut child, member) = start(&registry);
    let pid = rustix::process::Pid::from_raw(child.pid() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    let state = || std::fs::read_to_string(format!("/proc/{}/stat", child.pid())).unwrap();
    assert!(eventually(30, || state().contains(") T ")));
    assert!(registry.is_alive(member).unwrap());
    child.kill().unwrap();
    child.join().unwrap();
    assert!(!registry.is_alive(member).unwrap());
}

fn try_to_join(registry: Registry) -> String {
    registry.member().map_or_else(|error| error.to_string(), |_| "joined".into())
}

#[test]
fn a_full_registry_says_so_until_somebody_ends() {
    let _watchdog = Watchdog::start("a_full_registry_says_so_until_somebody_ends", 60);
    assert!(matches!(Registry::with_capacity(0), Err(RegistryError::BadCapacity(0))));
    assert!(matches!(Registry::with_capacity(5000), Err(RegistryError::BadCapacity(5000))));
    let registry = Registry::with_capacity(2).unwrap();
    registry.member().unwrap();
    let (mut child, _) = start(&registry);
    let join = || Context::forkserver().process(try_to_join, registry.clone()).start().unwrap().take_result().unwrap();
    assert!(join().starts_with("2 processes take part already"), "{}", join());
    child.kill().unwrap();
    child.join().unwrap();
    assert_eq!(join(), "joined");
    assert_eq!(join(), "joined", "the one before has ended");
}

fn ask((registry, index, generation): (Registry, u16, u32)) -> bool {
    registry.is_alive(Member::from_parts(index, generation)).unwrap()
}

#[test]
fn who_closes_a_duplicate_lives_on() {
    let _watchdog = Watchdog::start("who_closes_a_duplicate_lives_on", 60);
    let registry = Registry::with_capacity(4).unwrap();
    let me = registry.member().unwrap();
    let asked = || {
        let argument = (registry.clone(), me.index() as u16, me.generation());
        Context::forkserver().process(ask, argument).start().unwrap().take_result().unwrap()
    };
    assert!(asked());
    // A message with the registry in it that is dropped unread by its receiver: this process itself.
    let (here, there) = Connection::pair().unwrap();
    for _ in 0..3 {
        here.send(&registry).unwrap();
        drop(there.recv::<u32>()); // not what it is, so that its descriptor is closed
        let (new, other) = Connection::pair().unwrap();
        new.send(&registry).unwrap();
        let same: Registry = other.recv().unwrap();
        assert_eq!(same, registry);
        assert_eq!(same.member().unwrap(), me, "a process has one record in a registry");
        assert!(asked());
    }
    // And when the lock is lost for good: others still know better, and take no record of the living.
    let duplicate = codec::encode(&registry).unwrap();
    let fd = duplicate.attachments().fds().next().unwrap().try_clone_to_owned().unwrap();
    drop(fd);
    assert!(asked());
    for _ in 0..4 {
        let (mut child, member) = start(&registry);
        assert_ne!(member.index(), me.index());
        child.kill().unwrap();
        child.join().unwrap();
    }
    assert!(registry.is_alive(me).unwrap());
}

/// Closes a duplicate of the registry's file: the process does not have its lock any more.
fn lose_lock(registry: &Registry) {
    drop(registry.as_fd().try_clone_to_owned().unwrap());
}

/// Whether this process has the lock on that byte, as another would see it: a lock of an open file is not the
/// process's own.
fn has_lock(registry: &Registry, byte: usize) -> bool {
    // SAFETY: zeros are a value of this struct of numbers.
    let mut asked: libc::flock = unsafe { std::mem::zeroed() };
    asked.l_type = libc::F_WRLCK as libc::c_short;
    asked.l_start = byte as libc::off_t;
    asked.l_len = 1;
    // SAFETY: the command takes a pointer to such a struct, which is valid.
    assert_eq!(unsafe { libc::fcntl(registry.as_fd().as_raw_fd(), libc::F_OFD_GETLK, &raw mut asked) }, 0);
    asked.l_type != libc::F_UNLCK as libc::c_short && asked.l_pid as u32 == std::process::id()
}

#[test]
fn a_lock_that_was_lost_is_taken_again() {
    let registry = Registry::with_capacity(4).unwrap();
    let me = registry.member().unwrap();
    assert!(has_lock(&registry, me.index()) && !has_lock(&registry, me.index() + 1));
    // By who looks at others.
    lose_lock(&registry);
    assert!(!has_lock(&registry, me.index()));
    assert!(!registry.is_alive(Member::from_parts(3, 1)).unwrap(), "nobody has ever had that record");
    assert!(has_lock(&registry, me.index()));
    // And by who receives the registry, since a descriptor too many is closed then.
    let (here, there) = Connection::pair().unwrap();
    here.send(&registry).unwrap();
    lose_lock(&registry);
    let same: Registry = there.recv().unwrap();
    assert_eq!(same, registry);
    assert!(has_lock(&registry, me.index()));
}

/// Joins, loses its lock, and lives on in another thread than its first one.
fn join_and_end_the_first_thread((registry, report): (Registry, Connection)) {
    std::thread::spawn(move || {
        let member = registry.member().unwrap();
        lose_lock(&registry);
        report.send(&(member.index() as u16, member.generation())).unwrap();
        loop {
            std::thread::park();
        }
    });
    // SAFETY: it ends this thread alone, as `pthread_exit` does, and unwinds nothing.
    unsafe { libc::syscall(libc::SYS_exit, 0) };
}

#[test]
fn a_process_outlives_its_first_thread() {
    let _watchdog = Watchdog::start("a_process_outlives_its_first_thread", 60);
    let registry = Registry::with_capacity(4).unwrap();
    let (here, there) = Connection::pair().unwrap();
    let argument = (registry.clone(), there);
    let mut child = Context::forkserver().process(join_and_end_the_first_thread, argument).start().unwrap();
    let (index, generation) = here.recv().unwrap();
    let member = Member::from_parts(index, generation);
    assert!(eventually(30, || state(child.pid()) == Some('Z')), "its first thread ends");
    assert!(registry.is_alive(member).unwrap());
    let (mut other, newcomer) = start(&registry);
    assert!(newcomer.index() != member.index() && registry.is_alive(member).unwrap());
    for child in [&mut child, &mut other] {
        child.kill().unwrap();
        child.join().unwrap();
    }
    assert!(!registry.is_alive(member).unwrap());
}

/// Joins and then becomes another program, which lives until its standard input ends.
fn join_and_execute((registry, report, input): (Registry, Connection, Connection)) {
    use std::os::unix::process::CommandExt;
    let member = registry.member().unwrap();
    report.send(&(member.index() as u16, member.generation())).unwrap();
    let input = input.as_fd().try_clone_to_owned().unwrap();
    let error = std::process::Command::new("cat").stdin(input).exec();
    panic!("{error}");
}

#[test]
fn who_becomes_another_program_is_gone() {
    let _watchdog = Watchdog::start("who_becomes_another_program_is_gone", 60);
    let registry = Registry::with_capacity(4).unwrap();
    let (here, there) = Connection::pair().unwrap();
    let (end, input) = Connection::pair().unwrap();
    let argument = (registry.clone(), there, input);
    let mut child = Context::forkserver().process(join_and_execute, argument).start().unwrap();
    let (index, generation) = here.recv().unwrap();
    let member = Member::from_parts(index, generation);
    assert!(eventually(30, || !registry.is_alive(member).unwrap()));
    assert!(child.is_alive(), "it is another program now, with the same pid");
    drop(end);
    let _ = child.join();
}

#[test]
fn a_registry_that_is_none_is_refused() {
    let (here, there) = Connection::pair().unwrap();
    let refused = |segment: &Segment| {
        here.send(segment).unwrap();
        std::error::Error::source(&there.recv::<Registry>().unwrap_err()).unwrap().to_string()
    };
    // SAFETY: it is written before anybody takes it for a registry, which nobody does.
    let options = unsafe { Segment::options().owned() };
    let segment = options.create(Kind::new("members", 1), 16).unwrap();
    assert!(refused(&segment).contains("room for 1 to"), "{}", refused(&segment));
    segment.write(8, &7u64.to_ne_bytes()).unwrap();
    assert!(refused(&segment).contains("another pid namespace"), "{}", refused(&segment));
    let other = options.create(Kind::new("thing", 1), 16).unwrap();
    assert!(refused(&other).contains("not members version 1"), "{}", refused(&other));
}

#[test]
fn the_records_are_written_by_the_registry_alone() {
    let registry = Registry::with_capacity(4).unwrap();
    let fd = || registry.as_fd().try_clone_to_owned().unwrap();
    // Who could write them would declare the living dead.
    let kind = Kind::new("members", 1);
    assert!(matches!(Segment::attach(fd(), kind), Err(SegmentError::Owned(_))));
    let message = codec::encode(&registry).unwrap();
    assert!(codec::decode::<Segment>(message.body(), &mut vec![fd()].into()).is_err());
    let same: Registry = codec::decode(message.body(), &mut vec![fd()].into()).unwrap();
    assert_eq!(same, registry);
    // Nor does memory that anybody can write pass for a registry.
    let mut records = vec![0; 16 + 4 * 16];
    let file = std::fs::File::open(format!("/proc/self/fd/{}", registry.as_fd().as_raw_fd())).unwrap();
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut records, 64).unwrap();
    let plain = Segment::create(kind, records.len()).unwrap();
    plain.write(0, &records).unwrap();
    let message = codec::encode(&plain).unwrap();
    let fd = || plain.as_fd().try_clone_to_owned().unwrap();
    assert!(codec::decode::<Registry>(message.body(), &mut vec![fd()].into()).is_err());
    let refused = Registry::attach(fd());
    assert!(matches!(refused, Err(RegistryError::Segment(SegmentError::NotOwned(_)))), "{refused:?}");
}

/// Takes and gives back until it is killed.
fn take_and_give_back((registry, segment, report): (Registry, Segment, Connection)) {
    let member = registry.member().unwrap();
    report.send_bytes(b"!").unwrap();
    with_ledger(&registry, &segment, |ledger| {
        loop {
            if ledger.take(member) != Err(LedgerError::NothingFree) {
                ledger.give_back(member).unwrap();
            }
        }
    });
}

#[test]
fn permits_are_exact_whenever_their_holders_are_killed() {
    let _watchdog = Watchdog::start("permits_are_exact_whenever_their_holders_are_killed", 120);
    let mut random = Random::from_env("permits_are_exact_whenever_their_holders_are_killed");
    let registry = Registry::with_capacity(8).unwrap();
    let segment = thing(&registry, 3);
    for _ in 0..40 {
        let mut children: Vec<_> = (0..2)
            .map(|_| {
                let (here, there) = Connection::pair().unwrap();
                let argument = (registry.clone(), segment.clone(), there);
                let child = Context::forkserver().process(take_and_give_back, argument).start().unwrap();
                here.recv_bytes().unwrap();
                child
            })
            .collect();
        // How far they come is chance; how long this waits does not matter.
        for _ in 0..random.below(20_000) {
            std::hint::spin_loop();
        }
        for child in &mut children {
            child.kill().unwrap();
            child.join().unwrap();
        }
        with_ledger(&registry, &segment, |ledger| {
            ledger.sweep(|member| registry.is_alive(member).unwrap());
            assert_eq!(ledger.free(), 3);
            assert_eq!(ledger.sweep(|_| false), 0);
        });
    }
}

#[test]
fn layouts_are_pinned() {
    // Head 16 bytes, each record 16: what another version of this library would have to have.
    let registry = Registry::with_capacity(10).unwrap();
    let encoded = codec::encode(&registry).unwrap();
    let fd = encoded.attachments().fds().next().unwrap().try_clone_to_owned().unwrap();
    let mut file = std::fs::File::open(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap();
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes.len(), 64 + 16 + 10 * 16);
    assert_eq!(bytes[72..80], 10u64.to_ne_bytes());
}

#[test]
fn threads_that_join_at_once_are_one_participant() {
    let _watchdog = Watchdog::start("threads_that_join_at_once_are_one_participant", 60);
    for _ in 0..300 {
        let registry = Registry::with_capacity(8).unwrap();
        let start = std::sync::Barrier::new(4);
        let members = std::thread::scope(|scope| {
            let join = || {
                start.wait();
                registry.member().unwrap()
            };
            [(); 4].map(|()| scope.spawn(join)).map(|thread| thread.join().unwrap())
        });
        assert!(members.iter().all(|member| *member == members[0]), "{members:?}");
        assert!((1..8).all(|index| registry.member_at(index).is_none()));
    }
}
