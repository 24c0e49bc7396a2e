//! The crate iceoryx2: messages between processes in shared memory, looked for without rest.

use std::{
    error::Error,
    hint,
    process::{self, ExitCode},
    sync::{
        Barrier,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Instant,
};

use billiard_peers::{
    frame::{self, Answer, Request, Subject},
    place::Places,
    timing, version_of,
};
use iceoryx2::{
    port::{publisher::Publisher, subscriber::Subscriber},
    prelude::{LogLevel, NodeBuilder, ipc, set_log_level},
};

fn main() -> ExitCode {
    set_log_level(LogLevel::Error);
    frame::answer(&[Subject { name: "iceoryx2", version: version_of("iceoryx2"), run }])
}

/// The cases that it has.
fn run(request: &Request) -> Result<Answer, Box<dyn Error>> {
    match request.case.as_str() {
        "pool/latency_p50" => latency(request, 50),
        "pool/latency_p99" => latency(request, 99),
        _ => Err(frame::unknown_case()),
    }
}

/// One end: what it sends goes to the other.
struct End {
    publisher: Publisher<ipc::Service, u64, ()>,
    subscriber: Subscriber<ipc::Service, u64, ()>,
}

impl End {
    /// One that sends on the service of its own number and listens to the other's, as in a process of its own.
    fn open(number: usize) -> Result<Self, Box<dyn Error>> {
        let node = NodeBuilder::new().create::<ipc::Service>()?;
        let service = |number: usize| {
            let name = format!("billiard-peers/{}/{number}", process::id());
            Ok::<_, Box<dyn Error>>(
                node.service_builder(&name.as_str().try_into()?).publish_subscribe::<u64>().open_or_create()?,
            )
        };
        let publisher = service(number)?.publisher_builder().create()?;
        let subscriber = service(1 - number)?.subscriber_builder().create()?;
        Ok(Self { publisher, subscriber })
    }

    /// Writes a value where the other reads it.
    fn send(&self, value: u64) -> Result<(), Box<dyn Error>> {
        self.publisher.loan_uninit()?.write_payload(value).send()?;
        Ok(())
    }

    /// Looks for a value from the other until one is there; none once `over` is set.
    fn receive(&self, over: &AtomicBool) -> Result<Option<u64>, Box<dyn Error>> {
        loop {
            if let Some(sample) = self.subscriber.receive()? {
                return Ok(Some(*sample.payload()));
            }
            if over.load(Ordering::Relaxed) {
                return Ok(None);
            }
            hint::spin_loop();
        }
    }
}

/// One message there and one back, as its own benchmark does it: two services for publishing, between two threads that have
/// nothing in common but the shared memory, as two processes would.
fn latency(request: &Request, percent: usize) -> Result<Answer, Box<dyn Error>> {
    let places = Places::find()?;
    // Both have opened their ends, whether it went well or not.
    let (over, opened) = (AtomicBool::new(false), Barrier::new(2));
    let work = || -> Result<(), String> {
        let end = End::open(1);
        opened.wait();
        let answer_all = |end: End| -> Result<(), Box<dyn Error>> {
            places.stay_on(1)?;
            while let Some(x) = end.receive(&over)? {
                end.send(x + 1)?;
            }
            Ok(())
        };
        let answered = end.and_then(answer_all).map_err(|error| error.to_string());
        over.store(true, Ordering::Relaxed); // who waits need not wait any more
        answered
    };
    thread::scope(|scope| {
        let worker = scope.spawn(work);
        let end = End::open(0);
        opened.wait();
        let ask = |end: End| {
            places.stay_on(0)?;
            let mut job = 0;
            timing::percentile_time(request, percent, || {
                job += 1;
                let begun = Instant::now();
                end.send(job)?;
                let result = end.receive(&over)?;
                Ok((begun.elapsed(), u64::from(result == Some(job + 1))))
            })
        };
        let answer = end.and_then(ask);
        over.store(true, Ordering::Relaxed);
        worker.join().map_err(|_| "the other thread has panicked")??;
        answer
    })
}
