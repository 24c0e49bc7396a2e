//! The kernel's futex with next to nothing around it: one word, one who waits, one who wakes. It never spins.

use std::{
    error::Error,
    sync::atomic::{AtomicU32, Ordering},
};

use billiard_benches::{
    frame::{self, Answer, Request},
    shared::Shared,
};
use rustix::{
    io::Errno,
    thread::futex::{Flags, wait, wake},
};

use crate::{
    other,
    permits::{Permits, PingPong, wake_latency},
};

/// One permit or none.
#[derive(Debug)]
struct Word(AtomicU32);

/// The one case that a futex has.
pub(crate) fn run(request: &Request) -> Result<Answer, Box<dyn Error>> {
    match request.case.as_str() {
        "sync/wake_latency" => {
            let word = || Word(AtomicU32::new(0));
            wake_latency(request, &Shared::new(PingPong::new(word(), word()))?, other::forked)
        }
        _ => Err(frame::unknown_case()),
    }
}

impl Permits for Word {
    fn acquire(&self) {
        // PAIR word.release: sees what was written before the store in `release`.
        while self.0.swap(0, Ordering::Acquire) == 0 {
            // Not private: the other is another process.
            match wait(&self.0, Flags::empty(), 0, None) {
                Ok(()) | Err(Errno::AGAIN | Errno::INTR) => {}
                Err(error) => panic!("futex: {error}"),
            }
        }
    }

    fn release(&self) {
        // PAIR word.release: seen by the swap in `acquire`.
        self.0.store(1, Ordering::Release);
        wake(&self.0, Flags::empty(), 1).expect("the word is there");
    }
}
