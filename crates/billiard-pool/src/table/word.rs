//! The slot word: where a job is, in 64 bits.

use std::fmt;

/// Where a job is. `docs/design/job-table.md` has the table of who goes from where to where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Phase {
    /// No job is here.
    Free = 0,
    /// It waits for a worker.
    Ready = 1,
    /// The worker in that seat has it.
    Claimed = 2,
    /// The worker in that seat has laid down its result.
    Done = 3,
    /// The pool has ended it; the worker in that seat is to end too.
    Doomed = 4,
}

/// Phase 8 bits, seat 16, generation 40.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Word(u64);

/// What is used of a job's number.
pub(crate) const GENERATION_BITS: u32 = 40;

const SEAT_SHIFT: u32 = 8;
const GENERATION_SHIFT: u32 = 24;

impl Word {
    /// The word of the job with that number in that phase. Only a claimed, done or doomed one has a seat.
    #[inline]
    pub(crate) fn new(job: u64, phase: Phase, seat: u16) -> Self {
        Self(job << GENERATION_SHIFT | u64::from(seat) << SEAT_SHIFT | phase as u64)
    }

    /// A job that waits.
    #[inline]
    pub(crate) fn ready(job: u64) -> Self {
        Self::new(job, Phase::Ready, 0)
    }

    /// As it stands in memory, whoever wrote it.
    #[inline]
    pub(crate) fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    #[inline]
    pub(crate) fn bits(self) -> u64 {
        self.0
    }

    /// The phase; none where nobody of ours has written it.
    #[inline]
    pub(crate) fn phase(self) -> Option<Phase> {
        Some(match self.0 as u8 {
            0 => Phase::Free,
            1 => Phase::Ready,
            2 => Phase::Claimed,
            3 => Phase::Done,
            4 => Phase::Doomed,
            _ => return None,
        })
    }

    #[inline]
    pub(crate) fn seat(self) -> u16 {
        (self.0 >> SEAT_SHIFT) as u16
    }

    /// Whether it is of the job with that number.
    #[inline]
    pub(crate) fn is_of(self, job: u64) -> bool {
        self.0 >> GENERATION_SHIFT == job & ((1 << GENERATION_BITS) - 1)
    }
}

impl fmt::Debug for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} seat {} generation {}", self.phase(), self.seat(), self.0 >> GENERATION_SHIFT)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_parts_do_not_mix() {
        let word = Word::new(u64::MAX, Phase::Doomed, 0xabcd);
        assert_eq!((word.phase(), word.seat()), (Some(Phase::Doomed), 0xabcd));
        assert!(word.is_of(u64::MAX) && word.is_of((1 << 40) - 1) && !word.is_of(1));
        assert_eq!(Word::ready(5).bits(), 5 << 24 | 1);
        assert_eq!(Word::from_bits(5).phase(), None);
        let phases = [Phase::Free, Phase::Ready, Phase::Claimed, Phase::Done, Phase::Doomed];
        for phase in phases {
            assert_eq!(Word::new(7, phase, 1).phase(), Some(phase));
        }
    }
}
