//! This process is forked by hand while it has children, starts under way, connections, a pool and jobs: in the copy all of them refuse, and
//! dropping them there takes nothing from this process; what the copy makes for itself works, and ends with it.

use std::{
    io::{Read, Write},
    panic::{self, AssertUnwindSafe},
    thread,
    time::Duration,
};

use billiard_connection::{Connection, Error as ConnectionError};
use billiard_context::{ChildError, Context, Error, Process, Signal, StartMethod, Starting, active_children};
use billiard_pool::{ErrorKind, JobError, JobHandle, Pool};
use billiard_test_support::{descendants, end_after, eventually, is_alive, state};

const ALL: [StartMethod; 3] = [StartMethod::Forkserver, StartMethod::Spawn, StartMethod::Fork];

fn double(n: u64) -> u64 {
    2 * n
}

/// Gives back what it gets, until there is nothing more to get; then says how often it did.
fn echoes(connection: Connection) -> u64 {
    let mut count = 0;
    while let Ok(message) = connection.recv_bytes() {
        connection.send_bytes(&message).expect("somebody listens");
        count += 1;
    }
    count
}

fn waits(_: u64) -> u64 {
    loop {
        thread::park();
    }
}

/// A copy of this process, made by hand.
struct Copy(libc::pid_t);

impl Copy {
    /// Runs `work` in a copy, with the copy's own `handles`, and ends the copy; the others are given back here.
    fn run<H>(handles: H, work: impl FnOnce(H)) -> (H, Self) {
        std::io::stdout().flush().expect("somebody listens");
        // SAFETY: this program has one thread, or others that sleep: they hold nothing.
        match unsafe { libc::fork() } {
            0 => {
                end_after("a copy of child-copies", 60);
                let worked = panic::catch_unwind(AssertUnwindSafe(|| work(handles)));
                // SAFETY: always.
                unsafe { libc::_exit(if worked.is_ok() { 0 } else { 1 }) }
            }
            pid => {
                assert!(pid > 0, "it could not be forked");
                (handles, Self(pid))
            }
        }
    }

    /// Waits for its end; its wait status.
    fn end(self) -> i32 {
        let mut status = 0;
        // SAFETY: the place is valid, and nobody else waits for it.
        assert_eq!(unsafe { libc::waitpid(self.0, &mut status, 0) }, self.0);
        status
    }
}

fn is_forked<T>(result: Result<T, Error>) -> bool {
    matches!(result, Err(Error::Forked(_)))
}

/// Of a child that runs.
fn refuses(mut child: Process<u64>) {
    let time = Duration::from_millis(1);
    assert!(is_forked(child.try_join()) && is_forked(child.join()) && is_forked(child.join_timeout(time)));
    assert!(is_forked(child.kill()) && is_forked(child.terminate()) && is_forked(child.interrupt()));
    assert!(is_forked(child.send_signal(Signal::USR1)) && is_forked(child.terminate_within(time)));
    match child.take_result() {
        Err(ChildError::Wait(error)) => assert!(matches!(*error, Error::Forked(_)), "{error}"),
        other => panic!("{other:?}"),
    }
    assert!(!child.name().is_empty() && format!("{child:?}").contains("pid"));
}

fn refuses_to_become(mut starting: Starting<u64>) {
    let polled = starting.poll().map(drop);
    assert!(is_forked(polled), "a start under way: {:?}", starting.poll().map(drop));
    assert!(is_forked(starting.wait()), "waiting for a start");
}

fn works(connection: &Connection, word: &[u8]) {
    connection.send_bytes(word).expect("it can be sent");
    assert_eq!(connection.recv_bytes().expect("it is answered"), word);
}

/// All that a process can make anew: children by each method, while it has one thread; a pool.
fn makes_its_own() {
    assert!(active_children().is_empty());
    for method in ALL {
        let mut child = Context::with_method(method).process(double, 21).start().expect("a child of the copy");
        assert_eq!(child.take_result().expect("a value"), 42, "{method}");
    }
    let (ours, theirs) = Connection::pair().expect("a pair");
    let mut child = Context::forkserver().process(echoes, theirs).start().expect("a child of the copy");
    works(&ours, b"of its own");
    drop(ours);
    assert_eq!(child.take_result().expect("a value"), 1);
    makes_a_pool();
}

fn makes_a_pool() {
    let pool = Pool::builder().workers(2).build().expect("a pool of the copy");
    assert_eq!(pool.map(double, 0..50).expect("values"), (0..50).map(double).collect::<Vec<_>>());
    pool.join().expect("it ends in order");
}

type Handles = (Vec<(Process<u64>, Connection)>, Vec<Starting<u64>>, Vec<Process<u64>>);

fn children() -> Handles {
    let start = |method: StartMethod| {
        let (ours, theirs) = Connection::pair().expect("a pair");
        let child = Context::with_method(method).process(echoes, theirs).start().expect("a child");
        works(&ours, b"before");
        (child, ours)
    };
    let under_way = |method| Context::with_method(method).process(double, 4).begin().expect("a start");
    let ended = |method| {
        let mut child = Context::with_method(method).process(double, 5).start().expect("a child");
        child.join().expect("it ends");
        child
    };
    (ALL.map(start).into(), ALL.map(under_way).into(), ALL.map(ended).into())
}

fn children_refuse(handles: Handles) {
    assert!(active_children().is_empty(), "they are another process's");
    let (running, under_way, ended) = handles;
    for (child, connection) in running {
        let error = connection.send_bytes(b"from the copy").unwrap_err();
        assert!(matches!(error, ConnectionError::Forked(_)), "{error}");
        assert!(matches!(connection.recv_bytes(), Err(ConnectionError::Forked(_))));
        refuses(child); // and is dropped
    }
    ended.into_iter().for_each(refuses);
    under_way.into_iter().for_each(refuses_to_become);
}

/// And what they are in the process that has started them.
fn children_go_on((running, under_way, ended): Handles) {
    let active: Vec<u32> = active_children().iter().map(|child| child.pid()).collect();
    assert!(running.iter().all(|(child, _)| active.contains(&child.pid())), "{active:?}");
    for (mut child, connection) in running {
        assert!(child.is_alive());
        works(&connection, b"after");
        // Children of `fork` have a copy of it, which keeps it open.
        connection.shutdown().expect("it can be ended");
        assert_eq!(child.take_result().expect("a value"), 2);
    }
    for starting in under_way {
        assert_eq!(starting.wait().expect("a child").take_result().expect("a value"), 8);
    }
    for mut child in ended {
        assert_eq!(child.take_result().expect("a value"), 10);
    }
}

fn pool_refuses((pool, waiting, done): (Pool, JobHandle<u64>, JobHandle<u64>)) {
    let refused = pool.apply_async(double, 3).unwrap_err();
    assert!(matches!(refused.reason(), JobError::Forked(_)), "{refused}");
    assert!(matches!(pool.apply(double, 3), Err(JobError::Forked(_))));
    assert!(matches!(pool.map(double, 0..3), Err(JobError::Forked(_))));
    assert!(!done.is_ready() && !done.cancel() && !done.terminate() && !done.wait_timeout(Duration::from_secs(1)));
    assert!(matches!(done.get(), Err(JobError::Forked(_))));
    assert!(!waiting.cancel() && !waiting.terminate());
    drop(waiting);
    pool.close();
    pool.terminate();
    assert_eq!(pool.join().unwrap_err().kind(), ErrorKind::Forked);
}

/// A copy has children and a pool of its own when it ends, by itself or by SIGKILL.
fn a_copy_leaves_nobody(killed: bool) {
    let (mut listen, mut say) = std::io::pipe().expect("a pipe");
    let ((), copy) = Copy::run((), |()| {
        let _waiting = ALL.map(|method| Context::with_method(method).process(waits, 0).start().expect("a child"));
        let pool = Pool::builder().workers(2).build().expect("a pool");
        assert_eq!(pool.apply(double, 3).expect("a value"), 6);
        let _job = pool.apply_async(waits, 0).expect("accepted");
        say.write_all(b"!").expect("somebody listens");
        if killed {
            waits(0);
        }
        // It ends without a destructor.
        // SAFETY: always.
        eventually(20, || descendants(std::process::id()).len() >= 6).then(|| unsafe { libc::_exit(0) });
    });
    listen.read_exact(&mut [0]).expect("it says that it has them");
    let pid = copy.0.unsigned_abs();
    let mut family = Vec::new();
    // Its guardian, three children, two workers.
    let all = || {
        family = descendants(pid);
        family.len() >= 6 || state(pid) == Some('Z')
    };
    assert!(eventually(20, all), "{:?}", descendants(pid));
    if killed {
        // SAFETY: a signal to a child of this process that was not waited for.
        unsafe { libc::kill(copy.0, libc::SIGKILL) };
    }
    assert_eq!(copy.end(), if killed { libc::SIGKILL } else { 0 });
    assert!(eventually(20, || !family.iter().any(|&pid| is_alive(pid))), "somebody of {family:?} is left");
    assert!(!killed || family.len() >= 6);
}

fn main() {
    billiard_context::init();
    end_after("child-copies", 100);

    let (handles, copy) = Copy::run(children(), |handles| {
        children_refuse(handles);
        makes_its_own();
    });
    assert_eq!(copy.end(), 0, "what the copy has seen");
    children_go_on(handles);
    println!("children");

    // A child of a context is a copy too, in which a start under way has one owner as well.
    let under_way: Vec<_> = ALL.iter().map(|&method| Context::with_method(method).process(double, 6).begin()).collect();
    let mut under_way: Vec<_> = under_way.into_iter().map(|starting| starting.expect("a start")).collect();
    // SAFETY: there is one thread, and what is borrowed is this process's own memory.
    let builder = unsafe {
        billiard_context::fork_unchecked(|| {
            let polled = under_way.iter_mut().map(|starting| starting.poll().map(drop));
            polled.filter(|polled| !matches!(polled, Err(Error::Forked(_)))).count()
        })
    };
    let mut child = builder;
    child = child.print_panic(true);
    let taken = child.start().expect("a child").take_result().expect("a value");
    assert_eq!(taken, 0, "starts that a child of `fork` could go on with");
    for starting in under_way {
        assert_eq!(starting.wait().expect("a child").take_result().expect("a value"), 12);
    }
    println!("starts under way");

    a_copy_leaves_nobody(false);
    a_copy_leaves_nobody(true);
    println!("what copies leave");

    // From here on this program has a second thread, the pool's, which sleeps while it is forked.
    let pool = Pool::builder().workers(2).build().expect("a pool");
    assert!(eventually(20, || pool.ready_workers() == 2));
    let (ours, theirs) = Connection::pair().expect("a pair");
    let waiting = pool.apply_async(echoes, theirs).expect("accepted");
    works(&ours, b"before");
    let done = pool.apply_async(double, 8).expect("accepted");
    done.wait();
    let (handles, copy) = Copy::run((pool, waiting, done), |handles| {
        pool_refuses(handles);
        makes_a_pool();
    });
    assert_eq!(copy.end(), 0, "what the copy has seen");
    let (pool, waiting, done) = handles;
    works(&ours, b"after");
    drop(ours);
    assert_eq!(waiting.get().expect("a value"), 2);
    assert_eq!(done.get().expect("a value"), 16);
    assert_eq!(pool.map(double, 0..50).expect("values").len(), 50);
    pool.join().expect("it ends in order");
    println!("pools");
}
