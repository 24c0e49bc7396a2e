//! This project's pool.

use std::{
    error::Error,
    thread,
    time::{Duration, Instant},
};

use billiard::{ByteBuf, Pool, PoolBuilder};
use billiard_benches::{
    frame::{self, Answer, Request},
    place::Places,
    sleeps, timing,
};

/// Each case, with a pool of these options. The number of workers is the case's unless it is given.
pub(crate) fn run(request: &Request, builder: PoolBuilder, workers: Option<usize>) -> Result<Answer, Box<dyn Error>> {
    let builder = builder.workers(workers.map_or_else(|| request.option("workers"), Ok)?);
    match request.case.as_str() {
        "pool/tiny_oneway" => timing::throughput(request, "jobs/s", tiny(request.option("window")?, &ready(builder)?)),
        "pool/sleeps" => sleeps::per_thousand(request, tiny(request.option("window")?, &ready(builder)?)),
        "pool/workers_256" => timing::nanoseconds_each(request, tiny(request.option("window")?, &ready(builder)?)),
        "pool/latency_p50" => timing::percentile_time(request, 50, round_trip(&apart(builder)?)),
        "pool/latency_p99" => timing::percentile_time(request, 99, round_trip(&apart(builder)?)),
        "pool/latency_rested" => {
            let rest = Duration::from_millis(request.option("rest-ms")?);
            let pool = apart(builder)?;
            let mut once = round_trip(&pool);
            timing::median_time(request, || {
                thread::sleep(rest);
                once()
            })
        }
        "pool/echo_4kib" | "pool/echo_1mib" => {
            timing::median_time(request, echo(request.option("bytes")?, &ready(builder)?))
        }
        "pool/start_to_first_result" => timing::first_time(request, || {
            let begun = Instant::now();
            let pool = builder.build()?;
            let sum = pool.apply(increment, 0)?;
            Ok((begun.elapsed(), sum))
        }),
        _ => Err(frame::unknown_case()),
    }
}

/// A job that does next to nothing.
fn increment(x: u64) -> u64 {
    x + 1
}

/// A job that gives back what it gets.
fn give_back(bytes: ByteBuf) -> ByteBuf {
    bytes
}

/// One job that carries so many bytes there and back; adds one if they came back whole.
fn echo(len: usize, pool: &Pool) -> impl FnMut() -> Result<(Duration, u64), Box<dyn Error>> {
    let mut bytes = ByteBuf::from(vec![7; len]);
    move || {
        let begun = Instant::now();
        bytes = pool.apply(give_back, std::mem::take(&mut bytes))?;
        let elapsed = begun.elapsed();
        Ok((elapsed, u64::from(bytes.len() == len && bytes.iter().all(|&byte| byte == 7))))
    }
}

/// A job that keeps its worker on a processor of its number; whether it could.
fn stay_on(number: usize) -> bool {
    Places::find().and_then(|places| places.stay_on(number)).is_ok()
}

/// A pool whose workers are all there.
fn ready(builder: PoolBuilder) -> Result<Pool, Box<dyn Error>> {
    let pool = builder.build()?;
    while pool.ready_workers() < pool.workers() {
        thread::sleep(Duration::from_millis(1));
    }
    Ok(pool)
}

/// A pool of one worker, which stays on another processor than the caller.
fn apart(builder: PoolBuilder) -> Result<Pool, Box<dyn Error>> {
    let pool = ready(builder)?;
    if !pool.apply(stay_on, 1)? || !stay_on(0) {
        return Err("no processor to stay on".into());
    }
    Ok(pool)
}

/// Does tiny jobs, each submitted by itself.
fn tiny(window: usize, pool: &Pool) -> impl FnMut(u64) -> Result<u64, billiard::Error> {
    move |jobs| {
        timing::windowed::<_, billiard::Error>(
            jobs,
            window,
            |job| Ok(pool.apply_async(increment, job)?),
            |handle| Ok(handle.get()?),
        )
    }
}

/// One job, nothing else in flight; adds one if its result is right.
fn round_trip(pool: &Pool) -> impl FnMut() -> Result<(Duration, u64), Box<dyn Error>> {
    let mut job = 0;
    move || {
        job += 1;
        let begun = Instant::now();
        let result = pool.apply(increment, job)?;
        Ok((begun.elapsed(), u64::from(result == job + 1)))
    }
}
