//! The cases of locks, for any lock around a counter; and the locks that work between threads.

use std::{
    error::Error,
    hint, io,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    thread,
};

use billiard_benches::{
    frame::{self, Answer, Request},
    place::Places,
    shared::Shared,
    timing,
};

use crate::other::Start;

/// A lock around a counter.
pub(crate) trait Counter: Sync {
    /// Locks, updates, unlocks.
    fn update<R>(&self, f: impl FnOnce(&mut u64) -> R) -> R;
}

impl Counter for Mutex<u64> {
    fn update<R>(&self, f: impl FnOnce(&mut u64) -> R) -> R {
        f(&mut self.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Counter for parking_lot::Mutex<u64> {
    fn update<R>(&self, f: impl FnOnce(&mut u64) -> R) -> R {
        f(&mut self.lock())
    }
}

/// The standard library's.
pub(crate) fn std(request: &Request) -> Result<Answer, Box<dyn Error>> {
    between_threads(request, Mutex::new(0))
}

/// The crate parking_lot's.
pub(crate) fn parking_lot(request: &Request) -> Result<Answer, Box<dyn Error>> {
    between_threads(request, parking_lot::Mutex::new(0))
}

/// Each case of a lock that works between threads.
fn between_threads(request: &Request, counter: impl Counter) -> Result<Answer, Box<dyn Error>> {
    match request.case.as_str() {
        "sync/lock_uncontended" => uncontended(request, &counter),
        "sync/lock_contended2" => {
            let race = Race::new(counter)?;
            timing::throughput(request, "pairs/s", |count| {
                race.run(count, |race| {
                    thread::scope(|scope| {
                        let other = scope.spawn(|| race.take_part(count));
                        race.take_part(count) & other.join().is_ok_and(|well| well)
                    })
                })
            })
        }
        _ => Err(frame::unknown_case()),
    }
}

/// Each case of a lock that works between processes.
pub(crate) fn between_processes(
    request: &Request,
    race: &Shared<Race<impl Counter>>,
    start: Start,
) -> Result<Answer, Box<dyn Error>> {
    match request.case.as_str() {
        "sync/lock_uncontended" | "sync/rlock_uncontended" => uncontended(request, &race.counter),
        "sync/lock_contended2" => timing::throughput(request, "pairs/s", |count| {
            race.run(count, |race| {
                let other = start(&|| race.take_part(count));
                other.is_ok_and(|ends_well| race.take_part(count) & ends_well())
            })
        }),
        _ => Err(frame::unknown_case()),
    }
}

/// One takes the lock and gives it back, again and again.
fn uncontended(request: &Request, counter: &impl Counter) -> Result<Answer, Box<dyn Error>> {
    let counter = hint::black_box(counter);
    timing::nanoseconds_each(request, |count| {
        for _ in 0..count {
            counter.update(|n| *n += 1);
        }
        Ok::<_, Box<dyn Error>>(counter.update(std::mem::take))
    })
}

/// Two that count under one lock until they have reached a number.
#[derive(Debug)]
pub(crate) struct Race<C> {
    counter: C,
    places: Places,
    /// How many have come to the start.
    arrived: AtomicU32,
    /// How many steps were taken by either: more than the counter's, if ever two were inside the lock at once.
    steps: AtomicU64,
}

impl<C: Counter> Race<C> {
    /// One with this counter.
    pub(crate) fn new(counter: C) -> io::Result<Self> {
        let places = Places::find()?;
        Ok(Self { counter, places, arrived: AtomicU32::new(0), steps: AtomicU64::new(0) })
    }

    /// The lock.
    pub(crate) fn counter(&self) -> &C {
        &self.counter
    }

    /// Lets `both` take part, and gives how many steps they took together.
    fn run(&self, count: u64, both: impl FnOnce(&Self) -> bool) -> Result<u64, Box<dyn Error>> {
        // No order is needed: nobody else is there yet.
        self.arrived.store(0, Ordering::Relaxed);
        self.steps.store(0, Ordering::Relaxed);
        self.counter.update(|n| *n = 0);
        let well = both(self);
        let reached = self.counter.update(|n| *n);
        if !well || reached != count {
            return Err(format!("the two have counted to {reached} instead of {count}").into());
        }
        Ok(self.steps.load(Ordering::Relaxed))
    }

    /// Goes to a processor of its own, waits for the other, then counts. False if it cannot go there.
    fn take_part(&self, count: u64) -> bool {
        let number = self.arrived.fetch_add(1, Ordering::Relaxed); // a rendezvous: what is shared is under the lock
        let placed = self.places.stay_on(number as usize);
        while self.arrived.load(Ordering::Relaxed) < 2 {
            hint::spin_loop();
        }
        let mut steps = 0;
        while self.counter.update(|n| {
            let more = *n < count;
            *n += u64::from(more);
            more
        }) {
            steps += 1;
        }
        self.steps.fetch_add(steps, Ordering::Relaxed); // read once this one has ended
        placed.is_ok()
    }
}
