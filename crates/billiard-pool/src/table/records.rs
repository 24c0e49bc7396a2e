//! Records of one size, one for each slot, which one process writes and others read, a word at a time.

use std::{
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering},
};

use billiard_shm::{Segment, SegmentError};

const WORD: usize = size_of::<u64>();
/// How large a record is.
pub(crate) const RECORD: usize = 256;
/// The words of one.
const WORDS: usize = RECORD / WORD;

/// Nothing that is read here is trusted, nor any order of it: that is the slot word's.
#[derive(Clone, Debug)]
pub(super) struct Records {
    segment: Segment,
    first: NonNull<[AtomicU64; WORDS]>,
    count: usize,
}

// SAFETY: what it points to are atomics, and the segment, which keeps them mapped, goes with it.
unsafe impl Send for Records {}
// SAFETY: as above.
unsafe impl Sync for Records {}

impl Records {
    /// The records in a segment, which is long enough for `count` of them.
    pub(super) fn new(segment: Segment, count: usize) -> Result<Self, SegmentError> {
        let first = segment.address(0, count * RECORD, align_of::<AtomicU64>())?.cast();
        Ok(Self { segment, first, count })
    }

    pub(super) fn segment(&self) -> &Segment {
        &self.segment
    }

    #[inline]
    fn record(&self, slot: usize) -> Option<&[AtomicU64; WORDS]> {
        if slot >= self.count {
            return None;
        }
        // SAFETY: inside the segment, as `new` has checked.
        let record = unsafe { self.first.add(slot) };
        // SAFETY: aligned, mapped for as long as the segment lives, and made of atomics, which anybody may write meanwhile.
        Some(unsafe { record.as_ref() })
    }

    /// Writes the first words of a record, and bytes behind them; false when there is no such record, or they do not fit. For who can write the segment.
    #[inline]
    #[must_use]
    pub(super) fn write<const HEAD: usize>(&self, slot: usize, head: [u64; HEAD], bytes: &[u8]) -> bool {
        debug_assert!(self.segment.is_writable());
        let Some(record) = self.record(slot) else { return false };
        let (first, rest) = record.split_at(HEAD);
        if bytes.len() > rest.len() * WORD {
            return false;
        }
        // Relaxed, here and below: the slot word orders them.
        for (word, value) in first.iter().zip(head) {
            word.store(value, Ordering::Relaxed);
        }
        let (whole, last) = bytes.as_chunks::<WORD>();
        for (word, bytes) in rest.iter().zip(whole) {
            word.store(u64::from_ne_bytes(*bytes), Ordering::Relaxed);
        }
        if !last.is_empty()
            && let Some(word) = rest.get(whole.len())
        {
            let value = last.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte));
            word.store(u64::from_le(value), Ordering::Relaxed);
        }
        true
    }

    /// The first words of a record.
    #[inline]
    pub(super) fn head<const HEAD: usize>(&self, slot: usize) -> Option<[u64; HEAD]> {
        let record = self.record(slot)?;
        Some(std::array::from_fn(|at| record[at].load(Ordering::Relaxed)))
    }

    /// The `len` bytes behind the first `head` words, into a buffer; none when they cannot be.
    #[inline]
    pub(super) fn read(&self, slot: usize, head: usize, len: usize, into: &mut Vec<u8>) -> Option<()> {
        let words = self.record(slot)?.get(head..head + len.div_ceil(WORD))?;
        into.clear();
        into.reserve(words.len() * WORD);
        for word in words {
            into.extend_from_slice(&word.load(Ordering::Relaxed).to_ne_bytes());
        }
        into.truncate(len);
        Some(())
    }
}
