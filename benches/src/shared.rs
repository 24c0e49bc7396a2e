//! Memory that a process shares with the children that it forks.

use std::{
    fmt,
    ops::Deref,
    ptr::{self, NonNull},
};

use rustix::{
    io,
    mm::{MapFlags, ProtFlags, mmap_anonymous, munmap},
};

/// A value in memory that forked children map too. It is not dropped: who knows who else still uses it.
pub struct Shared<T> {
    place: NonNull<T>,
}

impl<T: Sync> Shared<T> {
    /// Puts `value` into a mapping of its own.
    ///
    /// # Errors
    ///
    /// The kernel's, when there is no memory.
    pub fn new(value: T) -> io::Result<Self> {
        const { assert!(align_of::<T>() <= 4096 && size_of::<T>() > 0, "a mapping begins at a page") }
        // SAFETY: a new mapping at an address of the kernel's choice.
        let memory = unsafe {
            mmap_anonymous(ptr::null_mut(), size_of::<T>(), ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED)
        }?;
        let place = NonNull::new(memory.cast::<T>()).ok_or(io::Errno::NOMEM)?;
        // SAFETY: the mapping is as long as the value, aligned to a page, and nobody else knows of it yet.
        unsafe { place.write(value) };
        Ok(Self { place })
    }
}

impl<T: Sync> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the value was written by `new` and is there until the drop; whoever else uses it does so through a
        // shared reference as well, and it is `Sync`.
        unsafe { self.place.as_ref() }
    }
}

// SAFETY: it gives out shared references alone, as a reference to a `Sync` value does.
unsafe impl<T: Sync> Sync for Shared<T> {}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and nothing refers to it.
        let _ = unsafe { munmap(self.place.as_ptr().cast(), size_of::<T>()) };
    }
}

impl<T> fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Shared").field(&self.place).finish()
    }
}
