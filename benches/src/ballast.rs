//! Memory that makes this process as large as a program at work.

use std::ptr::{self, NonNull};

use rustix::{
    io,
    mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap},
};

/// The size of a page; where pages are larger, they are merely touched more than once.
const PAGE: usize = 4096;

/// Private memory, every page of it touched, until it is dropped. Its pages are small ones, as those of a heap that grew by
/// many allocations: huge pages would make this process cheaper to copy than it looks.
#[derive(Debug)]
pub struct Ballast {
    memory: NonNull<u8>,
    length: usize,
}

impl Ballast {
    /// So many MiB.
    ///
    /// # Errors
    ///
    /// The kernel's, when there is not so much.
    pub fn touched(mib: usize) -> io::Result<Self> {
        let length = mib.checked_mul(1 << 20).filter(|&length| length > 0).ok_or(io::Errno::INVAL)?;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let memory =
            unsafe { mmap_anonymous(ptr::null_mut(), length, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE) }?;
        let ballast = Self { memory: NonNull::new(memory.cast()).ok_or(io::Errno::NOMEM)?, length };
        // A kernel without huge pages does not know the advice: then there is nothing to ask for.
        // SAFETY: the mapping was just made, and the advice changes nothing of what is in it.
        let _ = unsafe { madvise(memory, length, Advice::LinuxNoHugepage) };
        for offset in (0..length).step_by(PAGE) {
            // SAFETY: `offset` is below the mapping's length.
            let byte = unsafe { ballast.memory.add(offset) };
            // SAFETY: the byte is in the mapping, which is writable and this value's own.
            unsafe { byte.write_volatile(1) };
        }
        Ok(ballast)
    }
}

impl Drop for Ballast {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and nothing refers to it.
        let _ = unsafe { munmap(self.memory.as_ptr().cast(), self.length) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The resident memory of this process, in KiB.
    fn resident() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    #[test]
    fn ballast_is_resident_until_it_is_dropped() {
        let before = resident();
        let ballast = Ballast::touched(64).unwrap();
        let with = resident();
        drop(ballast);
        assert!(with >= before + 60 * 1024, "{before} KiB, then {with} KiB");
        assert!(resident() < with - 30 * 1024);
        assert!(Ballast::touched(0).is_err() && Ballast::touched(usize::MAX).is_err());
    }
}
