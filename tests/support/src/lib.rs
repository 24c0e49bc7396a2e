//! What the tests share.

mod alarm;
mod census;
mod enclosure;
mod leash;
pub mod misdeeds;
mod processes;
mod rounds;
mod seed;
mod watchdog;

pub use alarm::end_after;
pub use census::{Census, descendants, eventually, is_alive, marked, parent, state};
pub use enclosure::{Enclosure, enclosed, program};
pub use leash::Leash;
pub use processes::{Stopped, pool_workers, signal, try_signal};
pub use rounds::{patience, rounds};
pub use seed::Random;
pub use watchdog::Watchdog;
