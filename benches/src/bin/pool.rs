//! The group `pool`: jobs through a pool of processes.

use std::{error::Error, process::ExitCode};

use billiard::Pool;
use billiard_benches::{
    frame::{self, Answer, Request, Subject},
    timing,
};

fn main() -> ExitCode {
    billiard::init();
    frame::answer(&[Subject { name: "billiard-rs", version: env!("CARGO_PKG_VERSION"), run: ours }])
}

/// This project's pool.
fn ours(request: &Request) -> Result<Answer, Box<dyn Error>> {
    match request.case.as_str() {
        "pool/tiny_oneway" => tiny_oneway(request),
        _ => Err(frame::unknown_case()),
    }
}

/// A job that does next to nothing.
fn increment(x: u64) -> u64 {
    x + 1
}

/// Tiny jobs, each submitted by itself.
fn tiny_oneway(request: &Request) -> Result<Answer, Box<dyn Error>> {
    let window = request.option("window")?;
    let pool = Pool::builder().workers(request.option("workers")?).build()?;
    timing::throughput(request, "jobs/s", |jobs| {
        timing::windowed::<_, billiard::Error>(
            jobs,
            window,
            |job| Ok(pool.apply_async(increment, job)?),
            |handle| Ok(handle.get()?),
        )
    })
}
