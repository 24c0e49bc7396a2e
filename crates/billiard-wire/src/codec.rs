//! A value to bytes and back.
//!
//! The format is [postcard](https://postcard.jamesmunns.com/wire-format), which is compact and not
//! self-describing: types with `#[serde(untagged)]`, internally tagged enums, `flatten` and
//! `skip_serializing_if` can be encoded but not decoded, and the error names the type. A path that
//! may not be UTF-8 travels as an `OsString`. Recursive types have no depth limit, so that a
//! hostile sender can exhaust the stack of who decodes one: take them from trusted senders only.

use std::any::type_name;

use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;

use crate::attachments::{self, AttachError, Attachments, Received};

/// A value that can travel to another process: any type with serde's two traits that is `Send` and owns its data.
///
/// The trait is implemented for every such type; it has no methods and nobody implements it by hand.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot travel to another process",
    label = "this would have to be encoded",
    note = "arguments and results need `#[derive(serde::Serialize, serde::Deserialize)]`, `Send` and no borrowed data",
    note = "a `Path` travels as `PathBuf`, a `&str` as `String`, a file as `Fd<File>`"
)]
pub trait Message: Serialize + DeserializeOwned + Send + 'static {}

#[diagnostic::do_not_recommend]
impl<T: Serialize + DeserializeOwned + Send + 'static> Message for T {}

/// A value as bytes, with the descriptors that it names.
#[derive(Debug, Default)]
pub struct Encoded {
    body: Vec<u8>,
    attachments: Attachments,
}

impl Encoded {
    /// The bytes of the value.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// The descriptors that the bytes name.
    #[must_use]
    pub fn attachments(&self) -> &Attachments {
        &self.attachments
    }

    /// Both parts, for a carrier that puts something of its own in front.
    #[must_use]
    pub fn into_parts(self) -> (Vec<u8>, Attachments) {
        (self.body, self.attachments)
    }
}

/// The number of attachments as it stands in front of every typed payload: a varint of at most two bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    bytes: [u8; 2],
    len: usize,
}

impl Count {
    /// The prefix of a payload with these attachments.
    #[must_use]
    pub fn of(attachments: &Attachments) -> Self {
        // At most MAX, so that it fits into the two bytes.
        match attachments.len() {
            few @ 0..0x80 => Self { bytes: [few as u8, 0], len: 1 },
            many => Self { bytes: [many as u8 | 0x80, (many >> 7) as u8], len: 2 },
        }
    }

    /// The bytes that go out.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// A typed payload whose count of attachments cannot be read, or is not the count that came.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("a message that says it carries {said:?} descriptors came with {came}")]
pub struct WrongCount {
    said: Option<u32>,
    came: usize,
}

/// Checks the count in front of a typed payload against what came, and returns what is behind it.
///
/// # Errors
///
/// [`WrongCount`] when they differ or there is no count.
pub fn strip_count<'b>(payload: &'b [u8], received: &Received) -> Result<&'b [u8], WrongCount> {
    match postcard::take_from_bytes::<u32>(payload) {
        Ok((said, rest)) if said as usize == received.len() => Ok(rest),
        said => Err(WrongCount { said: said.ok().map(|(said, _)| said), came: received.len() }),
    }
}

/// A value that could not be turned into bytes.
#[derive(Debug, Error)]
#[error("cannot encode a value of type `{type_name}`")]
pub struct EncodeError {
    type_name: &'static str,
    source: Box<Cause>,
}

/// Bytes that could not be turned into a value.
#[derive(Debug, Error)]
#[error("cannot decode a value of type `{type_name}` from {len} bytes")]
pub struct DecodeError {
    type_name: &'static str,
    len: usize,
    source: Cause,
}

/// What went wrong beneath.
#[derive(Debug, Error)]
enum Cause {
    #[error(transparent)]
    Attachment(AttachError),
    #[error(transparent)]
    Format(postcard::Error),
    #[error("{0} bytes are left behind the value: it was sent as another type")]
    Trailing(usize),
    #[error("a number has another length: it was sent as another type")]
    Length,
}

impl Cause {
    /// The error of who was to decode a `T` from these bytes.
    fn of<T>(self, bytes: &[u8]) -> DecodeError {
        DecodeError { type_name: type_name::<T>(), len: bytes.len(), source: self }
    }
}

impl EncodeError {
    /// The type whose value could not be encoded.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        self.type_name
    }
}

impl DecodeError {
    /// The type that was asked for.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        self.type_name
    }
}

/// Encodes `value`.
///
/// # Errors
///
/// [`EncodeError`] when its `Serialize` fails or a handle in it refuses. Handles that were encoded
/// before the failure are their owner's again.
///
/// # Panics
///
/// When the `Serialize` of the value does.
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Encoded, EncodeError> {
    let mut attachments = Attachments::default();
    let body = encode_after(value, &mut attachments)?;
    Ok(Encoded { body, attachments })
}

/// As [`encode`], into the room of `buffer`, whose bytes are dropped: for who encodes one value after the other.
///
/// # Errors
///
/// As [`encode`]; the buffer is dropped then.
pub fn encode_into<T: Serialize + ?Sized>(value: &T, mut buffer: Vec<u8>) -> Result<Encoded, EncodeError> {
    buffer.clear();
    let mut attachments = Attachments::default();
    let body = checked(&mut attachments, || postcard::to_extend(value, buffer), type_name::<T>())?;
    Ok(Encoded { body, attachments })
}

/// Encodes `value` as a part of a message whose other parts have put `attachments` in the list.
///
/// # Errors
///
/// As [`encode`]; the list is then dropped, so that every attachment in it is kept.
pub fn encode_after<T: Serialize + ?Sized>(value: &T, attachments: &mut Attachments) -> Result<Vec<u8>, EncodeError> {
    checked(attachments, || postcard::to_stdvec(value), type_name::<T>())
}

#[inline]
fn checked(
    attachments: &mut Attachments,
    encode: impl FnOnce() -> postcard::Result<Vec<u8>>,
    type_name: &'static str,
) -> Result<Vec<u8>, EncodeError> {
    let (bytes, refused) = attachments::while_encoding(attachments, encode);
    match (refused, bytes) {
        (None, Ok(bytes)) => Ok(bytes),
        (refused, bytes) => {
            drop(std::mem::take(attachments));
            let source = match (refused, bytes) {
                (Some(refused), _) => Cause::Attachment(refused),
                (None, Err(format)) => Cause::Format(format),
                (None, Ok(_)) => unreachable!("matched above"),
            };
            Err(EncodeError { type_name, source: Box::new(source) })
        }
    }
}

/// Encodes one value after the other, each behind what a buffer holds: for many small values, which a [`Decoder`] takes as the very types that they are.
///
/// To begin a message costs as much as such a value does; so it is begun once. A number (integer or floating point) bypasses serde: its bytes are those of
/// `to_le_bytes`. The bytes of anything else are those of [`encode`].
///
/// ```
/// use billiard_wire::codec::{Decoder, Encoder};
///
/// let (mut encoder, mut bytes) = (Encoder::default(), Vec::new());
/// encoder.append(&"seven", &mut bytes)?;
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
        if numbers::append(value, buffer) {
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
        Err(EncodeError { type_name: type_name::<T>(), source: Box::new(source) })
    }
}

/// The bytes of one value of an [`Encoder`] as [`encode`] would have made them, to be decoded on their own.
#[must_use]
pub fn on_its_own<T: Message>(bytes: &[u8]) -> Vec<u8> {
    match numbers::decode::<T>(bytes) {
        Some(Some(number)) => encode(&number).map_or_else(|_| Vec::new(), |encoded| encoded.body),
        _ => bytes.to_vec(),
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

/// Numbers bypass serde: which types are such is known when a program is compiled.
mod numbers {
    use std::any::Any;

    macro_rules! numbers {
        ($($number:ty)*) => {
            /// Puts the bytes of a number behind others; whether it is one.
            #[inline]
            pub(super) fn append<T: Any>(value: &T, buffer: &mut Vec<u8>) -> bool {
                let value: &dyn Any = value;
                $(if let Some(number) = value.downcast_ref::<$number>() {
                    buffer.extend_from_slice(&number.to_le_bytes());
                    return true;
                })*
                false
            }

            /// The number of these bytes, if there are as many as it has. None: the type is no number.
            #[inline]
            pub(super) fn decode<T: Any>(bytes: &[u8]) -> Option<Option<T>> {
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
        match numbers::decode(bytes) {
            None => self.decode_value(bytes),
            Some(number) => number.ok_or_else(|| Cause::Length.of::<T>(bytes)),
        }
    }

    /// As [`decode`](Self::decode), with the descriptors that came with it.
    ///
    /// # Errors
    ///
    /// As [`decode`](self::decode).
    pub fn decode_with<T: DeserializeOwned + 'static>(
        &mut self,
        bytes: &[u8],
        received: &mut Received,
    ) -> Result<T, DecodeError> {
        match numbers::decode(bytes) {
            None => decode(bytes, received),
            Some(number) => number.ok_or_else(|| Cause::Length.of::<T>(bytes)),
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

/// Decodes a value that fills all of `bytes`.
///
/// # Errors
///
/// [`DecodeError`] when the bytes are not such a value or something is left behind it. Descriptors
/// that were taken by then are closed; the others stay in `received`.
pub fn decode<T: DeserializeOwned>(bytes: &[u8], received: &mut Received) -> Result<T, DecodeError> {
    let (value, rest) = decode_prefix(bytes, received)?;
    if rest.is_empty() { Ok(value) } else { Err(Cause::Trailing(rest.len()).of::<T>(bytes)) }
}

/// Decodes a value at the beginning of `bytes` and returns what is behind it.
///
/// # Errors
///
/// As [`decode`], except that bytes may be left.
pub fn decode_prefix<'b, T: DeserializeOwned>(
    bytes: &'b [u8],
    received: &mut Received,
) -> Result<(T, &'b [u8]), DecodeError> {
    let (value, refused) = attachments::while_decoding(received, || postcard::take_from_bytes::<T>(bytes));
    value.map_err(|format| refused.map_or(Cause::Format(format), Cause::Attachment).of::<T>(bytes))
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fs::File, sync::Arc, sync::atomic::AtomicUsize, sync::atomic::Ordering};

    use proptest::prelude::*;
    use serde::{Deserialize, Serializer};

    use super::*;
    use crate::{Fd, attachments::Attachment};

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    enum Tree {
        Leaf(String, Option<i64>),
        Node { name: String, children: BTreeMap<u8, Tree> },
    }

    fn trees() -> impl Strategy<Value = Tree> {
        let leaf = (any::<String>(), any::<Option<i64>>()).prop_map(|(s, n)| Tree::Leaf(s, n));
        leaf.prop_recursive(4, 32, 5, |inner| {
            (any::<String>(), proptest::collection::btree_map(any::<u8>(), inner, 0..5))
                .prop_map(|(name, children)| Tree::Node { name, children })
        })
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(tree in trees()) {
            let encoded = encode(&tree).unwrap();
            prop_assert_eq!(decode::<Tree>(encoded.body(), &mut Received::default()).unwrap(), tree);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = decode::<Tree>(&bytes, &mut Received::default());
            let _ = decode::<(Vec<u32>, Fd<File>)>(&bytes, &mut Received::default());
        }
    }

    #[test]
    fn bytes_left_behind_are_an_error_that_names_the_type() {
        let encoded = encode(&(1u8, 2u8)).unwrap();
        let error = decode::<u8>(encoded.body(), &mut Received::default()).unwrap_err();
        assert_eq!(error.type_name(), "u8");
        assert!(error.to_string().contains("`u8`"), "{error}");
    }

    /// Counts what becomes of it.
    #[derive(Debug)]
    struct Witness {
        file: File,
        sent: AtomicUsize,
        kept: AtomicUsize,
    }

    impl std::os::fd::AsFd for Witness {
        fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
            self.file.as_fd()
        }
    }

    impl Attachment for Witness {
        fn sent(&self) {
            self.sent.fetch_add(1, Ordering::Relaxed);
        }
        fn kept(&self) {
            self.kept.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[derive(Clone)]
    struct Handle(Arc<Witness>);

    impl Handle {
        fn new() -> Self {
            let file = File::open("/dev/null").unwrap();
            Self(Arc::new(Witness { file, sent: AtomicUsize::new(0), kept: AtomicUsize::new(0) }))
        }
        fn fate(&self) -> (usize, usize) {
            (self.0.sent.load(Ordering::Relaxed), self.0.kept.load(Ordering::Relaxed))
        }
    }

    impl Serialize for Handle {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            attachments::attach(self.0.clone()).map_err(serde::ser::Error::custom)?.serialize(serializer)
        }
    }

    #[test]
    fn an_attachment_is_sent_or_kept_exactly_once() {
        let handle = Handle::new();
        drop(encode(&handle).unwrap());
        assert_eq!(handle.fate(), (0, 1), "dropped unsent");
        encode(&handle).unwrap().into_parts().1.sent();
        assert_eq!(handle.fate(), (1, 1), "sent");
        assert!(postcard::to_stdvec(&handle).is_err());
        assert_eq!(handle.fate(), (1, 2), "no message around it");
    }

    #[test]
    fn too_many_attachments_are_one_clear_error_and_all_are_kept() {
        let handle = Handle::new();
        let error = encode(&vec![handle.clone(); attachments::MAX + 1]).unwrap_err();
        assert!(std::error::Error::source(&error).unwrap().to_string().contains("253"), "{error:?}");
        assert_eq!(handle.fate(), (0, attachments::MAX + 1));
        assert_eq!(encode(&vec![handle; attachments::MAX]).unwrap().attachments().len(), attachments::MAX);
    }

    #[test]
    fn a_panic_while_encoding_keeps_the_attachments_and_the_next_message_works() {
        struct Bomb(Handle);
        impl Serialize for Bomb {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                self.0.serialize(serializer)?;
                panic!("in the middle")
            }
        }
        let bomb = Bomb(Handle::new());
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| encode(&bomb))).is_err());
        assert_eq!(bomb.0.fate(), (0, 1));
        assert_eq!(attachments::attach(bomb.0.0.clone()), Err(AttachError::NotEncoding), "nothing is left in progress");
        assert_eq!(encode(&bomb.0).unwrap().attachments().len(), 1);
    }

    #[test]
    fn the_count_in_front_is_checked() {
        for count in [0, 1, 127, 128, attachments::MAX] {
            let (_, list) = encode(&vec![Handle::new(); count]).unwrap().into_parts();
            let received =
                Received::from((0..count).map(|_| File::open("/dev/null").unwrap().into()).collect::<Vec<_>>());
            let payload = [Count::of(&list).as_bytes(), b"rest"].concat();
            assert_eq!(strip_count(&payload, &received), Ok(&b"rest"[..]), "{count}");
            if count > 0 {
                assert!(strip_count(&payload, &Received::default()).is_err(), "{count}");
            }
        }
        assert!(strip_count(&[], &Received::default()).is_err());
    }

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
        assert!(decoder.decode::<String>(&[5]).is_err());
    }

    #[test]
    fn numbers_of_a_series_are_as_they_are_in_memory() {
        fn check<T: Message + PartialEq + std::fmt::Debug + Copy>(numbers: &[T]) {
            let (mut encoder, mut decoder) = (Encoder::default(), Decoder::default());
            for &number in numbers {
                let mut bytes = Vec::new();
                assert!(encoder.append(&number, &mut bytes).unwrap().is_none());
                assert_eq!(bytes.len(), size_of::<T>());
                assert_eq!(decoder.decode::<T>(&bytes).unwrap(), number);
                assert_eq!(decoder.decode_with::<T>(&bytes, &mut Received::default()).unwrap(), number);
                assert_eq!(on_its_own::<T>(&bytes), encode(&number).unwrap().body());
                bytes.push(0);
                let why = decoder.decode::<T>(&bytes).unwrap_err();
                assert_eq!((why.type_name(), why.len), (type_name::<T>(), bytes.len()));
                assert!(decoder.decode_with::<T>(&[], &mut Received::default()).is_err());
            }
        }
        check(&[0, 1, u8::MAX]);
        check(&[0, 200, u16::MAX]);
        check(&[0, 200, u32::MAX]);
        check(&[0, 200, u64::MAX]);
        check(&[0, 200, u128::MAX]);
        check(&[0, 200, usize::MAX]);
        check(&[0, -1, i8::MIN]);
        check(&[0, -1, i16::MIN]);
        check(&[0, -1, i32::MIN]);
        check(&[0, -1, i64::MIN]);
        check(&[0, -1, i128::MIN]);
        check(&[0, -1, isize::MIN]);
        check(&[0.0, -1.5, f32::INFINITY]);
        check(&[0.0, -1.5, f64::MIN_POSITIVE]);
        // Whatever else stays as it is.
        let text = encode("ab").unwrap();
        assert_eq!(on_its_own::<String>(text.body()), text.body());
        let mut bytes = Vec::new();
        Encoder::default().append(&String::from("ab"), &mut bytes).unwrap();
        assert_eq!(bytes, text.body());
    }

    #[test]
    fn a_message_inside_a_message_has_its_own_list() {
        struct Outer(Handle, Handle);
        impl Serialize for Outer {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let inner = encode(&(&self.0, &self.0)).unwrap();
                assert_eq!(inner.attachments().len(), 2);
                self.1.serialize(serializer)
            }
        }
        let outer = Outer(Handle::new(), Handle::new());
        assert_eq!(encode(&outer).unwrap().attachments().len(), 1);
    }

    #[test]
    fn a_descriptor_that_did_not_come_is_an_error() {
        let encoded = encode(&Fd::new(File::open("/dev/null").unwrap())).unwrap();
        let error = decode::<Fd<File>>(encoded.body(), &mut Received::default()).unwrap_err();
        assert!(std::error::Error::source(&error).unwrap().to_string().contains("did not come"), "{error:?}");
    }
}
