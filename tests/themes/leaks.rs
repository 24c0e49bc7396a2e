//! What a pool takes it gives back. Alone in its program, since it counts what the program has.

use std::{
    fs::{self, File},
    io::Read,
    os::fd::OwnedFd,
    sync::{Mutex, PoisonError},
};

use billiard::{ByteBuf, Isolation, JobError, JobHandle, Pool};
use billiard_context::Fd;
use billiard_test_support::{Census, Watchdog, eventually, patience, pool_workers, rounds, try_signal};

billiard::init_for_tests!();

/// One test at a time counts.
static ALONE: Mutex<()> = Mutex::new(());

fn double(n: u64) -> u64 {
    n * 2
}

fn forever(_: ()) {
    loop {
        std::thread::park();
    }
}

fn use_a_pool(round: u64) {
    let pool = Pool::builder().workers(2).build().unwrap();
    match round % 4 {
        0 => drop(pool), // before its workers are up
        1 => assert_eq!(pool.apply(double, round).unwrap(), 2 * round),
        2 => {
            assert_eq!(pool.apply(double, round).unwrap(), 2 * round);
            pool.join().unwrap();
        }
        _ => {
            let endless = pool.apply_async(forever, ()).unwrap();
            assert_eq!(pool.apply(double, round).unwrap(), 2 * round);
            drop(pool);
            assert!(endless.get().is_err());
        }
    }
}

#[test]
fn a_thousand_pools_leave_what_the_first_left() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let _watchdog = Watchdog::start("a_thousand_pools_leave_what_the_first_left", 110);
    use_a_pool(1);
    let mut first = Census::take();
    assert!(eventually(10, || {
        first = Census::take();
        first.descendants == 1 // the helper process
    }));
    (0..1000).for_each(use_a_pool);
    assert!(eventually(10, || Census::take() == first), "first {first:?}, now {:?}", Census::take());
}

fn open(_: u64) -> Fd {
    Fd::new(File::open("/dev/null").unwrap().into())
}

#[test]
fn results_with_descriptors_that_nobody_wants_are_closed() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let _watchdog = Watchdog::start("results_with_descriptors_that_nobody_wants_are_closed", 60);
    for isolation in [Isolation::Shared, Isolation::Strict] {
        let pool = Pool::builder().workers(2).isolation(isolation).build().unwrap();
        assert!(eventually(30, || pool.ready_workers() == 2));
        let before = Census::take();
        (0..10_000).for_each(|n| drop(pool.apply_async(open, n).unwrap()));
        for _ in 0..100 {
            assert_eq!(pool.apply(double, 1).unwrap(), 2);
        }
        assert!(eventually(10, || Census::take() == before), "{isolation:?}: {before:?}, now {:?}", Census::take());
        pool.join().unwrap();
    }
}

fn length(file: Fd<File>) -> u64 {
    file.metadata().unwrap().len()
}

#[test]
fn an_argument_is_not_kept_once_its_worker_has_it() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let _watchdog = Watchdog::start("an_argument_is_not_kept_once_its_worker_has_it", 60);
    for isolation in [Isolation::Shared, Isolation::Strict] {
        let pool = Pool::builder().workers(2).isolation(isolation).build().unwrap();
        assert!(eventually(30, || pool.ready_workers() == 2));
        let before = Census::take();
        for _ in 0..20 {
            assert_eq!(pool.apply(length, Fd::from(File::open("/dev/null").unwrap())).unwrap(), 0);
        }
        assert!(eventually(10, || Census::take() == before), "{isolation:?}: {before:?}, now {:?}", Census::take());
        pool.join().unwrap();
    }
}

fn give_back(bytes: ByteBuf) -> ByteBuf {
    bytes
}

/// Gives the file back, or another, or dies with it, or panics.
fn hand_back((file, deed): (Fd<File>, u64)) -> Fd<File> {
    match deed {
        0 => std::process::abort(),
        1 => panic!("as this test wants"),
        2 => Fd::from(File::open("/dev/null").unwrap()),
        _ => file,
    }
}

/// The most descriptors that a worker has.
fn most_of_a_worker() -> usize {
    let count = |pid| fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
    pool_workers().into_iter().map(count).max().unwrap_or(0)
}

/// `cargo xtask verify descriptors` goes on for longer.
#[test]
fn hand_overs_with_kills_leave_no_descriptor() {
    const EACH: u64 = 2_000;
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let name = "hand_overs_with_kills_leave_no_descriptor";
    let _watchdog = Watchdog::start(name, patience(100));
    let builder = |isolation| Pool::builder().workers(2).isolation(isolation);
    let pools = [Isolation::Shared, Isolation::Strict].map(|isolation| builder(isolation).build().unwrap());
    let are_up = || pools.iter().all(|pool| pool.ready_workers() == 2);
    assert!(eventually(30, are_up));
    let null = File::open("/dev/null").unwrap();
    let (before, most) = (Census::take(), most_of_a_worker());
    let (mut handed_over, mut lost) = (0, 0);
    for mut random in rounds(name, 6, 1.0) {
        let pool = &pools[random.below(2) as usize];
        let deeds: Vec<u64> = (0..EACH).map(|_| random.below(300)).collect();
        let items = deeds.iter().map(|&deed| (Fd::from(null.try_clone().unwrap()), deed));
        let outcomes = pool.jobs(hand_back, items).chunk_size(1 + random.below(50) as usize).imap();
        // Those behind are dropped, under way or not; and somebody kills a worker now and then.
        let wanted = EACH / 2 + random.below(EACH / 2);
        for (deed, outcome) in deeds.iter().zip(outcomes.take(wanted as usize)) {
            match (deed, outcome) {
                (_, Err(JobError::WorkerLost(_))) => lost += 1,
                (1, Err(JobError::Panicked(_))) | (2.., Ok(_)) => {}
                (deed, outcome) => panic!("{deed}: {outcome:?}"),
            }
            handed_over += 1;
            if random.below(500) == 0 {
                let workers = pool_workers();
                let chosen = random.below(workers.len().max(1) as u64) as usize;
                let _ = workers.get(chosen).is_some_and(|&pid| try_signal(pid, libc::SIGKILL));
            }
        }
    }
    println!("{handed_over} hand-overs, {lost} of them lost with their worker");
    assert!(lost > 0);
    let is_as_before = || are_up() && Census::take() == before && most_of_a_worker() <= most;
    let ends = eventually(30, is_as_before);
    assert!(ends, "before {before:?} {most}, now {:?} {}", Census::take(), most_of_a_worker());
}

fn wait_for(until: Fd<File>) {
    let _ = (&*until).read(&mut [0]); // until the other end is closed
}

#[test]
fn what_is_too_large_for_the_heaps_is_apart_and_of_many_no_more_than_some() {
    const LEN: usize = 5 << 20;
    const APART: usize = 64;
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let _watchdog = Watchdog::start("what_is_too_large_for_the_heaps_is_apart_and_of_many_no_more_than_some", 100);
    let pool = Pool::builder().workers(1).build().unwrap();
    assert!(eventually(30, || pool.ready_workers() == 1));
    let before = Census::take();
    let open = || Census::take().descriptors - before.descriptors;
    let (reader, writer) = std::io::pipe().unwrap();
    let busy = pool.apply_async(wait_for, File::from(OwnedFd::from(reader)).into()).unwrap();
    assert!(eventually(10, || open() == 1), "the worker has the pipe");
    // Arguments wait, each with a descriptor, and then values.
    let echo = |n: usize| pool.apply_async(give_back, ByteBuf::from(vec![n as u8; LEN])).unwrap();
    let few: Vec<_> = (0..3).map(echo).collect();
    assert_eq!(open(), 1 + 3);
    drop(writer);
    busy.get().unwrap();
    assert!(eventually(30, || few.iter().all(JobHandle::is_ready)));
    assert_eq!(open(), 3);
    let many: Vec<_> = (0..APART + 10).map(echo).collect();
    assert!(eventually(90, || many.iter().all(JobHandle::is_ready)));
    assert_eq!(open(), APART, "the others are on the heap");
    for (n, handle) in few.into_iter().enumerate().chain(many.into_iter().enumerate()) {
        assert!(handle.get().unwrap() == vec![n as u8; LEN]);
    }
    assert!(eventually(10, || Census::take() == before), "{before:?}, now {:?}", Census::take());
}

/// How much memory a process has that is not a file's, in KiB.
fn memory(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let of = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    };
    ["RssAnon:", "RssShmem:"].into_iter().filter_map(of).sum()
}

#[test]
fn payloads_of_all_sizes_take_no_more_memory_the_second_time() {
    /// What an allocator may keep at one time and not at another, in KiB.
    const SLACK: u64 = 8 << 10;
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let _watchdog = Watchdog::start("payloads_of_all_sizes_take_no_more_memory_the_second_time", 100);
    let pool = Pool::builder().workers(1).build().unwrap();
    let round = || {
        for len in [64, 4 << 10, 64 << 10, 1 << 20, 4 << 20, 16 << 20, 64 << 20] {
            for _ in 0..((32 << 20) / len).clamp(2, 200) {
                let echo = || pool.apply_async(give_back, ByteBuf::from(vec![7; len])).unwrap();
                for handle in [echo(), echo()] {
                    assert_eq!(handle.get().unwrap().len(), len);
                }
            }
        }
        assert_eq!(pool.apply(double, 4).unwrap(), 8);
        let [worker] = pool_workers()[..] else { panic!("there is one worker") };
        [std::process::id(), worker].map(memory)
    };
    let first = round();
    for _ in 0..2 {
        let again = round();
        let is_as_first = first.iter().zip(&again).all(|(first, again)| *again <= first + SLACK);
        assert!(is_as_first, "KiB of this process and its worker: {first:?} at first, {again:?} again");
    }
}
