//! A full table pushes back, and nothing grows. Alone in its process, whose memory is measured.

use std::{
    fs,
    sync::{
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use billiard::{Isolation, JobHandle, Pool};
use billiard_test_support::{Watchdog, descendants, eventually, state};

billiard::init_for_tests!();

fn increment(n: u64) -> u64 {
    n + 1
}

fn busy_pid(_: ()) -> u32 {
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_millis(5) {
        std::hint::spin_loop();
    }
    std::process::id()
}

/// Workers that are stopped; they go on at the latest when this is dropped, so that a test that fails ends.
struct Halted(Vec<u32>);

impl Halted {
    /// Stops the two workers of a pool.
    fn new(pool: &Pool) -> Self {
        let mut pids = Vec::new();
        assert!(eventually(30, || {
            let handles: Vec<_> = (0..2).map(|_| pool.apply_async(busy_pid, ()).unwrap()).collect();
            pids.extend(handles.into_iter().map(|handle| handle.get().unwrap()));
            pids.sort_unstable();
            pids.dedup();
            pids.len() == 2
        }));
        let halted = Self(pids);
        halted.signal(libc::SIGSTOP);
        assert!(eventually(30, || halted.0.iter().all(|&pid| state(pid) == Some('T'))));
        halted
    }

    fn signal(&self, signal: i32) {
        let family = descendants(std::process::id());
        for &pid in self.0.iter().filter(|pid| family.contains(pid)) {
            // SAFETY: a signal to a process that descends from this one.
            unsafe { libc::kill(pid as i32, signal) };
        }
    }
}

impl Drop for Halted {
    fn drop(&mut self) {
        self.signal(libc::SIGCONT);
    }
}

#[test]
fn whoever_hands_in_more_than_the_table_holds_waits_and_nothing_grows() {
    let _watchdog = Watchdog::start("whoever_hands_in_more_than_the_table_holds_waits_and_nothing_grows", 300);
    const SLOTS: usize = 1000;
    let jobs: u64 = if cfg!(debug_assertions) { 100_000 } else { 1_000_000 };
    let pool = Pool::builder().workers(2).isolation(Isolation::Shared).queue_size(SLOTS).build().unwrap();
    let handed_in = AtomicU64::new(0);
    let (send, receive) = mpsc::channel::<(u64, JobHandle<u64>)>();
    thread::scope(|scope| {
        let halted = Halted::new(&pool);
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
        drop(halted);
        let all = receive.iter().map(|(n, handle)| u64::from(handle.get().unwrap() == n + 1)).sum::<u64>();
        assert_eq!(all, jobs);
    });
}

/// What this process has in memory, in KiB.
fn resident() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap();
    statm.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 4
}
