//! A death is a local event.

use std::{sync::Mutex, time::Duration};

use billiard::{JobError, Pool};
use billiard_test_support::{Census, Random, Watchdog, descendants, eventually, is_alive, misdeeds};

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

fn pid_then_wait(_: ()) -> u32 {
    std::thread::sleep(Duration::from_secs(1000));
    0
}

fn tiny(n: u64) -> u64 {
    n + 1
}

#[test]
fn a_killed_worker_takes_its_job_and_no_other_of_a_thousand() {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let _watchdog = Watchdog::start("a_killed_worker_takes_its_job_and_no_other_of_a_thousand", 60);
    let pool = Pool::builder().workers(2).build().unwrap();
    let victim = pool.apply_async(pid_then_wait, ()).unwrap();
    let others: Vec<_> = (0..1000).map(|n| pool.apply_async(tiny, n).unwrap()).collect();
    // The worker that does not get on with it is the one.
    let workers =
        || -> Vec<u32> { descendants(std::process::id()).into_iter().filter(|&pid| is_worker(pid)).collect() };
    assert!(eventually(10, || others.iter().all(billiard::JobHandle::is_ready) && workers().len() == 2));
    let busy: Vec<u32> = workers().into_iter().filter(|&pid| is_in_a_job(pid)).collect();
    assert_eq!(busy.len(), 1, "{busy:?}");
    kill(busy[0]);
    match victim.get() {
        Err(JobError::WorkerLost(lost)) => {
            assert_eq!((lost.pid(), lost.status().signal()), (busy[0], Some(libc::SIGKILL)));
            assert!(lost.to_string().contains("SIGKILL"), "{lost}");
        }
        other => panic!("{other:?}"),
    }
    for (n, handle) in (0..).zip(others) {
        assert_eq!(handle.get().unwrap(), n + 1);
    }
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
        let workers: Vec<u32> = descendants(std::process::id()).into_iter().filter(|&pid| is_worker(pid)).collect();
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

fn is_worker(pid: u32) -> bool {
    is_alive(pid)
        && std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.starts_with("PoolWorker"))
}

/// Whether it sleeps in its job, rather than in its socket.
fn is_in_a_job(pid: u32) -> bool {
    let number = |text: String| text.split_whitespace().next().and_then(|first| first.parse::<i64>().ok());
    std::fs::read_to_string(format!("/proc/{pid}/syscall")).ok().and_then(number) == Some(libc::SYS_clock_nanosleep)
}
