//! Values of which both ends know the very type, as they know that of an argument and of a result.
//!
//! The format is that of [`codec`], but for some types that bypass serde where they are the whole
//! value: the bytes of a number (integer or floating point) are those of `to_le_bytes`; those of a [`ByteBuf`],
//! a `Vec<u8>` or a `String` are its own, and where it can it changes hands and is not copied. Bytes are best sent so.
//!
//! ```
//! use billiard_wire::exact::{self, Bytes};
//!
//! let mut bytes = exact::encode(String::from("seven"), Vec::new())?.into_parts().0;
//! assert_eq!(bytes, b"seven");
//! let text: String = exact::decode(Bytes::Vec(&mut bytes), &mut Default::default())?;
//! assert_eq!(text, "seven");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::{any::Any, ops::Deref};

use serde::{Serialize, de::DeserializeOwned};
use serde_bytes::ByteBuf;

use crate::{
    Message,
    attachments::{self, Attachments, Received},
    codec::{self, Cause, DecodeError, EncodeError, Encoded},
};

/// Bytes of a value.
#[derive(Debug)]
pub enum Bytes<'b> {
    /// Somebody else's.
    Slice(&'b [u8]),
    /// They may be taken: the value is in their place then.
    Vec(&'b mut Vec<u8>),
}

impl Deref for Bytes<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Slice(bytes) => bytes,
            Self::Vec(bytes) => bytes,
        }
    }
}

impl Bytes<'_> {
    /// As a vector of its own. One that would take more than twice the room that it needs is copied.
    fn into_vec(self) -> Vec<u8> {
        match self {
            Self::Vec(bytes) if bytes.capacity() / 2 <= bytes.len() => std::mem::take(bytes),
            bytes => bytes.to_vec(),
        }
    }
}

/// What is left of a value that was encoded: itself, if it was not turned into its bytes.
#[derive(Debug)]
#[must_use = "this may be the value"]
pub struct Kept<T>(Option<T>);

impl<T: Message> Kept<T> {
    /// The value, whose bytes these are.
    ///
    /// # Errors
    ///
    /// As [`decode`]; never, if they are the value's.
    pub fn restore(self, mut bytes: Vec<u8>) -> Result<T, DecodeError> {
        match self.0 {
            Some(value) => Ok(value),
            None => decode(Bytes::Vec(&mut bytes), &mut Received::default()),
        }
    }
}

/// Encodes `value`, into the room of `buffer`, whose bytes are dropped.
///
/// # Errors
///
/// As [`codec::encode`]; the buffer is dropped then.
///
/// # Panics
///
/// When the `Serialize` of the value does, or its `Drop`.
pub fn encode<T: Message>(value: T, buffer: Vec<u8>) -> Result<Encoded, EncodeError> {
    encode_keeping(value, buffer).map(|(encoded, _)| encoded).map_err(|(_, why)| why)
}

/// As [`encode`], for who may want the value back.
///
/// # Errors
///
/// As [`encode`], with the value.
pub fn encode_keeping<T: Message>(value: T, mut buffer: Vec<u8>) -> Result<(Encoded, Kept<T>), (T, EncodeError)> {
    let value = match raw::into_bytes(value) {
        Ok(bytes) => return Ok((Encoded::new(bytes, Attachments::default()), Kept(None))),
        Err(value) => value,
    };
    buffer.clear();
    if raw::append(&value, &mut buffer) {
        return Ok((Encoded::new(buffer, Attachments::default()), Kept(Some(value))));
    }
    match codec::encode_into(&value, buffer) {
        Ok(encoded) => Ok((encoded, Kept(Some(value)))),
        Err(why) => Err((value, why)),
    }
}

/// Encodes `value` as a part of a message whose other parts have put `attachments` in the list.
///
/// # Errors
///
/// As [`codec::encode_after`].
pub fn encode_after<T: Message>(value: &T, attachments: &mut Attachments) -> Result<Vec<u8>, EncodeError> {
    let mut bytes = Vec::new();
    if raw::append(value, &mut bytes) { Ok(bytes) } else { codec::encode_after(value, attachments) }
}

/// Decodes a value that fills all of `bytes`.
///
/// # Errors
///
/// As [`codec::decode`].
#[inline]
pub fn decode<T: Message>(bytes: Bytes<'_>, received: &mut Received) -> Result<T, DecodeError> {
    match raw::number(&bytes) {
        Some(number) => number.ok_or_else(|| Cause::Length.of::<T>(&bytes)),
        None => match raw::container(bytes) {
            Ok(contained) => contained,
            Err(bytes) => codec::decode(&bytes, received),
        },
    }
}

/// Encodes one value after the other, each behind what a buffer holds. That is [`encode`] for many small values: to begin a message costs as much as such a value does;
/// so it is begun once.
///
/// ```
/// use billiard_wire::exact::{Decoder, Encoder};
///
/// let (mut encoder, mut bytes) = (Encoder::default(), Vec::new());
/// encoder.append(&String::from("seven"), &mut bytes)?;
/// let at = bytes.len();
/// encoder.append(&7_u32, &mut bytes)?;
/// assert_eq!(Decoder::default().decode::<u32>(&bytes[at..])?, 7);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Default)]
pub struct Encoder(attachments::Series<Attachments>);

impl Encoder {
    /// Puts the bytes of `value` behind those in `buffer`; what is given are the descriptors that they name, if they name any.
    ///
    /// # Errors
    ///
    /// As [`encode`]; the buffer is as it was.
    ///
    /// # Panics
    ///
    /// When the `Serialize` of the value does; the buffer is then as it was.
    #[inline]
    pub fn append<T: Serialize + 'static>(
        &mut self,
        value: &T,
        buffer: &mut Vec<u8>,
    ) -> Result<Option<Attachments>, EncodeError> {
        if raw::append(value, buffer) {
            return Ok(None);
        }
        self.append_value(value, buffer)
    }

    #[inline]
    fn append_value<T: Serialize>(
        &mut self,
        value: &T,
        buffer: &mut Vec<u8>,
    ) -> Result<Option<Attachments>, EncodeError> {
        let mut behind = Behind { len: buffer.len(), buffer };
        let encode = || postcard::serialize_with_flavor(value, &mut behind);
        let (encoded, attachments, refused) = self.0.while_encoding(encode);
        let source = match (refused, encoded) {
            (None, Ok(())) => {
                behind.len = behind.buffer.len();
                return Ok(attachments);
            }
            (Some(refused), _) => Cause::Attachment(refused),
            (None, Err(format)) => Cause::Format(format),
        };
        Err(source.of_encoding::<T>())
    }
}

/// Bytes behind others, which are cut off again unless they are known to be whole.
struct Behind<'b> {
    buffer: &'b mut Vec<u8>,
    len: usize,
}

impl Drop for Behind<'_> {
    #[inline]
    fn drop(&mut self) {
        self.buffer.truncate(self.len);
    }
}

impl postcard::ser_flavors::Flavor for &mut Behind<'_> {
    type Output = ();

    #[inline]
    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.buffer.push(byte);
        Ok(())
    }

    #[inline]
    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        match bytes.len() {
            // A number, whose bytes were written one by one: a copy that reads several at once has to wait for them.
            ..=4 => bytes.iter().for_each(|&byte| self.buffer.push(byte)),
            _ => self.buffer.extend_from_slice(bytes),
        }
        Ok(())
    }

    #[inline]
    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// Decodes one value after the other of those that an [`Encoder`] has made.
#[derive(Debug, Default)]
pub struct Decoder(attachments::Series<Received>);

impl Decoder {
    /// Decodes a value that fills all of `bytes`, and with which no descriptors came.
    ///
    /// # Errors
    ///
    /// As [`decode`]; a value that names a descriptor is one, too.
    #[inline]
    pub fn decode<T: DeserializeOwned + 'static>(&mut self, bytes: &[u8]) -> Result<T, DecodeError> {
        match raw::number(bytes) {
            Some(number) => number.ok_or_else(|| Cause::Length.of::<T>(bytes)),
            None => raw::container(Bytes::Slice(bytes)).unwrap_or_else(|_| self.decode_value(bytes)),
        }
    }

    #[inline]
    fn decode_value<T: DeserializeOwned>(&mut self, bytes: &[u8]) -> Result<T, DecodeError> {
        let (decoded, refused) = self.0.while_decoding(|| postcard::take_from_bytes::<T>(bytes));
        match decoded {
            Ok((value, [])) => Ok(value),
            Ok((_, rest)) => Err(Cause::Trailing(rest.len()).of::<T>(bytes)),
            Err(format) => Err(refused.map_or(Cause::Format(format), Cause::Attachment).of::<T>(bytes)),
        }
    }
}

/// The types that bypass serde: which those are is known when a program is compiled.
mod raw {
    use super::*;

    macro_rules! numbers {
        ($($number:ty)*) => {
            /// Puts the bytes of a value behind others; whether it is of such a type.
            #[inline]
            pub(super) fn append<T: Any>(value: &T, buffer: &mut Vec<u8>) -> bool {
                let value: &dyn Any = value;
                $(if let Some(number) = value.downcast_ref::<$number>() {
                    buffer.extend_from_slice(&number.to_le_bytes());
                    return true;
                })*
                let bytes: &[u8] = if let Some(bytes) = value.downcast_ref::<ByteBuf>() {
                    bytes
                } else if let Some(bytes) = value.downcast_ref::<Vec<u8>>() {
                    bytes
                } else if let Some(text) = value.downcast_ref::<String>() {
                    text.as_bytes()
                } else {
                    return false;
                };
                buffer.extend_from_slice(bytes);
                true
            }

            /// The number of these bytes, if there are as many as it has. None: the type is no number.
            #[inline]
            pub(super) fn number<T: Any>(bytes: &[u8]) -> Option<Option<T>> {
                let mut value = None::<T>;
                let place: &mut dyn Any = &mut value;
                $(if let Some(number) = place.downcast_mut::<Option<$number>>() {
                    *number = bytes.try_into().ok().map(<$number>::from_le_bytes);
                    return Some(value);
                })*
                None
            }
        };
    }

    numbers!(u8 u16 u32 u64 u128 usize i8 i16 i32 i64 i128 isize f32 f64);

    /// The value as its bytes; itself where it is nothing that has them.
    #[inline]
    pub(super) fn into_bytes<T: Any>(value: T) -> Result<Vec<u8>, T> {
        let mut value = Some(value);
        let place: &mut dyn Any = &mut value;
        if let Some(bytes) = place.downcast_mut::<Option<ByteBuf>>() {
            return Ok(bytes.take().map(ByteBuf::into_vec).unwrap_or_default());
        }
        if let Some(bytes) = place.downcast_mut::<Option<Vec<u8>>>() {
            return Ok(bytes.take().unwrap_or_default());
        }
        if let Some(text) = place.downcast_mut::<Option<String>>() {
            return Ok(text.take().map(String::into_bytes).unwrap_or_default());
        }
        value.map_or_else(|| unreachable!("nobody has taken it"), Err)
    }

    /// The value of these bytes; the bytes where it is nothing that has them.
    #[inline]
    pub(super) fn container<T: Any>(bytes: Bytes<'_>) -> Result<Result<T, DecodeError>, Bytes<'_>> {
        let mut value = None::<T>;
        let place: &mut dyn Any = &mut value;
        if let Some(place) = place.downcast_mut::<Option<ByteBuf>>() {
            *place = Some(ByteBuf::from(bytes.into_vec()));
        } else if let Some(place) = place.downcast_mut::<Option<Vec<u8>>>() {
            *place = Some(bytes.into_vec());
        } else if let Some(place) = place.downcast_mut::<Option<String>>() {
            match String::from_utf8(bytes.into_vec()) {
                Ok(text) => *place = Some(text),
                Err(why) => return Ok(Err(Cause::Text(why.utf8_error()).of::<T>(why.as_bytes()))),
            }
        } else {
            return Err(bytes);
        }
        Ok(value.ok_or_else(|| unreachable!("it was put there")))
    }
}

#[cfg(test)]
mod tests {
    use std::any::type_name;
    use std::fs::File;

    use serde::Serializer;

    use super::*;
    use crate::{Fd, codec::tests::Handle};

    #[test]
    fn a_series_keeps_each_value_apart_whatever_becomes_of_one() {
        struct Bomb(Handle);
        impl Serialize for Bomb {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                self.0.serialize(serializer)?;
                panic!("in the middle")
            }
        }
        let (mut encoder, mut bytes, handle) = (Encoder::default(), vec![9], Handle::new());
        assert!(encoder.append(&(7_u64,), &mut bytes).unwrap().is_none());
        let bomb = Bomb(handle.clone());
        let panicked = std::panic::AssertUnwindSafe(|| encoder.append(&bomb, &mut bytes).map(drop));
        assert!(std::panic::catch_unwind(panicked).is_err());
        assert!(encoder.append(&vec![handle.clone(); attachments::MAX + 1], &mut bytes).is_err());
        assert_eq!(bytes, [9, 7], "nothing is left of those");
        assert_eq!(encoder.append(&handle, &mut bytes).unwrap().unwrap().len(), 1);
        assert_eq!(handle.fate(), (0, attachments::MAX + 3));
        assert_eq!(bytes, [9, 7, 0]);

        let mut decoder = Decoder::default();
        let error = decoder.decode::<Fd<File>>(&[0]).unwrap_err();
        assert!(std::error::Error::source(&error).unwrap().to_string().contains("did not come"), "{error:?}");
        assert_eq!(decoder.decode::<(u64,)>(&bytes[1..2]).unwrap(), (7,));
        assert!(decoder.decode::<(u64,)>(&bytes).unwrap_err().type_name() == "(u64,)", "something is left behind it");
        assert!(decoder.decode::<(String,)>(&[5]).is_err());
    }

    /// Each way there and back. How long its bytes are.
    fn check<T: Message + PartialEq + std::fmt::Debug + Clone>(value: &T) -> usize {
        let (mut encoder, mut decoder, mut bytes) = (Encoder::default(), Decoder::default(), Vec::new());
        let mut none = Received::default();
        assert!(encoder.append(value, &mut bytes).unwrap().is_none());
        assert_eq!(decoder.decode::<T>(&bytes).unwrap(), *value);
        assert_eq!(decode::<T>(Bytes::Slice(&bytes), &mut none).unwrap(), *value);
        assert_eq!(decode::<T>(Bytes::Vec(&mut bytes.clone()), &mut none).unwrap(), *value);
        assert_eq!(encode_after(value, &mut Attachments::default()).unwrap(), bytes);
        assert_eq!(encode(value.clone(), vec![1, 2, 3]).unwrap().body(), bytes);
        let (encoded, kept) = encode_keeping(value.clone(), Vec::new()).unwrap();
        assert_eq!(encoded.body(), bytes);
        assert_eq!(kept.restore(encoded.into_parts().0).unwrap(), *value);
        bytes.len()
    }

    #[test]
    fn numbers_are_as_they_are_in_memory() {
        fn check_all<T: Message + PartialEq + std::fmt::Debug + Copy>(numbers: &[T]) {
            for number in numbers {
                assert_eq!(check(number), size_of::<T>());
                let mut bytes = encode(*number, Vec::new()).unwrap().into_parts().0;
                bytes.push(0);
                for wrong in [&bytes[..], &bytes[2..]] {
                    let why = Decoder::default().decode::<T>(wrong).unwrap_err();
                    assert_eq!(why.type_name(), type_name::<T>());
                    assert!(decode::<T>(Bytes::Slice(wrong), &mut Received::default()).is_err());
                }
            }
        }
        check_all(&[0, 1, u8::MAX]);
        check_all(&[0, 200, u16::MAX]);
        check_all(&[0, 200, u32::MAX]);
        check_all(&[0, 200, u64::MAX]);
        check_all(&[0, 200, u128::MAX]);
        check_all(&[0, 200, usize::MAX]);
        check_all(&[0, -1, i8::MIN]);
        check_all(&[0, -1, i16::MIN]);
        check_all(&[0, -1, i32::MIN]);
        check_all(&[0, -1, i64::MIN]);
        check_all(&[0, -1, i128::MIN]);
        check_all(&[0, -1, isize::MIN]);
        check_all(&[0.0, -1.5, f32::INFINITY]);
        check_all(&[0.0, -1.5, f64::MIN_POSITIVE]);
    }

    #[test]
    fn bytes_and_texts_are_their_own() {
        for len in [0, 1, 200, 100_000] {
            assert_eq!(check(&ByteBuf::from(vec![200; len])), len);
            assert_eq!(check(&vec![200_u8; len]), len);
            assert_eq!(check(&"x".repeat(len)), len);
        }
        let why = decode::<String>(Bytes::Slice(&[b'a', 200]), &mut Received::default()).unwrap_err();
        assert!(std::error::Error::source(&why).unwrap().to_string().contains("utf-8"), "{why:?}");
        // Whatever else is as the codec has it.
        let value = (String::from("ab"), 300_u32, vec![1_u8]);
        assert_eq!(check(&value), codec::encode(&value).unwrap().body().len());
        check(&());
        check(&Some(String::from("ab")));
    }

    #[test]
    fn a_container_changes_hands_unless_that_wastes_room() {
        let bytes = vec![7_u8; 1000];
        let place = bytes.as_ptr();
        let mut encoded = encode(ByteBuf::from(bytes), vec![1]).unwrap().into_parts().0;
        assert_eq!(encoded.as_ptr(), place);
        let text = decode::<String>(Bytes::Vec(&mut encoded), &mut Received::default()).unwrap();
        assert_eq!((text.as_ptr(), encoded.capacity()), (place, 0));
        let mut roomy = Vec::with_capacity(5000);
        roomy.extend_from_slice(text.as_bytes());
        let copied = decode::<Vec<u8>>(Bytes::Vec(&mut roomy), &mut Received::default()).unwrap();
        assert!(copied.capacity() < 2000 && roomy.capacity() >= 5000 && copied == roomy);
    }

    #[test]
    fn what_cannot_be_encoded_comes_back() {
        #[derive(Debug, serde::Deserialize)]
        struct Refuses(u32);
        impl Serialize for Refuses {
            fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
                Err(serde::ser::Error::custom("as this test wants"))
            }
        }
        let (value, why) = encode_keeping(Refuses(7), Vec::new()).unwrap_err();
        assert!(value.0 == 7 && why.type_name().ends_with("Refuses"));
        assert!(encode(Refuses(7), Vec::new()).is_err());
    }
}
