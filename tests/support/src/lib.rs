//! What the tests share.

mod census;
pub mod misdeeds;
mod seed;
mod watchdog;

pub use census::{Census, descendants, eventually, is_alive};
pub use seed::Random;
pub use watchdog::Watchdog;
