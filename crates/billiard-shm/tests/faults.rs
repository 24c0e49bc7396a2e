//! Processes killed and stopped at every named step, and system calls that fail: whoever is left finds what
//! `docs/design/shared-memory.md` says, and waits for nobody. Built with `--cfg billiard_fault` only: `cargo xtask verify faults`.
#![cfg(billiard_fault)]

use std::{
    fs,
    os::fd::AsFd,
    sync::atomic::{AtomicU64, Ordering},
};

use billiard_connection::Connection;
use billiard_context::{Context, Process};
use billiard_shm::{
    BufferError, Kind, NamedMemory, Segment, SegmentError, SharedBuffer, named,
    participants::{Ledger, Member, Registry},
};
use billiard_test_support::{Watchdog, eventually};
use billiard_wire::fault;

billiard_context::init_for_tests!();

/// Makes this process, which has one thread, follow the plan from now on.
fn follow(plan: &str) {
    // SAFETY: a child of the guardian that has just begun has one thread.
    unsafe { std::env::set_var(fault::VARIABLE, plan) };
    fault::reload();
}

fn is_stopped<R>(child: &Process<R>) -> bool {
    std::fs::read_to_string(format!("/proc/{}/stat", child.pid())).is_ok_and(|stat| stat.contains(") T "))
}

/// Waits until the plan has happened.
fn happened<R>(child: &mut Process<R>, action: &str) {
    match action {
        "kill" => assert_eq!(child.join().unwrap().signal(), Some(9)),
        _ => assert!(eventually(30, || is_stopped(child)), "it stops"),
    }
}

fn end(child: &mut Process) {
    let _ = child.kill();
    child.join().unwrap();
}

const ACTIONS: [&str; 2] = ["kill", "stop"];

fn join((plan, registry): (String, Registry)) {
    follow(&plan);
    registry.member().unwrap();
    loop {
        std::thread::park();
    }
}

fn join_well((registry, report): (Registry, Connection)) {
    let member = registry.member().unwrap();
    report.send(&(member.index() as u16, member.generation())).unwrap();
    loop {
        std::thread::park();
    }
}

fn start_well(registry: &Registry) -> (Process, Member) {
    let (here, there) = Connection::pair().unwrap();
    let child = Context::forkserver().process(join_well, (registry.clone(), there)).start().unwrap();
    let (index, generation) = here.recv().unwrap();
    (child, Member::from_parts(index, generation))
}

#[test]
fn joining_can_end_or_stop_anywhere() {
    let _watchdog = Watchdog::start("joining_can_end_or_stop_anywhere", 120);
    for step in ["locked", "numbered", "joined"] {
        for action in ACTIONS {
            let registry = Registry::with_capacity(3).unwrap();
            let me = registry.member().unwrap();
            // Somebody who died, and whose record the next one is about to take.
            let (mut former, dead) = start_well(&registry);
            end(&mut former);
            let plan = format!("shm.participants.{step}={action}");
            let mut child = Context::forkserver().process(join, (plan, registry.clone())).start().unwrap();
            happened(&mut child, action);
            assert!(!registry.is_alive(dead).unwrap(), "{step} {action}: the dead are found dead");
            assert!(registry.is_alive(me).unwrap());
            let newcomer = registry.member_at(1).unwrap();
            let is_in = action == "stop" && step == "joined";
            if newcomer != dead {
                assert_eq!(registry.is_alive(newcomer).unwrap(), is_in, "{step} {action}");
            }
            // There is room for one more in any case; and for two where the child has died.
            let (mut next, member) = start_well(&registry);
            assert!(registry.is_alive(member).unwrap());
            end(&mut next);
            end(&mut child);
            let (mut one, _) = start_well(&registry);
            let (mut two, _) = start_well(&registry);
            end(&mut one);
            end(&mut two);
        }
    }
}

fn leave_and_come_back((registry, report): (Registry, Connection)) {
    let first = registry.member().unwrap();
    let fd = registry.as_fd().try_clone_to_owned().unwrap();
    follow("shm.participants.leaving=delay:300");
    let (tell, told) = std::sync::mpsc::channel();
    let leaving = std::thread::spawn(move || {
        tell.send(rustix::thread::gettid()).unwrap();
        drop(registry);
    });
    let stat = format!("/proc/self/task/{}/stat", told.recv().unwrap().as_raw_pid());
    let is_half_gone = || std::fs::read_to_string(&stat).unwrap().contains(") S ");
    assert!(eventually(30, is_half_gone));
    let back = Registry::attach(fd).unwrap();
    assert_ne!(back.member().unwrap(), first);
    leaving.join().unwrap();
    join_well((back, report));
}

#[test]
fn who_comes_back_while_another_thread_leaves_is_alive() {
    let _watchdog = Watchdog::start("who_comes_back_while_another_thread_leaves_is_alive", 60);
    let registry = Registry::with_capacity(3).unwrap();
    let (here, there) = Connection::pair().unwrap();
    let mut child = Context::forkserver().process(leave_and_come_back, (registry.clone(), there)).start().unwrap();
    let (index, generation) = here.recv().unwrap();
    assert!(registry.is_alive(Member::from_parts(index, generation)).unwrap());
    end(&mut child);
}

fn join_when_told((plan, registry, report): (String, Registry, Connection)) {
    follow(&plan);
    join_well((registry, report));
}

/// Joins and closes a duplicate of the registry's file, which loses the lock.
fn join_and_lose_the_lock((registry, report): (Registry, Connection)) {
    registry.member().unwrap();
    drop(registry.as_fd().try_clone_to_owned().unwrap());
    join_well((registry, report));
}

fn go_on<R>(child: &Process<R>) {
    let pid = rustix::process::Pid::from_raw(child.pid() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();
}

#[test]
fn who_joins_between_a_look_and_the_lock_keeps_his_record() {
    let _watchdog = Watchdog::start("who_joins_between_a_look_and_the_lock_keeps_his_record", 60);
    let registry = Registry::with_capacity(3).unwrap();
    registry.member().unwrap();
    // It has seen that the second record is nobody's, and is about to take its lock.
    let (here, there) = Connection::pair().unwrap();
    let argument = ("sys.shm.setlk=stop".to_owned(), registry.clone(), there);
    let mut late = Context::forkserver().process(join_when_told, argument).start().unwrap();
    happened(&mut late, "stop");
    let (inside, report) = Connection::pair().unwrap();
    let argument = (registry.clone(), report);
    let mut first = Context::forkserver().process(join_and_lose_the_lock, argument).start().unwrap();
    let (index, generation) = inside.recv().unwrap();
    let owner = Member::from_parts(index, generation);
    assert_eq!(owner.index(), 1);
    // Now it finds that lock free.
    go_on(&late);
    let (index, generation) = here.recv().unwrap();
    let newcomer = Member::from_parts(index, generation);
    assert_eq!(newcomer.index(), 2);
    assert!(registry.is_alive(owner).unwrap() && registry.is_alive(newcomer).unwrap());
    // And has given it back: the record can be used again.
    end(&mut first);
    let (mut next, heir) = start_well(&registry);
    assert_eq!(heir.index(), 1);
    end(&mut next);
    end(&mut late);
}

fn ledger_of<R>(registry: &Registry, segment: &Segment, work: impl FnOnce(Ledger<'_>) -> R) -> R {
    let count = segment.place::<AtomicU64>(0).unwrap();
    let holdings = segment.places::<AtomicU64>(8, registry.capacity()).unwrap();
    work(Ledger::new(&count, &holdings))
}

fn take_one((plan, registry, segment): (String, Registry, Segment)) {
    let member = registry.member().unwrap();
    follow(&plan);
    ledger_of(&registry, &segment, |ledger| {
        ledger.take(member).unwrap();
        ledger.give_back(member).unwrap();
        ledger.sweep(|other| other == member);
    });
    loop {
        std::thread::park();
    }
}

#[test]
fn permits_are_exact_at_every_step() {
    let _watchdog = Watchdog::start("permits_are_exact_at_every_step", 120);
    for (step, pass) in [("counted", 1), ("written", 1), ("counted", 2), ("written", 2), ("swept", 1)] {
        for action in ACTIONS {
            let registry = Registry::with_capacity(4).unwrap();
            let segment = Segment::create(Kind::new("thing", 1), 8 + 8 * 4).unwrap();
            segment.place::<AtomicU64>(0).unwrap().store(Ledger::initial(3), Ordering::Relaxed);
            // For the sweep: somebody who died with one.
            if step == "swept" {
                let argument = ("shm.ledger.written=kill".into(), registry.clone(), segment.clone());
                let mut holder = Context::forkserver().process(take_one, argument).start().unwrap();
                happened(&mut holder, "kill");
                // This process has the record now, so that the child does not; its words in the ledger are still the dead one's.
                assert_eq!(registry.member().unwrap().index(), 0);
            }
            let me = registry.member().unwrap();
            let plan = format!("shm.ledger.{step}={action}@{pass}");
            let argument = (plan, registry.clone(), segment.clone());
            let mut child = Context::forkserver().process(take_one, argument).start().unwrap();
            happened(&mut child, action);
            ledger_of(&registry, &segment, |ledger| {
                // Nobody waits for the one that stands still.
                ledger.take(me).unwrap();
                ledger.give_back(me).unwrap();
                ledger.sweep(|member| registry.is_alive(member).unwrap());
                let held = u32::from(action == "stop" && pass == 1 && step != "swept");
                assert_eq!(ledger.free(), 3 - held, "{step} {action} {pass}");
                end(&mut child);
                ledger.sweep(|member| registry.is_alive(member).unwrap());
                assert_eq!(ledger.free(), 3, "{step} {action} {pass}");
            });
        }
    }
}

fn move_one((plan, channel): (String, Connection)) {
    let buffer: SharedBuffer<u32> = {
        follow(&plan);
        channel.recv().unwrap()
    };
    if plan.contains("frozen") {
        channel.send(&buffer.freeze().unwrap()).unwrap();
    } else {
        channel.send(&buffer).unwrap();
    }
    loop {
        std::thread::park();
    }
}

#[test]
fn a_buffer_has_one_owner_at_every_step() {
    let _watchdog = Watchdog::start("a_buffer_has_one_owner_at_every_step", 120);
    for step in ["opened", "seized", "named", "frozen", "sent"] {
        for action in ACTIONS {
            let (here, there) = Connection::pair().unwrap();
            let plan = format!("shm.buffer.{step}={action}");
            let mut child = Context::forkserver().process(move_one, (plan, there)).start().unwrap();
            let buffer = SharedBuffer::from_slice(&[1u32, 2, 3]).unwrap();
            here.send(&buffer).unwrap();
            happened(&mut child, action);
            assert!(matches!(buffer.try_as_slice(), Err(BufferError::Moved)), "{step} {action}");
            if step == "sent" {
                // It is ours, whatever becomes of the sender; and can be frozen though he stands still.
                let back: SharedBuffer<u32> = here.recv().unwrap();
                assert_eq!(*back.as_slice(), [1, 2, 3]);
                assert_eq!(back.freeze().unwrap()[2], 3);
            }
            end(&mut child);
            assert!(step == "sent" || here.recv_bytes().is_err(), "{step} {action}: it went with its owner");
        }
    }
}

fn name_one((plan, left): (String, Option<String>)) {
    follow(&plan);
    let memory = NamedMemory::create(100).unwrap();
    let _ = (left, memory.name());
    loop {
        std::thread::park();
    }
}

fn random_names() -> Vec<String> {
    let names =
        std::fs::read_dir("/dev/shm").unwrap().flatten().filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| name.starts_with("billiard-") && name.len() == 25).collect()
}

#[test]
fn names_are_removed_whenever_their_owner_dies() {
    let _watchdog = Watchdog::start("names_are_removed_whenever_their_owner_dies", 120);
    named::sweep();
    for step in ["made", "linked", "swept"] {
        for action in ACTIONS {
            let mine = NamedMemory::create(1).unwrap();
            let before = random_names().len();
            if step == "swept" {
                let linked = ("shm.named.linked=kill".to_owned(), None);
                happened(&mut Context::forkserver().process(name_one, linked).start().unwrap(), "kill");
                assert_eq!(random_names().len(), before + 1);
            }
            let argument = (format!("shm.named.{step}={action}"), None);
            let mut child = Context::forkserver().process(name_one, argument).start().unwrap();
            happened(&mut child, action);
            // Others go on; what is alive stays, a stopped owner's name too.
            drop(NamedMemory::create(1).unwrap());
            assert!(NamedMemory::open(mine.name()).is_ok());
            let living = usize::from(action == "stop" && step != "made");
            assert_eq!(random_names().len(), before + living, "{step} {action}");
            end(&mut child);
            named::sweep();
            assert_eq!(random_names().len(), before, "{step} {action}");
        }
    }
}

fn sweep_names(plan: String) -> usize {
    follow(&plan);
    named::sweep()
}

#[test]
fn a_name_that_is_another_files_by_now_is_not_swept() {
    let _watchdog = Watchdog::start("a_name_that_is_another_files_by_now_is_not_swept", 60);
    named::sweep();
    let path = &format!("/dev/shm/billiard-{:016x}", std::process::id());
    fs::write(path, "left by somebody").unwrap();
    let plan = "shm.named.swept=stop".to_owned();
    let mut sweeper = Context::forkserver().process(sweep_names, plan).start().unwrap();
    // It has the lock of that file.
    happened(&mut sweeper, "stop");
    fs::remove_file(path).unwrap();
    fs::write(path, "another's").unwrap();
    go_on(&sweeper);
    assert_eq!(sweeper.take_result().unwrap(), 0);
    assert_eq!(fs::read_to_string(path).unwrap(), "another's");
    fs::remove_file(path).unwrap();
}

fn call_that_fails((plan, which): (String, u32)) -> String {
    follow(&plan);
    let error: Box<dyn std::error::Error> = match which {
        0 => Segment::create(Kind::new("test", 1), 100).map(|_| ()).unwrap_err().into(),
        1 => Registry::of_this_process().and_then(|registry| registry.member()).map(|_| ()).unwrap_err().into(),
        _ => NamedMemory::create(100).map(|_| ()).unwrap_err().into(),
    };
    follow("");
    // The next time it works.
    match which {
        0 => drop(Segment::create(Kind::new("test", 1), 100).unwrap()),
        1 => drop(Registry::of_this_process().unwrap().member().unwrap()),
        _ => drop(NamedMemory::create(100).unwrap()),
    }
    error.to_string()
}

#[test]
fn a_call_that_fails_is_named_and_leaves_nothing_behind() {
    let _watchdog = Watchdog::start("a_call_that_fails_is_named_and_leaves_nothing_behind", 120);
    let calls = [
        ("memfd_create", 0, "memfd_create failed"),
        ("ftruncate", 0, "ftruncate failed"),
        ("pwrite", 0, "pwrite failed"),
        ("mmap", 0, "mmap failed"),
        ("add_seals", 0, "fcntl(F_ADD_SEALS) failed"),
        ("setlk", 1, "fcntl(F_SETLK) failed"),
        ("proc_stat", 1, "read /proc/…/stat failed"),
        ("namespace", 1, "stat /proc/self/ns/pid failed"),
        ("tmpfile", 2, "open(O_TMPFILE) failed"),
        ("flock", 2, "flock failed"),
        ("fallocate", 2, "fallocate failed"),
        ("linkat", 2, "linkat failed"),
        ("mmap", 2, "mmap failed"),
        ("getrandom", 2, "getrandom failed"),
    ];
    named::sweep();
    let before = random_names().len();
    for (call, which, text) in calls {
        let argument = (format!("sys.shm.{call}=errno:12"), which);
        let mut child = Context::forkserver().process(call_that_fails, argument).start().unwrap();
        assert_eq!(child.take_result().unwrap(), text);
    }
    assert_eq!(random_names().len(), before);
}

fn come_back_unmapped(_: ()) -> (bool, u32) {
    let buffer = SharedBuffer::from_slice(&[5u32]).unwrap();
    let (here, there) = Connection::pair().unwrap();
    drop(there);
    follow("sys.shm.mmap=errno:12@1");
    assert!(here.send(&buffer).is_err());
    // It could not be mapped again at once; it can now.
    let sent_before = matches!(buffer.try_as_slice(), Err(BufferError::Segment(SegmentError::Io { .. })));
    follow("");
    (sent_before, buffer.as_slice()[0])
}

#[test]
fn what_comes_back_and_cannot_be_mapped_is_mapped_later() {
    let _watchdog = Watchdog::start("what_comes_back_and_cannot_be_mapped_is_mapped_later", 60);
    let mut child = Context::forkserver().process(come_back_unmapped, ()).start().unwrap();
    assert_eq!(child.take_result().unwrap(), (false, 5), "the first access tries again");
}
