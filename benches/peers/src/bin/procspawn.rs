//! The crate procspawn, by its own pool.

use std::{error::Error, process::ExitCode, time::Instant};

use billiard_peers::{
    frame::{self, Answer, Request, Subject},
    sleeps, timing, version_of,
};
use procspawn::{Pool, SpawnError};
use rustix::process::{Resource, getrlimit, setrlimit};

fn main() -> ExitCode {
    procspawn::init();
    frame::answer(&[Subject { name: "procspawn", version: version_of("procspawn"), run }])
}

/// The cases that it has.
fn run(request: &Request) -> Result<Answer, Box<dyn Error>> {
    let workers = request.option("workers")?;
    match request.case.as_str() {
        "pool/tiny_oneway" | "pool/sleeps" => {
            open_as_many_files_as_allowed()?;
            let pool = Pool::new(workers)?;
            let run = tiny(request.option("window")?, &pool);
            match request.case.as_str() {
                "pool/sleeps" => sleeps::per_thousand(request, run),
                _ => timing::throughput(request, "jobs/s", run),
            }
        }
        "pool/start_to_first_result" => timing::first_time(request, || {
            let begun = Instant::now();
            let pool = Pool::new(workers)?;
            let sum = pool.spawn(0, increment).join()?;
            Ok((begun.elapsed(), sum))
        }),
        _ => Err(frame::unknown_case()),
    }
}

/// A job that does next to nothing.
fn increment(x: u64) -> u64 {
    x + 1
}

/// Does tiny jobs, each submitted by itself. Submitting has one way, `Pool::spawn`; its handles are awaited in
/// order, as ours are.
fn tiny(window: usize, pool: &Pool) -> impl FnMut(u64) -> Result<u64, SpawnError> {
    move |jobs| timing::windowed(jobs, window, |job| Ok(pool.spawn(job, increment)), |handle| handle.join())
}

/// Every job in flight holds a few descriptors, and the usual soft limit of 1,024 is soon reached.
fn open_as_many_files_as_allowed() -> rustix::io::Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit)
}
