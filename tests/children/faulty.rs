//! Runs jobs through a pool while a plan in the environment kills, stops or fails processes at named steps, and
//! checks that every job has one outcome: its value, or an error that such a fault explains.
//!
//! It is of use only in a build with `--cfg billiard_fault`.

use std::time::Duration;

use billiard::{JobError, Pool};
use billiard_test_support::{Watchdog, descendants, eventually, is_alive};

const JOBS: u64 = 40;

fn double(n: u64) -> (u64, Vec<u8>) {
    (n * 2, vec![n as u8; 5000])
}

fn main() {
    billiard::init();
    let _watchdog = Watchdog::start("child-faulty", 100);
    // Short where a process stops and only the limit ends it; long where nothing but the plan may end a job.
    let limit = std::env::args().nth(1).and_then(|ms| ms.parse().ok()).expect("the limit of a job, in ms");
    let pool = Pool::builder().workers(2).timeout(Duration::from_millis(limit)).build().expect("a pool");
    let handles: Vec<_> = (0..JOBS).map(|n| pool.apply_async(double, n).expect("accepted")).collect();
    let (mut values, mut lost, mut limits, mut failed) = (0, 0, 0, 0);
    for (n, handle) in (0..).zip(handles) {
        match handle.get() {
            Ok((twice, bytes)) => {
                assert!(twice == 2 * n && bytes == vec![n as u8; 5000], "another job's value");
                values += 1;
            }
            Err(JobError::WorkerLost(_)) => lost += 1,
            Err(JobError::TimeLimitExceeded(_)) => limits += 1,
            Err(JobError::PoolFailed(_)) => failed += 1,
            Err(other) => panic!("job {n}: {other}"),
        }
    }
    drop(pool);
    let alive = || descendants(std::process::id()).into_iter().filter(|&pid| is_alive(pid)).count();
    assert!(eventually(20, || alive() <= 1), "beside the helper process: {:?}", descendants(std::process::id()));
    println!("values {values}, lost {lost}, limits {limits}, failed {failed}");
    assert_eq!(values + lost + limits + failed, JOBS);
}
