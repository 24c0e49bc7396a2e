//! Memory of a file, mapped for as long as the handle lives.
//!
//! Bytes go in and out by copy, through atomic loads and stores, or what comes to that: whoever else writes the same memory meanwhile makes
//! the copy a mixture, and never the program undefined. There is no slice of it here; [`SharedBuffer`](crate::SharedBuffer)
//! has one, behind its protocol.

use std::{
    mem::MaybeUninit,
    os::fd::BorrowedFd,
    ptr::NonNull,
    sync::atomic::{AtomicU8, AtomicU64, Ordering},
};

use billiard_wire::generation::Generation;

use crate::{
    SegmentError, copy,
    sys::{self, Map, Spare},
};

/// How memory is mapped, beside its length.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Manner {
    pub(crate) populate: bool,
    pub(crate) dont_dump: bool,
    pub(crate) dont_fork: bool,
}

/// A shared mapping.
#[derive(Debug)]
pub(crate) struct Mapping {
    base: NonNull<u8>,
    len: usize,
    /// The process that has it, where copies by a fork do not.
    only_in: Option<Generation>,
}

// SAFETY: it is a range of addresses; all access goes through atomics, or is argued for where it happens.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    pub(crate) fn new(
        fd: BorrowedFd<'_>,
        (len, align): (usize, usize),
        writable: bool,
        manner: Manner,
    ) -> Result<Self, SegmentError> {
        let base = sys::map(fd, Map { len, align, writable, populate: manner.populate })?;
        let mapping = Self { base, len, only_in: manner.dont_fork.then(Generation::current) };
        for (wanted, what) in [(manner.dont_fork, Spare::Fork), (manner.dont_dump, Spare::Dump)] {
            if wanted {
                // SAFETY: the range is the mapping that was just made.
                unsafe { sys::spare(base, len, what) }?;
            }
        }
        Ok(mapping)
    }

    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Whether copies of the process by a fork do not have it.
    pub(crate) fn is_left_out_of_forks(&self) -> bool {
        self.only_in.is_some()
    }

    /// The address of `len` bytes at `offset`.
    ///
    /// # Panics
    ///
    /// When they are not inside.
    #[track_caller]
    fn range(&self, offset: usize, len: usize) -> NonNull<u8> {
        assert!(offset.checked_add(len).is_some_and(|end| end <= self.len), "a place outside the mapping");
        // SAFETY: the offset is inside the mapping, which is one allocation.
        unsafe { self.base.byte_add(offset) }
    }

    /// The word at `offset`, which is a multiple of eight. A mapping that can only be read must only be loaded from.
    pub(crate) fn word(&self, offset: usize) -> &AtomicU64 {
        let place = self.range(offset, 8).cast::<AtomicU64>();
        assert!(place.is_aligned(), "a word between two words");
        // SAFETY: the place is inside the mapping and aligned, any bytes are a value, and it lives as long as `self`.
        unsafe { place.as_ref() }
    }

    /// As many words from `offset` on, which is a multiple of eight.
    fn words(&self, offset: usize, count: usize) -> &[AtomicU64] {
        let first = self.range(offset, 8 * count).cast::<AtomicU64>();
        assert!(first.is_aligned(), "a word between two words");
        // SAFETY: as in `word`, for each of them.
        unsafe { std::slice::from_raw_parts(first.as_ptr(), count) }
    }

    /// As many bytes from `offset` on.
    fn bytes(&self, offset: usize, count: usize) -> &[AtomicU8] {
        // SAFETY: as in `word`; there is no alignment.
        unsafe { std::slice::from_raw_parts(self.range(offset, count).cast().as_ptr(), count) }
    }

    /// Copies out of the memory, eight bytes at a time where it can.
    pub(crate) fn copy_out(&self, offset: usize, into: &mut [u8]) {
        // SAFETY: places of bytes are places of what may be bytes, and nothing but bytes is put there.
        let into = unsafe { &mut *(std::ptr::from_mut(into) as *mut [MaybeUninit<u8>]) };
        self.copy_out_to(offset, into);
    }

    /// The same into memory that may be uninitialized, and is not afterwards.
    pub(crate) fn copy_out_to(&self, offset: usize, into: &mut [MaybeUninit<u8>]) {
        let place = self.range(offset, into.len()).as_ptr();
        // SAFETY: the range is inside the mapping, of which nobody has a slice.
        if unsafe { copy::many(place, into.as_mut_ptr().cast(), into.len()) } {
            return;
        }
        let (words, tail) = split(offset, into.len());
        let (head, rest) = into.split_at_mut(words);
        let (middle, end) = rest.split_at_mut(tail - words);
        // Relaxed, here and below: who needs an order has it from words of its own.
        let out = |bytes: &mut [MaybeUninit<u8>], offset| {
            for (from, byte) in self.bytes(offset, bytes.len()).iter().zip(bytes) {
                byte.write(from.load(Ordering::Relaxed));
            }
        };
        out(head, offset);
        let chunks = middle.as_chunks_mut::<8>().0;
        if !chunks.is_empty() {
            for (from, chunk) in self.words(offset + words, chunks.len()).iter().zip(chunks) {
                *chunk = from.load(Ordering::Relaxed).to_ne_bytes().map(MaybeUninit::new);
            }
        }
        out(end, offset + tail);
    }

    /// Copies into the memory, eight bytes at a time where it can.
    #[inline]
    pub(crate) fn copy_in(&self, offset: usize, from: &[u8]) {
        let place = self.range(offset, from.len()).as_ptr();
        // SAFETY: as in `copy_out`.
        if unsafe { copy::many(from.as_ptr(), place, from.len()) } {
            return;
        }
        match from.as_chunks::<8>() {
            (words, []) if offset.is_multiple_of(8) => self.copy_words_in(offset, words),
            _ => self.copy_bytes_in(offset, from),
        }
    }

    fn copy_bytes_in(&self, offset: usize, from: &[u8]) {
        let (words, tail) = split(offset, from.len());
        let copy = |bytes: &[u8], offset| {
            for (byte, into) in bytes.iter().zip(self.bytes(offset, bytes.len())) {
                into.store(*byte, Ordering::Relaxed);
            }
        };
        copy(&from[..words], offset);
        let chunks = from[words..tail].as_chunks::<8>().0;
        if !chunks.is_empty() {
            self.copy_words_in(offset + words, chunks);
        }
        copy(&from[tail..], offset + tail);
    }

    #[inline]
    fn copy_words_in(&self, offset: usize, from: &[[u8; 8]]) {
        for (chunk, into) in from.iter().zip(self.words(offset, from.len())) {
            into.store(u64::from_ne_bytes(*chunk), Ordering::Relaxed);
        }
    }
}

/// Where, in `len` bytes at `offset`, the whole words begin, and where they end.
fn split(offset: usize, len: usize) -> (usize, usize) {
    let head = (offset.next_multiple_of(8) - offset).min(len);
    (head, head + (len - head) / 8 * 8)
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // A copy of the process does not have it, and may have something else at its place.
        if self.only_in.is_none_or(Generation::is_current) {
            // SAFETY: the mapping is this handle's own, and whoever borrowed from it is gone.
            unsafe { sys::unmap(self.base, self.len) };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn bytes_come_out_as_they_went_in_at_every_offset() {
        let fd = sys::memfd("test").unwrap();
        sys::set_len(fd.as_fd(), 128).unwrap();
        let mapping = Mapping::new(fd.as_fd(), (128, 64), true, Manner::default()).unwrap();
        for offset in 0..20 {
            for len in 0..40 {
                let bytes: Vec<u8> = (0..len).map(|i| (i * 7 + offset + len) as u8 | 1).collect();
                mapping.copy_in(0, &[0; 128]);
                mapping.copy_in(offset, &bytes);
                let mut all = [0xff; 128];
                mapping.copy_out(0, &mut all);
                assert_eq!(&all[offset..offset + len], bytes);
                assert!(all[..offset].iter().chain(&all[offset + len..]).all(|&byte| byte == 0), "{offset} {len}");
                let mut some = vec![0; len];
                mapping.copy_out(offset, &mut some);
                assert_eq!(some, bytes);
            }
        }
    }

    #[test]
    #[should_panic(expected = "outside the mapping")]
    fn nothing_is_copied_outside() {
        let fd = sys::memfd("test").unwrap();
        sys::set_len(fd.as_fd(), 128).unwrap();
        let mapping = Mapping::new(fd.as_fd(), (128, 64), true, Manner::default()).unwrap();
        mapping.copy_in(120, &[0; 9]);
    }
}
