//! The table of participants, and how the living are told from the dead.
//!
//! One segment, with a record for each process. That a process lives is said by a lock on one byte of the
//! segment's file, which the kernel takes away when the process ends ([fcntl(2)], traditional record locks: those belong to the
//! process, are not inherited by a fork, and end with an exec, since our descriptors do). It has one weakness: it is lost when the process
//! closes *any* descriptor of that file, and such descriptors come with messages and are closed by whoever drops one. So a free lock
//! alone is no proof of death. It is one together with the record: a pid, the moment when that process was
//! started, and the number of the descriptor that the process never closes. Only who is not there any more, or has
//! another descriptor in its place, is dead. And whoever notices that his own lock is gone takes it again.
//!
//! [fcntl(2)]: https://man7.org/linux/man-pages/man2/fcntl.2.html

use std::{
    fmt,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use billiard_wire::{
    attachments, fault,
    generation::{Forked, Generation},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use thiserror::Error;

use super::{GENERATION_MASK, Member, ledger::MAX_MEMBERS};
use crate::{
    Kind, Place, Segment, SegmentError, SegmentOptions, Words,
    prim::{AtomicU32, AtomicU64, Ordering},
    sys,
};

/// How many processes a registry has room for, unless asked otherwise.
pub const DEFAULT_CAPACITY: usize = 1024;

const KIND: Kind = Kind::new("members", 1);

/// Why a process cannot be told from the dead.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// As many processes as there are records take part.
    #[error("{0} processes take part already, and there is room for no more: let some end, or drop what they share")]
    Full(usize),
    /// A capacity of nothing, or of more than can be written down.
    #[error("a registry has room for 1 to {MAX_MEMBERS} processes, not for {0}")]
    BadCapacity(usize),
    /// It was made where pids mean something else: in another container.
    #[error(
        "the registry was made in another pid namespace: processes of two containers cannot see each other's deaths"
    )]
    OtherNamespace,
    /// The segment is none, or cannot be made.
    #[error(transparent)]
    Segment(#[from] SegmentError),
}

impl From<sys::Failed> for RegistryError {
    fn from(failed: sys::Failed) -> Self {
        Self::Segment(failed.into())
    }
}

impl From<Forked> for RegistryError {
    fn from(forked: Forked) -> Self {
        Self::Segment(forked.into())
    }
}

/// What stands in front of the records. Written by the maker, before anybody else has the segment.
#[repr(C)]
#[derive(Debug)]
struct Head {
    namespace: AtomicU64,
    capacity: AtomicU64,
}

// SAFETY: two atomics, `repr(C)`.
unsafe impl Words for Head {}

/// One participant.
///
/// # Peers
///
/// All three words are written by the process that has the lock on the record's byte, and by nobody else; in this order
/// when it joins: `generation`, `descriptor`, `identity`. When it leaves: `identity`. Whoever looks finds, after a death
/// between any two steps, no lock, and the identity of a process that is gone; after a stop, a lock whose holder is not the one
/// of the identity, so that the identity decides.
#[repr(C)]
#[derive(Debug)]
struct Record {
    /// The pid, and the moment when it was started; 0 when nobody has the record.
    identity: AtomicU64,
    /// Counted up by each process that takes the record.
    generation: AtomicU32,
    /// The number that the segment's descriptor has in that process.
    descriptor: AtomicU32,
}

// SAFETY: three atomics, `repr(C)`.
unsafe impl Words for Record {}

/// A pid has at most 22 bits: PID_MAX_LIMIT of the kernel.
const PID_BITS: u32 = 22;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity(u64);

impl Identity {
    const NOBODY: Self = Self(0);

    fn of_this_process() -> Result<Self, sys::Failed> {
        let pid = sys::pid();
        let gone = || sys::Failed { call: "read /proc/…/stat", source: std::io::ErrorKind::NotFound.into() };
        Ok(Self(sys::start_time(pid)?.ok_or_else(gone)? << PID_BITS | u64::from(pid)))
    }

    fn pid(self) -> u32 {
        (self.0 & ((1 << PID_BITS) - 1)) as u32
    }

    fn start_time(self) -> u64 {
        self.0 >> PID_BITS
    }
}

/// The table of who takes part. Every clone, in every process, is of the same one.
///
/// A process takes part from its first call of [`member`](Self::member) on, until its last handle is dropped, or it ends. The child of
/// `Context::fork` is another process: it takes part from its own first call on.
///
/// ```
/// use billiard_shm::participants::Registry;
///
/// let registry = Registry::of_this_process()?;
/// let me = registry.member()?;
/// assert!(registry.is_alive(me)?);
/// # Ok::<(), billiard_shm::participants::RegistryError>(())
/// ```
#[derive(Clone)]
pub struct Registry(Arc<Inner>);

struct Inner {
    segment: Segment,
    file: sys::FileIdentity,
    records: Place<[Record]>,
    /// Who this process is.
    known: Known,
}

/// The participant that this process is, and the generation in which it joined: in a forked copy, another is current. This is the
/// process's own memory; each copy joins at most once, so that whoever reads the current generation reads its member.
#[derive(Debug, Default)]
struct Known {
    /// 0: none yet.
    generation: AtomicU64,
    /// Index and generation of the record.
    member: AtomicU64,
}

impl Known {
    #[inline]
    fn get(&self) -> Option<Member> {
        // Acquire: pairs with the Release in `set`.
        if self.generation.load(Ordering::Acquire) != Generation::current().number() {
            return None;
        }
        let member = self.member.load(Ordering::Relaxed);
        Some(Member { index: member as u16, generation: (member >> 16) as u32 })
    }

    /// The caller is alone, and nothing is known of this generation yet.
    fn set(&self, generation: Generation, member: Member) {
        self.member.store(u64::from(member.generation) << 16 | u64::from(member.index), Ordering::Relaxed);
        self.generation.store(generation.number(), Ordering::Release);
    }
}

/// How every registry is made and attached to: who could write the records would declare the living dead, and have what they lock.
fn options() -> SegmentOptions {
    // SAFETY: whoever attaches checks the kind next, the records are written by this module alone, and neither the segment nor its
    // bytes are handed out.
    unsafe { Segment::options().owned() }
}

/// Every registry that this process has: one of each, since a process has one record in it.
static OPEN: Mutex<Vec<Weak<Inner>>> = Mutex::new(Vec::new());
static OWN: Mutex<Option<Registry>> = Mutex::new(None);

/// One thread of the process at a time joins or leaves: who receives a registry again while another thread drops its last handle has
/// the same record in mind. It is the process's own; a copy of the process finds it held by another generation, and takes it, since nobody there
/// will ever let go of it.
struct Turn;

/// The generation that has it, or 0.
static TURN: AtomicU64 = AtomicU64::new(0);

impl Turn {
    fn take() -> Self {
        let me = Generation::current().number();
        loop {
            let now = TURN.load(Ordering::Relaxed);
            // Acquire: pairs with the Release in `drop`.
            if now != me && TURN.compare_exchange(now, me, Ordering::Acquire, Ordering::Relaxed).is_ok() {
                return Self;
            }
            std::thread::yield_now(); // the other makes a few system calls
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        TURN.store(0, Ordering::Release);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Registry {
    /// The one in which this process puts what it makes, made when it is first asked for.
    ///
    /// # Errors
    ///
    /// [`RegistryError::Segment`] when the process may open no more files, or has no `/proc`.
    pub fn of_this_process() -> Result<Self, RegistryError> {
        let mut own = lock(&OWN);
        match &*own {
            Some(registry) if registry.0.segment.check_usable().is_ok() => Ok(registry.clone()),
            _ => Ok(own.insert(Self::with_capacity(DEFAULT_CAPACITY)?).clone()),
        }
    }

    /// A registry with room for as many processes.
    ///
    /// # Errors
    ///
    /// [`RegistryError::BadCapacity`]; otherwise as [`of_this_process`](Self::of_this_process).
    pub fn with_capacity(capacity: usize) -> Result<Self, RegistryError> {
        if capacity == 0 || capacity > MAX_MEMBERS {
            return Err(RegistryError::BadCapacity(capacity));
        }
        // What is shared among its participants says so by this number.
        let tag = sys::random()?.max(1);
        let segment = options().tag(tag).create(KIND, size_of::<Head>() + capacity * size_of::<Record>())?;
        let head = segment.place::<Head>(0)?;
        // Relaxed: nobody else has the segment yet.
        head.namespace.store(sys::pid_namespace()?, Ordering::Relaxed);
        head.capacity.store(capacity as u64, Ordering::Relaxed);
        Self::open(segment)
    }

    /// The registry in a segment: the one that this process has already, if it has it.
    fn open(segment: Segment) -> Result<Self, RegistryError> {
        segment.check(KIND)?;
        let head = segment.place::<Head>(0)?;
        // Read once: it is this value that is used.
        let capacity = head.capacity.load(Ordering::Relaxed) as usize;
        if capacity == 0 || capacity > MAX_MEMBERS {
            return Err(RegistryError::BadCapacity(capacity));
        }
        if head.namespace.load(Ordering::Relaxed) != sys::pid_namespace()? {
            return Err(RegistryError::OtherNamespace);
        }
        let file = sys::info(segment.as_fd())?.identity;
        let mut open = lock(&OPEN);
        open.retain(|registry| registry.strong_count() > 0);
        let usable = |registry: &Arc<Inner>| registry.file == file && registry.segment.check_usable().is_ok();
        if let Some(registry) = open.iter().filter_map(Weak::upgrade).find(usable) {
            drop((head, segment)); // both: that closes a descriptor of the file, which loses the lock
            let registry = Self(registry);
            registry.keep_lock()?;
            return Ok(registry);
        }
        let records = segment.places::<Record>(size_of::<Head>(), capacity)?;
        disown(&records)?;
        let inner = Arc::new(Inner { segment, file, records, known: Known::default() });
        open.push(Arc::downgrade(&inner));
        Ok(Self(inner))
    }

    /// The registry of that descriptor, which [`AsFd`] gave in this process or another.
    ///
    /// # Errors
    ///
    /// [`RegistryError::Segment`] when it is none; [`RegistryError::OtherNamespace`].
    pub fn attach(fd: OwnedFd) -> Result<Self, RegistryError> {
        Self::open(options().attach(fd)?)
    }

    /// A number that no other registry has.
    #[must_use]
    pub fn tag(&self) -> u64 {
        self.0.segment.tag()
    }

    /// For how many processes it has room: how many words a [`Ledger`](super::Ledger) needs.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.0.records.len()
    }

    /// This process, as a participant; the first call makes it one.
    ///
    /// # Errors
    ///
    /// [`RegistryError::Full`]; [`RegistryError::Segment`] in a copy that was forked by hand, and when the kernel refuses.
    #[inline]
    pub fn member(&self) -> Result<Member, RegistryError> {
        self.0.known.get().map_or_else(|| self.join(), Ok)
    }

    /// As [`member`](Self::member), if this process takes part already: a few loads.
    #[must_use]
    #[inline]
    pub fn member_if_known(&self) -> Option<Member> {
        self.0.known.get()
    }

    /// Who had that record last, dead or alive; none when nobody had, or there is no such record.
    #[must_use]
    pub fn member_at(&self, index: usize) -> Option<Member> {
        // Acquire: pairs with the Release in `take_record`.
        let generation = self.0.records.get(index)?.generation.load(Ordering::Acquire) & GENERATION_MASK;
        (generation != 0).then_some(Member { index: index as u16, generation })
    }

    fn known_member(&self) -> Option<Member> {
        self.0.known.get()
    }

    /// Whether that participant is this process, or another that has not ended.
    ///
    /// It makes system calls: to be asked while waiting, and not before.
    ///
    /// # Errors
    ///
    /// [`RegistryError::Segment`] when the kernel refuses to say. Nobody is to be taken for dead then.
    pub fn is_alive(&self, member: Member) -> Result<bool, RegistryError> {
        self.0.segment.check_usable()?;
        self.keep_lock()?;
        if self.known_member() == Some(member) {
            return Ok(true);
        }
        let Some(record) = self.0.records.get(member.index()) else { return Ok(false) };
        // Acquire: pairs with the Release in `take_record`.
        if record.generation.load(Ordering::Acquire) & GENERATION_MASK != member.generation {
            return Ok(false);
        }
        let alive = self.is_occupied(member.index())?;
        Ok(alive && record.generation.load(Ordering::Acquire) & GENERATION_MASK == member.generation)
    }

    /// Whether a process that has the record lives.
    fn is_occupied(&self, index: usize) -> Result<bool, RegistryError> {
        let record = &self.0.records[index];
        // Acquire: pairs with the Release in `take_record`, so that the descriptor is of the same process.
        let identity = Identity(record.identity.load(Ordering::Acquire));
        if identity == Identity::NOBODY {
            return Ok(false);
        }
        let holder = sys::lock_holder(self.0.segment.as_fd(), index as u64)?;
        if holder == Some(identity.pid()) {
            return Ok(true);
        }
        // The lock is free, or in the hands of one who is about to see whether it can have the record.
        if sys::start_time(identity.pid())? != Some(identity.start_time()) {
            return Ok(false);
        }
        let descriptor = record.descriptor.load(Ordering::Acquire);
        Ok(sys::has_open(identity.pid(), descriptor, self.0.file).unwrap_or(true))
    }

    #[cold]
    fn join(&self) -> Result<Member, RegistryError> {
        self.0.segment.check_usable()?;
        let _turn = Turn::take();
        if let Some(member) = self.known_member() {
            return Ok(member); // another thread was faster
        }
        let generation = Generation::current();
        let identity = Identity::of_this_process()?;
        for index in 0..self.capacity() {
            if let Some(member) = self.take_record(index, identity)? {
                self.0.known.set(generation, member);
                return Ok(member);
            }
        }
        Err(RegistryError::Full(self.capacity()))
    }

    /// Takes the record for this process, unless somebody who lives has it.
    fn take_record(&self, index: usize, identity: Identity) -> Result<Option<Member>, RegistryError> {
        let (fd, record) = (self.0.segment.as_fd(), &self.0.records[index]);
        // One of this very process is left from before an exec, or from handles that are gone: not another's.
        let is_free = || -> Result<bool, RegistryError> {
            Ok(record.identity.load(Ordering::Acquire) == identity.0 || !self.is_occupied(index)?)
        };
        if !is_free()? || !sys::try_lock(fd, index as u64)? {
            return Ok(None);
        }
        fault::point("shm.participants.locked");
        // Looked at again: whoever has lost his lock, but lives, keeps his record.
        let free = is_free();
        if !matches!(free, Ok(true)) {
            sys::unlock(fd, index as u64);
            return free.map(|_| None);
        }
        let former = record.generation.load(Ordering::Acquire);
        let generation = Some(former.wrapping_add(1) & GENERATION_MASK).filter(|&next| next != 0).unwrap_or(1);
        // Release: pairs with the Acquire loads in `is_alive`. Who sees the new one takes what the former held for free.
        record.generation.store(generation, Ordering::Release);
        fault::point("shm.participants.numbered");
        record.descriptor.store(fd.as_raw_fd() as u32, Ordering::Release);
        // Release: pairs with the Acquire load in `is_occupied`.
        record.identity.store(identity.0, Ordering::Release);
        fault::point("shm.participants.joined");
        Ok(Some(Member { index: index as u16, generation }))
    }

    /// Takes the lock of this process again, if it was lost.
    fn keep_lock(&self) -> Result<(), RegistryError> {
        if let Some(member) = self.known_member() {
            // That somebody else has it for a moment, to see whether it can have the record, is no harm: it cannot.
            let _ = sys::try_lock(self.0.segment.as_fd(), member.index() as u64)?;
        }
        Ok(())
    }
}

/// Gives up every record of this process: it has no handle of the registry, so that they are left from before an exec. Under the number that the
/// descriptor will have again, and with the same pid and start, it would be taken for alive by them.
fn disown(records: &[Record]) -> Result<(), RegistryError> {
    let own = Identity::of_this_process()?.0;
    let _turn = Turn::take();
    for record in records {
        let (relaxed, nobody) = (Ordering::Relaxed, Identity::NOBODY.0);
        let _ = record.identity.compare_exchange(own, nobody, Ordering::Release, relaxed);
    }
    Ok(())
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(member) = self.known.get() {
            let _turn = Turn::take();
            let record = &self.records[member.index()];
            // Not when another handle of this process has taken it over.
            if record.generation.load(Ordering::Acquire) & GENERATION_MASK == member.generation {
                fault::point("shm.participants.leaving");
                record.identity.store(Identity::NOBODY.0, Ordering::Release);
            }
        }
        // The descriptor is closed now, and the lock with it.
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("capacity", &self.capacity()).field("member", &self.known_member()).finish()
    }
}

impl AsFd for Registry {
    /// The segment of the table. Closing a duplicate of it makes this process lose its lock for a moment.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.segment.as_fd()
    }
}

impl PartialEq for Registry {
    fn eq(&self, other: &Self) -> bool {
        self.0.file == other.0.file
    }
}

impl Eq for Registry {}

impl Serialize for Registry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.segment.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Registry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let fd = attachments::take(u32::deserialize(deserializer)?).map_err(de::Error::custom)?;
        Self::attach(fd).map_err(|error| de::Error::custom(attachments::reject(error)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_does_not_wait_for_a_turn_of_its_parent() {
        let turn = Turn::take();
        // SAFETY: the copy makes a few loads and stores, and ends by a signal or `_exit`.
        let status = match unsafe { libc::fork() } {
            0 => {
                // SAFETY: always; it ends a copy that waits.
                unsafe { libc::alarm(20) };
                drop(Turn::take());
                // SAFETY: always.
                unsafe { libc::_exit(7) }
            }
            child => {
                let mut status = 0;
                // SAFETY: the place is valid, and the child this function's own.
                assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
                status
            }
        };
        assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 7, "{status}");
        drop(turn);
        drop(Turn::take());
    }

    #[test]
    fn who_has_no_handle_has_no_record() {
        let registry = Registry::with_capacity(3).unwrap();
        let me = registry.member().unwrap();
        let own = registry.0.records[me.index()].identity.load(Ordering::Relaxed);
        registry.0.records[2].identity.store(own, Ordering::Relaxed);
        disown(&registry.0.records).unwrap();
        assert!(registry.0.records.iter().all(|record| record.identity.load(Ordering::Relaxed) == 0));
    }
}
