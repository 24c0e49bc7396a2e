//! What the kernel takes to wake a worker and its caller, with nothing of a pool around.

use std::{
    error::Error,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use billiard_benches::{
    forked::Forked,
    frame::{self, Answer, Request},
    place::Places,
    shared::Shared,
    timing,
    word::Word,
};

/// What two processes share.
#[derive(Debug, Default)]
struct Desk {
    there: Word,
    back: Word,
    /// The argument of a job, then its result.
    value: AtomicU64,
}

/// The one case that a futex has.
pub(crate) fn run(request: &Request) -> Result<Answer, Box<dyn Error>> {
    match request.case.as_str() {
        "pool/latency_rested" => latency_rested(request),
        _ => Err(frame::unknown_case()),
    }
}

/// Two hops between two processes that sleep, after a rest.
fn latency_rested(request: &Request) -> Result<Answer, Box<dyn Error>> {
    let rest = Duration::from_millis(request.option("rest-ms")?);
    let rounds = request.option::<u64>("count")? + timing::WARM_UP_EACH;
    let desk = Shared::new(Desk::default())?;
    let places = Places::find()?;
    let work = || {
        if places.stay_on(1).is_err() {
            return false; // whoever waits for an answer then does so until the cap
        }
        for _ in 0..rounds {
            desk.there.acquire();
            desk.value.fetch_add(1, Ordering::Relaxed); // ordered by the words around it
            desk.back.release();
        }
        true
    };
    // SAFETY: this program has one thread unless it is asked for a pool.
    let worker = unsafe { Forked::start(work) }?;
    places.stay_on(0)?;
    let mut job = 0;
    let answer = timing::median_time(request, || {
        thread::sleep(rest);
        job += 1;
        let begun = Instant::now();
        desk.value.store(job, Ordering::Relaxed);
        desk.there.release();
        desk.back.acquire();
        let result = desk.value.load(Ordering::Relaxed);
        Ok((begun.elapsed(), u64::from(result == job + 1)))
    })?;
    if worker.ends_well()? { Ok(answer) } else { Err("the other process failed".into()) }
}
