//! A value to bytes and back.
//!
//! The format is [postcard](https://postcard.jamesmunns.com/wire-format), which is compact and not
//! self-describing: types with `#[serde(untagged)]`, internally tagged enums, `flatten` and
//! `skip_serializing_if` can be encoded but not decoded, and the error names the type. A path that
//! may not be UTF-8 travels as an `OsString`. Recursive types have no depth limit, so that a
//! hostile sender can exhaust the stack of who decodes one: take them from trusted senders only.

use std::{any::type_name, str::Utf8Error};

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

    pub(crate) fn new(body: Vec<u8>, attachments: Attachments) -> Self {
        Self { body, attachments }
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
pub(crate) enum Cause {
    #[error(transparent)]
    Attachment(AttachError),
    #[error(transparent)]
    Format(postcard::Error),
    #[error("{0} bytes are left behind the value: it was sent as another type")]
    Trailing(usize),
    #[error("a number has another length: it was sent as another type")]
    Length,
    #[error(transparent)]
    Text(Utf8Error),
}

impl Cause {
    /// The error of who was to decode a `T` from these bytes.
    pub(crate) fn of<T>(self, bytes: &[u8]) -> DecodeError {
        DecodeError { type_name: type_name::<T>(), len: bytes.len(), source: self }
    }

    /// The error of who was to encode a `T`.
    pub(crate) fn of_encoding<T: ?Sized>(self) -> EncodeError {
        EncodeError { type_name: type_name::<T>(), source: Box::new(self) }
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
pub(crate) mod tests {
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
    pub(crate) struct Handle(Arc<Witness>);

    impl Handle {
        pub(crate) fn new() -> Self {
            let file = File::open("/dev/null").unwrap();
            Self(Arc::new(Witness { file, sent: AtomicUsize::new(0), kept: AtomicUsize::new(0) }))
        }
        pub(crate) fn fate(&self) -> (usize, usize) {
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
