//! A death is a local event.

use std::{sync::Mutex, time::Duration};

use billiard::{JobError, Pool, connection::Connection};
use billiard_test_support::{Census, Random, Watchdog, descendants, eventually, misdeeds, pool_workers};

billiard::init_for_tests!();

/// The tests of this file count processes: one at a time.
static ALONE: Mutex<()> = Mutex::new(());

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
enum Trouble {
    None,
    Panic,
    Abort,
    Segfault,
    EndlessLoop,
}

fn run(trouble: Trouble) -> u32 {
    match trouble {
        Trouble::None => 42,
        Trouble::Panic => panic!("out of cheese"),
        Trouble::Abort => std::process::abort(),
        Trouble::Segfault => misdeeds::segfault(),
        Trouble::EndlessLoop => loop {
            std::hint::spin_loop();
        },
    }
}

#[test]
fn each_trouble_has_its_error_and_touches_no_other_job() {
    use Trouble::{Abort, EndlessLoop, None, Panic, Segfault};

    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let _watchdog = Watchdog::start("each_trouble_has_its_error_and_touches_no_other_job", 60);
    let pool = Pool::builder().workers(2).timeout(Duration::from_secs(1)).build().unwrap();
    let jobs = [Panic, None, Abort, None, Segfault, None, EndlessLoop, None];
    let handles: Vec<_> = jobs.iter().map(|&trouble| pool.apply_async(run, trouble).unwrap()).collect();
    for (trouble, handle) in jobs.into_iter().zip(handles) {
        match (trouble, handle.get()) {
            (None, Ok(42)) => {}
            (Panic, Err(JobError::Panicked(panic))) => {
                assert_eq!(panic.message(), "out of cheese");
                assert!(panic.location().unwrap().contains("isolation.rs"));
            }
            (Abort, Err(JobError::WorkerLost(lost))) => assert_eq!(lost.status().signal(), Some(6)),
            (Segfault, Err(JobError::WorkerLost(lost))) => assert_eq!(lost.status().signal(), Some(11)),
            (EndlessLoop, Err(JobError::TimeLimitExceeded(limit))) => assert_eq!(limit, Duration::from_secs(1)),
            (trouble, outcome) => panic!("{trouble:?}: {outcome:?}"),
        }
    }
    assert!(eventually(10, || pool.ready_workers() == 2), "it has its full size again");
    assert_eq!(pool.map(run, [None; 20]).unwrap(), [42; 20]);
    drop(pool);
    let left = || descendants(std::process::id()).len();
    assert!(eventually(10, || left() <= 1), "the helper process alone is left, not {}", left());
}

fn tell_then_wait(report: Connection) {
    report.send(&std::process::id()).unwrap();
    loop {
        std::thread::park();
    }
}

fn tiny(n: u64) -> u64 {
    n + 1
}

/// So many of these take longer than it takes to kill somebody.
fn small(n: u64) -> u64 {
    let begin = std::time::Instant::now();
    while begin.elapsed() < Duration::from_micros(100) {
        std::hint::spin_loop();
    }
    n + 1
}

#[test]
fn a_killed_worker_takes_its_job_and_no_other_of_a_thousand_in_flight() {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let _watchdog = Watchdog::start("a_killed_worker_takes_its_job_and_no_other_of_a_thousand_in_flight", 60);
    let pool = Pool::builder().workers(2).build().unwrap();
    let (ours, theirs) = Connection::pair().unwrap();
    let victim = pool.apply_async(tell_then_wait, theirs).unwrap();
    let worker: u32 = ours.recv().unwrap();
    let others: Vec<_> = (0..1000).map(|n| pool.apply_async(small, n).unwrap()).collect();
    kill(worker);
    let in_flight = others.iter().filter(|other| !other.is_ready()).count();
    match victim.get() {
        Err(JobError::WorkerLost(lost)) => {
            assert_eq!((lost.pid(), lost.status().signal()), (worker, Some(libc::SIGKILL)));
            assert!(lost.to_string().contains("SIGKILL"), "{lost}");
        }
        other => panic!("{other:?}"),
    }
    for (n, handle) in (0..).zip(others) {
        assert_eq!(handle.get().unwrap(), n + 1);
    }
    println!("{in_flight} other jobs were in flight");
    assert!(in_flight > 0);
}

#[test]
fn kills_under_load_take_one_job_each() {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let _watchdog = Watchdog::start("kills_under_load_take_one_job_each", 100);
    let mut random = Random::from_env("kills_under_load_take_one_job_each");
    let pool = Pool::builder().workers(2).build().unwrap();
    assert!(eventually(10, || pool.ready_workers() == 2));
    let mut kills = 0;
    let mut lost = 0;
    for _round in 0..40 {
        let handles: Vec<_> = (0..1000).map(|n| pool.apply_async(tiny, n).unwrap()).collect();
        std::thread::sleep(Duration::from_micros(random.below(5000)));
        let workers = pool_workers();
        if !workers.is_empty() {
            kill(workers[random.below(workers.len() as u64) as usize]);
            kills += 1;
        }
        for (n, handle) in (0..).zip(handles) {
            match handle.get() {
                Ok(value) => assert_eq!(value, n + 1),
                Err(JobError::WorkerLost(_)) => lost += 1,
                Err(other) => panic!("{other}"),
            }
        }
        assert!(lost <= kills, "{lost} jobs lost by {kills} kills");
    }
    assert!(kills > 0 && eventually(10, || pool.ready_workers() == 2));
    let census = Census::take();
    drop(pool);
    assert!(eventually(10, || Census::take().descendants <= 1), "{census:?}");
}

fn kill(pid: u32) {
    // SAFETY: a signal to a process that descends from this one.
    unsafe { libc::kill(pid as i32, libc::SIGKILL) };
}
