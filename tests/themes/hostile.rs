//! Workers that are stopped, killed before they begin, or say what they should not; wakers that misbehave. One test at a
//! time, since each looks for its own workers among the descendants.

use std::{
    fs::File,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    task::{Context, Wake},
    time::Duration,
};

use billiard::{Fd, Isolation, JobError, JobHandle, Pool, connection::Connection};
use billiard_test_support::{Watchdog, descendants, eventually, is_alive, misdeeds, signal, state};

billiard::init_for_tests!();

static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn double(n: u64) -> u64 {
    2 * n
}

fn pid(_: ()) -> u32 {
    std::process::id()
}

fn sleep_ms(ms: u64) -> u64 {
    std::thread::sleep(Duration::from_millis(ms));
    ms
}

fn pool(workers: usize) -> Pool {
    pool_of(workers, Isolation::default())
}

fn pool_of(workers: usize, isolation: Isolation) -> Pool {
    let pool = Pool::builder().workers(workers).isolation(isolation).build().unwrap();
    assert!(eventually(20, || pool.ready_workers() == workers));
    pool
}

fn stop(pid: u32) {
    signal(pid, libc::SIGSTOP);
    assert!(eventually(10, || state(pid) == Some('T')));
}

#[test]
fn a_job_that_a_killed_worker_had_not_received_is_done_by_another() {
    let _watchdog = Watchdog::start("a_job_that_a_killed_worker_had_not_received_is_done_by_another", 60);
    let _alone = alone();
    for isolation in [Isolation::Shared, Isolation::Strict] {
        let pool = pool_of(1, isolation);
        let worker = pool.apply(pid, ()).unwrap();
        stop(worker);
        let job = pool.apply_async(double, 21).unwrap();
        assert!(!job.wait_timeout(Duration::from_millis(50)));
        if isolation == Isolation::Strict {
            assert!(!job.cancel(), "it was given to the worker");
        }
        signal(worker, libc::SIGKILL);
        assert_eq!(job.get().unwrap(), 42);
    }
}

#[test]
fn a_job_that_a_stopped_worker_has_not_taken_waits_for_it_and_can_be_cancelled() {
    let _watchdog = Watchdog::start("a_job_that_a_stopped_worker_has_not_taken_waits_for_it_and_can_be_cancelled", 60);
    let _alone = alone();
    let pool = pool_of(1, Isolation::Shared);
    let worker = pool.apply(pid, ()).unwrap();
    stop(worker);
    let (job, unwanted) = (pool.apply_async(double, 21).unwrap(), pool.apply_async(double, 21).unwrap());
    assert!(!job.wait_timeout(Duration::from_millis(50)));
    assert!(unwanted.cancel());
    signal(worker, libc::SIGCONT);
    assert_eq!(job.get().unwrap(), 42);
    assert_eq!(pool.apply(pid, ()).unwrap(), worker);
}

fn length(file: Fd<File>) -> u64 {
    file.metadata().unwrap().len()
}

#[test]
fn a_job_whose_descriptors_went_with_a_killed_worker_is_lost() {
    let _watchdog = Watchdog::start("a_job_whose_descriptors_went_with_a_killed_worker_is_lost", 60);
    let _alone = alone();
    let pool = pool_of(1, Isolation::Strict);
    let worker = pool.apply(pid, ()).unwrap();
    stop(worker);
    let job = pool.apply_async(length, File::open("/dev/null").unwrap().into()).unwrap();
    assert!(!job.wait_timeout(Duration::from_millis(50)));
    signal(worker, libc::SIGKILL);
    assert!(matches!(job.get(), Err(JobError::WorkerLost(_))));
    assert_eq!(pool.apply(length, File::open("/dev/null").unwrap().into()).unwrap(), 0);
}

#[test]
fn a_stopped_worker_keeps_no_pool_from_ending() {
    let _watchdog = Watchdog::start("a_stopped_worker_keeps_no_pool_from_ending", 60);
    let _alone = alone();
    for end in [
        drop as fn(Pool),
        |pool| pool.join().unwrap(),
        |pool| {
            pool.close();
            drop(pool);
        },
    ] {
        let pool = pool(1);
        let worker = pool.apply(pid, ()).unwrap();
        stop(worker);
        end(pool);
        assert!(eventually(10, || !is_alive(worker)));
    }
}

#[test]
fn a_limit_holds_for_a_worker_that_stops_while_it_receives() {
    let _watchdog = Watchdog::start("a_limit_holds_for_a_worker_that_stops_while_it_receives", 60);
    let _alone = alone();
    let pool = pool_of(1, Isolation::Strict);
    stop(pool.apply(pid, ()).unwrap());
    let job = pool.job(count, vec![0; 2_000_000]).timeout(Duration::from_millis(50)).submit().unwrap();
    assert!(matches!(job.get(), Err(JobError::TimeLimitExceeded(_))));
    assert_eq!(pool.apply(double, 4).unwrap(), 8);
}

fn count(bytes: Vec<u8>) -> usize {
    bytes.len()
}

#[test]
fn a_guardian_that_is_stopped_keeps_no_verdict_back() {
    let _watchdog = Watchdog::start("a_guardian_that_is_stopped_keeps_no_verdict_back", 60);
    let _alone = alone();
    let pool = pool(2);
    let guardian = descendants(std::process::id()).into_iter().min().unwrap();
    let busy = pool.apply_async(sleep_ms, 1_000_000).unwrap();
    stop(guardian);
    // Both workers: who holds the job cannot be seen from here.
    for pid in descendants(std::process::id()).into_iter().filter(|&pid| pid != guardian) {
        signal(pid, libc::SIGKILL);
    }
    match busy.get() {
        Err(JobError::WorkerLost(lost)) => assert_eq!(lost.status().to_string(), "unknown exit status"),
        other => panic!("{other:?}"),
    }
    signal(guardian, libc::SIGCONT);
    assert_eq!(pool.apply(double, 4).unwrap(), 8);
}

/// A result for a job that nobody has: a frame of five bytes, no descriptors, `Returned`, 9999, nothing apart.
const NOBODYS: [u8; 9] = *b"\0\0\0\x05\0\x01\x8f\x4e\0";

/// Says on every channel of its process what only billiard should say, and then goes on.
fn babble(endless: bool) -> u64 {
    let zeros = [0; 64];
    misdeeds::write_to_all_descriptors(&NOBODYS);
    loop {
        misdeeds::write_to_all_descriptors(&zeros);
        if !endless {
            return 7;
        }
    }
}

#[test]
fn a_worker_that_babbles_harms_its_own_job_alone() {
    let _watchdog = Watchdog::start("a_worker_that_babbles_harms_its_own_job_alone", 60);
    let _alone = alone();
    for endless in [false, true] {
        let pool = pool_of(2, Isolation::Strict);
        let babbler = pool.job(babble, endless).timeout(Duration::from_secs(5)).submit().unwrap();
        let others: Vec<_> = (0..200).map(|n| pool.apply_async(double, n).unwrap()).collect();
        for (n, other) in (0..).zip(others) {
            assert_eq!(other.get().unwrap(), 2 * n);
        }
        assert!(matches!(babbler.get(), Err(JobError::WorkerLost(_))));
        assert!(eventually(10, || pool.ready_workers() == 2));
    }
}

#[test]
fn a_worker_that_overwrites_what_it_shares_keeps_nobody_waiting() {
    let _watchdog = Watchdog::start("a_worker_that_overwrites_what_it_shares_keeps_nobody_waiting", 60);
    let _alone = alone();
    for endless in [false, true] {
        let pool = pool_of(2, Isolation::Shared);
        let babbler = pool.job(babble, endless).timeout(Duration::from_millis(300)).submit().unwrap();
        let job = |n| pool.job(double, n).timeout(Duration::from_secs(5)).submit().unwrap();
        let others: Vec<_> = (0..200).map(job).collect();
        // Its bytes lie in the job table too: what is in flight may be lost, or wrong. Each ends all the same, and the pool goes on.
        let outcomes = others.into_iter().map(JobHandle::get).filter(Result::is_ok).count();
        let own = babbler.get();
        assert!(
            matches!(own, Ok(7) | Err(JobError::WorkerLost(_) | JobError::TimeLimitExceeded(_))) || endless,
            "{own:?}"
        );
        println!("{outcomes} of 200 others have values");
        assert!(eventually(10, || pool.ready_workers() == 2));
        assert!(eventually(10, || matches!(pool.apply(double, 4), Ok(8))));
    }
}

#[test]
fn a_worker_that_overwrites_its_own_job_keeps_its_caller_not_waiting() {
    let _watchdog = Watchdog::start("a_worker_that_overwrites_its_own_job_keeps_its_caller_not_waiting", 60);
    let _alone = alone();
    let pool = pool_of(1, Isolation::Shared);
    let mut lost = 0;
    for _ in 0..10 {
        // Nothing has a limit, so that nobody looks unless somebody asks for it.
        lost += u32::from(pool.apply(babble, false).is_err());
        assert!(eventually(10, || matches!(pool.apply(double, 4), Ok(8))));
    }
    println!("{lost} of 10 lost");
    assert!(lost > 0, "it did not come to what is tested");
}

fn flood(_: ()) -> u64 {
    misdeeds::flood_all_sockets(&NOBODYS.repeat(4096))
}

#[test]
fn a_worker_that_never_stops_talking_keeps_no_limit_of_others_from_being_seen() {
    let _watchdog = Watchdog::start("a_worker_that_never_stops_talking_keeps_no_limit_of_others_from_being_seen", 60);
    let _alone = alone();
    let pool = pool_of(2, Isolation::Shared);
    let flood = pool.apply_async(flood, ()).unwrap();
    for _ in 0..3 {
        let long = pool.job(sleep_ms, 1_000_000).timeout(Duration::from_millis(100)).submit().unwrap();
        assert!(matches!(long.get(), Err(JobError::TimeLimitExceeded(_))));
        assert_eq!(pool.apply(double, 4).unwrap(), 8);
    }
    assert!(flood.terminate());
    assert!(matches!(flood.get(), Err(JobError::Terminated)));
}

fn end_and_flood_on(_: ()) {
    misdeeds::end_and_flood_on(&NOBODYS.repeat(4096))
}

#[test]
fn a_copy_of_a_dead_worker_that_never_stops_talking_keeps_nobody_waiting() {
    let _watchdog = Watchdog::start("a_copy_of_a_dead_worker_that_never_stops_talking_keeps_nobody_waiting", 60);
    let _alone = alone();
    for isolation in [Isolation::Shared, Isolation::Strict] {
        let pool = pool_of(2, isolation);
        let long = pool.job(sleep_ms, 1_000_000).timeout(Duration::from_millis(200)).submit().unwrap();
        assert!(matches!(pool.apply(end_and_flood_on, ()), Err(JobError::WorkerLost(_))));
        assert!(matches!(long.get(), Err(JobError::TimeLimitExceeded(_))));
        assert_eq!(pool.apply(double, 4).unwrap(), 8);
        pool.join().unwrap();
    }
}

/// Words of a job table: the kind of their segment, where they begin, how far they are apart, and what is to be written over them.
type Misdeed = (&'static str, usize, usize, u64);

/// The slot words, as nobody leaves them.
const WIPE_WORDS: Misdeed = ("jobs", 448, 64, 0);
/// What the records of results say of themselves: that the result comes by mail.
const PROMISE_MAIL: Misdeed = ("outputs", 8, 256, 2 << 32);

/// Does this to the first words, in a thread of its own, once it is told so; and says when that is done.
fn misbehave_later((pool, is_promise): (Connection, bool)) -> u64 {
    std::thread::spawn(move || {
        pool.recv::<()>().unwrap();
        let (kind, place, apart, value) = if is_promise { PROMISE_MAIL } else { WIPE_WORDS };
        assert!(misdeeds::overwrite_words(kind, place, (16, apart), value) > 0);
        pool.send(&()).unwrap();
    });
    7
}

/// How often threads of this process that are named as the pool's have gone to sleep.
fn sleeps_of_the_pool() -> u64 {
    let of_thread = |task: std::fs::DirEntry| {
        let status = std::fs::read_to_string(task.path().join("status")).ok()?;
        let line = |name| status.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
        status.starts_with("Name:\tbilliard-pool").then(|| line("voluntary_ctxt_switches:"))?
    };
    std::fs::read_dir("/proc/self/task").unwrap().flatten().filter_map(of_thread).sum()
}

/// Waits until the pool looks at nothing from time to time any more.
fn await_rest() {
    assert!(eventually(20, || {
        let before = sleeps_of_the_pool();
        std::thread::sleep(Duration::from_millis(200));
        before > 0 && sleeps_of_the_pool() == before
    }));
}

#[test]
fn a_result_that_is_overwritten_while_nobody_looks_is_an_error_and_not_waited_for() {
    let _watchdog = Watchdog::start("a_result_that_is_overwritten_while_nobody_looks", 100);
    let _alone = alone();
    let ask: [fn(&mut JobHandle<u64>); 3] = [
        |_| (),
        |job| assert!(eventually(10, || job.is_ready())),
        |job| {
            let (tell, told) = mpsc::channel();
            on_wake(job, move || tell.send(()).unwrap());
            told.recv().unwrap();
        },
    ];
    for is_promise in [false, true] {
        for ask in ask {
            // Each has its own: a worker that promises mail and sends none is given up.
            let pool = pool_of(1, Isolation::Shared);
            let (ours, theirs) = Connection::pair().unwrap();
            let mut job = pool.apply_async(misbehave_later, (theirs, is_promise)).unwrap();
            // The worker publishes, and the pool comes to rest.
            await_rest();
            ours.send(&()).unwrap();
            ours.recv::<()>().unwrap();
            ask(&mut job);
            assert!(matches!(job.get(), Err(JobError::ResultDecode(_))));
            assert!(eventually(10, || matches!(pool.apply(double, 4), Ok(8))));
        }
    }
}

fn fork_and_return(n: u64) -> u64 {
    // SAFETY: the worker has one thread; its copy is what is tested.
    unsafe { libc::fork() };
    n
}

#[test]
fn a_job_that_forks_its_worker_leaves_every_job_one_outcome() {
    let _watchdog = Watchdog::start("a_job_that_forks_its_worker_leaves_every_job_one_outcome", 60);
    let _alone = alone();
    let pool = pool(1);
    // A copy speaks on its worker's socket: that the worker is given up for it may cost the job that it has then.
    let is_right = |outcome: Result<u64, JobError>, value| match outcome {
        Ok(given) => given == value,
        Err(error) => matches!(error, JobError::WorkerLost(_)),
    };
    for n in 0..20 {
        let forked = pool.apply_async(fork_and_return, n).unwrap();
        let next = pool.apply_async(double, n).unwrap();
        assert!(is_right(forked.get(), n) && is_right(next.get(), 2 * n));
    }
    assert!(eventually(10, || matches!(pool.apply(double, 3), Ok(6))));
}

fn large(bytes: usize) -> Vec<u8> {
    vec![1; bytes]
}

#[test]
fn a_long_result_does_not_keep_others_waiting() {
    let _watchdog = Watchdog::start("a_long_result_does_not_keep_others_waiting", 100);
    let _alone = alone();
    for isolation in [Isolation::Shared, Isolation::Strict] {
        let pool = pool_of(2, isolation);
        let long = pool.apply_async(large, 20_000_000).unwrap();
        let mut tiny = 0;
        while !long.is_ready() || tiny == 0 {
            assert_eq!(pool.job(double, 1).timeout(Duration::from_secs(20)).submit().unwrap().get().unwrap(), 2);
            tiny += 1;
        }
        assert!(tiny > 0);
        assert_eq!(long.get().unwrap().len(), 20_000_000);
    }
}

/// Runs something where a future's waker runs: on the pool's own thread.
struct OnWake(Mutex<Option<Box<dyn FnOnce() + Send>>>);

impl Wake for OnWake {
    fn wake(self: Arc<Self>) {
        let work = self.0.lock().unwrap().take();
        if let Some(work) = work {
            work();
        }
    }
}

fn on_wake<R: billiard::Message>(handle: &mut JobHandle<R>, work: impl FnOnce() + Send + 'static) {
    let waker = Arc::new(OnWake(Mutex::new(Some(Box::new(work))))).into();
    assert!(Pin::new(handle).poll(&mut Context::from_waker(&waker)).is_pending());
}

#[test]
fn wakers_cannot_harm_the_pool() {
    let _watchdog = Watchdog::start("wakers_cannot_harm_the_pool", 60);
    let _alone = alone();
    let pool = Arc::new(Pool::builder().workers(1).queue_size(1).build().unwrap());
    let mut first = pool.apply_async(sleep_ms, 50).unwrap();
    on_wake(&mut first, || panic!("a waker panics, as this test wants"));
    assert!(eventually(10, || first.is_ready()));
    assert_eq!(pool.apply(double, 2).unwrap(), 4);

    // Where nothing may wait, a full queue says so, unless there is room by then.
    let mut first = pool.apply_async(sleep_ms, 100).unwrap();
    let queued = pool.apply_async(sleep_ms, 100).unwrap();
    let (tell, told) = mpsc::channel();
    let (submitter, also_queued) = (pool.clone(), pool.clone());
    on_wake(&mut first, move || {
        let _fills = also_queued.job(sleep_ms, 1).try_submit();
        tell.send(submitter.apply_async(double, 1).map(drop).map_err(|refused| refused.is_full())).unwrap();
    });
    let answer = told.recv().unwrap();
    assert!(answer.is_ok() || answer == Err(true), "{answer:?}");
    assert_eq!(queued.get().unwrap(), 100);

    // And one that drops the last of the pool.
    let mut last = pool.apply_async(sleep_ms, 50).unwrap();
    let (tell, told) = mpsc::channel();
    on_wake(&mut last, move || {
        drop(pool);
        tell.send(()).unwrap();
    });
    told.recv().unwrap();
}
