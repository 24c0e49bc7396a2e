//! Every system call of this crate.

use std::{ffi::c_void, ptr::NonNull};

use rustix::mm::{Advice, MapFlags, ProtFlags};

/// A page of zeros that is zeros again in every process forked from this one; `None` where the kernel has no such thing.
pub(crate) fn page_wiped_on_fork() -> Option<NonNull<c_void>> {
    const LEN: usize = 4096; // the kernel rounds up
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new mapping, at a place of the kernel's choice, replaces nothing.
    let page = unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), LEN, protection, MapFlags::PRIVATE) }.ok()?;
    // SAFETY: the range is the mapping that was just made.
    match unsafe { rustix::mm::madvise(page, LEN, Advice::LinuxWipeOnFork) } {
        Ok(()) => NonNull::new(page),
        Err(_) => {
            // SAFETY: nobody else knows of it.
            let _ = unsafe { rustix::mm::munmap(page, LEN) };
            None
        }
    }
}
