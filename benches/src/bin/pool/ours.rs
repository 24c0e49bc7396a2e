//! This project's pool.

use std::{
    error::Error,
    thread,
    time::{Duration, Instant},
};

use billiard::{ByteBuf, Pool, PoolBuilder, shm::SharedBuffer};
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
        "pool/tiny_map" => timing::throughput(request, "items/s", map_numbers(&ready(builder)?)),
        "pool/tiny_map_struct" => timing::throughput(request, "items/s", map_structs(&ready(builder)?)),
        case if case.starts_with("pool/echo_") && case.ends_with("_in_flight") => {
            let (bytes, window) = (request.option("bytes")?, request.option("window")?);
            timing::throughput_after(timing::WARM_UP_EACH, request, "echoes/s", echoes(bytes, window, &ready(builder)?))
        }
        case if case.starts_with("pool/echo_") => {
            timing::median_time(request, echo(request.option("bytes")?, &ready(builder)?))
        }
        case if case.starts_with("pool/shared_buffer_") => {
            timing::median_time(request, hand_over(request.option("bytes")?, &ready(builder)?))
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

/// The same with a value that has a part of its own on the heap.
fn increment_second((name, x): (String, u32)) -> (String, u32) {
    (name, x + 1)
}

/// Maps numbers, in chunks of the usual size.
fn map_numbers(pool: &Pool) -> impl FnMut(u64) -> Result<u64, billiard::Error> {
    move |items| Ok(pool.map(increment, 0..items)?.into_iter().fold(0, u64::wrapping_add))
}

/// Maps values of several parts, likewise.
fn map_structs(pool: &Pool) -> impl FnMut(u64) -> Result<u64, billiard::Error> {
    move |items| {
        let values = pool.map(increment_second, (0..items as u32).map(|x| (String::from("billiard"), x)))?;
        Ok(values.into_iter().fold(0, |sum, (_, x)| sum.wrapping_add(u64::from(x))))
    }
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

/// A job that gives back the memory that it gets.
fn hand_back(buffer: SharedBuffer<u8>) -> SharedBuffer<u8> {
    buffer
}

/// One job to which shared memory goes, and comes back; adds one if it did. What goes wrong takes it along.
fn hand_over(len: usize, pool: &Pool) -> impl FnMut() -> Result<(Duration, u64), Box<dyn Error>> {
    let mut held = None;
    move || {
        let buffer = match held.take() {
            Some(buffer) => buffer,
            None => SharedBuffer::from_slice(&vec![7; len])?,
        };
        let begun = Instant::now();
        let buffer = pool.apply(hand_back, buffer)?;
        let elapsed = begun.elapsed();
        let right = u64::from(buffer.len() == len && buffer.as_slice().last() == Some(&7));
        held = Some(buffer);
        Ok((elapsed, right))
    }
}

/// Several of them at a time; adds one for each that came back whole.
fn echoes(len: usize, window: usize, pool: &Pool) -> impl FnMut(u64) -> Result<u64, billiard::Error> {
    // What has come back goes out again.
    let spare = std::cell::RefCell::new(Vec::new());
    move |jobs| {
        let whole = |bytes: &[u8]| bytes.len() == len && bytes.first() == Some(&7) && bytes.last() == Some(&7);
        timing::windowed::<_, billiard::Error>(
            jobs,
            window,
            |_| {
                let bytes = spare.borrow_mut().pop().unwrap_or_else(|| ByteBuf::from(vec![7; len]));
                Ok(pool.apply_async(give_back, bytes)?)
            },
            |handle| {
                let bytes = handle.get()?;
                let right = u64::from(whole(&bytes));
                spare.borrow_mut().push(bytes);
                Ok(right)
            },
        )
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
