//! A full table pushes back, and nothing grows. Alone in its process, whose memory is measured.

use std::{
    fs,
    sync::{
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use billiard::{Isolation, JobHandle, Pool};
use billiard_test_support::{Stopped, Watchdog, eventually, pool_workers};

billiard::init_for_tests!();

fn increment(n: u64) -> u64 {
    n + 1
}

#[test]
fn whoever_hands_in_more_than_the_table_holds_waits_and_nothing_grows() {
    let _watchdog = Watchdog::start("whoever_hands_in_more_than_the_table_holds_waits_and_nothing_grows", 300);
    const SLOTS: usize = 1000;
    let jobs: u64 = if cfg!(debug_assertions) { 100_000 } else { 1_000_000 };
    let pool = Pool::builder().workers(2).isolation(Isolation::Shared).queue_size(SLOTS).build().unwrap();
    assert!(eventually(30, || pool.ready_workers() == 2));
    let handed_in = AtomicU64::new(0);
    let (send, receive) = mpsc::channel::<(u64, JobHandle<u64>)>();
    thread::scope(|scope| {
        let workers = pool_workers();
        assert_eq!(workers.len(), 2);
        let stopped = Stopped::new(&workers);
        scope.spawn(|| {
            let send = send;
            for n in 0..jobs {
                // Nobody listens where the test has failed.
                let Ok(()) = send.send((n, pool.apply_async(increment, n).unwrap())) else { return };
                handed_in.fetch_add(1, Ordering::Relaxed);
            }
        });
        let receive = receive;
        assert!(eventually(60, || handed_in.load(Ordering::Relaxed) == SLOTS as u64 + 2));
        let before = resident();
        assert!(pool.job(increment, 0).try_submit().unwrap_err().is_full());
        thread::sleep(Duration::from_millis(100)); // nothing is to happen meanwhile
        assert_eq!(handed_in.load(Ordering::Relaxed), SLOTS as u64 + 2, "it waits");
        assert!(resident() < before + 1024, "in KiB: {before} before, {} now", resident());
        drop(stopped);
        let all = receive.iter().map(|(n, handle)| u64::from(handle.get().unwrap() == n + 1)).sum::<u64>();
        assert_eq!(all, jobs);
    });
}

/// What this process has in memory, in KiB.
fn resident() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap();
    statm.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 4
}
