//! The algorithms, on the words alone: no memory is mapped here, and nobody's life is looked up.
//!
//! Each is a few words and what may be done to them, as `docs/design/locks.md` has it; the handles of this crate find the
//! words in a segment and tell the algorithm who is alive ([`Peers`]). All atomics are those of `billiard_shm::prim`, so
//! that the models at the end of each file run the same code in loom. In a model every party is a thread of its own, and the first
//! thread only waits for them: loom does not try what would come before the first thread's next step.

pub(crate) mod barrier;
pub(crate) mod copies;
pub(crate) mod event;
pub(crate) mod lock;
pub(crate) mod peers;
pub(crate) mod rlock;
pub(crate) mod semaphore;

pub(crate) use peers::{NextLook, Owner, Peers, Rounds, Wait};
