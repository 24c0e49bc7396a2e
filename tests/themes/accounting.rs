//! Every job once, whatever the order and however many: full tables, stopped workers, limits that strike at random, recycling, callbacks.
//! `cargo xtask verify accounting` goes on for longer.

use std::{
    os::fd::{FromRawFd, OwnedFd},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use billiard::{Fd, Isolation, JobError, Pool, PoolBuilder};
use billiard_test_support::{Random, Stopped, Watchdog, eventually, patience, rounds};

billiard::init_for_tests!();

fn increment(n: u64) -> u64 {
    n + 1
}

fn pid(_: ()) -> u32 {
    std::process::id()
}

fn busy_for(microseconds: u64) -> u64 {
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_micros(microseconds) {
        std::hint::spin_loop();
    }
    microseconds
}

fn busy_pid(_: ()) -> u32 {
    busy_for(5_000);
    std::process::id()
}

fn builder(workers: usize) -> PoolBuilder {
    Pool::builder().workers(workers).isolation(Isolation::Shared)
}

/// The pids of the workers of a pool that has as many.
fn workers(pool: &Pool, count: usize) -> Vec<u32> {
    let mut pids = Vec::new();
    assert!(eventually(30, || {
        let handles: Vec<_> = (0..count).map(|_| pool.apply_async(busy_pid, ()).unwrap()).collect();
        pids.extend(handles.into_iter().map(|handle| handle.get().unwrap()));
        pids.sort_unstable();
        pids.dedup();
        pids.len() == count
    }));
    pids
}

#[test]
fn more_jobs_than_the_table_holds_are_got_in_any_order_by_one_thread() {
    let _watchdog = Watchdog::start("more_jobs_than_the_table_holds_are_got_in_any_order_by_one_thread", 120);
    let mut random = Random::from_env("more_jobs_than_the_table_holds");
    let pool = builder(2).build().unwrap();
    let mut handles: Vec<_> = (0..5_000).map(|n| (n, pool.apply_async(increment, n).unwrap())).collect();
    while !handles.is_empty() {
        let (n, handle) = handles.swap_remove(random.below(handles.len() as u64) as usize);
        assert_eq!(handle.get().unwrap(), n + 1);
    }
}

#[test]
fn others_go_on_while_a_worker_is_stopped() {
    let _watchdog = Watchdog::start("others_go_on_while_a_worker_is_stopped", 120);
    let pool = builder(3).build().unwrap();
    let pids = workers(&pool, 3);
    for &pid in &pids {
        let _stopped = Stopped::new(&[pid]);
        let handles: Vec<_> = (0..200).map(|n| pool.apply_async(increment, n).unwrap()).collect();
        let sum: u64 = handles.into_iter().map(|handle| handle.get().unwrap()).sum();
        assert_eq!(sum, 200 * 201 / 2);
    }
}

#[test]
fn a_limit_hits_its_own_job_and_no_other() {
    let _watchdog = Watchdog::start("a_limit_hits_its_own_job_and_no_other", patience(300));
    let pool = builder(2).build().unwrap();
    let (mut values, mut limits) = (0, 0);
    for mut random in rounds("a_limit_hits_its_own_job", 20, 0.5) {
        let jobs: Vec<_> = (0..100)
            .map(|_| {
                // Half of them have no limit, and are hit by none.
                let limit = (random.below(2) == 0).then(|| Duration::from_micros(random.below(400)));
                let time = random.below(200);
                let job = pool.job(busy_for, time);
                let job = if let Some(limit) = limit { job.timeout(limit) } else { job };
                (time, limit, job.submit().unwrap())
            })
            .collect();
        for (time, limit, handle) in jobs {
            match handle.get() {
                Ok(same) => {
                    assert_eq!(same, time);
                    values += 1;
                }
                Err(JobError::TimeLimitExceeded(its)) => {
                    assert_eq!(limit, Some(its), "another job's limit");
                    limits += 1;
                }
                Err(other) => panic!("{time} µs, {limit:?}: {other}"),
            }
        }
    }
    println!("{values} values, {limits} limits");
    assert!(values > 0 && limits > 0);
}

#[test]
fn a_worker_for_each_job_loses_none() {
    let _watchdog = Watchdog::start("a_worker_for_each_job_loses_none", patience(300));
    for isolation in [Isolation::Shared, Isolation::Strict] {
        let pool = Pool::builder().workers(2).isolation(isolation).max_tasks_per_child(1).build().unwrap();
        let mut pids = Vec::new();
        for _ in rounds("a_worker_for_each_job", 5, 0.2) {
            let handles: Vec<_> = (0..40).map(|_| pool.apply_async(pid, ()).unwrap()).collect();
            pids.extend(handles.into_iter().map(|handle| handle.get().unwrap()));
        }
        let jobs = pids.len();
        pids.dedup();
        assert_eq!(pids.len(), jobs, "no worker does two in a row");
        pids.sort_unstable();
        pids.dedup();
        assert!(pids.len() > jobs - jobs / 100, "a pid may come again, a worker does not: {} of {jobs}", pids.len());
        println!("{isolation:?}: {jobs} jobs, each with a worker of its own");
        pool.join().unwrap();
    }
}

#[test]
fn a_worker_does_as_many_jobs_as_it_may() {
    let _watchdog = Watchdog::start("a_worker_does_as_many_jobs_as_it_may", 60);
    for isolation in [Isolation::Shared, Isolation::Strict] {
        let pool = Pool::builder().workers(1).isolation(isolation).max_tasks_per_child(3).build().unwrap();
        let pids: Vec<u32> = (0..30).map(|_| pool.apply(pid, ()).unwrap()).collect();
        let (runs, rest) = pids.as_chunks::<3>();
        assert!(rest.is_empty() && runs.iter().all(|run| run[0] == run[1] && run[1] == run[2]), "{pids:?}");
        assert!(runs.windows(2).all(|two| two[0] != two[1]), "{pids:?}");
    }
}

fn forever(_: ()) {
    loop {
        std::thread::park();
    }
}

#[test]
fn callbacks_run_on_the_pools_own_thread_and_nothing_waits_there() {
    let _watchdog = Watchdog::start("callbacks_run_on_the_pools_own_thread_and_nothing_waits_there", 60);
    let thread = || std::thread::current().name().map(str::to_owned);
    for isolation in [Isolation::Shared, Isolation::Strict] {
        let pool = Arc::new(Pool::builder().workers(1).queue_size(1).isolation(isolation).build().unwrap());
        let (tell, told) = mpsc::channel();
        let (inside, tell_more) = (pool.clone(), tell.clone());
        let job = pool.job(increment, 1).on_success(move |_| {
            while inside.job(forever, ()).try_submit().is_ok() {}
            let refused = inside.apply_async(increment, 1).map(drop).map_err(|refused| refused.is_full());
            tell.send((thread(), refused)).unwrap();
        });
        assert_eq!(job.submit().unwrap().get().unwrap(), 2);
        assert_eq!(told.recv().unwrap(), (Some("billiard-pool".to_owned()), Err(true)), "{isolation:?}");

        let pool = Pool::builder().workers(1).isolation(isolation).build().unwrap();
        let _blocker = pool.apply_async(forever, ()).unwrap();
        let job = pool.job(increment, 1).on_error(move |_| tell_more.send((thread(), Ok(()))).unwrap());
        // Behind the other, and not begun, whichever has begun.
        assert!(job.submit().unwrap().cancel());
        assert_eq!(told.recv().unwrap(), (Some("billiard-pool".to_owned()), Ok(())), "{isolation:?}");
    }
}

#[test]
fn a_pool_is_joined_while_others_collect() {
    let _watchdog = Watchdog::start("a_pool_is_joined_while_others_collect", patience(120));
    for isolation in [Isolation::Shared, Isolation::Strict] {
        for mut random in rounds("a_pool_is_joined_while_others_collect", 100, 0.1) {
            let pool = Pool::builder().workers(1).isolation(isolation).build().unwrap();
            let handles: Vec<_> = (0..5).map(|n| pool.apply_async(increment, n).unwrap()).collect();
            let pause = Duration::from_micros(random.below(200));
            let collector = thread::spawn(move || {
                handles.into_iter().for_each(|handle| {
                    busy_for(pause.as_micros() as u64);
                    handle.get().unwrap();
                });
            });
            pool.join().unwrap();
            collector.join().unwrap();
        }
    }
}

#[test]
fn callbacks_see_the_outcome_before_the_handle_is_ready_and_may_hand_in_more() {
    let _watchdog = Watchdog::start("callbacks_see_the_outcome_before_the_handle_is_ready_and_may_hand_in_more", 120);
    for isolation in [Isolation::Shared, Isolation::Strict] {
        let pool = Arc::new(Pool::builder().workers(2).queue_size(50).isolation(isolation).build().unwrap());
        let (seen, more) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
        for n in 0..500 {
            let (keep, more, again) = (seen.clone(), more.clone(), pool.clone());
            let job = pool.job(increment, n).on_success(move |value| {
                keep.lock().unwrap().push(*value);
                // Nothing waits on the pool's own thread: where there is no room it says so.
                match again.apply_async(increment, *value) {
                    Ok(handle) => more.lock().unwrap().push((*value, handle)),
                    Err(refused) => assert!(refused.is_full(), "{refused}"),
                }
            });
            assert_eq!(job.submit().unwrap().get().unwrap(), n + 1);
            assert_eq!(seen.lock().unwrap().last(), Some(&(n + 1)), "before the handle is ready");
        }
        for (value, handle) in more.lock().unwrap().drain(..) {
            assert_eq!(handle.get().unwrap(), value + 1);
        }
        let (failed, panicked) = (Arc::new(Mutex::new(String::new())), pool.job(increment, u64::MAX));
        let keep = failed.clone();
        let job =
            panicked.on_error(move |error| *keep.lock().unwrap() = error.to_string()).on_success(|_| panic!("no"));
        assert!(job.submit().unwrap().get().is_err() || !cfg!(debug_assertions));
        assert!(failed.lock().unwrap().contains("overflow") || !cfg!(debug_assertions));
        let unruly = pool.job(increment, 1).on_success(|_| panic!("as planned")).submit().unwrap();
        assert_eq!(unruly.get().unwrap(), 2, "a callback that panics harms nobody");
        // Whoever ends it: the callback runs.
        let (tell, told) = mpsc::channel();
        let blockers: Vec<_> = (0..2).map(|_| pool.apply_async(busy_for, 200_000).unwrap()).collect();
        let waiting = pool.job(increment, 1).on_error(move |error| tell.send(error.to_string()).unwrap()).submit();
        assert!(waiting.unwrap().cancel());
        assert!(told.recv().unwrap().contains("cancelled"));
        blockers.into_iter().for_each(|handle| assert_eq!(handle.get().unwrap(), 200_000));
        Arc::into_inner(pool).expect("the callbacks are gone").join().unwrap();
    }
}

fn die(_: ()) {
    // SAFETY: this worker alone.
    unsafe { libc::kill(std::process::id() as i32, libc::SIGKILL) };
    forever(());
}

#[test]
fn a_death_is_noticed_while_the_pools_own_thread_is_never_idle() {
    let _watchdog = Watchdog::start("a_death_is_noticed_while_the_pools_own_thread_is_never_idle", 60);
    fn again(pool: &Arc<Pool>, is_over: &Arc<AtomicBool>, rounds: &Arc<AtomicU64>) {
        let (more, over, count) = (pool.clone(), is_over.clone(), rounds.clone());
        let job = pool.job(increment, 1).on_success(move |_| {
            busy_for(3_000); // meanwhile the next one is done
            count.fetch_add(1, Ordering::Relaxed);
            if !over.load(Ordering::Relaxed) {
                again(&more, &over, &count);
            }
        });
        drop(job.submit().unwrap());
    }
    for isolation in [Isolation::Shared, Isolation::Strict] {
        let pool = Arc::new(Pool::builder().workers(2).isolation(isolation).build().unwrap());
        let (is_over, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        (0..8).for_each(|_| again(&pool, &is_over, &count));
        assert!(eventually(30, || count.load(Ordering::Relaxed) > 20));
        let mut victim = pool.apply_async(die, ()).unwrap();
        let (noticed, before) = (eventually(20, || victim.is_ready()), count.load(Ordering::Relaxed));
        is_over.store(true, Ordering::Relaxed);
        assert!(noticed, "{isolation:?}: {before} callbacks have run");
        assert!(matches!(victim.try_get(), Some(Err(JobError::WorkerLost(_)))));
        assert!(eventually(30, || Arc::strong_count(&pool) == 1), "the callbacks are gone");
        Arc::into_inner(pool).unwrap().join().unwrap();
    }
}

#[test]
fn callbacks_that_cancel_do_not_run_those_of_others_inside() {
    let _watchdog = Watchdog::start("callbacks_that_cancel_do_not_run_those_of_others_inside", 60);
    for isolation in [Isolation::Shared, Isolation::Strict] {
        let pool = Arc::new(Pool::builder().workers(1).isolation(isolation).build().unwrap());
        let (depth, ran) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let blocker = pool.apply_async(forever, ()).unwrap();
        // Each cancels the one behind it.
        let mut next: Option<billiard::JobHandle<u64>> = None;
        for _ in 0..100 {
            let (depth, ran, behind) = (depth.clone(), ran.clone(), next.take());
            let job = pool.job(increment, 1).on_error(move |_| {
                assert_eq!(depth.fetch_add(1, Ordering::Relaxed), 0, "one after the other");
                if let Some(behind) = behind {
                    assert!(behind.cancel());
                }
                depth.fetch_sub(1, Ordering::Relaxed);
                ran.fetch_add(1, Ordering::Relaxed);
            });
            next = Some(job.submit().unwrap());
        }
        assert!(next.take().unwrap().cancel());
        assert!(eventually(30, || ran.load(Ordering::Relaxed) == 100), "{isolation:?}: {ran:?}");
        assert!(blocker.terminate());
    }
}

/// Panics when it is dropped, in the pool's own process alone.
#[derive(serde::Serialize, serde::Deserialize)]
struct Unruly(u32);

impl Drop for Unruly {
    fn drop(&mut self) {
        assert_ne!(self.0, std::process::id(), "as planned");
    }
}

fn unruly(pid: u32) -> Unruly {
    Unruly(pid)
}

#[test]
fn a_value_that_panics_when_it_is_dropped_harms_no_other_job() {
    let _watchdog = Watchdog::start("a_value_that_panics_when_it_is_dropped_harms_no_other_job", 60);
    for isolation in [Isolation::Shared, Isolation::Strict] {
        let pool = Pool::builder().workers(1).isolation(isolation).build().unwrap();
        let ((tell, told), (dropped, is_dropped)) = (mpsc::channel(), mpsc::channel());
        let payload = std::process::id();
        let job = pool.job(unruly, payload).on_success(move |_| {
            is_dropped.recv().unwrap();
            tell.send(()).unwrap();
            std::panic::panic_any(Unruly(payload));
        });
        drop(job.submit().unwrap()); // so that the pool's own thread drops the value
        dropped.send(()).unwrap();
        told.recv().unwrap();
        assert_eq!(pool.apply(increment, 1).unwrap(), 2, "{isolation:?}");
        let seen = pool.job(increment, 1).on_success(|_| {}).submit().unwrap();
        assert_eq!(seen.get().unwrap(), 2, "{isolation:?}: callbacks still run");
        pool.join().unwrap();
    }
}

#[test]
fn a_value_is_waited_for_no_longer_than_asked_where_others_have_filled_the_queue() {
    let _watchdog =
        Watchdog::start("a_value_is_waited_for_no_longer_than_asked_where_others_have_filled_the_queue", 60);
    let wait = Duration::from_millis(20);
    for isolation in [Isolation::Shared, Isolation::Strict] {
        let pool = Pool::builder().workers(1).queue_size(1).isolation(isolation).build().unwrap();
        let blocker = pool.apply_async(forever, ()).unwrap();
        // Then it is with the worker, or has the worker's place in the table.
        assert!(eventually(30, || pool.ready_workers() == 1));
        let other = pool.job(increment, 1).try_submit().unwrap();
        assert!(pool.job(increment, 1).try_submit().unwrap_err().is_full());
        let (mut ordered, mut unordered) = (pool.imap(increment, 0..3), pool.imap_unordered(increment, 0..3));
        for _ in 0..2 {
            assert!(ordered.next_timeout(wait).is_err(), "{isolation:?}");
            assert!(unordered.next_timeout(wait).is_err(), "{isolation:?}");
        }
        assert!(blocker.terminate());
        assert_eq!(ordered.map(Result::unwrap).collect::<Vec<_>>(), [1, 2, 3], "nothing is lost");
        let mut values: Vec<_> = unordered.map(Result::unwrap).collect();
        values.sort_unstable();
        assert_eq!(values, [1, 2, 3]);
        assert_eq!(other.get().unwrap(), 2);
    }
}

#[test]
fn no_limit_ends_a_job_that_waits() {
    let _watchdog = Watchdog::start("no_limit_ends_a_job_that_waits", 60);
    for isolation in [Isolation::Shared, Isolation::Strict] {
        let pool = Pool::builder().workers(1).isolation(isolation).build().unwrap();
        let blocker = pool.apply_async(forever, ()).unwrap();
        let limits = [Duration::ZERO, Duration::from_nanos(1), Duration::from_millis(1)];
        let waiting = limits.map(|limit| pool.job(forever, ()).timeout(limit).submit().unwrap());
        assert!(!waiting[0].wait_timeout(Duration::from_millis(100)), "{isolation:?}");
        assert!(waiting.iter().all(|handle| !handle.is_ready()), "{isolation:?}");
        assert!(blocker.terminate());
        for (handle, limit) in waiting.into_iter().zip(limits) {
            assert!(matches!(handle.get(), Err(JobError::TimeLimitExceeded(its)) if its == limit), "{isolation:?}");
        }
    }
}

/// A descriptor that newer kernels send to nobody; none where there is no io_uring.
fn ring() -> Option<OwnedFd> {
    let mut parameters = [0u64; 15];
    // SAFETY: the kernel writes `struct io_uring_params`, 120 bytes.
    let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, 4, parameters.as_mut_ptr()) };
    // SAFETY: new, and nobody else's.
    (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

fn take(_: Fd) {}

#[test]
fn an_argument_that_the_kernel_does_not_send_fails_its_own_job() {
    let _watchdog = Watchdog::start("an_argument_that_the_kernel_does_not_send_fails_its_own_job", 60);
    for isolation in [Isolation::Shared, Isolation::Strict] {
        let pool = Pool::builder().workers(2).isolation(isolation).build().unwrap();
        for _ in 0..20 {
            let Some(ring) = ring() else { return println!("there is no io_uring here") };
            match pool.apply(take, Fd::new(ring)) {
                Ok(()) => println!("this kernel sends it"),
                Err(JobError::ArgumentDecode(why)) => assert!(why.to_string().contains("Invalid argument"), "{why}"),
                Err(other) => panic!("{isolation:?}: {other}"),
            }
            assert_eq!(pool.apply(increment, 1).unwrap(), 2);
        }
        pool.join().unwrap();
    }
}
