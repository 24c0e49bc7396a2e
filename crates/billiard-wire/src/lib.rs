//! Values as messages between processes.
//!
//! This crate turns a value into bytes and back, keeps the list of descriptors that ride along with
//! it, writes and reads the header of a frame, and flattens a failure so that it can cross a
//! process. It does no I/O and reads no clock: the crates above it do.
//!
//! * [`frame`]: the length in front of every message, as Python's `multiprocessing.connection` has it.
//! * [`codec`] (feature `codec`, on by default): [`Message`], [`encode`](codec::encode) and
//!   [`decode`](codec::decode).
//! * [`exact`] (the same feature): values of which both ends know the very type, some of which bypass serde.
//! * [`attachments`]: descriptors inside a value, and [`Fd`], which makes one of any file.
//! * [`RemoteError`] and [`Panic`]: a failure as text, limited in size.
//! * [`generation`]: which copy of the process a handle was made in.
//! * [`names`]: what this process has in the file system, for who removes it after its death.
//! * [`fault`]: named points at which tests kill, stop, delay or fail a process.
//!
//! ```
//! use billiard_wire::codec;
//!
//! let encoded = codec::encode(&("answer", 42u32))?;
//! let (word, number): (String, u32) = codec::decode(encoded.body(), &mut Default::default())?;
//! assert_eq!((word.as_str(), number), ("answer", 42));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod attachments;
#[cfg(feature = "codec")]
pub mod codec;
#[cfg(feature = "codec")]
pub mod exact;
pub mod fault;
#[cfg(feature = "codec")]
mod fd;
pub mod frame;
pub mod generation;
pub mod names;
mod panic;
mod remote_error;
mod sys;
mod text;

#[cfg(feature = "codec")]
pub use codec::Message;
#[cfg(feature = "codec")]
pub use fd::Fd;
pub use panic::Panic;
pub use remote_error::RemoteError;
