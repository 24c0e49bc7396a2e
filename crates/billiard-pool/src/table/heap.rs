//! Room for what does not fit into a record: behind the records of a segment, one writer, who keeps the account in its own memory.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::fence};

use billiard_shm::{FreeList, Segment};

/// Each span begins on a cache line of its own.
const ALIGN: usize = 64;

/// A part of a heap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    offset: u32,
    len: u32,
}

impl Span {
    /// As a record has it; it may be anything.
    pub(super) fn new(offset: u64, len: u32) -> Option<Self> {
        Some(Self { offset: u32::try_from(offset).ok()?, len })
    }

    pub(super) fn offset(self) -> u64 {
        u64::from(self.offset)
    }

    pub(crate) fn len(self) -> usize {
        self.len as usize
    }
}

/// The memory of a heap: `len` bytes of a segment, from `begin` on.
#[derive(Clone, Debug)]
pub(super) struct Heap {
    segment: Segment,
    begin: usize,
    len: usize,
}

impl Heap {
    pub(super) fn new(segment: Segment, begin: usize, len: usize) -> Self {
        Self { segment, begin, len }
    }

    fn place(&self, span: Span) -> Option<usize> {
        let end = (span.offset as usize).checked_add(span.len())?;
        (end <= self.len).then(|| self.begin + span.offset as usize)
    }

    /// Copies bytes in; false when there is no such span. For who can write the segment.
    #[must_use]
    pub(super) fn write(&self, span: Span, bytes: &[u8]) -> bool {
        // Pairs with the Acquire of who copies what was there before and then asks whether it still was: it finds that this has been taken.
        fence(Ordering::Release);
        bytes.len() == span.len() && self.place(span).is_some_and(|at| self.segment.write(at, bytes).is_ok())
    }

    /// Copies bytes into a part of a span, from `at` on; false when that is not inside. For who can write the segment.
    #[inline]
    #[must_use]
    pub(super) fn write_part(&self, span: Span, at: usize, bytes: &[u8]) -> bool {
        let is_inside = at.checked_add(bytes.len()).is_some_and(|end| end <= span.len());
        is_inside && self.place(span).is_some_and(|begin| self.segment.write(begin + at, bytes).is_ok())
    }

    /// Copies the bytes of a span out; none when there is no such span. What is written there meanwhile comes old, new or mixed.
    pub(super) fn read(&self, span: Span, into: &mut Vec<u8>) -> Option<()> {
        let at = self.place(span)?;
        into.clear();
        self.segment.read_behind(at, span.len(), into).ok()
    }
}

/// Whoever writes a heap: what of it is free.
#[derive(Clone, Debug)]
pub(crate) struct Room(Arc<Mutex<FreeList>>);

impl Room {
    pub(crate) fn new(len: usize) -> Self {
        Self(Arc::new(Mutex::new(FreeList::new(len))))
    }

    fn list(&self) -> MutexGuard<'_, FreeList> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Room for so many bytes, if there is any.
    pub(crate) fn take(&self, len: usize) -> Option<Taken> {
        let narrow = u32::try_from(len).ok()?;
        let offset = u32::try_from(self.list().take(len, ALIGN)?).ok()?;
        Some(Taken { span: Span { offset, len: narrow }, room: self.clone() })
    }

    #[cfg(test)]
    pub(crate) fn free(&self) -> usize {
        self.list().free()
    }
}

/// A span that was taken, and is free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Taken {
    span: Span,
    room: Room,
}

impl Taken {
    pub(crate) fn span(&self) -> Span {
        self.span
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.room.list().give_back(self.span.offset as usize, self.span.len());
    }
}

/// What a worker has laid down in its heap and nobody has collected yet, as far as it knows: nobody tells it, but the slot word does.
#[derive(Debug)]
pub(super) struct Shelf {
    room: Room,
    /// With the slot and the generation of the job.
    laid: Vec<(Taken, usize, u64)>,
    /// How many there may be until it looks which are still wanted.
    look_at: usize,
}

impl Shelf {
    /// So few are looked at each time.
    const FEW: usize = 16;

    pub(super) fn new(len: usize) -> Self {
        Self { room: Room::new(len), laid: Vec::new(), look_at: Self::FEW }
    }

    /// Room for the result of a job, if there is any beside what `is_wanted`.
    pub(super) fn take(
        &mut self,
        len: usize,
        (slot, generation): (usize, u64),
        is_wanted: impl Fn(usize, u64) -> bool,
    ) -> Option<Span> {
        let forget = |laid: &mut Vec<(Taken, usize, u64)>| {
            laid.retain(|&(_, slot, generation)| is_wanted(slot, generation));
        };
        if self.laid.len() <= Self::FEW || self.laid.len() >= self.look_at {
            forget(&mut self.laid);
            self.look_at = 2 * self.laid.len().max(Self::FEW);
        }
        let taken = self.room.take(len).or_else(|| {
            forget(&mut self.laid);
            self.room.take(len)
        })?;
        let span = taken.span();
        self.laid.push((taken, slot, generation));
        Some(span)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use billiard_shm::Kind;

    use super::*;

    #[test]
    fn a_span_comes_back_as_it_was_written_and_none_is_outside() {
        let segment = Segment::create(Kind::new("test", 1), 4096).unwrap();
        let heap = Heap::new(segment, 1024, 2048);
        let room = Room::new(2048);
        let (first, second) = (room.take(100).unwrap(), room.take(65).unwrap());
        assert_eq!(second.span(), Span { offset: 128, len: 65 });
        assert!(heap.write(first.span(), &[1; 100]) && heap.write(second.span(), &[2; 65]));
        let mut bytes = Vec::new();
        assert_eq!(heap.read(first.span(), &mut bytes), Some(()));
        assert_eq!(bytes, [1; 100]);
        assert_eq!(heap.read(second.span(), &mut bytes), Some(()));
        assert_eq!(bytes, [2; 65]);
        assert!(!heap.write(first.span(), &[1; 99]), "another length");
        for (offset, len) in [(2048, 1), (2000, 49), (u64::from(u32::MAX), u32::MAX), (1 << 32, 0)] {
            assert_eq!(Span::new(offset, len).and_then(|span| heap.read(span, &mut bytes)), None, "{offset} {len}");
        }
        drop((first, second));
        assert_eq!(room.free(), 2048);
    }

    #[test]
    fn a_shelf_has_room_again_once_nobody_wants_what_is_there() {
        let mut shelf = Shelf::new(1 << 16);
        let mut wanted = HashSet::new();
        // Many small ones that are wanted, until it is full.
        let mut count = 0;
        while shelf.take(1000, (count, 1), |slot, _| wanted.contains(&slot)).is_some() {
            wanted.insert(count);
            count += 1;
            assert!(count <= (1 << 16) / 1024, "it gives away what is wanted");
        }
        assert_eq!(count, (1 << 16) / 1024);
        wanted.retain(|slot| slot % 2 == 0);
        for more in 0..count / 2 {
            let slot = count + more;
            assert!(shelf.take(1000, (slot, 1), |slot, _| wanted.contains(&slot)).is_some());
            wanted.insert(slot);
        }
        assert!(shelf.take(1000, (0, 2), |slot, _| wanted.contains(&slot)).is_none());
        wanted.clear();
        assert_eq!(shelf.take(1 << 16, (0, 3), |_, _| false), Some(Span { offset: 0, len: 1 << 16 }));
    }
}
