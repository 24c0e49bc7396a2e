//! Who owns a word, who is dead, and how long to wait before asking.

use std::time::Duration;

use billiard_shm::futex::Deadline;

/// How long a waiter sleeps before it looks by itself: whether the owner is dead, or whoever should have woken it.
pub(crate) const RECHECK: Duration = Duration::from_millis(50);

/// The identity of a participant: its seat, and how often the seat was taken. Never zero; 31 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner(u32);

impl Owner {
    /// What an identity may have.
    pub(crate) const MASK: u32 = u32::MAX >> 1;

    /// The owner that a word names; none for zero.
    pub(crate) fn from_bits(bits: u32) -> Option<Self> {
        let bits = bits & Self::MASK;
        (bits != 0).then_some(Self(bits))
    }

    /// As it stands in a word.
    pub(crate) fn bits(self) -> u32 {
        self.0
    }
}

/// The other participants, as far as an algorithm asks for them.
pub(crate) trait Peers {
    /// Whether that participant has ended. True for an identity that nobody has.
    fn is_dead(&self, owner: Owner) -> bool;

    /// How long to wait before looking again; none to wait for ever, which only models do.
    fn recheck(&self) -> Option<Duration> {
        Some(RECHECK)
    }
}

/// How long a caller wants to wait.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wait {
    /// As long as it takes.
    ForEver,
    /// Until then.
    Until(Deadline),
}

impl Wait {
    /// No longer than that.
    pub(crate) fn at_most(time: Duration) -> Self {
        Self::Until(Deadline::after(time))
    }

    /// Whether the caller has waited long enough.
    pub(crate) fn is_over(self) -> bool {
        matches!(self, Self::Until(deadline) if deadline.has_passed())
    }

    /// The moment to wake at, whether or not anybody wakes this waiter.
    pub(crate) fn next(self, peers: &impl Peers) -> Option<Deadline> {
        let recheck = peers.recheck().map(Deadline::after);
        match (self, recheck) {
            (Self::ForEver, recheck) => recheck,
            (Self::Until(end), None) => Some(end),
            (Self::Until(end), Some(recheck)) => Some(end.min(recheck)),
        }
    }
}

/// Participants for tests and models: those are dead who are said to be.
#[cfg(test)]
pub(crate) mod fake {
    use std::time::Duration;

    use billiard_shm::prim::{AtomicU32, Ordering};

    use super::{Owner, Peers};

    /// At most 31 participants.
    #[derive(Debug)]
    pub(crate) struct Fake {
        dead: AtomicU32,
        recheck: Option<Duration>,
    }

    impl Fake {
        /// Nobody dies and no waiter looks by itself: a wake-up that is lost is a deadlock.
        pub(crate) fn immortal() -> Self {
            Self { dead: AtomicU32::new(0), recheck: None }
        }

        /// Waiters look by themselves whenever they like.
        pub(crate) fn mortal() -> Self {
            Self { dead: AtomicU32::new(0), recheck: Some(Duration::ZERO) }
        }

        /// It is dead from now on: what it did before is seen by who knows it, as with the kernel's record locks.
        pub(crate) fn kill(&self, owner: Owner) {
            self.dead.fetch_or(1 << owner.bits(), Ordering::Release);
        }
    }

    impl Peers for Fake {
        fn is_dead(&self, owner: Owner) -> bool {
            owner.bits() < 32 && self.dead.load(Ordering::Acquire) & (1 << owner.bits()) != 0
        }

        fn recheck(&self) -> Option<Duration> {
            self.recheck
        }
    }

    /// The participant of that number, from 1.
    pub(crate) fn owner(number: u32) -> Owner {
        Owner::from_bits(number).unwrap()
    }
}
