//! Memory that several processes map, and that says what it is.
//!
//! A [`Segment`] is a memory file without a name ([memfd_create(2)]) that is sealed against shrinking and growing, so that
//! nobody can pull it from under whoever has mapped it. In front of its bytes is a header that is checked on attach. What the
//! bytes mean, and who writes which of them when, is the affair of the layers above: here they are copied in and out, or
//! lent as [`Words`]. Memory with a name, for other programs to find, is [`NamedMemory`](crate::NamedMemory).
//!
//! [memfd_create(2)]: https://man7.org/linux/man-pages/man2/memfd_create.2.html

use std::{
    fmt,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    ptr::NonNull,
    sync::{Arc, atomic::AtomicU64},
};

use billiard_wire::{
    attachments::{self, Attachment},
    fault,
    generation::{Forked, Generation},
};
use rustix::fs::SealFlags;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};

use crate::{
    SegmentError,
    header::{self, Header, Kind},
    mapping::{Manner, Mapping},
    sys,
    words::{Place, Words},
};

/// The largest alignment that a segment can be asked for: a huge page.
pub const MAX_ALIGN: usize = 2 << 20;

/// Memory without a name that several processes map.
///
/// Every clone, in every process, is of the same memory, which lives until the last of them is gone. New memory is zeroed.
/// A segment that is part of a message takes its descriptor along; who receives it maps it anew. After `Context::fork` it works in
/// the child; in a copy of the process that was forked by hand every call is [`SegmentError::Forked`].
///
/// If a process dies, however, its mapping goes with it and nothing else: what it had written stays, and what it was about
/// to write does not come.
///
/// ```
/// use billiard_shm::{Kind, Segment};
///
/// const SAMPLES: Kind = Kind::new("samples", 1);
///
/// let segment = Segment::create(SAMPLES, 1000)?;
/// segment.write(10, b"hello")?;
/// let other: Segment = segment.clone();
/// let mut bytes = [0; 5];
/// other.read(10, &mut bytes)?;
/// assert_eq!(&bytes, b"hello");
/// assert!(segment.check(Kind::new("sums", 1)).is_err());
/// # Ok::<(), billiard_shm::SegmentError>(())
/// ```
#[derive(Clone)]
pub struct Segment(Arc<Inner>);

struct Inner {
    mapping: Mapping,
    fd: OwnedFd,
    header: Header,
    writable: bool,
    generation: Generation,
}

/// How a segment is made and mapped. See [`Segment::options`].
#[derive(Clone, Copy, Debug, Default)]
#[must_use = "it makes nothing until `create` or `attach` is called"]
pub struct SegmentOptions {
    manner: Manner,
    align: Option<usize>,
    read_only_for_others: bool,
    owned: bool,
    tag: u64,
    may_be_frozen: bool,
}

impl SegmentOptions {
    /// Whether the kernel finds the memory at once, instead of page by page when it is first used.
    pub fn populate(mut self, yes: bool) -> Self {
        self.manner.populate = yes;
        self
    }

    /// Whether core dumps of this process leave it out (MADV_DONTDUMP of
    /// [madvise(2)](https://man7.org/linux/man-pages/man2/madvise.2.html)).
    pub fn dont_dump(mut self, yes: bool) -> Self {
        self.manner.dont_dump = yes;
        self
    }

    /// A fork of this process leaves it out (MADV_DONTFORK). Its handles then refuse in every copy.
    ///
    /// # Safety
    ///
    /// In a copy of the process nothing is at its addresses, or something else: neither a [`Place`] in it, nor an address of it, is used there.
    pub unsafe fn dont_fork(mut self) -> Self {
        self.manner.dont_fork = true;
        self
    }

    /// What the first byte is aligned to, in every process; 64 unless asked otherwise. At most [`MAX_ALIGN`]. For
    /// [`create`](Self::create) alone: who attaches finds it in the header.
    pub fn align(mut self, align: usize) -> Self {
        self.align = Some(align);
        self
    }

    /// Whether everybody else can only read it, by the word of the kernel (F_SEAL_FUTURE_WRITE of
    /// [fcntl(2)](https://man7.org/linux/man-pages/man2/fcntl.2.html)): only what is mapped now can be written through.
    /// For [`create`](Self::create) alone.
    pub fn read_only_for_others(mut self, yes: bool) -> Self {
        self.read_only_for_others = yes;
        self
    }

    /// Its bytes are for the protocol of its kind alone. What is made so is attached to so, or refused; and the other way round. For a
    /// protocol that lends references to them, one owner at a time: nobody else can get at the bytes then, not by receiving the segment out of a
    /// message as a plain one either.
    ///
    /// # Safety
    ///
    /// Whoever has the segment checks its kind before anything else, hands out neither it nor its bytes, and uses them as all others do
    /// that have segments of this kind.
    pub unsafe fn owned(mut self) -> Self {
        self.owned = true;
        self
    }

    /// A number that says what it belongs to, for who attaches: see [`Segment::tag`]. For [`create`](Self::create) alone.
    pub fn tag(mut self, tag: u64) -> Self {
        self.tag = tag;
        self
    }

    /// Leaves room for the seal that ends all writing.
    pub(crate) fn may_be_frozen(mut self) -> Self {
        self.may_be_frozen = true;
        self
    }

    /// Makes a segment of `len` zeroed bytes.
    ///
    /// # Errors
    ///
    /// [`SegmentError::ZeroLength`], [`SegmentError::TooLarge`] and [`SegmentError::BadAlign`] for what was asked,
    /// [`SegmentError::Io`] when the process may open no more files or map no more memory.
    pub fn create(self, kind: Kind, len: usize) -> Result<Segment, SegmentError> {
        let align = self.align.unwrap_or(header::LEN);
        if len == 0 {
            return Err(SegmentError::ZeroLength);
        }
        if !align.is_power_of_two() || align > MAX_ALIGN {
            return Err(SegmentError::BadAlign(align));
        }
        let header = Header { kind, len: len as u64, align: align as u64, owned: self.owned, tag: self.tag };
        let total = len.checked_add(header.begin()).filter(|&total| total <= isize::MAX as usize - MAX_ALIGN);
        let total = total.ok_or(SegmentError::TooLarge(len))?;
        let fd = sys::memfd("billiard")?;
        sys::set_len(fd.as_fd(), total as u64)?;
        sys::write_at(fd.as_fd(), &header.to_bytes(), 0)?;
        fault::point("shm.segment.written");
        let mapping = Mapping::new(fd.as_fd(), (total, align), true, self.manner)?;
        let mut seals = SealFlags::SHRINK | SealFlags::GROW;
        seals.set(SealFlags::FUTURE_WRITE, self.read_only_for_others);
        seals.set(SealFlags::SEAL, !self.may_be_frozen);
        sys::add_seals(fd.as_fd(), seals)?;
        fault::point("shm.segment.sealed");
        Ok(Segment::new(mapping, fd, header, true))
    }

    /// Maps the segment that `fd` is of, whatever kind it is of. It can be written unless it was made
    /// [read-only for others](Self::read_only_for_others) or is frozen.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with it has its [`SegmentError`]: that it is no memory, not sealed, cut short, not a segment, not
    /// finished, of another version. The descriptor is closed then.
    pub fn attach(self, fd: OwnedFd) -> Result<Segment, SegmentError> {
        if !sys::info(fd.as_fd())?.is_regular {
            return Err(SegmentError::NotMemory);
        }
        let seals = sys::seals(fd.as_fd())?;
        if !seals.contains(SealFlags::SHRINK) {
            return Err(SegmentError::NotSealed);
        }
        // Behind the seals: a length from before could be gone by now.
        let info = sys::info(fd.as_fd())?;
        let mut bytes = [0; header::LEN];
        let has = sys::read_at(fd.as_fd(), &mut bytes, 0)? as u64;
        if has < bytes.len() as u64 {
            return Err(SegmentError::Truncated { needs: bytes.len() as u64, has });
        }
        let header = Header::from_bytes(&bytes, info.len)?;
        match (header.owned, self.owned) {
            (true, false) => return Err(SegmentError::Owned(header.kind)),
            (false, true) => return Err(SegmentError::NotOwned(header.kind)),
            _ => {}
        }
        let total = usize::try_from(header.len).ok().and_then(|len| len.checked_add(header.begin()));
        let total = total.filter(|&total| total <= isize::MAX as usize - MAX_ALIGN);
        let total = total.ok_or(SegmentError::Damaged("its length is beyond any memory"))?;
        let writable = !seals.intersects(SealFlags::FUTURE_WRITE | SealFlags::WRITE);
        let mapping = Mapping::new(fd.as_fd(), (total, header.align as usize), writable, self.manner)?;
        Ok(Segment::new(mapping, fd, header, writable))
    }
}

impl Segment {
    /// A segment of `len` zeroed bytes.
    ///
    /// # Errors
    ///
    /// As [`SegmentOptions::create`].
    pub fn create(kind: Kind, len: usize) -> Result<Self, SegmentError> {
        Self::options().create(kind, len)
    }

    /// The segment of that kind that `fd` is of.
    ///
    /// # Errors
    ///
    /// As [`SegmentOptions::attach`] and [`check`](Self::check).
    pub fn attach(fd: OwnedFd, kind: Kind) -> Result<Self, SegmentError> {
        let segment = Self::options().attach(fd)?;
        segment.check(kind)?;
        Ok(segment)
    }

    /// How to make or map one: nothing special so far.
    pub fn options() -> SegmentOptions {
        SegmentOptions::default()
    }

    fn new(mapping: Mapping, fd: OwnedFd, header: Header, writable: bool) -> Self {
        Self(Arc::new(Inner { mapping, fd, header, writable, generation: Generation::current() }))
    }

    /// An error unless it is of this kind, version and [type](Kind::of).
    ///
    /// # Errors
    ///
    /// [`SegmentError::WrongKind`], [`SegmentError::WrongType`].
    pub fn check(&self, kind: Kind) -> Result<(), SegmentError> {
        self.0.header.check(kind, "the one asked for")
    }

    /// The same, where the kind is [of that type](Kind::of), which the error names.
    pub(crate) fn check_type<T: 'static>(&self, kind: Kind) -> Result<(), SegmentError> {
        self.0.header.check(kind.of::<T>(), std::any::type_name::<T>())
    }

    /// The word at that offset of the header.
    pub(crate) fn header_word(&self, offset: usize) -> &AtomicU64 {
        self.0.mapping.word(offset)
    }

    /// The address of its first byte.
    pub(crate) fn base(&self) -> NonNull<u8> {
        // SAFETY: a segment has at least one byte behind its header, inside the mapping.
        unsafe { self.0.mapping.base().byte_add(self.0.header.begin()) }
    }

    /// Unmaps it and keeps the descriptor, if this is the only handle here.
    pub(crate) fn into_fd(self) -> Result<OwnedFd, Self> {
        match Arc::try_unwrap(self.0) {
            Ok(inner) => Ok(inner.fd), // the mapping is dropped
            Err(shared) => Err(Self(shared)),
        }
    }

    /// An error in a copy of the process that was forked by hand.
    ///
    /// # Errors
    ///
    /// [`Forked`].
    #[inline]
    pub fn check_usable(&self) -> Result<(), Forked> {
        if self.0.mapping.is_left_out_of_forks() {
            self.0.generation.check_current()
        } else {
            self.0.generation.check_usable()
        }
    }

    /// Writes anew what stands in front of its bytes and says what it is: for memory whose other users are not trusted to have left that as it was, before it is
    /// handed to somebody else.
    ///
    /// # Errors
    ///
    /// [`SegmentError::ReadOnly`], [`SegmentError::Forked`].
    pub fn mend(&self) -> Result<(), SegmentError> {
        self.check_usable()?;
        if !self.0.writable {
            return Err(SegmentError::ReadOnly);
        }
        self.0.mapping.copy_in(0, &self.0.header.to_bytes());
        Ok(())
    }

    /// The number that its maker gave it, as it stood there when this handle came to be; 0 unless there was one.
    #[must_use]
    pub fn tag(&self) -> u64 {
        self.0.header.tag
    }

    /// How many bytes it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.header.len as usize
    }

    /// False: a segment has at least one byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }

    /// What its first byte is aligned to.
    #[must_use]
    pub fn align(&self) -> usize {
        self.0.header.begin() // a power of two, since both that it is the larger of are
    }

    /// Whether this process can write it.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.0.writable
    }

    /// Whether both are the same memory.
    #[must_use]
    pub fn is_same_as(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
            || match (sys::info(self.as_fd()), sys::info(other.as_fd())) {
                (Ok(one), Ok(two)) => one.identity == two.identity,
                _ => false,
            }
    }

    /// Copies bytes out. What another process writes meanwhile comes old, new or mixed.
    ///
    /// # Errors
    ///
    /// [`SegmentError::OutOfBounds`], [`SegmentError::Forked`].
    pub fn read(&self, offset: usize, into: &mut [u8]) -> Result<(), SegmentError> {
        self.check_usable()?;
        self.bounds(offset, into.len())?;
        self.0.mapping.copy_out(self.0.header.begin() + offset, into);
        Ok(())
    }

    /// As [`read`](Self::read), `len` bytes, which go behind those in `into`. Where the segment has not so many, no room is made for them.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub fn read_behind(&self, offset: usize, len: usize, into: &mut Vec<u8>) -> Result<(), SegmentError> {
        self.check_usable()?;
        self.bounds(offset, len)?;
        into.reserve(len);
        self.0.mapping.copy_out_to(self.0.header.begin() + offset, &mut into.spare_capacity_mut()[..len]);
        // SAFETY: so many bytes behind its own have just been initialized, in room that it has.
        unsafe { into.set_len(into.len() + len) };
        Ok(())
    }

    /// Copies bytes in.
    ///
    /// # Errors
    ///
    /// [`SegmentError::OutOfBounds`], [`SegmentError::ReadOnly`], [`SegmentError::Forked`].
    #[inline]
    pub fn write(&self, offset: usize, from: &[u8]) -> Result<(), SegmentError> {
        self.check_usable()?;
        if !self.0.writable {
            return Err(SegmentError::ReadOnly);
        }
        self.bounds(offset, from.len())?;
        self.0.mapping.copy_in(self.0.header.begin() + offset, from);
        Ok(())
    }

    /// The words at `offset`.
    ///
    /// # Errors
    ///
    /// [`SegmentError::OutOfBounds`], [`SegmentError::Misaligned`], [`SegmentError::ReadOnly`], [`SegmentError::Forked`].
    pub fn place<T: Words>(&self, offset: usize) -> Result<Place<T>, SegmentError> {
        self.check_usable()?;
        Place::new(self.clone(), offset)
    }

    /// That many words of one type, beginning at `offset`.
    ///
    /// # Errors
    ///
    /// As [`place`](Self::place).
    pub fn places<T: Words>(&self, offset: usize, count: usize) -> Result<Place<[T]>, SegmentError> {
        self.check_usable()?;
        Place::slice(self.clone(), offset, count)
    }

    /// The address of `len` bytes at `offset`, for as long as the segment lives. Whoever uses it answers for every access:
    /// other processes may write there at any moment.
    ///
    /// # Errors
    ///
    /// [`SegmentError::OutOfBounds`], [`SegmentError::Misaligned`].
    pub fn address(&self, offset: usize, len: usize, align: usize) -> Result<NonNull<u8>, SegmentError> {
        self.bounds(offset, len)?;
        // SAFETY: inside the mapping, as was just checked.
        let place = unsafe { self.0.mapping.base().byte_add(self.0.header.begin() + offset) };
        if place.as_ptr().addr().is_multiple_of(align) {
            Ok(place)
        } else {
            Err(SegmentError::Misaligned { offset, align })
        }
    }

    #[inline]
    fn bounds(&self, offset: usize, len: usize) -> Result<(), SegmentError> {
        match offset.checked_add(len) {
            Some(end) if end <= self.len() => Ok(()),
            _ => Err(SegmentError::OutOfBounds { offset, len, segment: self.len() }),
        }
    }
}

impl AsFd for Segment {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.fd.as_fd()
    }
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Segment")
            .field("kind", &format_args!("{}", self.0.header.kind))
            .field("len", &self.len())
            .field("writable", &self.0.writable)
            .finish()
    }
}

impl AsFd for Inner {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The sender keeps its own: a segment is shared.
impl Attachment for Inner {}

impl Serialize for Segment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.check_usable().map_err(|error| ser::Error::custom(attachments::refuse(error)))?;
        attachments::attach(self.0.clone()).map_err(ser::Error::custom)?.serialize(serializer)
    }
}

/// Maps the segment, of whatever kind: [`Segment::check`] comes next.
impl<'de> Deserialize<'de> for Segment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let fd = attachments::take(u32::deserialize(deserializer)?).map_err(de::Error::custom)?;
        Self::options().attach(fd).map_err(|error| de::Error::custom(attachments::reject(error)))
    }
}
