//! Who lives, and what each holds.
//!
//! A process that may hold something others wait for (a permit, a place at a barrier, an item of a queue) is a participant:
//! a [`Member`] of a [`Registry`]. When it has died, those who wait find that out ([`Registry::is_alive`]) and
//! take back what it held ([`Ledger::sweep`]). Nobody watches meanwhile: it is looked at only while somebody waits.
//!
//! What is held is written down in the thing itself, one word for each participant, and not in the registry: who
//! waits for a thing has that mapped, and the record of a dead process can be used again at once. The words say which generation of
//! the record they are of, so that the next process to have it inherits nothing.
//!
//! Locks are not written down here: the word of a lock names its owner, and whoever waits for it asks whether that one lives.

mod ledger;
#[cfg(not(loom))]
mod registry;

pub use ledger::{Ledger, LedgerError, MAX_COUNT, MAX_HELD};
#[cfg(not(loom))]
pub use registry::{DEFAULT_CAPACITY, Registry, RegistryError};

/// A process that takes part: its record in the registry, and which of those who had that record it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Member {
    index: u16,
    generation: u32,
}

impl Member {
    /// The place of its record, and of its word in each [`Ledger`]: below the registry's capacity.
    #[must_use]
    pub fn index(self) -> usize {
        self.index.into()
    }

    /// Which of those who had the record it is: 24 bits, not zero. A word of another generation is that of a dead process.
    #[must_use]
    pub fn generation(self) -> u32 {
        self.generation
    }

    /// The member that an index and a generation name, as read from shared memory. That it exists is not said.
    #[must_use]
    pub fn from_parts(index: u16, generation: u32) -> Self {
        Self { index, generation: generation & GENERATION_MASK }
    }
}

/// What a ledger's words have room for.
const GENERATION_MASK: u32 = (1 << 24) - 1;
