//! Nobody wakes where nothing is to be done. By itself in this program: it counts what the pool's threads do.

use std::{fs, thread, time::Duration};

use billiard::{Isolation, Pool};
use billiard_test_support::{Watchdog, descendants, eventually};

billiard::init_for_tests!();

fn increment(n: u64) -> u64 {
    n + 1
}

/// How often the pool's thread and its workers have gone to sleep.
fn sleeps() -> u64 {
    let this = std::process::id();
    let tasks =
        descendants(this).into_iter().chain([this]).filter_map(|pid| fs::read_dir(format!("/proc/{pid}/task")).ok());
    let status = tasks.flatten().flatten().filter_map(|task| fs::read_to_string(task.path().join("status")).ok());
    let ours = status.filter(|text| text.contains("Name:\tPoolWorker-") || text.contains("Name:\tbilliard-pool\n"));
    let count = |text: String| {
        let line = text.lines().find(|line| line.starts_with("voluntary_ctxt_switches"))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    };
    ours.filter_map(count).sum()
}

#[test]
fn at_rest_nobody_wakes() {
    let _watchdog = Watchdog::start("at_rest_nobody_wakes", 120);
    for isolation in [Isolation::Shared, Isolation::Strict] {
        let pool = Pool::builder().workers(64).isolation(isolation).build().unwrap();
        assert!(eventually(60, || pool.ready_workers() == 64));
        assert_eq!(pool.map(increment, 0..1000).unwrap(), (1..=1000).collect::<Vec<u64>>());
        // Results that nobody has asked for yet keep nobody awake either.
        let kept: Vec<_> = (0..10).map(|n| pool.apply_async(increment, n).unwrap()).collect();
        let mut before = sleeps();
        assert!(before > 0);
        // It comes to rest within some ticks; then half a second must pass without a single one, and two more.
        assert!(eventually(30, || {
            thread::sleep(Duration::from_millis(500));
            let now = sleeps();
            let is_quiet = now == before;
            before = now;
            is_quiet
        }));
        thread::sleep(Duration::from_secs(2));
        assert_eq!(sleeps(), before, "{isolation:?}");
        assert!(kept.into_iter().map(|handle| handle.get().unwrap()).eq(1..=10));
    }
}
