//! What the programs of this package share: the same frame, timing and places as ours, and a way to tell their
//! library's version.

#[path = "../../src/frame.rs"]
pub mod frame;
#[path = "../../src/place.rs"]
pub mod place;
#[path = "../../src/sleeps.rs"]
pub mod sleeps;
#[path = "../../src/timing.rs"]
pub mod timing;

/// The version of a dependency, as the lock file has it.
#[must_use]
pub fn version_of(dependency: &str) -> &'static str {
    frame::version_in(include_str!("../Cargo.lock"), dependency)
}
