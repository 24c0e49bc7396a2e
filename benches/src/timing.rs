//! How a sample is taken, alike for all subjects: warmed up first, then timed over as much as `--count` says.
//!
//! The peers in `benches/peers` are built with this very file too.

use std::{collections::VecDeque, error::Error, time::Duration, time::Instant};

use crate::frame::{Answer, Request};

/// How much goes first, unmeasured, where much is done at once.
pub const WARM_UP: u64 = 1_000;

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
    run: impl FnMut(u64) -> Result<u64, E>,
) -> Result<Answer, Box<dyn Error>> {
    throughput_after(WARM_UP, request, unit, run)
}

/// The same after so many: for what takes long.
///
/// # Errors
///
/// As [`throughput`].
pub fn throughput_after<E: Into<Box<dyn Error>>>(
    warm_up: u64,
    request: &Request,
    unit: &'static str,
    mut run: impl FnMut(u64) -> Result<u64, E>,
) -> Result<Answer, Box<dyn Error>> {
    let count: u64 = request.option("count")?;
    run(warm_up).map_err(Into::into)?;
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
    once: impl FnMut() -> Result<(Duration, u64), Box<dyn Error>>,
) -> Result<Answer, Box<dyn Error>> {
    let (times, checksum) = sorted_times(request, WARM_UP_EACH, once)?;
    let [lower, upper] = [(times.len() - 1) / 2, times.len() / 2].map(|place| times[place]);
    Ok(Answer { value: (lower + upper).as_secs_f64() * 1e6 / 2.0, unit: "µs", checksum })
}

/// The time, in nanoseconds, within which so many of a hundred of `--count` calls of `once` are done. For what is short
/// and was done many times before.
///
/// # Errors
///
/// As [`median_time`].
pub fn percentile_time(
    request: &Request,
    percent: usize,
    once: impl FnMut() -> Result<(Duration, u64), Box<dyn Error>>,
) -> Result<Answer, Box<dyn Error>> {
    let (times, checksum) = sorted_times(request, WARM_UP, once)?;
    let within = (times.len() * percent).div_ceil(100).clamp(1, times.len());
    Ok(Answer { value: times[within - 1].as_secs_f64() * 1e9, unit: "ns", checksum })
}

/// The time that the one call of `once` takes, in milliseconds: for what is asked of a process that has done nothing
/// yet, so nothing is warmed up.
///
/// # Errors
///
/// What `once` returns, and any `--count` but 1.
pub fn first_time(
    request: &Request,
    once: impl FnOnce() -> Result<(Duration, u64), Box<dyn Error>>,
) -> Result<Answer, Box<dyn Error>> {
    if request.option::<u64>("count")? != 1 {
        return Err("only --count 1 is a first time".into());
    }
    let (time, checksum) = once()?;
    Ok(Answer { value: time.as_secs_f64() * 1e3, unit: "ms", checksum })
}

/// The times of `--count` calls behind so many that do not count, in order of size, and the checksum. At least one.
fn sorted_times(
    request: &Request,
    warm_up: u64,
    mut once: impl FnMut() -> Result<(Duration, u64), Box<dyn Error>>,
) -> Result<(Vec<Duration>, u64), Box<dyn Error>> {
    let count: usize = request.option("count")?;
    if count == 0 {
        return Err("--count 0: nothing to measure".into());
    }
    for _ in 0..warm_up {
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
    Ok((times, checksum))
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

    #[test]
    fn percentiles_leave_out_the_warm_up() {
        let percentile = |percent, count: u64| {
            let mut times = (0..WARM_UP).map(|_| 9_000_000).chain((1..=count).rev());
            let once = || Ok((Duration::from_nanos(times.next().unwrap()), 2));
            percentile_time(&request(count), percent, once).unwrap()
        };
        assert_eq!(percentile(50, 200), Answer { value: 100.0, unit: "ns", checksum: 400 });
        assert_eq!([1, 99, 100].map(|percent| percentile(percent, 200).value.round()), [2.0, 198.0, 200.0]);
        assert_eq!([1, 50, 99].map(|percent| percentile(percent, 1).value.round()), [1.0; 3]);
    }

    #[test]
    fn a_first_time_is_one() {
        let once = || Ok((Duration::from_millis(3), 1));
        assert_eq!(first_time(&request(1), once).unwrap(), Answer { value: 3.0, unit: "ms", checksum: 1 });
        assert!(first_time(&request(2), once).is_err());
    }
}
