//! The cases of semaphores, for anything with permits.

use std::{
    error::Error,
    hint,
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use billiard_benches::{
    frame::{Answer, Request},
    place::Places,
    shared::Shared,
    timing,
};

use crate::other::Start;

/// Something that one waits for and the other gives.
pub(crate) trait Permits: Sync {
    /// Waits for a permit and takes it.
    fn acquire(&self);
    /// Gives one.
    fn release(&self);
}

/// One takes a permit and gives it back, again and again. There has to be one.
pub(crate) fn uncontended(request: &Request, permits: &impl Permits) -> Result<Answer, Box<dyn Error>> {
    let permits = hint::black_box(permits);
    timing::nanoseconds_each(request, |count| {
        let mut taken = 0;
        for _ in 0..count {
            permits.acquire();
            taken += 1;
            permits.release();
        }
        Ok::<_, Box<dyn Error>>(taken)
    })
}

/// Two that wake each other in turn.
#[derive(Debug)]
pub(crate) struct PingPong<P> {
    pub(crate) there: P,
    pub(crate) back: P,
    /// How many times the other has answered.
    answered: AtomicU64,
}

impl<P: Permits> PingPong<P> {
    /// With two that have no permit yet.
    pub(crate) fn new(there: P, back: P) -> Self {
        Self { there, back, answered: AtomicU64::new(0) }
    }
}

/// One process wakes another that is blocked, and blocks until that one wakes it.
pub(crate) fn wake_latency(
    request: &Request,
    shared: &Shared<PingPong<impl Permits>>,
    start: Start,
) -> Result<Answer, Box<dyn Error>> {
    let PingPong { there, back, answered } = &**shared;
    let rounds = request.option::<u64>("count")? + timing::WARM_UP_EACH;
    let places = Places::find()?;
    let answer_all = || {
        if places.stay_on(1).is_err() {
            return false; // whoever waits for an answer then does so until the cap
        }
        for _ in 0..rounds {
            there.acquire();
            answered.fetch_add(1, Ordering::Relaxed); // ordered by the permits around it
            back.release();
        }
        true
    };
    let ends_well = start(&answer_all)?;
    places.stay_on(0)?;
    let mut asked = 0;
    let answer = timing::median_time(request, || {
        let begun = Instant::now();
        there.release();
        back.acquire();
        let time = begun.elapsed();
        asked += 1;
        Ok((time, u64::from(answered.load(Ordering::Relaxed) == asked)))
    })?;
    if ends_well() { Ok(answer) } else { Err("the other process failed".into()) }
}
