//! Who owns a word, who is dead, and how long to wait before asking.

use std::time::Duration;

use billiard_shm::{futex::Deadline, participants::Member};

/// How long a waiter sleeps before it looks by itself: whether the owner is dead, or whoever should have woken it.
pub(crate) const RECHECK: Duration = Duration::from_millis(50);

/// A participant as an owner's word names it, in 31 bits: the index of its record and 1 (11 bits), and the lower 20 bits of
/// its generation. Never zero.
///
/// A dead owner could be taken for a living one only if a million processes had had its record since, and nobody had wanted the lock
/// meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner(u32);

impl Owner {
    /// What an identity may have.
    pub(crate) const MASK: u32 = u32::MAX >> 1;

    const INDEX_BITS: u32 = 11;

    /// The owner that a word names; none for zero.
    pub(crate) fn from_bits(bits: u32) -> Option<Self> {
        let bits = bits & Self::MASK;
        (bits != 0).then_some(Self(bits))
    }

    /// The index of its record. Any number below 2,048 may come of a damaged word.
    pub(crate) fn index(self) -> usize {
        (self.0 as usize & ((1 << Self::INDEX_BITS) - 1)).wrapping_sub(1)
    }

    /// As it stands in a word.
    pub(crate) fn bits(self) -> u32 {
        self.0
    }
}

impl From<Member> for Owner {
    fn from(member: Member) -> Self {
        Self((member.generation() << Self::INDEX_BITS | (member.index() as u32 + 1)) & Self::MASK)
    }
}

/// The other participants, as far as an algorithm asks for them.
pub(crate) trait Peers {
    /// Whether that participant has ended. True for an identity that nobody has.
    fn is_dead(&self, owner: Owner) -> bool;

    /// The same of a participant that is known whole.
    fn is_gone(&self, member: Member) -> bool;

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

/// When a waiter looks by itself, whatever has woken it meanwhile: wake-ups and signals do not put it off.
#[derive(Debug)]
pub(crate) struct Rounds {
    wait: Wait,
    look: Option<Deadline>,
}

impl Rounds {
    /// The first begins now.
    pub(crate) fn new(wait: Wait, peers: &impl Peers) -> Self {
        Self { wait, look: peers.recheck().map(Deadline::after) }
    }
    /// The moment to wake at.
    pub(crate) fn next(&self) -> Option<Deadline> {
        match (self.wait, self.look) {
            (Wait::ForEver, look) => look,
            (Wait::Until(end), None) => Some(end),
            (Wait::Until(end), Some(look)) => Some(end.min(look)),
        }
    }
    /// Whether it is time to look (or the wait is over); begins the next round.
    pub(crate) fn is_due(&mut self, peers: &impl Peers) -> bool {
        let due = self.look.is_some_and(Deadline::has_passed);
        if due {
            self.look = peers.recheck().map(Deadline::after);
        }
        due || self.wait.is_over()
    }
}

/// When this process looks next, for all its waits for one thing: many that are each too short for a look add up. It
/// is in the process's own memory.
#[derive(Debug, Default)]
pub(crate) struct NextLook(std::sync::atomic::AtomicU64);

impl NextLook {
    /// Whether it is time to look; at first it is. Not in models without a recheck.
    pub(crate) fn is_due(&self, peers: &impl Peers) -> bool {
        use std::sync::atomic::Ordering::Relaxed; // two threads that look at once do no harm

        let Some(recheck) = peers.recheck() else { return false };
        let due = Deadline::from_nanos(self.0.load(Relaxed)).has_passed();
        if due {
            self.0.store(Deadline::after(recheck).as_nanos(), Relaxed);
        }
        due
    }
}

/// Participants for tests and models: those are dead who are said to be.
#[cfg(test)]
pub(crate) mod fake {
    use std::time::Duration;

    use billiard_shm::{
        participants::Member,
        prim::{AtomicU32, Ordering},
    };

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

        /// Those that are killed die; waiters look so often.
        #[cfg(not(loom))]
        pub(crate) fn looking_every(time: Duration) -> Self {
            Self { dead: AtomicU32::new(0), recheck: Some(time) }
        }

        /// It is dead from now on: what it did before is seen by who knows it, as with the kernel's record locks.
        pub(crate) fn kill(&self, owner: Owner) {
            self.dead.fetch_or(1 << owner.index(), Ordering::Release);
        }
    }

    impl Peers for Fake {
        fn is_dead(&self, owner: Owner) -> bool {
            owner.index() < 32 && self.dead.load(Ordering::Acquire) & (1 << owner.index()) != 0
        }

        fn is_gone(&self, member: Member) -> bool {
            self.is_dead(member.into())
        }

        fn recheck(&self) -> Option<Duration> {
            self.recheck
        }
    }

    /// The participant of that number, from 1.
    pub(crate) fn member(number: u16) -> Member {
        Member::from_parts(number - 1, 1)
    }

    /// The same as an owner.
    pub(crate) fn owner(number: u16) -> Owner {
        member(number).into()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn owners_are_told_apart_in_31_bits() {
        let owner = |index, generation| Owner::from(Member::from_parts(index, generation));
        assert_eq!(owner(0, 1).bits(), 1 << 11 | 1);
        assert_eq!(owner(2046, (1 << 20) - 1).bits(), Owner::MASK);
        assert_eq!((owner(2046, 7).index(), owner(0, 7).index()), (2046, 0));
        assert_ne!(owner(3, 1), owner(3, 2));
        assert!(owner(0, 1 << 20).bits() != 0, "not a free word");
        assert_eq!(Owner::from_bits(1 << 31), None);
        assert_eq!(Owner::from_bits(owner(5, 9).bits() | 1 << 31), Some(owner(5, 9)));
    }
}
