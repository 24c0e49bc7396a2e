//! Random jobs on a pool while its workers are killed and stopped at random: every job has one outcome, the right
//! one, and afterwards the pool is whole; first with a job table, then without. `chaos --seconds N --seed S`; prints what it did.

use std::{
    collections::BTreeMap,
    process::{self, ExitCode},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use billiard::{Isolation, JobError, Pool};
use billiard_test_support::{Census, Random, Watchdog, eventually, misdeeds, pool_workers};
use serde::{Deserialize, Serialize};

const WORKERS: usize = 4;
const LIMIT: Duration = Duration::from_millis(200);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum Deed {
    Echo,
    Sleep,
    Panic,
    Abort,
    Segfault,
    Exit,
    Hang,
    HangUp,
    IgnoreTermAndHang,
    Grandchild,
}

const DEEDS: [Deed; 10] = [
    Deed::Echo,
    Deed::Sleep,
    Deed::Panic,
    Deed::Abort,
    Deed::Segfault,
    Deed::Exit,
    Deed::Hang,
    Deed::HangUp,
    Deed::IgnoreTermAndHang,
    Deed::Grandchild,
];

fn run((deed, size): (Deed, usize)) -> Vec<u8> {
    let hang = || -> ! {
        loop {
            std::hint::spin_loop();
        }
    };
    match deed {
        Deed::Echo => {}
        Deed::Sleep => thread::sleep(Duration::from_micros(size as u64)),
        Deed::Panic => panic!("as planned"),
        Deed::Abort => process::abort(),
        Deed::Segfault => drop(misdeeds::segfault()),
        Deed::Exit => process::exit(7),
        Deed::Hang => hang(),
        Deed::HangUp => {
            misdeeds::close_all_descriptors();
            hang()
        }
        Deed::IgnoreTermAndHang => {
            misdeeds::ignore_sigterm();
            hang()
        }
        Deed::Grandchild => drop(process::Command::new("sleep").arg("1000").spawn()),
    }
    vec![size as u8; size]
}

/// Whether a job of this kind may end so, while workers are killed and stopped from outside.
fn is_right(deed: Deed, size: usize, outcome: &Result<Vec<u8>, JobError>) -> bool {
    let ends_well = matches!(deed, Deed::Echo | Deed::Sleep | Deed::Grandchild);
    match outcome {
        Ok(bytes) => ends_well && *bytes == vec![size as u8; size],
        Err(JobError::Panicked(panic)) => deed == Deed::Panic && panic.message() == "as planned",
        Err(JobError::WorkerLost(lost)) => match (deed, lost.status().signal(), lost.status().code()) {
            (_, Some(libc::SIGKILL), _) => true, // from outside
            (Deed::Abort, Some(libc::SIGABRT), _) | (Deed::Segfault, Some(libc::SIGSEGV), _) => true,
            (Deed::Exit, _, Some(7)) => true,
            (Deed::HangUp, ..) => true,
            _ => false,
        },
        // A worker that is stopped from outside runs into the limit of whatever it does.
        Err(JobError::TimeLimitExceeded(limit)) => *limit == LIMIT,
        Err(_) => false,
    }
}

fn main() -> ExitCode {
    billiard::init();
    let (seconds, mut random) = match arguments() {
        Ok(arguments) => arguments,
        Err(why) => {
            eprintln!("chaos: {why}; usage: chaos [--seconds N] [--seed S]");
            return ExitCode::from(2);
        }
    };
    let _watchdog = Watchdog::start("chaos", seconds + 100);
    // What a first pool leaves, which is the helper process, is what this one may leave.
    drop(Pool::builder().workers(1).build().expect("a pool"));
    let mut before = Census::take();
    assert!(eventually(20, || {
        before = Census::take();
        before.descendants == 1
    }));
    let mut is_good = true;
    for isolation in [Isolation::Shared, Isolation::Strict] {
        is_good &= run_through(isolation, seconds as f64 / 2.0, &mut random, &before);
    }
    if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Jobs, kills and stops for so long; whether all was as it has to be.
fn run_through(isolation: Isolation, seconds: f64, random: &mut Random, before: &Census) -> bool {
    let pool = Pool::builder().workers(WORKERS).timeout(LIMIT).isolation(isolation).build().expect("a pool");
    assert!(eventually(20, || pool.ready_workers() == WORKERS));

    let over = AtomicBool::new(false);
    let mut hunter = random.fork();
    let (mut outcomes, mut wrong, mut faults) = (BTreeMap::new(), 0u64, [0u64; 2]);
    thread::scope(|scope| {
        let hunt = scope.spawn(|| hunt(&mut hunter, &over));
        let end = Instant::now() + Duration::from_secs_f64(seconds);
        while Instant::now() < end {
            let jobs: Vec<_> = (0..64)
                .map(|_| {
                    // Mostly jobs that end well, so that there is something to lose.
                    let deed = if random.below(3) > 0 { Deed::Echo } else { DEEDS[random.below(10) as usize] };
                    let largest = [10, 1000, 300_000][random.below(3) as usize];
                    let size = random.below(largest) as usize;
                    (deed, size, pool.apply_async(run, (deed, size)).expect("accepted"))
                })
                .collect();
            for (deed, size, handle) in jobs {
                let outcome = handle.get();
                if !is_right(deed, size, &outcome) {
                    eprintln!("wrong outcome of {deed:?}: {:?}", outcome.as_ref().map(Vec::len));
                    wrong += 1;
                }
                *outcomes.entry((deed, name(&outcome))).or_insert(0u64) += 1;
            }
        }
        over.store(true, Ordering::Relaxed);
        faults = hunt.join().expect("the hunter");
    });

    let whole = eventually(20, || pool.ready_workers() == WORKERS);
    let works = pool.apply(run, (Deed::Echo, 3)).is_ok_and(|bytes| bytes == [3, 3, 3]);
    // While a worker lives, so may what its jobs have started; with the pool all of it ends.
    drop(pool);
    let same = eventually(20, || Census::take() == *before);
    let after = Census::take();
    for ((deed, outcome), count) in &outcomes {
        println!("{deed:?} -> {outcome}: {count}");
    }
    let total: u64 = outcomes.values().sum();
    println!(
        "{isolation:?}: {total} jobs in {seconds} s, {} SIGKILL, {} SIGSTOP, {wrong} wrong outcomes",
        faults[0], faults[1]
    );
    println!("pool whole: {whole}, works: {works}, counts as before: {same} ({before:?}, {after:?})");
    wrong == 0 && whole && works && same && total > 0
}

fn name(outcome: &Result<Vec<u8>, JobError>) -> &'static str {
    match outcome {
        Ok(_) => "value",
        Err(JobError::Panicked(_)) => "panicked",
        Err(JobError::WorkerLost(_)) => "lost",
        Err(JobError::TimeLimitExceeded(_)) => "limit",
        Err(_) => "other",
    }
}

/// Kills and stops workers at random; how many of each.
fn hunt(random: &mut Random, over: &AtomicBool) -> [u64; 2] {
    let mut faults = [0, 0];
    let mut stopped = Vec::new();
    while !over.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_micros(random.below(20_000)));
        let workers = pool_workers();
        if workers.is_empty() {
            continue;
        }
        let pid = workers[random.below(workers.len() as u64) as usize] as i32;
        let signal = if random.below(4) == 0 { libc::SIGSTOP } else { libc::SIGKILL };
        faults[usize::from(signal == libc::SIGSTOP)] += 1;
        // SAFETY: a signal to a process that descends from this one.
        unsafe { libc::kill(pid, signal) };
        if signal == libc::SIGSTOP {
            stopped.push(pid);
        }
        if random.below(2) == 0 && !stopped.is_empty() {
            // SAFETY: CONT does nothing to whoever is not stopped.
            unsafe { libc::kill(stopped.swap_remove(random.below(stopped.len() as u64) as usize), libc::SIGCONT) };
        }
    }
    for pid in stopped {
        // SAFETY: as above.
        unsafe { libc::kill(pid, libc::SIGCONT) };
    }
    faults
}

fn arguments() -> Result<(u64, Random), lexopt::Error> {
    use lexopt::{Arg::Long, ValueExt};

    let (mut seconds, mut seed) = (10, None);
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("seconds") => seconds = parser.value()?.parse()?,
            Long("seed") => seed = Some(parser.value()?.parse()?),
            other => return Err(other.unexpected()),
        }
    }
    Ok((seconds, seed.map_or_else(|| Random::from_env("chaos"), |seed| Random::with_seed("chaos", seed))))
}
