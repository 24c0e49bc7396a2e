//! Words inside a segment that several processes write, as a type.

use std::{fmt, marker::PhantomData, ops::Deref, ptr::NonNull, sync::atomic};

use crate::{Segment, SegmentError, futex::Futex};

/// What several processes may use at once by reference: atomics, and structs and arrays of them.
///
/// # Safety
///
/// * Every byte is part of an atomic of this type, or is padding that nobody looks at: any process may write any of it at
///   any moment.
/// * Any bytes are a value, all zeros included.
/// * The layout is fixed (`repr(C)`), the same in every program that maps it; there is no pointer inside, and nothing to drop.
/// * The alignment is at most 64 bytes.
///
/// ```
/// use std::sync::atomic::Ordering;
///
/// use billiard_shm::{Kind, Segment, Words, futex::Futex, prim::AtomicU64};
///
/// #[repr(C)]
/// struct Counter {
///     turn: Futex,
///     total: AtomicU64,
/// }
/// // SAFETY: two atomics, `repr(C)`; the padding between them is never looked at.
/// unsafe impl Words for Counter {}
///
/// let segment = Segment::create(Kind::new("counter", 1), size_of::<Counter>())?;
/// let counter = segment.place::<Counter>(0)?;
/// counter.total.fetch_add(1, Ordering::Relaxed);
/// assert_eq!(counter.total.load(Ordering::Relaxed), 1);
/// # Ok::<(), billiard_shm::SegmentError>(())
/// ```
pub unsafe trait Words: Send + Sync + 'static {}

macro_rules! words {
    ($($atomic:ty),*) => {
        $(
            // SAFETY: it is one atomic.
            unsafe impl Words for $atomic {}
        )*
    };
}

words!(
    atomic::AtomicU8,
    atomic::AtomicU16,
    atomic::AtomicU32,
    atomic::AtomicU64,
    atomic::AtomicI8,
    atomic::AtomicI16,
    atomic::AtomicI32,
    atomic::AtomicI64
);

// SAFETY: a transparent atomic.
unsafe impl Words for Futex {}

// SAFETY: as its elements.
unsafe impl<T: Words, const N: usize> Words for [T; N] {}

// SAFETY: as its elements.
unsafe impl<T: Words> Words for [T] {}

/// Words at a place in a segment, which stays mapped for as long as this lives; a leaked one keeps it for ever.
///
/// Every clone, in every process, is of the same words. In a copy of the process that was forked by hand they are still those,
/// unless the segment was mapped [not to be copied](crate::SegmentOptions::dont_fork): there, nothing is at the place, and
/// [`Segment::check_usable`] says so.
pub struct Place<T: ?Sized> {
    segment: Segment,
    words: NonNull<T>,
    marker: PhantomData<T>,
}

// SAFETY: it lends nothing but `&T`, and `T: Words` is `Sync`; the segment goes with it.
unsafe impl<T: Words + ?Sized> Send for Place<T> {}
// SAFETY: as above.
unsafe impl<T: Words + ?Sized> Sync for Place<T> {}

impl<T: Words> Place<T> {
    pub(crate) fn new(segment: Segment, offset: usize) -> Result<Self, SegmentError> {
        if !segment.is_writable() {
            return Err(SegmentError::ReadOnly); // a store through `&T` would end the process
        }
        let words = segment.address(offset, size_of::<T>(), align_of::<T>())?.cast();
        Ok(Self { segment, words, marker: PhantomData })
    }
}

impl<T: Words> Place<[T]> {
    pub(crate) fn slice(segment: Segment, offset: usize, count: usize) -> Result<Self, SegmentError> {
        if !segment.is_writable() {
            return Err(SegmentError::ReadOnly);
        }
        let len = size_of::<T>().checked_mul(count).ok_or(SegmentError::TooLarge(usize::MAX))?;
        let first = segment.address(offset, len, align_of::<T>())?.cast();
        Ok(Self { segment, words: NonNull::slice_from_raw_parts(first, count), marker: PhantomData })
    }
}

impl<T: Words + ?Sized> Place<T> {
    /// The segment that they are in.
    #[must_use]
    pub fn segment(&self) -> &Segment {
        &self.segment
    }
}

impl<T: Words + ?Sized> Deref for Place<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the place was checked to be inside the segment, aligned and writable; the segment is mapped as long as
        // `self.segment` lives; and `T: Words` may be referred to while others write it, whatever its bytes.
        unsafe { self.words.as_ref() }
    }
}

impl<T: ?Sized> Clone for Place<T> {
    fn clone(&self) -> Self {
        Self { segment: self.segment.clone(), words: self.words, marker: PhantomData }
    }
}

impl<T: ?Sized> fmt::Debug for Place<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place").field("segment", &self.segment).field("at", &self.words).finish()
    }
}
