//! Bytes, typed values and descriptors between processes.
//!
//! A [`Connection`] is one end of a socket pair that carries whole messages: [`send_bytes`] and
//! [`recv_bytes`] move bytes exactly as Python's `multiprocessing.connection` frames them,
//! [`send`] and [`recv`] move any serde value, and handles inside a value (files in an
//! [`Fd`], connections) carry their descriptors along. [`wait`] says which of many are ready.
//! [`FrameReader`] and [`FrameWriter`] are the resumable halves for event loops.
//!
//! ```
//! use billiard_connection::Connection;
//!
//! let (left, right) = Connection::pair()?;
//! left.send(&("answer", 42u32))?;
//! let (word, number): (String, u32) = right.recv()?;
//! assert_eq!((word.as_str(), number), ("answer", 42));
//! # Ok::<(), billiard_connection::Error>(())
//! ```
//!
//! [`send`]: Connection::send
//! [`recv`]: Connection::recv
//! [`send_bytes`]: Connection::send_bytes
//! [`recv_bytes`]: Connection::recv_bytes

mod connection;
mod error;
mod frame_io;
mod sys;
mod wait;

pub use billiard_wire::{Fd, Message};

pub use connection::Connection;
pub use error::Error;
pub use frame_io::{Frame, FrameReader, FrameWriter, Mode};
pub use wait::wait;
