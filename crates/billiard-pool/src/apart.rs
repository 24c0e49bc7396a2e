//! Encoded values that are too large for anything else: each in memory of its own, which is frozen before it goes to another process, so that it can be
//! decoded where it is.

use std::{
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use billiard_context::RemoteError;
use billiard_shm::{FrozenBuffer, SharedBuffer};
use billiard_wire::exact::Bytes;

use crate::chunk::Outcomes;

/// From which size on a value is worth a segment of its own.
pub(crate) const LEAST: usize = 64 << 10;
/// How many a pool has at a time, in each direction: each has a descriptor.
const MOST: usize = 64;

/// Counts those of one direction.
#[derive(Clone, Debug, Default)]
pub(crate) struct Census(Arc<AtomicUsize>);

/// One that counts, for as long as this is there.
#[derive(Debug)]
struct Counted(Census);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An encoded value in memory of its own.
#[derive(Debug)]
pub(crate) struct Apart {
    bytes: FrozenBuffer<u8>,
    _counted: Counted,
}

impl Census {
    /// Counts another, unless there are many.
    fn count(&self) -> Option<Counted> {
        let more = |count| (count < MOST).then_some(count + 1);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Counted(self.clone()))
    }

    /// A copy of these bytes in memory of its own; none where that is not to be had, or there are many.
    pub(crate) fn copy(&self, bytes: &[u8]) -> Option<Apart> {
        let counted = self.count()?;
        Some(Apart { bytes: freeze(bytes)?, _counted: counted })
    }

    /// What has come; on the heap where there are many. One that says that it is larger than what its worker has paid for with memory is refused: to decode it might
    /// take more than there is.
    pub(crate) fn accept(&self, bytes: FrozenBuffer<u8>) -> Result<Encoded, RemoteError> {
        if !bytes.is_backed() {
            return Err(RemoteError::msg("it is in a memory file with holes"));
        }
        if let Some(counted) = self.count() {
            return Ok(Encoded::Apart(Apart { bytes, _counted: counted }));
        }
        let mut copy = Vec::new();
        copy.try_reserve_exact(bytes.len()).map_err(RemoteError::from)?;
        copy.extend_from_slice(&bytes);
        Ok(Encoded::Here(copy))
    }
}

/// A copy of these bytes in frozen memory, if that is to be had.
pub(crate) fn freeze(bytes: &[u8]) -> Option<FrozenBuffer<u8>> {
    SharedBuffer::from_slice(bytes).ok()?.freeze().ok()
}

impl Apart {
    /// What travels.
    pub(crate) fn bytes(&self) -> &FrozenBuffer<u8> {
        &self.bytes
    }
}

/// An encoded value, wherever it is.
#[derive(Debug)]
pub(crate) enum Encoded {
    Here(Vec<u8>),
    Apart(Apart),
    /// Not one: those of a chunk.
    Items(Box<Outcomes>),
}

impl Encoded {
    /// For who decodes it.
    pub(crate) fn as_bytes(&mut self) -> Bytes<'_> {
        match self {
            Self::Here(bytes) => Bytes::Vec(bytes),
            other => Bytes::Slice(other),
        }
    }
}

impl From<Vec<u8>> for Encoded {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Here(bytes)
    }
}

impl Deref for Encoded {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Here(bytes) => bytes,
            Self::Apart(apart) => &apart.bytes,
            Self::Items(_) => &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_are_apart_and_the_rest_is_on_the_heap() {
        let census = Census::default();
        let _another_handle = census.clone();
        let mut held: Vec<_> = (0..MOST).map(|n| census.copy(&[n as u8; 100]).expect("there is room")).collect();
        assert!(census.copy(&[1]).is_none());
        let more = census.accept(freeze(&[7; 100]).unwrap()).unwrap();
        assert!(matches!(&more, Encoded::Here(bytes) if bytes == &[7; 100]));
        held.pop();
        let more = census.accept(freeze(&[7; 100]).unwrap()).unwrap();
        assert!(matches!(&more, Encoded::Apart(_)) && more[..] == [7; 100]);
        assert!(freeze(&[]).is_none(), "of no bytes there is no segment");
    }

    #[test]
    fn what_nobody_has_paid_for_is_refused() {
        let holes = SharedBuffer::<u8>::zeroed(1 << 40).unwrap().freeze().unwrap();
        let refused = Census::default().accept(holes).unwrap_err();
        assert_eq!(refused.to_string(), "it is in a memory file with holes");
    }
}
