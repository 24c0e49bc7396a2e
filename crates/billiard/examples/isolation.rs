//! Whatever a job does to its process, only that job fails, and its error says why.

use std::time::Duration;

use billiard::{JobError, Pool};

#[derive(Clone, Copy, Debug, serde::Serialize, serde::Deserialize)]
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
        // SAFETY: there is none. The worker dies here, and nobody else does: that is the point.
        Trouble::Segfault => unsafe { std::ptr::null::<u32>().read_volatile() },
        Trouble::EndlessLoop => loop {
            std::hint::spin_loop();
        },
    }
}

fn main() -> Result<(), billiard::Error> {
    use Trouble::{Abort, EndlessLoop, None, Panic, Segfault};

    billiard::init();
    let pool = Pool::builder().workers(2).timeout(Duration::from_secs(1)).build()?;

    let jobs = [Panic, None, Abort, None, Segfault, None, EndlessLoop, None];
    let handles: Vec<_> = jobs.iter().map(|&trouble| pool.apply_async(run, trouble)).collect::<Result<_, _>>()?;

    for (trouble, handle) in jobs.iter().zip(handles) {
        match handle.get() {
            Ok(n) => println!("{trouble:?}: {n}"),
            Err(JobError::Panicked(panic)) => println!("{trouble:?}: {panic}"), // message, file, line
            Err(JobError::WorkerLost(lost)) => println!("{trouble:?}: {lost}"), // pid, signal or exit code
            Err(JobError::TimeLimitExceeded(limit)) => println!("{trouble:?}: over {limit:?}"),
            Err(other) => println!("{trouble:?}: {other}"),
        }
    }
    Ok(()) // dropping the pool terminates it
}
