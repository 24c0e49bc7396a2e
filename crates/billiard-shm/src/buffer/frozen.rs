//! The buffer that nobody can write.

use std::{
    fmt,
    marker::PhantomData,
    ops::Deref,
    os::fd::{AsFd, OwnedFd},
};

use billiard_wire::attachments;
use rustix::fs::SealFlags;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{BufferError, KIND, count};
use crate::{Plain, Segment, sys};

/// An array in shared memory that nobody can write any more: the kernel has sealed it (F_SEAL_WRITE of
/// [fcntl(2)](https://man7.org/linux/man-pages/man2/fcntl.2.html)), and grants that only when nobody has it mapped for
/// writing.
///
/// Every clone, in every process, reads the same memory, at the same time. It is freed when the last is gone, or its process has ended.
///
/// ```
/// use billiard_shm::SharedBuffer;
///
/// let table = SharedBuffer::from_slice(&[1u32, 4, 9])?.freeze()?;
/// let copy = table.clone();
/// assert_eq!(copy[2], 9);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct FrozenBuffer<T> {
    segment: Segment,
    count: usize,
    marker: PhantomData<T>,
}

impl<T: Plain> FrozenBuffer<T> {
    pub(super) fn attach(fd: OwnedFd) -> Result<Self, BufferError> {
        if !sys::seals(fd.as_fd())?.contains(SealFlags::WRITE) {
            return Err(BufferError::NotFrozen);
        }
        let segment = super::options().attach(fd)?;
        segment.check_type::<T>(KIND)?;
        let count = count::<T>(&segment)?;
        segment.address(0, segment.len(), align_of::<T>())?;
        Ok(Self { segment, count, marker: PhantomData })
    }

    /// Whether all of its memory has been paid for. A process that wants another to run out of memory can freeze a file that is nothing but a hole: it looks as long as
    /// it likes, and costs nothing until somebody makes use of its length.
    #[must_use]
    pub fn is_backed(&self) -> bool {
        /// What `st_blocks` counts in, see inode(7).
        const BLOCK: u64 = 512;

        sys::info(self.segment.as_fd()).is_ok_and(|info| info.blocks.saturating_mul(BLOCK) >= self.segment.len() as u64)
    }

    /// The values.
    #[must_use]
    pub fn as_slice(&self) -> &[T] {
        // SAFETY: `attach` has checked that the range is mapped, aligned and as long as the count says, and that it is sealed: so
        // nobody writes it, in whatever process. Any bytes are values.
        unsafe { std::slice::from_raw_parts(self.segment.base().cast().as_ptr(), self.count) }
    }
}

impl<T: Plain> Deref for FrozenBuffer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        self.as_slice()
    }
}

impl<T> Clone for FrozenBuffer<T> {
    fn clone(&self) -> Self {
        Self { segment: self.segment.clone(), count: self.count, marker: PhantomData }
    }
}

impl<T> fmt::Debug for FrozenBuffer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrozenBuffer").field("len", &self.count).finish()
    }
}

impl<T> Serialize for FrozenBuffer<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.segment.serialize(serializer)
    }
}

impl<'de, T: Plain> Deserialize<'de> for FrozenBuffer<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let fd = attachments::take(u32::deserialize(deserializer)?).map_err(de::Error::custom)?;
        Self::attach(fd).map_err(|error| de::Error::custom(attachments::reject(error)))
    }
}
