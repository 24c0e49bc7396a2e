//! The kernel's futex with next to nothing around it.

use std::error::Error;

use billiard_benches::{
    frame::{self, Answer, Request},
    shared::Shared,
    word::Word,
};

use crate::{
    other,
    permits::{Permits, PingPong, wake_latency},
};

/// The one case that a futex has.
pub(crate) fn run(request: &Request) -> Result<Answer, Box<dyn Error>> {
    match request.case.as_str() {
        "sync/wake_latency" => {
            wake_latency(request, &Shared::new(PingPong::new(Word::default(), Word::default()))?, other::forked)
        }
        _ => Err(frame::unknown_case()),
    }
}

impl Permits for Word {
    fn acquire(&self) {
        self.acquire();
    }

    fn release(&self) {
        self.release();
    }
}
