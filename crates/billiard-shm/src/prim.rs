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
/// What `fence(SeqCst)` does, for hot paths: no load behind it comes before a store in front of it.
///
/// On x86-64 a locked instruction does as much as `mfence`, which the compiler takes, in a third of the time
/// (Intel's manual, volume 3, 9.2.2 "Memory Ordering"; AMD's, volume 2, 7.1).
#[inline]
pub fn full_fence() {
    #[cfg(all(target_arch = "x86_64", not(any(loom, miri))))]
    // SAFETY: the word on top of the stack stays what it is; flags may change, and the compiler takes it that memory does.
    unsafe {
        std::arch::asm!("lock or dword ptr [rsp], 0", options(nostack));
    }
    #[cfg(not(all(target_arch = "x86_64", not(any(loom, miri)))))]
    fence(Ordering::SeqCst);
}

#[cfg(not(loom))]
pub use std::{
    hint::spin_loop,
    sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence},
};
