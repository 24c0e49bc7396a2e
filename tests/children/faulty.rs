//! Runs jobs through a pool while a plan in the environment kills, stops or fails processes at named steps, and
//! checks that every job has one outcome: its value, or an error that such a fault explains.
//!
//! It is of use only in a build with `--cfg billiard_fault`.

use std::{
    collections::BTreeSet,
    fs::File,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use billiard::{ByteBuf, Fd, Isolation, JobError, JobHandle, Pool};
use billiard_test_support::{Watchdog, descendants, eventually, is_alive, pool_workers, state};

/// What each job carries there and back.
type Load = (ByteBuf, Option<Fd>);

fn double((n, load): (u64, Load)) -> (u64, u32, Load) {
    (n * 2, std::process::id(), load)
}

/// The same, whose value alone carries so many bytes.
fn double_and_grow((n, size): (u64, usize)) -> (u64, u32, Load) {
    double((n, (ByteBuf::from(vec![n as u8; size]), None)))
}

struct Arguments {
    limit: Duration,
    isolation: Isolation,
    in_chunks: bool,
    size: Option<usize>,
    jobs: u64,
    goes_on: bool,
}

/// `faulty LIMIT ISOLATION SIZE JOBS [continue]`: the limit of a job in ms, short where a process stops and only the limit ends it, long where nothing but the plan
/// may end a job; `shared`, `strict`, or `chunks`, where the jobs are items of such and their values alone have a size; how many bytes each job carries there and back, or `fd`: few, and a descriptor; how many jobs; whether who is stopped goes on after a
/// while.
fn arguments() -> Option<Arguments> {
    let mut arguments = std::env::args().skip(1);
    let limit = Duration::from_millis(arguments.next()?.parse().ok()?);
    let (isolation, in_chunks) = match arguments.next()?.as_str() {
        "shared" => (Isolation::Shared, false),
        "chunks" => (Isolation::Shared, true),
        "strict" => (Isolation::Strict, false),
        _ => return None,
    };
    let size = match arguments.next()?.as_str() {
        "fd" => None,
        size => Some(size.parse().ok()?),
    };
    let jobs = arguments.next()?.parse().ok()?;
    Some(Arguments { limit, isolation, in_chunks, size, jobs, goes_on: arguments.next().is_some() })
}

/// Lets everybody go on who is stopped, now and then, until `over`.
fn go_on(over: &AtomicBool) {
    while !over.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(30));
        for pid in descendants(std::process::id()).into_iter().filter(|&pid| state(pid) == Some('T')) {
            // SAFETY: CONT to a process that descends from this one.
            unsafe { libc::kill(pid as i32, libc::SIGCONT) };
        }
    }
}

fn main() {
    billiard::init();
    let _watchdog = Watchdog::start("child-faulty", 100);
    let Arguments { limit, isolation, in_chunks, size, jobs, goes_on } = arguments().expect("its arguments");
    static OVER: AtomicBool = AtomicBool::new(false);
    let helper = goes_on.then(|| std::thread::spawn(|| go_on(&OVER)));
    let pool = Pool::builder().workers(2).timeout(limit).isolation(isolation).build().expect("a pool");
    // A pool that has given up meanwhile refuses, for the same reason for which the jobs end that it has.
    let load = |n: u64| {
        let fd = || Fd::new(File::open("/dev/null").expect("it is there").into());
        (ByteBuf::from(vec![n as u8; size.unwrap_or(10)]), size.is_none().then(fd))
    };
    let outcomes = |numbers: std::ops::Range<u64>| -> Vec<_> {
        if in_chunks {
            let items = numbers.map(|n| (n, size.unwrap_or_default()));
            return pool.jobs(double_and_grow, items).chunk_size(5).imap().collect();
        }
        let job = |n| pool.apply_async(double, (n, load(n))).map_err(JobError::from);
        let handles: Vec<_> = numbers.map(job).collect();
        handles.into_iter().map(|handle| handle.and_then(JobHandle::get)).collect()
    };
    let mut all = outcomes(0..jobs / 2);
    // The other half finds workers who have gone to sleep, unless somebody keeps them from it.
    let sleeps = |pid: u32| matches!(state(pid), None | Some('S' | 'T' | 'Z'));
    let _ = eventually(5, || pool_workers().into_iter().all(sleeps));
    all.extend(outcomes(jobs / 2..jobs));
    let (mut values, mut lost, mut limits, mut failed) = (0, 0, 0, 0);
    let mut workers = BTreeSet::new();
    for (n, outcome) in (0..).zip(all) {
        match outcome {
            Ok((twice, pid, (bytes, fd))) => {
                workers.insert(pid);
                assert!(twice == 2 * n && bytes == load(n).0 && fd.is_some() == size.is_none(), "another job's value");
                values += 1;
            }
            Err(JobError::WorkerLost(worker)) => {
                workers.insert(worker.pid());
                lost += 1;
            }
            Err(JobError::TimeLimitExceeded(_)) => limits += 1,
            Err(JobError::PoolFailed(_)) => failed += 1,
            Err(other) => panic!("job {n}: {other}"),
        }
    }
    let _ = pool.join(); // one that has given up says so
    OVER.store(true, Ordering::Relaxed);
    helper.map(std::thread::JoinHandle::join);
    let alive = || descendants(std::process::id()).into_iter().filter(|&pid| is_alive(pid)).count();
    assert!(eventually(20, || alive() <= 1), "beside the helper process: {:?}", descendants(std::process::id()));
    println!("values {values}, lost {lost}, limits {limits}, failed {failed}, workers {}", workers.len());
    assert_eq!(values + lost + limits + failed, jobs);
}
