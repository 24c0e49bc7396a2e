//! What a handle of a buffer may do now: the state that lends, moves, and comes back.
//!
//! ```text
//! idle <──> lent(1..)          `as_slice`, and its guard's end
//! idle ──> moving ──> moved    a message with it is encoded, and sent
//!          moving ──> idle     the message is dropped unsent
//!          moving ──> away     the same, and it could not be mapped again
//!          away ──> moving ──> idle    the next access tries once more
//! ```
//!
//! It is one word of this process, not of the shared memory. Whoever sets `moving` has the buffer for himself until he sets
//! something else.

use crate::prim::{AtomicU32, Ordering};

const MOVED: u32 = u32::MAX;
const MOVING: u32 = u32::MAX - 1;
const AWAY: u32 = u32::MAX - 2;
/// The most guards at a time.
const MOST: u32 = u32::MAX - 3;

/// Why a buffer cannot be had now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    Lent,
    Moving,
    Moved,
    /// It is here, and has to be mapped first.
    Away,
}

#[derive(Debug)]
pub(super) struct Lending(AtomicU32);

impl Lending {
    pub(super) fn idle() -> Self {
        Self(AtomicU32::new(0))
    }

    /// One guard more. It may read until [`give_back`](Self::give_back).
    pub(super) fn lend(&self) -> Result<(), Refused> {
        let mut state = self.0.load(Ordering::Relaxed);
        loop {
            if let Some(refused) = refused(state) {
                return Err(refused);
            }
            // Acquire: pairs with the Release in `settle`. Who lends sees what was mapped.
            match self.0.compare_exchange_weak(state, state + 1, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return Ok(()),
                Err(now) => state = now,
            }
        }
    }

    /// One guard less.
    pub(super) fn give_back(&self) {
        // Release: pairs with the Acquire in `seize`. Who unmaps does so after the last read.
        self.0.fetch_sub(1, Ordering::Release);
    }

    /// Has the buffer for oneself, if it is idle, or away; whether it was away.
    pub(super) fn seize(&self) -> Result<bool, Refused> {
        for state in [0, AWAY] {
            // Acquire: pairs with the Releases in `give_back` and `settle`.
            if self.0.compare_exchange(state, MOVING, Ordering::Acquire, Ordering::Relaxed).is_ok() {
                return Ok(state == AWAY);
            }
        }
        Err(refused(self.0.load(Ordering::Relaxed)).unwrap_or(Refused::Lent))
    }

    /// What becomes of it; by whoever has seized it.
    pub(super) fn settle(&self, to: Settled) {
        let state = match to {
            Settled::Idle => 0,
            Settled::Away => AWAY,
            Settled::Moved => MOVED,
        };
        // Release: pairs with the Acquires in `lend` and `seize`.
        self.0.store(state, Ordering::Release);
    }

    pub(super) fn now(&self) -> &'static str {
        match self.0.load(Ordering::Relaxed) {
            MOVED => "moved",
            MOVING => "in a message",
            AWAY | 0 => "idle",
            _ => "lent",
        }
    }
}

/// Where a seized buffer ends up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Settled {
    Idle,
    Away,
    Moved,
}

fn refused(state: u32) -> Option<Refused> {
    match state {
        MOVED => Some(Refused::Moved),
        MOVING => Some(Refused::Moving),
        AWAY => Some(Refused::Away),
        MOST => Some(Refused::Lent),
        _ => None,
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use loom::{cell::UnsafeCell, sync::Arc};

    use super::*;

    /// The cell stands for the mapping: loom fails when one reads while another changes it.
    struct Buffer {
        lending: Lending,
        mapping: UnsafeCell<u32>,
    }

    #[test]
    fn nobody_reads_what_is_moved() {
        loom::model(|| {
            let buffer = Arc::new(Buffer { lending: Lending::idle(), mapping: UnsafeCell::new(1) });
            let readers: Vec<_> = (0..2)
                .map(|_| {
                    let buffer = buffer.clone();
                    loom::thread::spawn(move || {
                        if buffer.lending.lend().is_ok() {
                            // SAFETY: lent.
                            assert_eq!(buffer.mapping.with(|mapping| unsafe { *mapping }), 1);
                            buffer.lending.give_back();
                        }
                    })
                })
                .collect();
            if buffer.lending.seize().is_ok() {
                // SAFETY: seized.
                buffer.mapping.with_mut(|mapping| unsafe { *mapping = 0 });
                // SAFETY: as above.
                buffer.mapping.with_mut(|mapping| unsafe { *mapping = 1 });
                buffer.lending.settle(Settled::Idle);
            }
            readers.into_iter().for_each(|reader| reader.join().unwrap());
        });
    }
}
