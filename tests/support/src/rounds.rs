//! How often something is tried.

use std::time::{Duration, Instant};

use crate::Random;

/// The environment variable that gives the tests time, in seconds.
const VARIABLE: &str = "BILLIARD_VERIFY_SECONDS";

/// Again and again, each time with chance of its own: `least` times, and then on for `share` of the time that `BILLIARD_VERIFY_SECONDS`
/// gives, if it is set. The seed is printed.
pub fn rounds(what: &str, least: usize, share: f64) -> impl Iterator<Item = Random> {
    let (begin, time) = (Instant::now(), Duration::from_secs_f64(seconds() * share));
    let mut random = Random::from_env(what);
    let mut done = 0;
    std::iter::from_fn(move || {
        done += 1;
        (done <= least || begin.elapsed() < time).then(|| random.fork())
    })
}

/// How long a test's watchdog waits, in seconds: so long, and as much more as `BILLIARD_VERIFY_SECONDS` gives.
#[must_use]
pub fn patience(least: u64) -> u64 {
    least + seconds() as u64
}

fn seconds() -> f64 {
    std::env::var(VARIABLE).ok().and_then(|text| text.parse().ok()).unwrap_or(0.0)
}
