//! What every segment begins with: the words by which whoever attaches to it knows what it is.
//!
//! The 64 bytes are written by the maker of the segment, through its descriptor, before anybody else has it, the magic
//! number last; nobody writes them afterwards. They are read through the descriptor too, before anything is mapped, into memory of the
//! reader's own: what is checked is what is used. The exception is `owner`, which belongs to the protocol of
//! [`SharedBuffer`](crate::SharedBuffer).

use std::fmt;

use crate::SegmentError;

/// The bytes in front of a segment's own.
pub(crate) const LEN: usize = 64;

/// The first eight bytes of every segment.
const MAGIC: u64 = u64::from_le_bytes(*b"billiard");

/// The flag of a segment that is attached to by the protocol of its kind alone.
const OWNED: u64 = 1;

/// The layout of these 64 bytes.
const VERSION: u32 = 1;

/// What a segment holds: a name of at most eight characters, and the version of its layout.
///
/// ```
/// use billiard_shm::Kind;
///
/// const LOCK: Kind = Kind::new("lock", 1);
/// assert_eq!(LOCK.to_string(), "lock version 1");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    name: [u8; 8],
    version: u32,
    detail: u64,
}

impl Kind {
    /// The kind of that name and version.
    ///
    /// # Panics
    ///
    /// When the name is empty, longer than eight bytes, or not ASCII.
    #[must_use]
    pub const fn new(name: &str, version: u32) -> Self {
        let from = name.as_bytes();
        assert!(!from.is_empty() && from.len() <= 8, "the name of a kind has one to eight characters");
        let mut name = [0; 8];
        let mut i = 0;
        while i < from.len() {
            assert!(from[i].is_ascii_graphic(), "the name of a kind is ASCII");
            name[i] = from[i];
            i += 1;
        }
        Self { name, version, detail: 0 }
    }

    /// The same kind, for values of type `T`: its size, its alignment, and its name as the compiler prints it are checked too.
    #[must_use]
    pub fn of<T: 'static>(self) -> Self {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64; // FNV-1a
        let shape = [size_of::<T>() as u64, align_of::<T>() as u64];
        let shape = shape.iter().flat_map(|number| number.to_le_bytes());
        for byte in shape.chain(std::any::type_name::<T>().bytes()) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        Self { detail: hash, ..self }
    }

    /// Whether both are the same but for the type of the values.
    pub(crate) fn is_same_but_for_type(&self, other: &Self) -> bool {
        self.name == other.name && self.version == other.version
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name.split(|&byte| byte == 0).next().unwrap_or_default();
        write!(f, "{} version {}", name.escape_ascii(), self.version)
    }
}

/// What the words say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    /// The bytes of the segment's own.
    pub(crate) len: u64,
    /// What the first of them is aligned to in every process.
    pub(crate) align: u64,
    /// Whether its kind has a protocol that lends references, and no other access is allowed.
    pub(crate) owned: bool,
    /// A number of its maker's: what it belongs to. That of a buffer is its owner's word, which changes.
    pub(crate) tag: u64,
}

/// Where the words are. All numbers are as the machine has them: a segment never leaves it.
mod at {
    pub(super) const MAGIC: usize = 0;
    pub(super) const VERSION: usize = 8;
    pub(super) const KIND_VERSION: usize = 12;
    pub(super) const KIND_NAME: usize = 16;
    pub(super) const KIND_DETAIL: usize = 24;
    pub(super) const LEN: usize = 32;
    pub(super) const ALIGN: usize = 40;
    pub(super) const OWNER: usize = 48;
    pub(super) const FLAGS: usize = 56;
}

/// The offset of the word that names the owner of a [`SharedBuffer`](crate::SharedBuffer).
pub(crate) const OWNER: usize = at::OWNER;

impl Header {
    /// Where the segment's own bytes begin. What a large alignment leaves out in front costs no memory.
    pub(crate) fn begin(&self) -> usize {
        LEN.max(self.align as usize)
    }

    /// The words as they are in the memory.
    pub(crate) fn to_bytes(self) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        let mut put = |at: usize, word: &[u8]| bytes[at..at + word.len()].copy_from_slice(word);
        put(at::MAGIC, &MAGIC.to_ne_bytes());
        put(at::VERSION, &VERSION.to_ne_bytes());
        put(at::KIND_VERSION, &self.kind.version.to_ne_bytes());
        put(at::KIND_NAME, &self.kind.name);
        put(at::KIND_DETAIL, &self.kind.detail.to_ne_bytes());
        put(at::LEN, &self.len.to_ne_bytes());
        put(at::ALIGN, &self.align.to_ne_bytes());
        put(at::OWNER, &self.tag.to_ne_bytes());
        put(at::FLAGS, &if self.owned { OWNED } else { 0 }.to_ne_bytes());
        bytes
    }

    /// What the words say, if they are those of a segment that can be mapped whole.
    pub(crate) fn from_bytes(bytes: &[u8; LEN], file_len: u64) -> Result<Self, SegmentError> {
        let word = |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        let half = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        match word(at::MAGIC) {
            MAGIC => {}
            0 => return Err(SegmentError::Unfinished),
            _ => return Err(SegmentError::Foreign),
        }
        match half(at::VERSION) {
            VERSION => {}
            found => return Err(SegmentError::Version { found, known: VERSION }),
        }
        let kind = Kind {
            name: bytes[at::KIND_NAME..at::KIND_NAME + 8].try_into().expect("eight bytes"),
            version: half(at::KIND_VERSION),
            detail: word(at::KIND_DETAIL),
        };
        let owned = match word(at::FLAGS) {
            0 => false,
            OWNED => true,
            _ => return Err(SegmentError::Damaged("it has flags that nobody knows")),
        };
        let header = Self { kind, len: word(at::LEN), align: word(at::ALIGN), owned, tag: word(at::OWNER) };
        if header.len == 0 {
            return Err(SegmentError::Damaged("it says that it is empty"));
        }
        if !header.align.is_power_of_two() || header.align > crate::MAX_ALIGN as u64 {
            return Err(SegmentError::Damaged("its alignment is none"));
        }
        match header.len.checked_add(header.begin() as u64) {
            Some(needs) if needs <= file_len => Ok(header),
            Some(needs) => Err(SegmentError::Truncated { needs, has: file_len }),
            None => Err(SegmentError::Damaged("its length is beyond any memory")),
        }
    }

    /// An error unless the segment is of this kind.
    pub(crate) fn check(&self, expected: Kind, type_name: &'static str) -> Result<(), SegmentError> {
        if self.kind == expected {
            Ok(())
        } else if self.kind.is_same_but_for_type(&expected) {
            Err(SegmentError::WrongType { expected: type_name })
        } else {
            Err(SegmentError::WrongKind { found: self.kind, expected })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: Kind = Kind::new("test", 3);

    fn bytes() -> [u8; LEN] {
        Header { kind: KIND.of::<u32>(), len: 100, align: 64, owned: true, tag: 5 }.to_bytes()
    }

    #[test]
    fn a_header_says_what_was_written() {
        let header = Header::from_bytes(&bytes(), 164).unwrap();
        assert_eq!(header, Header { kind: KIND.of::<u32>(), len: 100, align: 64, owned: true, tag: 5 });
        assert!(header.check(KIND.of::<u32>(), "u32").is_ok());
        assert!(matches!(header.check(KIND.of::<f32>(), "f32"), Err(SegmentError::WrongType { expected: "f32" })));
        assert!(matches!(header.check(Kind::new("test", 4), ""), Err(SegmentError::WrongKind { .. })));
        assert!(matches!(header.check(Kind::new("text", 3), ""), Err(SegmentError::WrongKind { .. })));
    }

    #[test]
    fn the_layout_is_pinned() {
        let mut expected = [0; LEN];
        expected[..8].copy_from_slice(b"billiard");
        expected[8..12].copy_from_slice(&1u32.to_ne_bytes());
        expected[12..16].copy_from_slice(&3u32.to_ne_bytes());
        expected[16..20].copy_from_slice(b"test");
        expected[24..32].copy_from_slice(&KIND.of::<u32>().detail.to_ne_bytes());
        expected[32..40].copy_from_slice(&100u64.to_ne_bytes());
        expected[40..48].copy_from_slice(&64u64.to_ne_bytes());
        expected[48] = 5;
        expected[56] = 1;
        assert_eq!(bytes(), expected);
    }

    #[test]
    fn each_wrong_word_has_its_error() {
        let wrong = |at: usize, word: &[u8], file_len: u64| {
            let mut bytes = bytes();
            bytes[at..at + word.len()].copy_from_slice(word);
            Header::from_bytes(&bytes, file_len).unwrap_err()
        };
        let word = |number: u64| number.to_ne_bytes();
        assert!(matches!(wrong(at::MAGIC, &word(0), 164), SegmentError::Unfinished));
        assert!(matches!(wrong(at::MAGIC, &word(7), 164), SegmentError::Foreign));
        let version = wrong(at::VERSION, &2u32.to_ne_bytes(), 164);
        assert!(matches!(version, SegmentError::Version { found: 2, known: 1 }), "{version}");
        assert!(matches!(wrong(at::LEN, &word(0), 164), SegmentError::Damaged(_)));
        assert!(matches!(wrong(at::LEN, &word(u64::MAX), 164), SegmentError::Damaged(_)));
        assert!(matches!(wrong(at::LEN, &word(101), 164), SegmentError::Truncated { needs: 165, has: 164 }));
        assert!(matches!(wrong(at::FLAGS, &word(2), 164), SegmentError::Damaged(_)));
        assert!(matches!(wrong(at::ALIGN, &word(48), 164), SegmentError::Damaged(_)));
        assert!(matches!(wrong(at::ALIGN, &word(1 << 60), 164), SegmentError::Damaged(_)));
    }
}
