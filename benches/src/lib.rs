//! What the programs of this package share. Each of them is a subject of `cargo xtask bench`: `src/bin/GROUP.rs`
//! answers the cases of the group that it is named after.

pub mod frame;
