//! Many small things in one segment.
//!
//! An [`Arena`] belongs to the process that made it: that one alone allocates and frees, and keeps the account in memory of its own. Other
//! processes get [`View`]s, which are a segment, an offset and a length, and work in every process that maps the segment.

mod free_list;

use std::{
    alloc::Layout,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use billiard_wire::{
    attachments,
    generation::{Forked, Generation},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use thiserror::Error;

pub use self::free_list::FreeList;
use crate::{Kind, MAX_ALIGN, Place, Segment, SegmentError, Words};

const KIND: Kind = Kind::new("arena", 1);

/// Why an arena has no room.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ArenaError {
    /// A block has at least one byte.
    #[error("a block of no bytes was asked for: ask for one at least")]
    ZeroLength,
    /// More than segments align to.
    #[error("an alignment of {0} bytes was asked for, and {MAX_ALIGN} is the largest that there is")]
    BadAlign(usize),
    /// No free part is long enough.
    #[error(
        "the arena is full: {asked} bytes were asked for, {longest} is the most that is free in one piece, of {free} bytes in all"
    )]
    Full {
        /// What was asked for.
        asked: usize,
        /// The longest free part.
        longest: usize,
        /// What all free parts have together.
        free: usize,
    },
    /// The arena belongs to the process that this one was forked from.
    #[error(transparent)]
    Forked(#[from] Forked),
    /// The segment cannot be made.
    #[error(transparent)]
    Segment(#[from] SegmentError),
}

/// A segment from which blocks are allocated. Clones are of the same one.
///
/// Its size is fixed, and pages of it are used as they are first touched. It lives as long as a block of it, or a view, in whatever
/// process. In a copy of the process by a fork it refuses: make another.
///
/// If its process dies, the views that others have go on working; nothing is allocated or freed any more. If another
/// process dies, nothing changes: what it had views of is freed by its owner.
///
/// ```
/// use std::alloc::Layout;
///
/// use billiard_shm::Arena;
///
/// let arena = Arena::new(1 << 20)?;
/// let block = arena.alloc(Layout::from_size_align(100, 64)?)?;
/// block.write(0, b"hello")?;
/// let view = block.view(); // this is what travels
/// let mut bytes = [0; 5];
/// view.read(0, &mut bytes)?;
/// assert_eq!(&bytes, b"hello");
/// drop(block); // free again
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Arena(Arc<Inner>);

struct Inner {
    segment: Segment,
    list: Mutex<FreeList>,
    generation: Generation,
}

impl Inner {
    /// A panic while it was held is impossible but for want of memory; the list is whole then too.
    fn list(&self) -> MutexGuard<'_, FreeList> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Arena {
    /// An arena of `len` bytes.
    ///
    /// # Errors
    ///
    /// As [`SegmentOptions::create`](crate::SegmentOptions::create).
    pub fn new(len: usize) -> Result<Self, ArenaError> {
        let segment = Segment::options().align(MAX_ALIGN).create(KIND, len)?;
        let list = Mutex::new(FreeList::new(len));
        Ok(Self(Arc::new(Inner { segment, list, generation: Generation::current() })))
    }

    /// A block of that size and alignment, zeroed. It takes the next multiple of eight bytes.
    ///
    /// # Errors
    ///
    /// [`ArenaError::Full`], [`ArenaError::ZeroLength`], [`ArenaError::BadAlign`]; [`ArenaError::Forked`] in a copy of the process.
    pub fn alloc(&self, layout: Layout) -> Result<Block, ArenaError> {
        self.0.generation.check_current()?;
        let (len, align) = (layout.size(), layout.align());
        if len == 0 {
            return Err(ArenaError::ZeroLength);
        }
        if align > MAX_ALIGN {
            return Err(ArenaError::BadAlign(align));
        }
        let mut list = self.0.list();
        let full = ArenaError::Full { asked: len, longest: list.longest(), free: list.free() };
        let offset = list.take(len, align).ok_or(full)?;
        drop(list);
        let view = View { segment: self.0.segment.clone(), offset, len };
        let block = Block { view, arena: self.0.clone() };
        block.clear()?;
        Ok(block)
    }

    /// How many bytes are free, in however many parts.
    #[must_use]
    pub fn free(&self) -> usize {
        self.0.list().free()
    }
}

impl fmt::Debug for Arena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arena").field("len", &self.0.segment.len()).field("free", &self.free()).finish()
    }
}

/// A block of an [`Arena`], in the process that owns it. Dropping it frees it: views that others still have then show whatever
/// comes next there.
pub struct Block {
    view: View,
    arena: Arc<Inner>,
}

impl Block {
    /// What others get of it.
    #[must_use]
    pub fn view(&self) -> View {
        self.view.clone()
    }

    /// Copies zeros over it.
    fn clear(&self) -> Result<(), SegmentError> {
        const ZEROS: [u8; 4096] = [0; 4096];
        let mut offset = 0;
        while offset < self.view.len {
            let some = ZEROS.len().min(self.view.len - offset);
            self.view.write(offset, &ZEROS[..some])?;
            offset += some;
        }
        Ok(())
    }
}

impl std::ops::Deref for Block {
    type Target = View;

    fn deref(&self) -> &View {
        &self.view
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // A copy of the process has a copy of the list, which says nothing.
        if self.arena.generation.is_current() {
            self.arena.list().give_back(self.view.offset, self.view.len);
        }
    }
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Block").field("offset", &self.view.offset).field("len", &self.view.len).finish()
    }
}

/// A part of an arena, in any process: it can be part of messages. It keeps the arena's memory mapped, and the block in its place not.
#[derive(Clone, Debug)]
pub struct View {
    segment: Segment,
    offset: usize,
    len: usize,
}

impl View {
    /// How many bytes it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// False: it has at least one byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Where it is in the arena: a number that means the same in every process.
    #[must_use]
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// Copies bytes out. What another process writes meanwhile comes old, new or mixed.
    ///
    /// # Errors
    ///
    /// [`SegmentError::OutOfBounds`], [`SegmentError::Forked`].
    pub fn read(&self, offset: usize, into: &mut [u8]) -> Result<(), SegmentError> {
        self.bounds(offset, into.len())?;
        self.segment.read(self.offset + offset, into)
    }

    /// Copies bytes in.
    ///
    /// # Errors
    ///
    /// [`SegmentError::OutOfBounds`], [`SegmentError::Forked`].
    pub fn write(&self, offset: usize, from: &[u8]) -> Result<(), SegmentError> {
        self.bounds(offset, from.len())?;
        self.segment.write(self.offset + offset, from)
    }

    /// The words at `offset`. They stay what they are for as long as the block is allocated.
    ///
    /// # Errors
    ///
    /// [`SegmentError::OutOfBounds`], [`SegmentError::Misaligned`], [`SegmentError::Forked`].
    pub fn place<T: Words>(&self, offset: usize) -> Result<Place<T>, SegmentError> {
        self.bounds(offset, size_of::<T>())?;
        self.segment.place(self.offset + offset)
    }

    fn bounds(&self, offset: usize, len: usize) -> Result<(), SegmentError> {
        match offset.checked_add(len) {
            Some(end) if end <= self.len => Ok(()),
            _ => Err(SegmentError::OutOfBounds { offset, len, segment: self.len }),
        }
    }
}

impl Serialize for View {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (&self.segment, self.offset as u64, self.len as u64).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for View {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (segment, offset, len) = <(Segment, u64, u64)>::deserialize(deserializer)?;
        let (offset, len) = (offset as usize, len as usize);
        let whole = View { offset: 0, len: segment.len(), segment };
        let checked = whole.segment.check(KIND).and_then(|()| whole.bounds(offset, len));
        match checked {
            Ok(()) if len > 0 => Ok(Self { offset, len, ..whole }),
            Ok(()) => Err(de::Error::custom(attachments::reject(SegmentError::ZeroLength))),
            Err(error) => Err(de::Error::custom(attachments::reject(error))),
        }
    }
}
