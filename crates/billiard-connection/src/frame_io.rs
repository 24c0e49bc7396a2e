//! Reading and writing frames, resumable at every byte.
//!
//! A reader never reads beyond the frame that it is in, so that readiness as the kernel tells it is
//! true, and it allocates as bytes arrive, never by what a header claims.

use std::{
    io::IoSlice,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use billiard_wire::{
    attachments::{Attachments, Received},
    codec::{self, Count},
    fault,
    frame::{self, Header, Length},
};
use rustix::event::{PollFd, PollFlags};
use serde::de::DeserializeOwned;

use crate::{
    Error,
    sys::{self, Transfer},
};

/// How much is allocated before any of a payload has come.
const FIRST_CHUNK: u64 = 256 << 10;

/// What to do when the socket has nothing to read, or no room to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Wait, even where the descriptor is non-blocking.
    Wait,
    /// Return at once; the next call goes on where this one stopped.
    DontWait,
}

/// A whole message: its payload and the descriptors that rode on its first byte.
#[derive(Debug)]
pub struct Frame {
    payload: Vec<u8>,
    received: Received,
    /// Not all descriptors that were sent with it have come.
    incomplete: bool,
}

impl Frame {
    /// The payload, for a message of plain bytes.
    ///
    /// # Errors
    ///
    /// [`Error::UnexpectedDescriptors`] when descriptors came with it; they are closed.
    pub fn into_bytes(self) -> Result<Vec<u8>, Error> {
        match self.received.len() + usize::from(self.incomplete) {
            0 => Ok(self.payload),
            unexpected => Err(Error::UnexpectedDescriptors(unexpected)),
        }
    }

    /// The value, for a typed message.
    ///
    /// # Errors
    ///
    /// [`Error::Decode`] when it is of another type, [`Error::DescriptorsLost`] when this process could not receive all
    /// of its descriptors.
    pub fn decode<T: DeserializeOwned>(mut self) -> Result<T, Error> {
        let body = Self::body(&self.payload, &self.received, self.incomplete)?;
        Ok(codec::decode(body, &mut self.received)?)
    }

    fn body<'f>(payload: &'f [u8], received: &Received, incomplete: bool) -> Result<&'f [u8], Error> {
        if incomplete {
            return Err(Error::DescriptorsLost);
        }
        Ok(codec::strip_count(payload, received)?)
    }

    /// The value at the beginning of a typed message, whatever became of its descriptors; for one that names none.
    ///
    /// # Errors
    ///
    /// [`Error::Decode`] when it is of another type.
    pub fn head<T: DeserializeOwned>(&self) -> Result<T, Error> {
        let (_, body) = codec::decode_prefix::<u32>(&self.payload, &mut Received::default())?;
        Ok(codec::decode_prefix(body, &mut Received::default())?.0)
    }

    /// Those descriptors that have come, for a message that cannot be decoded since others were lost.
    #[must_use]
    pub fn into_received(self) -> Received {
        self.received
    }

    /// Whether descriptors that were sent with it were lost, since this process could open no more.
    #[must_use]
    pub fn is_incomplete(&self) -> bool {
        self.incomplete
    }

    /// The value at the beginning of a typed message, what is behind it, and the descriptors that are left.
    ///
    /// # Errors
    ///
    /// As [`Frame::decode`].
    pub fn decode_prefix<T: DeserializeOwned>(mut self) -> Result<(T, Vec<u8>, Received), Error> {
        let body = Self::body(&self.payload, &self.received, self.incomplete)?;
        let (value, rest) = codec::decode_prefix(body, &mut self.received)?;
        let behind = self.payload.len() - rest.len();
        self.payload.drain(..behind);
        Ok((value, self.payload, self.received))
    }
}

/// Reads frames from a Unix stream socket, going on where the last call stopped.
///
/// ```
/// use billiard_connection::{Connection, FrameReader, Mode};
///
/// let (left, right) = Connection::pair()?;
/// let mut reader = FrameReader::new();
/// assert!(reader.read(&right, Mode::DontWait)?.is_none(), "nothing has come");
/// left.send_bytes(b"hello")?;
/// let frame = reader.read(&right, Mode::DontWait)?.expect("a whole frame has come");
/// assert_eq!(frame.into_bytes()?, b"hello");
/// # Ok::<(), billiard_connection::Error>(())
/// ```
#[derive(Debug)]
pub struct FrameReader {
    limit: u64,
    /// How many bytes a call that may not wait reads at the most.
    turn: usize,
    /// The last call stopped since it had read that many.
    has_more: bool,
    header: [u8; frame::LONG],
    /// Bytes of the header that have come.
    header_len: usize,
    /// The payload's length, once the header is whole.
    payload_len: Option<u64>,
    /// Room for a part of the payload, of which `filled` bytes have come.
    payload: Vec<u8>,
    filled: usize,
    fds: Vec<OwnedFd>,
    /// Descriptors of the frame were lost.
    incomplete: bool,
    broken: bool,
    /// The other end was closed without having read all that was sent to it.
    left_unread: bool,
}

impl Default for FrameReader {
    fn default() -> Self {
        Self::new()
    }
}

impl FrameReader {
    /// A reader at the beginning of a frame that takes payloads of any length.
    #[must_use]
    pub fn new() -> Self {
        Self::with_limit(u64::MAX)
    }

    /// A reader that refuses payloads of more than `limit` bytes, before any of one is read.
    #[must_use]
    pub fn with_limit(limit: u64) -> Self {
        Self {
            limit,
            turn: usize::MAX,
            has_more: false,
            header: [0; frame::LONG],
            header_len: 0,
            payload_len: None,
            payload: Vec::new(),
            filled: 0,
            fds: Vec::new(),
            incomplete: false,
            broken: false,
            left_unread: false,
        }
    }

    /// Whether the next byte begins a frame.
    #[must_use]
    pub fn is_at_boundary(&self) -> bool {
        self.header_len == 0 && !self.broken
    }

    /// Makes a call that may not wait return after about `bytes`, so that one long message keeps an event loop from
    /// nothing else. [`has_more`](Self::has_more) then says to call again.
    #[must_use]
    pub fn in_turns_of(mut self, bytes: usize) -> Self {
        self.turn = bytes;
        self
    }

    /// Whether the last call stopped because its turn was over, rather than for want of bytes.
    #[must_use]
    pub fn has_more(&self) -> bool {
        self.has_more
    }

    /// Whether the other end is known to have been closed before it had read all that was sent to it. Known once
    /// [`read`](Self::read) has said [`Error::Eof`] or [`Error::Truncated`].
    #[must_use]
    pub fn peer_left_unread(&self) -> bool {
        self.left_unread
    }

    /// Makes every later read fail: the stream was found out of step.
    pub(crate) fn poison(&mut self) {
        self.broken = true;
    }

    /// Reads until a frame is whole; `None` when that would mean to wait and `mode` forbids it.
    ///
    /// # Errors
    ///
    /// [`Error::Eof`] at the end between two frames, [`Error::Truncated`] inside one, and those of a
    /// stream out of step. After any error but `Eof` the reader is [poisoned](Error::Poisoned).
    pub fn read(&mut self, socket: impl AsFd, mode: Mode) -> Result<Option<Frame>, Error> {
        if self.broken {
            return Err(Error::Poisoned);
        }
        let result = self.advance(socket.as_fd(), mode);
        self.broken = matches!(&result, Err(error) if !matches!(error, Error::Eof));
        result
    }

    fn advance(&mut self, socket: BorrowedFd<'_>, mode: Mode) -> Result<Option<Frame>, Error> {
        let begin = self.filled;
        self.has_more = false;
        loop {
            if mode == Mode::DontWait && self.filled - begin.min(self.filled) >= self.turn {
                self.has_more = true;
                return Ok(None);
            }
            let progress = match self.payload_len {
                None => self.read_header(socket, mode)?,
                Some(len) if (self.filled as u64) < len => self.read_payload(socket, len, mode)?,
                Some(_) => return Ok(Some(self.finish())),
            };
            if !progress {
                match mode {
                    Mode::Wait => ready(socket, PollFlags::IN)?,
                    Mode::DontWait => return Ok(None),
                }
            }
        }
    }

    fn read_header(&mut self, socket: BorrowedFd<'_>, mode: Mode) -> Result<bool, Error> {
        let end = if self.header_len < frame::SHORT { frame::SHORT } else { frame::LONG };
        let first = self.header_len == 0;
        let mut fds = Vec::new();
        let room = &mut self.header[self.header_len..end];
        match sys::recv(socket, room, &mut fds, mode == Mode::DontWait)? {
            Transfer::WouldBlock => return Ok(false),
            end @ (Transfer::Bytes(0) | Transfer::Reset) => {
                self.left_unread |= matches!(end, Transfer::Reset);
                return Err(if first { Error::Eof } else { Error::Truncated });
            }
            Transfer::Bytes(came) => self.header_len += came,
            Transfer::BytesWithout(came) => {
                self.header_len += came;
                self.incomplete = true;
            }
        }
        if first {
            self.fds = fds;
        } else if !fds.is_empty() {
            return Err(Error::UnexpectedDescriptors(fds.len()));
        }
        if self.header_len == end {
            match frame::parse(&self.header[..end])? {
                Length::Payload(len) if len > self.limit => return Err(Error::TooLong { len, limit: self.limit }),
                Length::Payload(len) => self.payload_len = Some(len),
                Length::MoreHeader => {}
            }
        }
        fault::point("connection.recv.header");
        Ok(true)
    }

    fn read_payload(&mut self, socket: BorrowedFd<'_>, len: u64, mode: Mode) -> Result<bool, Error> {
        if self.payload.is_empty() {
            self.payload = vec![0; len.min(FIRST_CHUNK) as usize];
        } else if self.filled == self.payload.len() {
            let doubled = (self.filled as u64 * 2).min(len);
            self.payload.resize(usize::try_from(doubled).unwrap_or(usize::MAX), 0);
        }
        let mut fds = Vec::new();
        match sys::recv(socket, &mut self.payload[self.filled..], &mut fds, mode == Mode::DontWait)? {
            Transfer::WouldBlock => return Ok(false),
            end @ (Transfer::Bytes(0) | Transfer::Reset) => {
                self.left_unread |= matches!(end, Transfer::Reset);
                return Err(Error::Truncated);
            }
            Transfer::Bytes(came) => self.filled += came,
            Transfer::BytesWithout(_) => return Err(Error::UnexpectedDescriptors(fds.len() + 1)),
        }
        fault::point("connection.recv.payload");
        match fds.len() {
            0 => Ok(true),
            unexpected => Err(Error::UnexpectedDescriptors(unexpected)),
        }
    }

    fn finish(&mut self) -> Frame {
        self.header_len = 0;
        self.payload_len = None;
        self.filled = 0;
        Frame {
            payload: std::mem::take(&mut self.payload),
            received: std::mem::take(&mut self.fds).into(),
            incomplete: std::mem::take(&mut self.incomplete),
        }
    }
}

/// Waits until the socket is ready, or its end is: the next transfer says which.
fn ready(socket: BorrowedFd<'_>, events: PollFlags) -> Result<(), Error> {
    while sys::poll(&mut [PollFd::from_borrowed_fd(socket, events)], None)? == 0 {}
    Ok(())
}

/// A message on its way out, resumable: a frame once begun is finished, or its connection is of no more use.
///
/// Dropping it before it was written whole gives the handles in it back to their owners.
#[derive(Debug)]
pub struct FrameWriter {
    head: Vec<u8>,
    body: Vec<u8>,
    attachments: Attachments,
    written: usize,
    /// It went out whole, with descriptors.
    gave_descriptors: bool,
}

impl FrameWriter {
    /// A message of plain bytes.
    #[must_use]
    pub fn bytes(body: Vec<u8>) -> Self {
        let head = Header::new(body.len() as u64).as_bytes().to_vec();
        Self { head, body, attachments: Attachments::default(), written: 0, gave_descriptors: false }
    }

    /// A typed message: an encoded value in two parts, `prefix` and `body`, and the descriptors that they name.
    #[must_use]
    pub fn typed(prefix: &[u8], body: Vec<u8>, attachments: Attachments) -> Self {
        let mut head = typed_head(prefix.len() + body.len(), &attachments);
        head.extend_from_slice(prefix);
        Self { head, body, attachments, written: 0, gave_descriptors: false }
    }

    /// Whether any of it has gone out.
    #[must_use]
    pub fn is_begun(&self) -> bool {
        self.written > 0
    }

    /// Writes on; whether the frame is whole now.
    ///
    /// # Errors
    ///
    /// [`Error::Disconnected`] when nobody is left to read it.
    pub fn write(&mut self, socket: impl AsFd, mode: Mode) -> Result<bool, Error> {
        let whole = write_frame(socket.as_fd(), &self.head, &self.body, &self.attachments, &mut self.written, mode)?;
        if whole && !self.attachments.is_empty() {
            self.gave_descriptors = true;
            std::mem::take(&mut self.attachments).sent();
        }
        Ok(whole)
    }

    /// Whether all of it has gone out.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.written == self.head.len() + self.body.len()
    }

    /// Begins again, to send it to somebody else; false when it cannot be: descriptors went with it, and are gone.
    #[must_use]
    pub fn rewind(&mut self) -> bool {
        self.written = 0;
        !self.gave_descriptors
    }
}

/// The header and count in front of a typed payload whose value has `len` bytes.
pub(crate) fn typed_head(len: usize, attachments: &Attachments) -> Vec<u8> {
    let count = Count::of(attachments);
    let header = Header::new((count.as_bytes().len() + len) as u64);
    [header.as_bytes(), count.as_bytes()].concat()
}

/// Writes `head` and `body` from byte `written` on; the descriptors ride on the first byte.
pub(crate) fn write_frame(
    socket: BorrowedFd<'_>,
    head: &[u8],
    body: &[u8],
    attachments: &Attachments,
    written: &mut usize,
    mode: Mode,
) -> Result<bool, Error> {
    while *written < head.len() + body.len() {
        let parts = [
            IoSlice::new(head.get(*written..).unwrap_or_default()),
            IoSlice::new(&body[written.saturating_sub(head.len())..]),
        ];
        let first: Vec<BorrowedFd<'_>> = if *written == 0 { attachments.fds().collect() } else { Vec::new() };
        match sys::send(socket, &parts, &first, mode == Mode::DontWait)? {
            Some(sent) => *written += sent,
            None if mode == Mode::Wait => ready(socket, PollFlags::OUT)?,
            None => return Ok(false),
        }
        fault::point("connection.send.part");
    }
    Ok(true)
}
