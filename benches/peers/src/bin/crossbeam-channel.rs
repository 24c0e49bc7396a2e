//! The crate crossbeam-channel: threads in place of processes, and plain values. What a pool could reach if a job had to
//! be neither encoded nor able to crash alone.

use std::{
    error::Error,
    process::ExitCode,
    thread::{self, Scope},
    time::Instant,
};

use billiard_peers::{
    frame::{self, Answer, Request, Subject},
    place::Places,
    sleeps, timing, version_of,
};
use crossbeam_channel::{Receiver, Sender, unbounded};

fn main() -> ExitCode {
    frame::answer(&[Subject { name: "crossbeam-channel", version: version_of("crossbeam-channel"), run }])
}

/// The cases that it has.
fn run(request: &Request) -> Result<Answer, Box<dyn Error>> {
    let workers = request.option("workers")?;
    let places = Places::find()?;
    thread::scope(|scope| match request.case.as_str() {
        "pool/tiny_oneway" => {
            let window = request.option("window")?;
            timing::throughput(request, "jobs/s", tiny(window, Desk::open(scope, workers, None)))
        }
        "pool/sleeps" => {
            let window = request.option("window")?;
            sleeps::per_thousand(request, tiny(window, Desk::open(scope, workers, None)))
        }
        "pool/workers_256" => {
            let window = request.option("window")?;
            timing::nanoseconds_each(request, tiny(window, Desk::open(scope, workers, None)))
        }
        "pool/latency_p50" => latency(request, 50, &places, Desk::open(scope, workers, Some(&places))),
        "pool/latency_p99" => latency(request, 99, &places, Desk::open(scope, workers, Some(&places))),
        _ => Err(frame::unknown_case()),
    })
}

/// A way to the workers and one back, both without bounds, where nobody waits for room. The workers end when it is
/// dropped.
struct Desk {
    jobs: Sender<u64>,
    results: Receiver<u64>,
}

impl Desk {
    /// With so many threads that do jobs which do next to nothing, on another processor than the first of `places`.
    fn open<'s>(scope: &'s Scope<'s, '_>, workers: usize, places: Option<&'s Places>) -> Self {
        let (jobs, inbox) = unbounded::<u64>();
        let (outbox, results) = unbounded();
        for number in 1..=workers {
            let (inbox, outbox) = (inbox.clone(), outbox.clone());
            scope.spawn(move || {
                places.map_or(Ok(()), |places| places.stay_on(number)).expect("the processor is there");
                for x in inbox {
                    if outbox.send(x + 1).is_err() {
                        break;
                    }
                }
            });
        }
        Self { jobs, results }
    }
}

/// Does tiny jobs, each submitted by itself. Results come as they come, so one is as good as another.
fn tiny(window: usize, desk: Desk) -> impl FnMut(u64) -> Result<u64, Box<dyn Error>> {
    move |jobs| timing::windowed(jobs, window, |job| Ok(desk.jobs.send(job)?), |()| Ok(desk.results.recv()?))
}

/// One job after the other, nothing else in flight.
fn latency(request: &Request, percent: usize, places: &Places, desk: Desk) -> Result<Answer, Box<dyn Error>> {
    places.stay_on(0)?;
    let mut job = 0;
    timing::percentile_time(request, percent, || {
        job += 1;
        let begun = Instant::now();
        desk.jobs.send(job)?;
        let result = desk.results.recv()?;
        Ok((begun.elapsed(), u64::from(result == job + 1)))
    })
}
