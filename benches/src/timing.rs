//! How a sample is taken, alike for all subjects: warmed up first, then timed over as much as `--count` says.
//!
//! The peers in `benches/peers` are built with this very file too.

use std::{collections::VecDeque, error::Error, time::Duration, time::Instant};

use crate::frame::{Answer, Request};

/// How much goes first, unmeasured, where much is done at once.
const WARM_UP: u64 = 1_000;

/// The same where every single thing is slow enough to be timed.
pub const WARM_UP_EACH: u64 = 3;

/// How many a second: warms up, then times `--count` of them. `run` does as many as it is told and gives the sum of
/// their results.
///
/// # Errors
///
/// What `run` returns, and a missing option.
pub fn throughput<E: Into<Box<dyn Error>>>(
    request: &Request,
    unit: &'static str,
    mut run: impl FnMut(u64) -> Result<u64, E>,
) -> Result<Answer, Box<dyn Error>> {
    let count: u64 = request.option("count")?;
    run(WARM_UP).map_err(Into::into)?;
    let begun = Instant::now();
    let checksum = run(count).map_err(Into::into)?;
    Ok(Answer { value: count as f64 / begun.elapsed().as_secs_f64(), unit, checksum })
}

/// Nanoseconds for each: the reverse of [`throughput`], for what is too short to be timed by itself.
///
/// # Errors
///
/// As [`throughput`].
pub fn nanoseconds_each<E: Into<Box<dyn Error>>>(
    request: &Request,
    run: impl FnMut(u64) -> Result<u64, E>,
) -> Result<Answer, Box<dyn Error>> {
    let Answer { value, checksum, .. } = throughput(request, "", run)?;
    Ok(Answer { value: 1e9 / value, unit: "ns", checksum })
}

/// The median of the times that `--count` calls of `once` give, in microseconds. `once` says how long what matters of it
/// took, and what it adds to the checksum.
///
/// # Errors
///
/// What `once` returns, and a missing or zero `--count`.
pub fn median_time(
    request: &Request,
    mut once: impl FnMut() -> Result<(Duration, u64), Box<dyn Error>>,
) -> Result<Answer, Box<dyn Error>> {
    let count: usize = request.option("count")?;
    for _ in 0..WARM_UP_EACH {
        once()?;
    }
    let mut checksum = 0_u64;
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let (time, adds) = once()?;
        times.push(time);
        checksum = checksum.wrapping_add(adds);
    }
    times.sort_unstable();
    let upper = times.get(count / 2).ok_or("--count 0: nothing to measure")?;
    let lower = times[(count - 1) / 2];
    Ok(Answer { value: (lower + *upper).as_secs_f64() * 1e6 / 2.0, unit: "µs", checksum })
}

/// Submits the jobs `0..jobs`, at most `window` of them in flight: once it is full, the oldest is awaited before the
/// next is submitted. Gives the sum of the results.
///
/// # Errors
///
/// The first of `submit` or `wait`.
pub fn windowed<H, E>(
    jobs: u64,
    window: usize,
    mut submit: impl FnMut(u64) -> Result<H, E>,
    mut wait: impl FnMut(H) -> Result<u64, E>,
) -> Result<u64, E> {
    let mut in_flight = VecDeque::with_capacity(window);
    let mut sum = 0_u64;
    for job in 0..jobs {
        if in_flight.len() >= window
            && let Some(oldest) = in_flight.pop_front()
        {
            sum = sum.wrapping_add(wait(oldest)?);
        }
        in_flight.push_back(submit(job)?);
    }
    for handle in in_flight {
        sum = sum.wrapping_add(wait(handle)?);
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// A request for this many.
    fn request(count: u64) -> Request {
        Request::parse(["a", "g/c", "--count", &count.to_string()].map(str::to_owned).into_iter()).unwrap()
    }

    #[test]
    fn the_window_is_kept_and_the_oldest_awaited() {
        let (in_flight, most, next) = (Cell::new(0), Cell::new(0), Cell::new(0));
        let submit = |job: u64| {
            in_flight.set(in_flight.get() + 1);
            most.set(in_flight.get().max(most.get()));
            Ok::<_, ()>(job)
        };
        let wait = |job: u64| {
            assert_eq!(job, next.replace(job + 1));
            in_flight.set(in_flight.get() - 1);
            Ok(job + 1)
        };
        assert_eq!(windowed(100, 8, submit, wait), Ok(5050));
        assert_eq!((most.get(), in_flight.get()), (8, 0));
    }

    #[test]
    fn the_warm_up_does_not_count() {
        let mut runs = Vec::new();
        let run = |jobs| {
            runs.push(jobs);
            Ok::<_, String>(jobs)
        };
        let answer = throughput(&request(5000), "jobs/s", run).unwrap();
        assert_eq!((answer.unit, answer.checksum), ("jobs/s", 5000));
        assert_eq!(runs, [WARM_UP, 5000]);
    }

    #[test]
    fn nanoseconds_are_those_of_one() {
        let run = |count| {
            std::thread::sleep(Duration::from_micros(count));
            Ok::<_, String>(count)
        };
        let answer = nanoseconds_each(&request(2000), run).unwrap();
        assert_eq!((answer.unit, answer.checksum), ("ns", 2000));
        assert!(answer.value >= 1000.0, "{answer:?}");
    }

    #[test]
    fn the_median_leaves_out_the_warm_up_and_the_wild() {
        let mut times = [9_000_000, 9_000_000, 9_000_000, 50, 10, 70_000, 30].into_iter();
        let once = || Ok((Duration::from_micros(times.next().unwrap()), 2));
        let answer = median_time(&request(4), once).unwrap();
        assert_eq!(answer, Answer { value: 40.0, unit: "µs", checksum: 8 });
        assert!(times.next().is_none());

        let mut times = [1, 1, 1, 5, 7, 6].into_iter();
        let once = || Ok((Duration::from_micros(times.next().unwrap()), 1));
        assert_eq!(median_time(&request(3), once).unwrap().value, 6.0);
        assert!(median_time(&request(0), || Ok((Duration::ZERO, 0))).is_err());
        assert!(median_time(&request(1), || Err("broken".into())).is_err());
    }
}
