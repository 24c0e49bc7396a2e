//! The length in front of every message.
//!
//! A frame is a header and the payload, nothing else. The header is the payload's length as a
//! big-endian signed 32-bit number; a length that does not fit is written as -1, followed by the
//! length as a big-endian unsigned 64-bit number. This is the format of
//! [`multiprocessing.connection`](https://docs.python.org/3/library/multiprocessing.html#module-multiprocessing.connection),
//! so that a Python program at the other end can read it. Any other negative number is an error:
//! the stream is out of step and nothing behind it can be trusted.

use thiserror::Error;

/// Bytes of a header's first part, which every frame has.
pub const SHORT: usize = 4;
/// Bytes of the longest header.
pub const LONG: usize = 12;
/// The longest payload that the short header can announce.
pub const MAX_SHORT_PAYLOAD: u64 = i32::MAX as u64;

/// A header, ready to be written in front of its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    bytes: [u8; LONG],
    len: usize,
}

impl Header {
    /// The header of a payload of `payload` bytes.
    #[must_use]
    pub fn new(payload: u64) -> Self {
        let mut bytes = [0; LONG];
        match i32::try_from(payload) {
            Ok(short) => {
                bytes[..SHORT].copy_from_slice(&short.to_be_bytes());
                Self { bytes, len: SHORT }
            }
            Err(_) => {
                bytes[..SHORT].copy_from_slice(&(-1i32).to_be_bytes());
                bytes[SHORT..].copy_from_slice(&payload.to_be_bytes());
                Self { bytes, len: LONG }
            }
        }
    }

    /// The bytes that go out.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// What the beginning of a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// The payload has so many bytes and begins after the bytes that were parsed.
    Payload(u64),
    /// The header has [`LONG`] bytes: parse again when all have come.
    MoreHeader,
}

/// A header that no peer writes: the two ends are out of step, or the other one speaks another protocol.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("a frame announces {0} bytes: the other end is out of step, or speaks another protocol")]
pub struct BadHeader(pub i64);

/// Reads a header from its first [`SHORT`] bytes, or from all [`LONG`] when the first call asked for more.
///
/// # Errors
///
/// [`BadHeader`] for a length that is negative and not -1, and for a 64-bit length above `i64::MAX`.
pub fn parse(bytes: &[u8]) -> Result<Length, BadHeader> {
    let (short, rest) = match bytes.split_first_chunk::<SHORT>() {
        Some((short, rest)) => (i32::from_be_bytes(*short), rest),
        None => return Ok(Length::MoreHeader),
    };
    match (short, rest.first_chunk::<{ LONG - SHORT }>()) {
        (0.., _) => Ok(Length::Payload(u64::from(short.unsigned_abs()))),
        (-1, None) => Ok(Length::MoreHeader),
        (-1, Some(long)) => match u64::from_be_bytes(*long) {
            long if i64::try_from(long).is_ok() => Ok(Length::Payload(long)),
            long => Err(BadHeader(long.cast_signed())),
        },
        (negative, _) => Err(BadHeader(i64::from(negative))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn headers_are_pythons() {
        assert_eq!(Header::new(0).as_bytes(), [0, 0, 0, 0]);
        assert_eq!(Header::new(9).as_bytes(), [0, 0, 0, 9]);
        assert_eq!(Header::new(0x7fff_ffff).as_bytes(), [0x7f, 0xff, 0xff, 0xff]);
        assert_eq!(Header::new(0x8000_0000).as_bytes(), [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0x80, 0, 0, 0]);
    }

    #[test]
    fn a_negative_length_is_an_error() {
        assert_eq!(parse(&(-5i32).to_be_bytes()), Err(BadHeader(-5)));
        assert_eq!(parse(&i32::MIN.to_be_bytes()), Err(BadHeader(i64::from(i32::MIN))));
        assert_eq!(parse(&[0xff; LONG]), Err(BadHeader(-1)));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(payload in prop_oneof![0..=0x1_0000_0010u64, 0..=u64::MAX / 2]) {
            let header = Header::new(payload);
            prop_assert_eq!(parse(header.as_bytes()), Ok(Length::Payload(payload)));
            for cut in 0..header.as_bytes().len() {
                prop_assert_eq!(parse(&header.as_bytes()[..cut]), Ok(Length::MoreHeader));
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..20)) {
            let _ = parse(&bytes);
        }
    }
}
