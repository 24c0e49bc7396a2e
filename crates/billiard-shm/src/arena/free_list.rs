//! Which parts of a range are free: best fit, any alignment, neighbours join again.
//!
//! Plain bookkeeping over numbers: no memory, no other process. It belongs to the process that owns the arena, so that
//! nobody else can damage it, and nobody's death leaves it half-changed.

use std::collections::{BTreeMap, BTreeSet};

/// What every offset and every length is a multiple of.
const UNIT: usize = 8;

/// Which parts of a range of offsets are free, for whoever keeps the account of a segment: the shortest part that has room is taken, and free neighbours join again.
///
/// It is the account that an [`Arena`](crate::Arena) keeps, without the segment, and without zeroing what is taken. All offsets and lengths are multiples of eight.
///
/// ```
/// use billiard_shm::FreeList;
///
/// let mut list = FreeList::new(1024);
/// let offset = list.take(100, 64).expect("there is room");
/// assert_eq!(offset % 64, 0);
/// list.give_back(offset, 100);
/// assert_eq!(list.longest(), 1024);
/// ```
#[derive(Debug)]
pub struct FreeList {
    /// The free parts: where each begins, and how long it is. No two touch.
    by_offset: BTreeMap<usize, usize>,
    /// The same, the shortest first.
    by_len: BTreeSet<(usize, usize)>,
    free: usize,
}

impl FreeList {
    /// All of `len` bytes, which are cut to whole units.
    #[must_use]
    pub fn new(len: usize) -> Self {
        let mut list = Self { by_offset: BTreeMap::new(), by_len: BTreeSet::new(), free: 0 };
        list.insert(0, len / UNIT * UNIT);
        list
    }

    /// How many bytes are free, in however many parts.
    #[must_use]
    pub fn free(&self) -> usize {
        self.free
    }

    /// The length of the longest free part.
    #[must_use]
    pub fn longest(&self) -> usize {
        self.by_len.last().map_or(0, |&(len, _)| len)
    }

    /// Takes `len` bytes, rounded up to whole units, whose offset is a multiple of `align`, a power of two, out of the shortest part that has them. None when there
    /// is no such part, or nothing is asked for.
    pub fn take(&mut self, len: usize, align: usize) -> Option<usize> {
        let len = round(len).filter(|&len| len > 0)?;
        let (offset, (part, part_len)) = self.by_len.range((len, 0)..).find_map(|&(part_len, part)| {
            let offset = part.checked_next_multiple_of(align.max(UNIT))?;
            (offset - part <= part_len - len).then_some((offset, (part, part_len)))
        })?;
        self.remove(part, part_len);
        self.insert(part, offset - part);
        self.insert(offset + len, part + part_len - (offset + len));
        Some(offset)
    }

    /// Gives back what was taken: that offset, and that length.
    pub fn give_back(&mut self, mut offset: usize, len: usize) {
        let Some(mut len) = round(len) else { return };
        if let Some((&before, &before_len)) = self.by_offset.range(..offset).next_back()
            && before + before_len == offset
        {
            self.remove(before, before_len);
            (offset, len) = (before, before_len + len);
        }
        if let Some(&after_len) = self.by_offset.get(&(offset + len)) {
            self.remove(offset + len, after_len);
            len += after_len;
        }
        self.insert(offset, len);
    }

    fn insert(&mut self, offset: usize, len: usize) {
        if len > 0 {
            self.by_offset.insert(offset, len);
            self.by_len.insert((len, offset));
            self.free += len;
        }
    }

    fn remove(&mut self, offset: usize, len: usize) {
        self.by_offset.remove(&offset);
        self.by_len.remove(&(len, offset));
        self.free -= len;
    }
}

/// The length that a block of `len` bytes takes.
fn round(len: usize) -> Option<usize> {
    len.checked_next_multiple_of(UNIT)
}

#[cfg(test)]
mod tests {
    use billiard_test_support::Random;

    use super::*;

    #[test]
    fn neighbours_join_again() {
        let mut list = FreeList::new(103);
        assert_eq!((list.free(), list.longest()), (96, 96));
        let parts: Vec<_> = (0..4).map(|_| list.take(24, 8).unwrap()).collect();
        assert_eq!(parts, [0, 24, 48, 72]);
        assert_eq!(list.take(8, 8), None);
        list.give_back(0, 24);
        list.give_back(48, 24);
        assert_eq!((list.free(), list.longest()), (48, 24));
        list.give_back(24, 24); // both neighbours
        assert_eq!(list.longest(), 72);
        list.give_back(72, 24);
        assert_eq!((list.longest(), list.by_offset.len(), list.by_len.len()), (96, 1, 1));
    }

    #[test]
    fn the_best_fit_is_taken() {
        let mut list = FreeList::new(256);
        let parts: Vec<_> = (0..8).map(|_| list.take(32, 8).unwrap()).collect();
        list.give_back(parts[1], 32);
        list.give_back(parts[2], 32);
        list.give_back(parts[5], 32);
        assert_eq!(list.take(16, 8), Some(parts[5]), "the shortest that has room");
        assert_eq!(list.take(64, 64), None);
        assert_eq!(list.take(32, 64), Some(64), "aligned, inside a longer one");
        assert_eq!(list.take(32, 8), Some(32));
    }

    #[test]
    fn nothing_overlaps_and_everything_comes_back() {
        let mut random = Random::from_env("nothing_overlaps_and_everything_comes_back");
        let mut list = FreeList::new(1 << 16);
        let mut taken: Vec<(usize, usize)> = Vec::new();
        let mut owner = vec![false; (1 << 16) / UNIT];
        for _ in 0..20_000 {
            if random.below(2) == 0 || taken.is_empty() {
                let len = round(random.below(2000) as usize + 1).unwrap();
                let align = 1 << random.below(13);
                let Some(offset) = list.take(len, align) else {
                    assert!(list.longest() < len + align);
                    continue;
                };
                assert!(offset % align == 0 && offset + len <= 1 << 16);
                for unit in &mut owner[offset / UNIT..(offset + len) / UNIT] {
                    assert!(!*unit, "two have the same");
                    *unit = true;
                }
                taken.push((offset, len));
            } else {
                let (offset, len) = taken.swap_remove(random.below(taken.len() as u64) as usize);
                owner[offset / UNIT..(offset + len) / UNIT].fill(false);
                list.give_back(offset, len);
            }
            let used: usize = taken.iter().map(|&(_, len)| len).sum();
            assert_eq!(list.free() + used, 1 << 16);
        }
        taken.drain(..).for_each(|(offset, len)| list.give_back(offset, len));
        assert_eq!((list.longest(), list.by_offset.len()), (1 << 16, 1));
    }
}
