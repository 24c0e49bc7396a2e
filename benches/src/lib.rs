//! What the programs of this package share. Each is named after a group of cases and answers for the subjects that need
//! no package of their own: this project's, and those that it is held against, the kernel's and the standard library's.

pub mod ballast;
pub mod forked;
pub mod frame;
pub mod place;
pub mod shared;
pub mod sleeps;
pub mod timing;
pub mod word;

/// The version of a dependency, as the lock file has it.
#[must_use]
pub fn version_of(dependency: &str) -> &'static str {
    frame::version_in(include_str!("../../Cargo.lock"), dependency)
}
