//! Items that go in chunks: each has an outcome of its own.

use std::{
    fs::File,
    os::unix::net::UnixStream,
    panic::AssertUnwindSafe,
    sync::atomic::{AtomicUsize, Ordering},
    task::{Context, Poll, Waker},
    time::Duration,
};

use billiard_pool::{ByteBuf, Fd, JobError, MapPolicy};
use billiard_test_support::{Random, Watchdog, eventually};
use serde::{Deserialize, Serialize, ser::Error};

use super::{builder, forever, pool, sleep_ms, square};

#[test]
fn map_gives_all_values_in_order_whatever_the_chunks() {
    let _watchdog = Watchdog::start("map_gives_all_values_in_order_whatever_the_chunks", 100);
    let pool = pool(2);
    for count in [0, 1, 7, 8, 9, 3001] {
        let expected: Vec<u64> = (0..count).map(|n| n * n).collect();
        assert!(pool.map(square, 0..count).unwrap() == expected, "{count} items");
        let unknown = (0..2 * count).filter(|n| *n < count);
        assert!(pool.map(square, unknown).unwrap() == expected, "{count} items");
        assert!(pool.map_async(square, 0..count).unwrap().get().unwrap() == expected, "{count} items");
        for size in [0, 1, 2, 10, 1000, usize::MAX] {
            let jobs = || pool.jobs(square, 0..count).chunk_size(size);
            assert!(jobs().map().unwrap() == expected, "{count} items in chunks of {size}");
            assert!(jobs().map_async().unwrap().get().unwrap() == expected, "{count} items in chunks of {size}");
            assert!(jobs().imap().map(Result::unwrap).eq(expected.iter().copied()));
            let mut all: Vec<_> = jobs().imap_unordered().map(Result::unwrap).collect();
            all.sort_unstable();
            assert!(all == expected, "{count} items in chunks of {size}");
        }
    }
}

/// What becomes of an item.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
enum Fate {
    Fine(u32),
    Panics,
    Aborts,
    Hangs,
    Exits,
}

fn suffer(fate: Fate) -> u32 {
    match fate {
        Fate::Fine(value) => value,
        Fate::Panics => panic!("as this test wants"),
        Fate::Aborts => std::process::abort(),
        Fate::Exits => std::process::exit(0),
        Fate::Hangs => {
            forever(());
            0
        }
    }
}

fn is_as_it_should_be(fate: Fate, outcome: &Result<u32, JobError>) -> bool {
    match (fate, outcome) {
        (Fate::Fine(value), Ok(given)) => value == *given,
        (Fate::Panics, Err(JobError::Panicked(panic))) => panic.message() == "as this test wants",
        (Fate::Aborts | Fate::Exits, Err(JobError::WorkerLost(_)))
        | (Fate::Hangs, Err(JobError::TimeLimitExceeded(_))) => true,
        _ => false,
    }
}

/// Whatever an item does, it does to itself: in chunks of all sizes, with any neighbours.
#[test]
fn each_item_has_its_own_outcome() {
    let _watchdog = Watchdog::start("each_item_has_its_own_outcome", 100);
    billiard_test_support::misdeeds::dump_no_core();
    let mut random = Random::from_env("chunks::each_item_has_its_own_outcome");
    let pool = builder().workers(2).timeout(Duration::from_millis(300)).build().unwrap();
    for chunk_size in [1, 3, 40, 1000] {
        let fates: Vec<_> = (0..200)
            .map(|n| match random.below(100) {
                0..3 => Fate::Aborts,
                3..5 => Fate::Exits,
                5 => Fate::Hangs,
                6..15 => Fate::Panics,
                _ => Fate::Fine(n),
            })
            .collect();
        let outcomes: Vec<_> = pool.jobs(suffer, fates.clone()).chunk_size(chunk_size).imap().collect();
        assert_eq!(outcomes.len(), fates.len());
        for (at, (&fate, outcome)) in fates.iter().zip(&outcomes).enumerate() {
            assert!(is_as_it_should_be(fate, outcome), "item {at} of chunks of {chunk_size}: {fate:?}, {outcome:?}");
        }
    }
    for (first, last) in [(Fate::Aborts, Fate::Aborts), (Fate::Hangs, Fate::Hangs), (Fate::Aborts, Fate::Hangs)] {
        let fates = [first, Fate::Fine(1), last];
        let outcomes = pool.jobs(suffer, fates).chunk_size(3).imap();
        assert!(fates.iter().zip(outcomes).all(|(&fate, outcome)| is_as_it_should_be(fate, &outcome)));
    }
}

#[test]
fn a_death_in_a_large_map_costs_one_item() {
    const ITEMS: usize = 10_000;
    let _watchdog = Watchdog::start("a_death_in_a_large_map_costs_one_item", 100);
    billiard_test_support::misdeeds::dump_no_core();
    let mut random = Random::from_env("chunks::a_death_in_a_large_map_costs_one_item");
    let mut fates: Vec<_> = (0..ITEMS as u32).map(Fate::Fine).collect();
    let mut lost = 0;
    while lost < 50 {
        let at = random.below(ITEMS as u64) as usize;
        lost += usize::from(fates[at] != Fate::Aborts);
        fates[at] = Fate::Aborts;
    }
    let pool = pool(2);
    let outcomes: Vec<_> = pool.jobs(suffer, fates.clone()).chunk_size(ITEMS.div_ceil(8)).imap().collect();
    assert_eq!(outcomes.len(), ITEMS);
    for (at, (&fate, outcome)) in fates.iter().zip(&outcomes).enumerate() {
        assert!(is_as_it_should_be(fate, outcome), "item {at}: {fate:?}, {outcome:?}");
    }
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), ITEMS - 50);
    let error = pool.map(suffer, fates).unwrap_err();
    assert!(matches!(error, JobError::WorkerLost(_)), "{error}");
    assert_eq!(pool.apply(square, 3).unwrap(), 9);
}

/// How long each item of a chunk may run, however many there are.
#[test]
fn a_limit_is_that_of_each_item() {
    let _watchdog = Watchdog::start("a_limit_is_that_of_each_item", 100);
    let pool = pool(2);
    let limit = Duration::from_millis(400);
    let mut times = vec![60; 40];
    times[13] = 1_000_000;
    times[14] = 1_000_000;
    times[39] = 1_000_000;
    let outcomes: Vec<_> = pool.jobs(sleep_ms, times.clone()).chunk_size(20).timeout(limit).imap().collect();
    assert_eq!(outcomes.len(), times.len());
    for (at, (time, outcome)) in times.into_iter().zip(outcomes).enumerate() {
        match outcome {
            Ok(slept) => assert_eq!(slept, time),
            Err(JobError::TimeLimitExceeded(limit)) => assert!(time > limit.as_millis() as u64, "item {at}"),
            Err(other) => panic!("item {at}: {other}"),
        }
    }
}

fn grow(len: usize) -> ByteBuf {
    ByteBuf::from(vec![len as u8; len])
}

fn length(bytes: ByteBuf) -> usize {
    bytes.len()
}

/// Whatever is too much for a chunk goes another way.
#[test]
fn items_of_every_size_are_in_chunks() {
    let _watchdog = Watchdog::start("items_of_every_size_are_in_chunks", 100);
    let pool = pool(2);
    // With its length, a value has up to eight bytes more.
    let around = |len: usize| (len - 9..len - 2).chain([len, len + 1]);
    let sizes = [0, 1, 200, 5000].into_iter().chain(around(1 << 18)).chain([3]).chain(around(1 << 20));
    let sizes = sizes.chain([9, 5 << 20, 20_000, 300_000, 2]);
    let sizes: Vec<usize> = sizes.cycle().take(60).collect();
    for chunk_size in [2, 7, 1000] {
        let values = pool.jobs(grow, sizes.clone()).chunk_size(chunk_size).imap();
        let values: Vec<_> = values.map(Result::unwrap).collect();
        assert!(values.iter().zip(&sizes).all(|(value, &len)| *value == vec![len as u8; len]));
        assert_eq!(pool.jobs(length, values).chunk_size(chunk_size).map().unwrap(), sizes);
    }
    // More than there is room for at a time.
    let many = vec![100_000; 400];
    let handle = pool.jobs(length, many.iter().map(|&len| grow(len))).chunk_size(3).map_async().unwrap();
    assert_eq!(handle.get().unwrap(), many);
}

fn open(path: String) -> Fd<File> {
    Fd::new(File::open(path).unwrap())
}

fn give_back(file: Fd<File>) -> Fd<File> {
    file
}

#[test]
fn items_with_descriptors_are_in_chunks() {
    let _watchdog = Watchdog::start("items_with_descriptors_are_in_chunks", 60);
    let pool = pool(2);
    let paths = ["/dev/null", "/none", "/dev/null", "/dev/zero"].map(String::from);
    let outcomes: Vec<_> = pool.jobs(open, paths).chunk_size(4).imap().collect();
    assert!(matches!(outcomes[..], [Ok(_), Err(JobError::Panicked(_)), Ok(_), Ok(_)]), "{outcomes:?}");
    let files = outcomes.into_iter().flatten();
    assert_eq!(pool.jobs(give_back, files).chunk_size(2).map().unwrap().len(), 3);
}

/// A value of which some cannot be encoded, and some not decoded.
#[derive(Debug, PartialEq)]
struct Brittle(u32);

impl Serialize for Brittle {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0 % 10 == 7 { Err(S::Error::custom("seven")) } else { self.0.serialize(serializer) }
    }
}

impl<'de> Deserialize<'de> for Brittle {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = u32::deserialize(deserializer)?;
        if value % 10 == 3 { Err(serde::de::Error::custom("three")) } else { Ok(Self(value)) }
    }
}

fn harden(n: u32) -> Brittle {
    Brittle(n)
}

fn soften(Brittle(n): Brittle) -> u32 {
    n
}

#[test]
fn what_does_not_travel_fails_alone() {
    let _watchdog = Watchdog::start("what_does_not_travel_fails_alone", 60);
    let pool = pool(2);
    for (n, outcome) in (0..100).zip(pool.jobs(harden, 0..100).chunk_size(30).imap()) {
        match (n % 10, outcome) {
            (7, Err(JobError::ResultEncode(why))) => assert!(why.to_string().contains("Brittle"), "{why}"),
            (3, Err(JobError::ResultDecode(why))) => assert!(why.to_string().contains("Brittle"), "{why}"),
            (_, outcome) => assert_eq!(outcome.unwrap(), Brittle(n)),
        }
    }
    for (n, outcome) in (0..100).zip(pool.jobs(soften, (0..100).map(Brittle)).chunk_size(30).imap()) {
        match (n % 10, outcome) {
            (7, Err(JobError::ArgumentEncode(why))) => assert!(why.type_name().contains("Brittle"), "{why}"),
            (3, Err(JobError::ArgumentDecode(why))) => assert!(why.to_string().contains("Brittle"), "{why}"),
            (_, outcome) => assert_eq!(outcome.unwrap(), n),
        }
    }
    let refused = pool.jobs(soften, (0..100).map(Brittle)).map_async();
    assert!(matches!(refused, Err(JobError::ArgumentEncode(_))), "{refused:?}");
}

#[test]
fn workers_that_are_recycled_lose_nothing() {
    let _watchdog = Watchdog::start("workers_that_are_recycled_lose_nothing", 100);
    let pool = builder().workers(2).max_tasks_per_child(1).build().unwrap();
    let times: Vec<u64> = (0..24).map(|n| 50 + n % 3).collect();
    assert_eq!(pool.jobs(sleep_ms, times.clone()).chunk_size(2).map().unwrap(), times);
    let policy = MapPolicy::WaitAll;
    assert_eq!(pool.jobs(sleep_ms, times.clone()).chunk_size(2).policy(policy).map().unwrap(), times);
}

fn is_told(stream: Fd<UnixStream>) -> usize {
    std::io::Read::bytes(&*stream).count()
}

/// Numbers bypass serde in chunks; they arrive on every way that an item takes where memory is full.
#[test]
fn numbers_travel_where_there_is_no_room() {
    let _watchdog = Watchdog::start("numbers_travel_where_there_is_no_room", 60);
    let pool = pool(1);
    let squares = || pool.jobs(square, 0..100).chunk_size(100).map_async().unwrap();
    let expected: Vec<u64> = (0..100).map(|n| n * n).collect();
    // Arguments fill their heap while the worker is busy.
    let (ours, theirs) = UnixStream::pair().unwrap();
    let busy = pool.apply_async(is_told, Fd::new(theirs)).unwrap();
    let large = vec![(4 << 20) - 100; 4];
    let waiting: Vec<_> = large.iter().map(|&len| pool.apply_async(length, grow(len)).unwrap()).collect();
    let behind = squares();
    drop(ours);
    assert_eq!(busy.get().unwrap(), 0);
    assert!(waiting.into_iter().map(|handle| handle.get().unwrap()).eq(large.iter().copied()));
    assert_eq!(behind.get().unwrap(), expected);
    // Values that nobody has asked for fill the worker's.
    let waiting: Vec<_> = large.iter().map(|&len| pool.apply_async(grow, len).unwrap()).collect();
    assert_eq!(squares().get().unwrap(), expected);
    assert!(waiting.into_iter().map(|handle| handle.get().unwrap().len()).eq(large));
}

fn says_so((stream, fails): (Fd<UnixStream>, bool)) {
    use std::io::Write;

    (&*stream).write_all(b"x").unwrap();
    assert!(!fails, "as this test wants");
}

#[test]
fn a_policy_says_when_a_map_that_fails_has_ended() {
    let _watchdog = Watchdog::start("a_policy_says_when_a_map_that_fails_has_ended", 60);
    let pool = pool(1);
    let run = |policy, is_async| {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let items = (0..50).map(|n| (Fd::new(theirs.try_clone().unwrap()), n % 20 == 3));
        let jobs = pool.jobs(says_so, items.collect::<Vec<_>>()).policy(policy);
        let failure = if is_async { jobs.map_async().unwrap().get() } else { jobs.map() }.unwrap_err();
        assert!(matches!(failure, JobError::Panicked(_)), "{failure}");
        pool.apply(square, 1).unwrap(); // behind all that has not been cancelled
        drop(theirs);
        std::io::Read::bytes(ours).count()
    };
    for is_async in [false, true] {
        assert_eq!(run(MapPolicy::WaitAll, is_async), 50);
        let begun = run(MapPolicy::FailFast, is_async);
        assert!((4..=50).contains(&begun), "{begun}");
    }
    // The error is that of the first item, not of the first that fails.
    let times = [(300, true), (0, true)];
    let failure = pool.jobs(sleep_and_panic, times).chunk_size(1).policy(MapPolicy::WaitAll).map().unwrap_err();
    assert!(matches!(&failure, JobError::Panicked(panic) if panic.message() == "after 300"), "{failure}");
}

fn sleep_and_panic((ms, panics): (u64, bool)) -> u64 {
    sleep_ms(ms);
    assert!(!panics, "after {ms}");
    ms
}

#[test]
fn a_map_under_way_can_be_asked_awaited_and_ended() {
    let _watchdog = Watchdog::start("a_map_under_way_can_be_asked_awaited_and_ended", 60);
    let pool = pool(2);
    let mut handle = pool.map_async(sleep_ms, [1, 100, 2]).unwrap();
    assert!(!handle.wait_timeout(Duration::from_millis(1)) || handle.is_ready());
    assert!(handle.wait_timeout(Duration::from_secs(20)));
    assert_eq!(handle.try_get().unwrap().unwrap(), [1, 100, 2]);
    assert!(handle.try_get().is_none(), "they were taken");

    let mut handle = std::pin::pin!(pool.map_async(square, 0..1000).unwrap());
    let mut values = None;
    let mut context = Context::from_waker(Waker::noop());
    assert!(eventually(20, || match handle.as_mut().poll(&mut context) {
        Poll::Ready(ready) => {
            values = Some(ready.unwrap());
            true
        }
        Poll::Pending => false,
    }));
    assert_eq!(values.unwrap(), (0..1000).map(|n| n * n).collect::<Vec<u64>>());

    for is_cancelled in [false, true] {
        let handle = pool.jobs(sleep_ms, vec![if is_cancelled { 300 } else { 1_000_000 }; 100]).chunk_size(10);
        let handle = handle.policy(MapPolicy::WaitAll).map_async().unwrap();
        let error = if is_cancelled {
            handle.cancel();
            // Those that have begun go on.
            handle.get().unwrap_err()
        } else {
            handle.terminate();
            handle.get().unwrap_err()
        };
        assert!(matches!(error, JobError::Cancelled | JobError::Terminated), "{error}");
    }
    assert_eq!(pool.map(square, 0..100).unwrap().len(), 100);
}

#[test]
fn an_input_is_taken_a_few_chunks_ahead_and_its_panic_is_the_callers() {
    let _watchdog = Watchdog::start("an_input_is_taken_a_few_chunks_ahead_and_its_panic_is_the_callers", 60);
    let pool = pool(2);
    let taken = AtomicUsize::new(0);
    let endless = || (0..).inspect(|_| _ = taken.fetch_add(1, Ordering::Relaxed));
    let values = pool.jobs(square, endless()).chunk_size(10).imap();
    assert!(values.take(100).map(Result::unwrap).eq((0..100).map(|n| n * n)));
    assert!(taken.swap(0, Ordering::Relaxed) < 250);
    assert_eq!(pool.jobs(square, endless()).chunk_size(10).imap_unordered().take(100).flatten().count(), 100);
    assert!(taken.swap(0, Ordering::Relaxed) < 250);
    let bad = || {
        (0..).inspect(|n| {
            if *n == 95 {
                std::panic::panic_any(*n);
            }
        })
    };
    let panicked = std::panic::catch_unwind(AssertUnwindSafe(|| pool.jobs(square, bad()).chunk_size(10).map()));
    assert_eq!(panicked.unwrap_err().downcast_ref(), Some(&95_u64));
    let mut values = pool.jobs(square, bad()).chunk_size(10).imap();
    let panicked = std::panic::catch_unwind(AssertUnwindSafe(|| values.by_ref().take(100).flatten().count()));
    assert_eq!(panicked.unwrap_err().downcast_ref(), Some(&95_u64));
    drop(values);
    assert_eq!(pool.map(square, 0..100).unwrap().len(), 100);
}

#[test]
fn what_is_under_way_ends_with_its_pool() {
    let _watchdog = Watchdog::start("what_is_under_way_ends_with_its_pool", 60);
    let pool = pool(2);
    let handle = pool.jobs(sleep_ms, vec![1_000_000; 100]).chunk_size(10).map_async().unwrap();
    let fine = pool.jobs(square, 0..100).chunk_size(10);
    let mut fine = fine.imap();
    pool.terminate();
    assert!(matches!(fine.next(), Some(Err(JobError::PoolClosed))));
    assert!(fine.next().is_none());
    assert!(matches!(handle.get(), Err(JobError::Terminated)));
    assert!(matches!(pool.map_async(square, 0..10), Err(JobError::PoolClosed)));

    let pool = super::pool(2);
    let handle = pool.jobs(sleep_ms, vec![2; 100]).chunk_size(10).map_async().unwrap();
    pool.close();
    assert_eq!(handle.get().unwrap(), vec![2; 100]);
    pool.join().unwrap();
}
