//! The atomics that algorithms over shared memory are written with: the real ones, or those of
//! [loom](https://docs.rs/loom) where the crate is compiled with `--cfg loom`.
//!
//! An algorithm that uses these alone runs unchanged in a model checker, which tries every order that its steps can
//! take. What maps memory or talks to the kernel is not there under loom: loom's atomics have another layout.

#[cfg(loom)]
pub use loom::{
    hint::spin_loop,
    sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence},
};
#[cfg(not(loom))]
pub use std::{
    hint::spin_loop,
    sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence},
};
