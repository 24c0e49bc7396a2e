//! What a pool promises, whatever isolates its workers: one promise a test. Plain tests, run in parallel.

mod chunks;
mod payloads;

use std::{
    cell::RefCell,
    fs::File,
    io::{Read, Write},
    os::fd::OwnedFd,
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicUsize, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use billiard_connection::Connection;
use billiard_pool::{Context, ErrorKind, Fd, JobError, JobHandle, Pool, PoolBuilder, RemoteError, TimedOut};
use billiard_test_support::{Watchdog, eventually, is_alive, misdeeds, state};

fn square(n: u64) -> u64 {
    n * n
}

fn pid(_: ()) -> u32 {
    std::process::id()
}

fn sleep_ms(ms: u64) -> u64 {
    std::thread::sleep(Duration::from_millis(ms));
    ms
}

fn forever(_: ()) {
    loop {
        std::thread::park();
    }
}

/// A pool of the kind that is tested.
fn builder() -> PoolBuilder {
    Pool::builder().isolation(crate::ISOLATION)
}

fn pool(workers: usize) -> Pool {
    builder().workers(workers).build().unwrap()
}

#[test]
fn a_job_gives_its_value() {
    let _watchdog = Watchdog::start("a_job_gives_its_value", 60);
    for context in [Context::forkserver(), Context::spawn()] {
        let pool = builder().workers(2).context(context).build().unwrap();
        assert_eq!(pool.apply(square, 7).unwrap(), 49);
        let handles: Vec<_> = (0..100).map(|n| pool.apply_async(square, n).unwrap()).collect();
        for (n, handle) in handles.into_iter().enumerate().rev() {
            assert_eq!(handle.get().unwrap(), (n * n) as u64);
        }
        assert_ne!(pool.apply(pid, ()).unwrap(), std::process::id());
        pool.join().unwrap();
    }
}

#[test]
fn map_keeps_the_order_and_imap_gives_values_as_they_come() {
    let _watchdog = Watchdog::start("map_keeps_the_order_and_imap_gives_values_as_they_come", 60);
    let pool = pool(2);
    assert_eq!(pool.map(square, 0..3000).unwrap(), (0..3000).map(|n| n * n).collect::<Vec<u64>>());
    assert_eq!(pool.map(square, []).unwrap(), []);
    let times = [300u64, 1];
    let first = pool.imap_unordered(sleep_ms, times).next().unwrap().unwrap();
    assert_eq!(first, 1);
    let mut all: Vec<u64> = pool.imap_unordered(square, 0..500).map(Result::unwrap).collect();
    all.sort_unstable();
    assert_eq!(all, (0..500).map(|n| n * n).collect::<Vec<u64>>());
}

#[test]
fn imap_takes_an_endless_input_a_few_items_ahead() {
    let _watchdog = Watchdog::start("imap_takes_an_endless_input_a_few_items_ahead", 60);
    let pool = pool(2);
    let taken = AtomicU32::new(0);
    let endless = (0u64..).inspect(|_| _ = taken.fetch_add(1, Ordering::Relaxed));
    let values: Vec<_> = pool.imap_unordered(square, endless).take(100).map(Result::unwrap).collect();
    assert_eq!(values.len(), 100);
    assert!(taken.load(Ordering::Relaxed) < 150, "{taken:?}");
}

#[test]
fn imap_keeps_the_order_with_errors_in_their_places() {
    let _watchdog = Watchdog::start("imap_keeps_the_order_with_errors_in_their_places", 60);
    let pool = pool(2);
    let times = [100u64, 1, 50, 0];
    assert!(pool.imap(sleep_ms, times).map(Result::unwrap).eq(times));
    assert_eq!(pool.imap(square, []).count(), 0);
    for (n, value) in (0u64..).zip(pool.imap(odd_panics, 0..300)) {
        match value {
            Ok(value) => assert!(n % 2 == 0 && value == n),
            Err(JobError::Panicked(panic)) => assert!(n % 2 == 1 && panic.message().contains("odd"), "{n}: {panic}"),
            Err(other) => panic!("{n}: {other}"),
        }
    }
    let taken = AtomicU32::new(0);
    let endless = (0u64..).inspect(|_| _ = taken.fetch_add(1, Ordering::Relaxed));
    assert!(pool.imap(square, endless).take(100).map(Result::unwrap).eq((0..100).map(|n| n * n)));
    assert!(taken.load(Ordering::Relaxed) < 150, "{taken:?}");
}

#[test]
fn a_value_that_does_not_come_in_time_comes_later() {
    let _watchdog = Watchdog::start("a_value_that_does_not_come_in_time_comes_later", 60);
    let pool = pool(1);
    let (ours, theirs) = Connection::pair().unwrap();
    let mut ordered = pool.imap(tells_and_waits, [theirs]);
    assert_eq!(ordered.next_timeout(Duration::from_millis(20)).unwrap_err(), TimedOut);
    ours.recv::<()>().unwrap();
    assert_eq!(ordered.next_timeout(Duration::ZERO).unwrap_err(), TimedOut);
    ours.send(&5u64).unwrap();
    assert_eq!(ordered.next_timeout(Duration::from_secs(60)).unwrap().unwrap().unwrap(), 5);
    assert!(ordered.next_timeout(Duration::ZERO).unwrap().is_none());

    let (ours, theirs) = Connection::pair().unwrap();
    let mut unordered = pool.imap_unordered(tells_and_waits, [theirs]);
    assert_eq!(unordered.next_timeout(Duration::from_millis(20)).unwrap_err(), TimedOut);
    ours.send(&6u64).unwrap();
    assert_eq!(unordered.next_timeout(Duration::from_secs(60)).unwrap().unwrap().unwrap(), 6);
    assert!(unordered.next_timeout(Duration::ZERO).unwrap().is_none());
}

#[test]
fn an_input_that_panics_leaves_the_pool_whole() {
    let _watchdog = Watchdog::start("an_input_that_panics_leaves_the_pool_whole", 60);
    let pool = pool(2);
    let bad = || (0u64..10).inspect(|&n| assert!(n < 7, "no more"));
    for _ in 0..3 {
        let ordered = std::panic::catch_unwind(AssertUnwindSafe(|| pool.imap(square, bad()).count()));
        let unordered = std::panic::catch_unwind(AssertUnwindSafe(|| pool.imap_unordered(square, bad()).count()));
        let map = std::panic::catch_unwind(AssertUnwindSafe(|| pool.map(square, bad())));
        assert!(ordered.is_err() && unordered.is_err() && map.is_err());
    }
    assert_eq!(pool.apply(square, 3).unwrap(), 9);
    pool.join().unwrap();
}

/// Kills its worker where it is asked to.
fn dies_at_some(n: u64) -> u64 {
    if n % 200 == 7 {
        std::process::abort();
    }
    n
}

#[test]
fn items_that_kill_their_workers_are_lost_alone_and_in_their_places() {
    let _watchdog = Watchdog::start("items_that_kill_their_workers_are_lost_alone_and_in_their_places", 120);
    let pool = pool(2);
    let mut lost = 0;
    for (n, value) in (0u64..).zip(pool.imap(dies_at_some, 0..10_000)) {
        match value {
            Ok(value) => assert_eq!(value, n),
            Err(JobError::WorkerLost(_)) if n % 200 == 7 => lost += 1,
            Err(other) => panic!("{n}: {other}"),
        }
    }
    assert_eq!(lost, 50);
    let unordered: Vec<_> = pool.imap_unordered(dies_at_some, 0..1_000).collect();
    assert_eq!((unordered.len(), unordered.iter().filter(|value| value.is_err()).count()), (1_000, 5));
}

#[test]
fn a_thread_at_its_very_end_may_use_its_pool() {
    struct Last(Arc<Pool>, mpsc::Sender<u64>);
    impl Drop for Last {
        fn drop(&mut self) {
            let caught = std::panic::catch_unwind(AssertUnwindSafe(|| self.0.apply(square, 3).unwrap()));
            self.1.send(caught.unwrap_or(0)).unwrap();
        }
    }
    thread_local! {
        static LAST: RefCell<Option<Last>> = const { RefCell::new(None) };
    }
    let _watchdog = Watchdog::start("a_thread_at_its_very_end_may_use_its_pool", 60);
    let pool = Arc::new(pool(1));
    let (send, receive) = mpsc::channel();
    let theirs = pool.clone();
    std::thread::spawn(move || {
        LAST.set(Some(Last(theirs.clone(), send))); // first, so that it is dropped behind what the pool keeps for a thread
        theirs.apply(square, 2).unwrap();
    });
    assert_eq!(receive.recv().unwrap(), 9);
}

fn says_so(stream: Fd<std::os::unix::net::UnixStream>) {
    use std::io::Write;

    (&*stream).write_all(b"x").unwrap();
    std::thread::sleep(Duration::from_millis(100));
}

#[test]
fn dropping_imap_cancels_what_has_not_begun() {
    let _watchdog = Watchdog::start("dropping_imap_cancels_what_has_not_begun", 60);
    let pool = pool(1);
    let (mut ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let inputs = std::iter::repeat_with(|| Fd::new(theirs.try_clone().unwrap()));
    let mut values = pool.imap_unordered(says_so, inputs);
    values.next().unwrap().unwrap();
    drop(values); // several are under way, one of them in the worker
    pool.join().unwrap();
    drop(theirs);
    let mut begun = Vec::new();
    ours.read_to_end(&mut begun).unwrap();
    assert!(begun.len() <= 2, "{} jobs have run", begun.len());
}

#[test]
fn imap_ends_when_its_pool_does() {
    let _watchdog = Watchdog::start("imap_ends_when_its_pool_does", 60);
    let pool = pool(2);
    let mut values = pool.imap_unordered(square, 0u64..);
    assert!(values.by_ref().take(20).all(|value| value.is_ok()));
    pool.close();
    let rest: Vec<_> = values.collect();
    assert!(rest.iter().filter(|value| value.is_err()).count() == 1, "{rest:?}");
    assert!(matches!(rest.iter().find(|value| value.is_err()), Some(Err(JobError::PoolClosed))));
    assert!(matches!(pool.map(square, 0..3), Err(JobError::PoolClosed)));

    let pool = builder().workers(2).build().unwrap();
    let mut values = pool.imap_unordered(sleep_ms, std::iter::repeat(1));
    assert!(values.next().unwrap().is_ok());
    pool.terminate();
    assert!(values.all(|value| matches!(value, Ok(1) | Err(JobError::Terminated | JobError::PoolClosed))));
}

fn odd_panics(n: u64) -> u64 {
    assert!(n.is_multiple_of(2), "{n} is odd");
    n
}

#[test]
fn a_panic_fails_its_job_and_keeps_its_worker() {
    let _watchdog = Watchdog::start("a_panic_fails_its_job_and_keeps_its_worker", 60);
    let pool = pool(1);
    let before = pool.apply(pid, ()).unwrap();
    let error = pool.apply(odd_panics, 3).unwrap_err();
    let JobError::Panicked(panic) = &error else { panic!("{error}") };
    assert_eq!(panic.message(), "3 is odd");
    assert!(panic.location().unwrap().contains("mod.rs:"), "{panic}");
    assert_eq!(pool.apply(pid, ()).unwrap(), before);
    let error = pool.map(odd_panics, 0..10).unwrap_err();
    assert!(matches!(error, JobError::Panicked(_)), "{error}");
}

fn read_first_line(path: String) -> Result<String, RemoteError> {
    let text = std::fs::read_to_string(path)?;
    text.lines().next().map(str::to_owned).ok_or_else(|| RemoteError::msg("empty"))
}

#[test]
fn an_error_of_the_job_itself_is_a_value() {
    let _watchdog = Watchdog::start("an_error_of_the_job_itself_is_a_value", 60);
    let pool = pool(1);
    assert!(pool.apply(read_first_line, "/proc/self/stat".into()).unwrap().is_ok());
    let error = pool.apply(read_first_line, "/no/such/file".into()).unwrap().unwrap_err();
    assert!(error.message().contains("No such file"), "{error}");
}

fn exit(code: i32) {
    std::process::exit(code)
}

fn abort(_: ()) {
    std::process::abort()
}

#[test]
fn a_lost_worker_says_how_it_ended_and_is_replaced() {
    let _watchdog = Watchdog::start("a_lost_worker_says_how_it_ended_and_is_replaced", 60);
    let pool = pool(2);
    let lost = |error: JobError| match error {
        JobError::WorkerLost(lost) => *lost,
        other => panic!("{other}"),
    };
    let exited = lost(pool.apply(exit, 3).unwrap_err());
    assert_eq!(exited.status().code(), Some(3));
    let aborted = lost(pool.apply(abort, ()).unwrap_err());
    assert_eq!(aborted.status().signal(), Some(6));
    assert!(aborted.to_string().contains("SIGABRT"), "{aborted}");
    assert!(aborted.pid() != exited.pid() && aborted.pid() != 0);
    assert!(eventually(10, || pool.ready_workers() == 2));
    assert_eq!(pool.apply(square, 4).unwrap(), 16);
}

#[test]
fn a_job_over_its_limit_ends_and_the_next_runs() {
    let _watchdog = Watchdog::start("a_job_over_its_limit_ends_and_the_next_runs", 60);
    let pool = builder().workers(1).timeout(Duration::from_millis(400)).build().unwrap();
    let limit = Duration::from_millis(400);
    let over = pool.apply(forever, ()).unwrap_err();
    assert!(matches!(over, JobError::TimeLimitExceeded(at) if at == limit), "{over}");
    assert_eq!(pool.apply(square, 4).unwrap(), 16);
    let own = Duration::from_secs(30);
    assert_eq!(pool.job(sleep_ms, 500).timeout(own).submit().unwrap().get().unwrap(), 500);
    // Queued time does not count.
    let handles: Vec<_> = (0..10).map(|_| pool.apply_async(sleep_ms, 100).unwrap()).collect();
    assert!(handles.into_iter().all(|handle| handle.get().is_ok()));
}

#[test]
fn times_beyond_all_clocks_are_for_ever() {
    let _watchdog = Watchdog::start("times_beyond_all_clocks_are_for_ever", 60);
    let pool = builder().workers(1).timeout(Duration::MAX).grace(Duration::MAX).build().unwrap();
    assert_eq!(pool.apply(square, 3).unwrap(), 9);
    let limit = Duration::from_millis(20);
    assert!(pool.job(forever, ()).timeout(limit).submit().unwrap().get().is_err());
    let endless = pool.apply_async(forever, ()).unwrap();
    assert!(!endless.wait_timeout(Duration::from_millis(20)));
    assert!(endless.terminate());
    assert_eq!(pool.apply(square, 4).unwrap(), 16);
}

fn ignores_term(_: ()) {
    let _ = std::process::Command::new("sleep").arg("1000").spawn();
    misdeeds::ignore_sigterm();
    loop {
        std::hint::spin_loop();
    }
}

#[test]
fn a_job_that_ignores_sigterm_is_killed_with_its_children() {
    let _watchdog = Watchdog::start("a_job_that_ignores_sigterm_is_killed_with_its_children", 60);
    let pool = builder().workers(1).timeout(Duration::from_millis(100)).build().unwrap();
    let worker = pool.apply(pid, ()).unwrap();
    assert!(matches!(pool.apply(ignores_term, ()), Err(JobError::TimeLimitExceeded(_))));
    assert_eq!(pool.apply(square, 2).unwrap(), 4);
    assert!(!is_alive(worker));
    let group_is_gone = || {
        billiard_test_support::descendants(std::process::id()).iter().all(|pid| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let group = stat.rsplit_once(')').and_then(|(_, fields)| fields.split_whitespace().nth(2));
            group != Some(worker.to_string().as_str())
        })
    };
    assert!(eventually(10, group_is_gone));
}

/// Ignores SIGTERM, unlike a child in its group, which tells of it.
fn leaves_one_who_heeds_term(pipe: Fd<File>) {
    misdeeds::ignore_sigterm();
    misdeeds::fork_and_await_sigterm(|| (&*pipe).write_all(b"heard").unwrap());
    (&*pipe).write_all(b"ready").unwrap();
    forever(());
}

#[test]
fn the_group_of_a_worker_that_is_to_end_gets_sigterm_too() {
    let _watchdog = Watchdog::start("the_group_of_a_worker_that_is_to_end_gets_sigterm_too", 60);
    let pool = builder().workers(1).grace(Duration::from_secs(2)).build().unwrap();
    let (mut reader, writer) = std::io::pipe().unwrap();
    let job = pool.apply_async(leaves_one_who_heeds_term, File::from(OwnedFd::from(writer)).into()).unwrap();
    let mut said = [0; 5];
    reader.read_exact(&mut said).unwrap();
    assert_eq!(&said, b"ready");
    assert!(job.terminate());
    reader.read_exact(&mut said).unwrap();
    assert_eq!(&said, b"heard");
}

fn tells_and_waits(with: Connection) -> u64 {
    with.send(&()).unwrap();
    with.recv().unwrap()
}

#[test]
fn cancelling_is_exact() {
    let _watchdog = Watchdog::start("cancelling_is_exact", 60);
    let pool = pool(1);
    let before = pool.apply(pid, ()).unwrap();
    let (here, there) = Connection::pair().unwrap();
    let running = pool.apply_async(tells_and_waits, there).unwrap();
    here.recv::<()>().unwrap(); // it has begun
    let queued = pool.apply_async(sleep_ms, 100).unwrap();
    assert!(queued.cancel());
    assert!(!queued.cancel(), "once");
    assert!(matches!(queued.get(), Err(JobError::Cancelled)));
    assert!(!running.cancel(), "what has begun runs on");
    here.send(&7_u64).unwrap();
    assert_eq!(running.get().unwrap(), 7);
    assert_eq!(pool.apply(pid, ()).unwrap(), before, "and no worker ended for it");
}

#[test]
fn terminating_a_job_ends_its_worker_alone() {
    let _watchdog = Watchdog::start("terminating_a_job_ends_its_worker_alone", 60);
    let pool = pool(2);
    let endless = pool.apply_async(forever, ()).unwrap();
    let other = pool.apply_async(sleep_ms, 200).unwrap();
    assert!(!endless.wait_timeout(Duration::from_millis(20)));
    assert!(endless.terminate());
    assert!(!endless.terminate());
    assert!(matches!(endless.get(), Err(JobError::Terminated)));
    assert_eq!(other.get().unwrap(), 200);
    assert!(eventually(10, || pool.ready_workers() == 2));
}

#[test]
fn a_handle_can_be_polled_waited_for_and_awaited() {
    let _watchdog = Watchdog::start("a_handle_can_be_polled_waited_for_and_awaited", 60);
    let pool = pool(1);
    let mut handle = pool.apply_async(sleep_ms, 50).unwrap();
    assert!(handle.try_get().is_none() && !handle.is_ready());
    assert!(!handle.wait_timeout(Duration::from_millis(1)));
    assert!(handle.wait_timeout(Duration::MAX));
    assert_eq!(handle.try_get().unwrap().unwrap(), 50);
    assert!(handle.try_get().is_none(), "it was taken");
    assert_eq!(block_on(pool.apply_async(sleep_ms, 20).unwrap()).unwrap(), 20);
    fn is_send_and_sync<T: Send + Sync>(_: &T) {}
    is_send_and_sync(&handle);
    is_send_and_sync(&pool);
}

/// An executor of one thread and one future.
fn block_on<F: Future + Unpin>(mut future: F) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = std::sync::Arc::new(Unpark(std::thread::current())).into();
    loop {
        match std::pin::Pin::new(&mut future).poll(&mut std::task::Context::from_waker(&waker)) {
            std::task::Poll::Ready(output) => return output,
            std::task::Poll::Pending => std::thread::park(),
        }
    }
}

#[test]
fn of_two_wakers_the_last_is_woken() {
    struct Says(mpsc::Sender<&'static str>, &'static str);
    impl std::task::Wake for Says {
        fn wake(self: Arc<Self>) {
            self.0.send(self.1).unwrap();
        }
    }
    let _watchdog = Watchdog::start("of_two_wakers_the_last_is_woken", 60);
    let pool = pool(1);
    let (ours, theirs) = Connection::pair().unwrap();
    let mut handle = pool.apply_async(tells_and_waits, theirs).unwrap();
    let (send, receive) = mpsc::channel();
    for name in ["first", "second"] {
        let waker = Arc::new(Says(send.clone(), name)).into();
        assert!(std::pin::Pin::new(&mut handle).poll(&mut std::task::Context::from_waker(&waker)).is_pending());
    }
    ours.send(&5u64).unwrap();
    assert_eq!(receive.recv().unwrap(), "second");
    assert_eq!(handle.get().unwrap(), 5);
}

#[test]
fn a_full_queue_pushes_back_and_gives_the_argument_back() {
    let _watchdog = Watchdog::start("a_full_queue_pushes_back_and_gives_the_argument_back", 60);
    let pool = builder().workers(1).queue_size(2).build().unwrap();
    let (ours, theirs) = Connection::pair().unwrap();
    let running = pool.apply_async(tells_and_waits, theirs).unwrap();
    ours.recv::<()>().unwrap();
    let mut queued: Vec<JobHandle<u64>> = (0..2).map(|n| pool.job(square, n).try_submit().unwrap()).collect();
    let refused = pool.job(square, 77).try_submit().unwrap_err();
    assert!(refused.is_full());
    assert_eq!(refused.into_argument(), 77);
    std::thread::scope(|scope| {
        let blocked = scope.spawn(|| pool.apply_async(square, 5).unwrap().get().unwrap());
        std::thread::sleep(Duration::from_millis(20));
        assert!(!blocked.is_finished());
        assert!(running.terminate());
        assert_eq!(blocked.join().unwrap(), 25);
    });
    assert_eq!(queued.pop().unwrap().get().unwrap(), 1);
    // One that waits for room when the pool closes gets its argument back as well.
    let running: Vec<_> = (0..3).map(|_| pool.apply_async(forever, ()).unwrap()).collect();
    std::thread::scope(|scope| {
        let blocked = scope.spawn(|| pool.apply_async(square, 5).unwrap_err());
        std::thread::sleep(Duration::from_millis(20));
        pool.close();
        let refused = blocked.join().unwrap();
        assert!(matches!(refused.reason(), JobError::PoolClosed), "{refused}");
        assert_eq!(refused.into_argument(), 5);
    });
    pool.terminate();
    assert!(running.into_iter().all(|handle| matches!(handle.get(), Err(JobError::Terminated))));
}

#[test]
fn callbacks_that_have_yet_to_run_push_back() {
    const QUEUE: usize = 4;
    let _watchdog = Watchdog::start("callbacks_that_have_yet_to_run_push_back", 60);
    let pool = builder().workers(1).queue_size(QUEUE).build().unwrap();
    let (ours, theirs) = Connection::pair().unwrap();
    let running = pool.apply_async(tells_and_waits, theirs).unwrap();
    ours.recv::<()>().unwrap();
    // The first callback keeps the pool's thread. Jobs are cancelled as they come, so that none waits for a worker; their callbacks wait all the same.
    let (go_on, told) = mpsc::channel::<()>();
    let first = pool.job(square, 1).on_error(move |_| told.recv().unwrap()).submit().unwrap();
    assert!(first.cancel());
    let called = Arc::new(AtomicUsize::new(0));
    let mut cancelled = 0;
    let refused = loop {
        let called = called.clone();
        let job = pool.job(square, 7).on_error(move |_| {
            called.fetch_add(1, Ordering::Relaxed);
        });
        match job.try_submit() {
            Ok(job) => assert!(job.cancel()),
            Err(refused) => break refused,
        }
        cancelled += 1;
        assert!(cancelled <= 3 * QUEUE, "as many as the queue has room for, and few more");
    };
    assert!(refused.is_full());
    assert!(!pool.job(square, 3).try_submit().unwrap().is_ready(), "one without callbacks is no burden");
    std::thread::scope(|scope| {
        let ((tell, told), pool) = (mpsc::channel(), &pool);
        let blocked = scope.spawn(move || {
            tell.send(std::fs::read_link("/proc/thread-self").unwrap()).unwrap();
            pool.job(square, 5).on_success(|_| {}).submit().unwrap().get().unwrap()
        });
        let thread = told.recv().unwrap();
        let thread = thread.file_name().and_then(|name| name.to_str()?.parse().ok()).unwrap();
        assert!(eventually(20, || state(thread) == Some('S')));
        go_on.send(()).unwrap();
        ours.send(&1_u64).unwrap();
        assert_eq!(blocked.join().unwrap(), 25);
    });
    assert_eq!(running.get().unwrap(), 1);
    pool.join().unwrap();
    assert_eq!(called.load(Ordering::Relaxed), cancelled);
}

#[test]
fn close_lets_jobs_finish_and_drop_does_not() {
    let _watchdog = Watchdog::start("close_lets_jobs_finish_and_drop_does_not", 60);
    let closed = pool(2);
    let handles: Vec<_> = (0..20).map(|_| closed.apply_async(sleep_ms, 5).unwrap()).collect();
    closed.close();
    assert!(matches!(closed.apply(square, 1), Err(JobError::PoolClosed)));
    closed.join().unwrap();
    assert!(handles.iter().all(JobHandle::is_ready));
    assert!(handles.into_iter().all(|handle| handle.get().is_ok()));

    let dropped = pool(2);
    let workers: Vec<_> = dropped.imap_unordered(pid, [(), (), ()]).map(Result::unwrap).collect();
    let handles: Vec<_> = (0..20).map(|_| dropped.apply_async(forever, ()).unwrap()).collect();
    let begin = Instant::now();
    drop(dropped);
    assert!(begin.elapsed() < Duration::from_secs(20));
    assert!(handles.into_iter().all(|handle| matches!(handle.get(), Err(JobError::Terminated))));
    assert!(workers.into_iter().all(|pid| !is_alive(pid)));
}

#[test]
fn a_closed_pool_still_replaces_workers_until_its_jobs_have_ended() {
    let _watchdog = Watchdog::start("a_closed_pool_still_replaces_workers_until_its_jobs_have_ended", 60);
    let pool = pool(2);
    let handles: Vec<_> = (0..10).map(|_| pool.apply_async(exit, 1).unwrap()).collect();
    let last = pool.apply_async(square, 6).unwrap();
    pool.close();
    assert!(handles.into_iter().all(|handle| matches!(handle.get(), Err(JobError::WorkerLost(_)))));
    assert_eq!(last.get().unwrap(), 36);
    pool.join().unwrap();
}

fn read_all((mut file, reply): (Fd<File>, Connection)) -> Fd<File> {
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    reply.send_bytes(text.as_bytes()).unwrap();
    file
}

#[test]
fn descriptors_travel_with_a_job_and_its_value() {
    let _watchdog = Watchdog::start("descriptors_travel_with_a_job_and_its_value", 60);
    let pool = pool(1);
    let (ours, theirs) = Connection::pair().unwrap();
    let path = std::env::temp_dir().join(format!("billiard-pool-{}", std::process::id()));
    std::fs::write(&path, "through the pool").unwrap();
    let file = File::open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let back = pool.apply(read_all, (file.into(), theirs)).unwrap();
    assert_eq!(ours.recv_bytes().unwrap(), b"through the pool");
    assert_eq!(back.metadata().unwrap().len(), 16);
    assert!(ours.recv_bytes().is_err(), "nobody keeps the connection that the job dropped");
}

fn reverse(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.reverse();
    bytes
}

#[test]
fn large_arguments_and_values_travel_both_ways_at_once() {
    let _watchdog = Watchdog::start("large_arguments_and_values_travel_both_ways_at_once", 120);
    let pool = pool(2);
    let inputs: Vec<Vec<u8>> = [0, 1, 65_535, 262_144, 3_000_000].map(|len| (0..len).map(|n| n as u8).collect()).into();
    for (output, mut input) in pool.map(reverse, inputs.clone()).unwrap().into_iter().zip(inputs) {
        input.reverse();
        assert!(output == input);
    }
}

#[test]
fn what_cannot_be_is_refused_before_anything_starts() {
    let _watchdog = Watchdog::start("what_cannot_be_is_refused_before_anything_starts", 60);
    for builder in [builder().workers(0), builder().queue_size(0)] {
        assert_eq!(builder.build().unwrap_err().kind(), ErrorKind::Configuration);
    }
}

struct Picky(bool);

impl serde::Serialize for Picky {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0 { Err(serde::ser::Error::custom("not this one")) } else { serializer.serialize_u8(7) }
    }
}

impl<'de> serde::Deserialize<'de> for Picky {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u8::deserialize(deserializer)? {
            7 => panic!("decoding panics"),
            _ => Ok(Self(false)),
        }
    }
}

fn gives(picky: bool) -> Picky {
    Picky(picky)
}

fn takes(_: Picky) {}

#[test]
fn codec_failures_are_typed_and_touch_their_job_alone() {
    let _watchdog = Watchdog::start("codec_failures_are_typed_and_touch_their_job_alone", 60);
    let pool = pool(1);
    let before = pool.apply(pid, ()).unwrap();
    let refused = pool.apply_async(takes, Picky(true)).unwrap_err();
    assert!(matches!(refused.reason(), JobError::ArgumentEncode(why) if why.type_name().ends_with("Picky")));
    assert!(refused.into_argument().0);
    let error = pool.apply(gives, true).err().unwrap();
    assert!(matches!(&error, JobError::ResultEncode(why) if why.message().contains("Picky")), "{error}");
    let error = pool.apply(gives, false).err().unwrap();
    assert!(matches!(&error, JobError::ResultDecode(why) if why.message().contains("decoding panics")), "{error}");
    let error = pool.apply(takes, Picky(false)).unwrap_err();
    assert!(matches!(&error, JobError::Panicked(panic) if panic.message() == "decoding panics"), "{error}");
    assert_eq!(pool.apply(pid, ()).unwrap(), before);
}

fn hangs_up(_: ()) {
    misdeeds::close_all_descriptors();
    std::thread::sleep(Duration::from_secs(1000));
}

#[test]
fn a_worker_that_hangs_up_is_ended_and_its_job_lost() {
    let _watchdog = Watchdog::start("a_worker_that_hangs_up_is_ended_and_its_job_lost", 60);
    let pool = pool(1);
    assert!(matches!(pool.apply(hangs_up, ()), Err(JobError::WorkerLost(_))));
    assert_eq!(pool.apply(square, 3).unwrap(), 9);
}

fn nested(n: u64) -> Result<Vec<u64>, RemoteError> {
    let pool = builder().workers(1).build()?;
    Ok(pool.map(square, 0..n)?)
}

#[test]
fn a_job_may_have_a_pool_of_its_own() {
    let _watchdog = Watchdog::start("a_job_may_have_a_pool_of_its_own", 60);
    assert_eq!(pool(1).apply(nested, 3).unwrap().unwrap(), [0, 1, 4]);
}
