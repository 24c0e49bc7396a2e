//! A value that processes read and write without waiting.

use std::{fmt, marker::PhantomData, mem::MaybeUninit, slice};

use billiard_shm::{
    Kind, Place, Plain,
    prim::{AtomicU64, Ordering},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{
    Error,
    home::{self, Home, Housed},
    words::{Owner, Wait, copies::Copies, lock::LockWord},
};

const KIND: Kind = Kind::new("value", 1);

/// The words in front of the value's own.
///
/// # Peers
///
/// See [`LockWord`] and [`Copies`]; `index` has no meaning where the value is one word.
#[repr(C)]
struct Words {
    lock: LockWord,
    _pad: std::sync::atomic::AtomicU32,
    index: AtomicU64,
}

// SAFETY: atomics, `repr(C)`, without padding.
unsafe impl billiard_shm::Words for Words {}

/// A small value that processes share.
///
/// Every clone, in every process, is of the same value. [`get`](Self::get) and [`set`](Self::set) never see or leave half of one, whoever dies or is
/// stopped meanwhile; a process that dies while it sets leaves the old value or the new. For reading and writing in one step there
/// is [`update`](Self::update). For large values, or several in one step, see [`Mutex`](crate::Mutex).
///
/// Up to eight bytes, `get` is one load and `set` one store. A larger value is kept twice: `get` copies it, again if it was replaced
/// meanwhile, and `set` takes a lock for as long as it copies.
///
/// It travels as [`Lock`](crate::Lock) does. Who receives it must expect the same `T`; anything else is an error.
///
/// ```
/// use billiard_sync::Value;
///
/// let total = Value::new(0_u64)?;
/// total.set(total.get() + 1);
/// total.clone().update(|total| *total += 1)?;
/// assert_eq!(total.get(), 2);
/// # Ok::<(), billiard_sync::Error>(())
/// ```
///
/// In a copy of the process that was forked by hand `get`, `set` and `update` refuse: the first two by a panic, since nothing
/// else can go wrong with them.
pub struct Value<T> {
    home: Home,
    words: Place<Words>,
    /// One word, or two copies.
    value: Place<[AtomicU64]>,
    kind: PhantomData<fn(T) -> T>,
}

/// A `T` as whole words, the last one filled up with zeros.
#[repr(C, align(8))]
struct AsWords<T>(MaybeUninit<T>);

/// Calls `with` with the words of `value`.
fn with_words<T: Plain, R>(value: T, with: impl FnOnce(&mut [u64]) -> R) -> (T, R) {
    let mut memory = MaybeUninit::<AsWords<T>>::uninit();
    // In its place: zeros that are moved with a value need not stay where it has padding.
    // SAFETY: the memory is this function's own.
    unsafe { memory.as_mut_ptr().write_bytes(0, 1) };
    let words = memory.as_mut_ptr().cast::<u64>();
    // SAFETY: the memory is large and aligned enough for a `T`, which begins where the memory does.
    unsafe { words.cast::<T>().write(value) };
    // SAFETY: the memory is aligned to 8 and a multiple of 8 long. All of it is written: a plain value has no padding, and what
    // is behind it was zeroed in this place.
    let slice = unsafe { slice::from_raw_parts_mut(words, size_of::<AsWords<T>>() / 8) };
    let result = with(slice);
    // SAFETY: any bytes are a `T`.
    (unsafe { words.cast::<T>().read() }, result)
}

impl<T: Plain> Value<T> {
    /// How many words it takes.
    const WORDS: usize = size_of::<AsWords<T>>() / 8;

    /// Whether one atomic holds it.
    const IS_ONE_WORD: bool = Self::WORDS <= 1;

    /// How many words it takes in memory.
    const PLACES: usize = if Self::IS_ONE_WORD { 1 } else { 2 * Self::WORDS };

    /// One that is `value`.
    ///
    /// # Errors
    ///
    /// As [`Lock::new`](crate::Lock::new).
    pub fn new(value: T) -> Result<Self, Error> {
        let made = Self::at(Home::create(KIND.of::<T>(), size_of::<Words>() + 8 * Self::PLACES)?)?;
        made.store(value);
        Ok(made)
    }

    fn at(home: Home) -> Result<Self, Error> {
        let value = home.places(size_of::<Words>(), Self::PLACES)?;
        Ok(Self { words: home.place(0)?, value, home, kind: PhantomData })
    }

    /// The value.
    ///
    /// # Panics
    ///
    /// In a copy of the process that was forked by hand.
    #[must_use]
    #[inline]
    pub fn get(&self) -> T {
        self.check();
        self.load()
    }

    /// Replaces the value.
    ///
    /// One of more than eight bytes is replaced by one process at a time: if another is stopped while it does that, this
    /// waits until it goes on, or dies.
    ///
    /// # Panics
    ///
    /// In a copy of the process that was forked by hand; and where a value of more than eight bytes was passed on to more processes than can take part
    /// (1,024 at once).
    #[inline]
    pub fn set(&self, value: T) {
        self.check();
        if Self::IS_ONE_WORD {
            self.store(value);
        } else if let Err(error) = self.locked(|| self.store(value)) {
            panic!("the value cannot be set: {error}");
        }
    }

    /// Reads, changes and replaces the value as one step; returns what `change` does.
    ///
    /// All who `update` do so one after the other. If a process dies in the middle, the value is the old one, and the next
    /// goes on within about 50 ms. A value of up to eight bytes that is [set](Self::set) meanwhile is changed anew: then `change` is called again. `change` must
    /// not use this same value.
    ///
    /// # Errors
    ///
    /// [`Error::Forked`], [`Error::Participants`].
    pub fn update<R>(&self, mut change: impl FnMut(&mut T) -> R) -> Result<R, Error> {
        self.locked(|| {
            if !Self::IS_ONE_WORD {
                let mut value = self.load();
                let result = change(&mut value);
                self.store(value);
                return result;
            }
            let mut before = self.value[0].load(Ordering::Acquire);
            loop {
                let mut value = Self::from_word(before);
                let result = change(&mut value);
                // PAIR value.word: Release, of what was done before; the Acquire, of the Release in `store`.
                match self.value[0].compare_exchange(before, Self::word(value), Ordering::AcqRel, Ordering::Acquire) {
                    Ok(_) => return result,
                    Err(now) => before = now,
                }
            }
        })
    }

    /// Does something with the value's lock held. Whoever died with it has left a whole value.
    fn locked<R>(&self, work: impl FnOnce() -> R) -> Result<R, Error> {
        let me = Owner::from(self.home.me()?);
        self.words.lock.lock(me, self.home.peers(), Wait::ForEver);
        let _held = crate::lock::Held::new(&self.words.lock, me);
        Ok(work())
    }

    fn check(&self) {
        if let Err(forked) = self.home.check() {
            panic!("{forked}");
        }
    }

    fn load(&self) -> T {
        if Self::IS_ONE_WORD {
            // PAIR value.word: Acquire, of the Release in `store` and `update`.
            return Self::from_word(self.value[0].load(Ordering::Acquire));
        }
        with_words(T::zeroed(), |words| self.copies().read(words)).0
    }

    /// The caller has the lock, or the value is one word.
    fn store(&self, value: T) {
        if Self::IS_ONE_WORD {
            // PAIR value.word: Release.
            self.value[0].store(Self::word(value), Ordering::Release);
        } else {
            with_words(value, |words| self.copies().write(words));
        }
    }

    fn copies(&self) -> Copies<'_> {
        Copies::new(&self.words.index, &self.value)
    }

    fn word(value: T) -> u64 {
        with_words(value, |words| words.first().copied().unwrap_or(0)).1
    }

    fn from_word(word: u64) -> T {
        with_words(T::zeroed(), |words| words.iter_mut().for_each(|to| *to = word)).0
    }
}

impl<T> Clone for Value<T> {
    fn clone(&self) -> Self {
        Self { home: self.home.clone(), words: self.words.clone(), value: self.value.clone(), kind: PhantomData }
    }
}

impl<T: Plain + fmt::Debug> fmt::Debug for Value<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Value").field(&self.load()).finish()
    }
}

impl<T> Serialize for Value<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.home.serialize(serializer)
    }
}

impl<T: Plain> Housed for Value<T> {
    fn home(&self) -> &Home {
        &self.home
    }

    fn kinds() -> Vec<Kind> {
        vec![KIND.of::<T>()]
    }

    fn housed(home: Home) -> Result<Self, Error> {
        Self::at(home)
    }
}

impl<'de, T: Plain> Deserialize<'de> for Value<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        home::deserialize(deserializer)
    }
}
