//! Hands jobs in one by one while everybody sleeps, and waits for each. Nobody is killed or stopped, so that a worker, a caller and the supervisor are woken by who
//! has something for them; a plan in the environment ends the program where the looks from time to time find what that has missed.
//!
//! It is of use only in a build with `--cfg billiard_fault`.

use std::{sync::mpsc, time::Duration};

use billiard::Pool;
use billiard_test_support::{Watchdog, eventually, pool_workers, state};

fn nap(n: u64) -> u64 {
    std::thread::sleep(Duration::from_millis(2)); // longer than anybody looks for it before he sleeps
    n
}

fn main() {
    billiard::init();
    let _watchdog = Watchdog::start("child-woken", 90);
    let pool = Pool::builder().workers(2).build().expect("a pool");
    assert!(eventually(20, || pool.ready_workers() == 2));
    let workers = pool_workers();
    assert_eq!(workers.len(), 2);
    let all_sleep = || eventually(20, || workers.iter().all(|&pid| state(pid) == Some('S')));
    for n in 0..100 {
        assert!(all_sleep());
        assert_eq!(pool.apply(nap, n).expect("a value"), n);
        assert!(all_sleep());
        let (tell, told) = mpsc::channel();
        let job = pool.job(nap, n).on_success(move |&value| tell.send(value).expect("somebody waits"));
        let job = job.submit().expect("accepted");
        assert_eq!(told.recv(), Ok(n));
        assert_eq!(job.get().expect("a value"), n);
    }
    pool.join().expect("its end");
}
