//! One end of a duplex connection.

use std::{
    fmt,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use billiard_wire::{
    attachments::{self, Attachment, Attachments},
    codec,
    frame::Header,
    generation::Generation,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, de::DeserializeOwned, ser};

use crate::{
    Error,
    frame_io::{FrameReader, Mode, typed_head, write_frame},
    sys::{self, Transfer},
};

/// One end of a duplex connection that carries whole messages.
///
/// Sending and receiving wait until the message is through. Several threads may use one end: their
/// messages do not mix, and each message goes to one receiver. Dropping it closes it; the other end
/// then receives what was sent before, and after that [`Error::Eof`].
///
/// If the process at the other end dies, what it sent whole arrives, then comes `Eof`, or
/// [`Error::Truncated`] where it died in the middle of a message.
///
/// In a copy of this process that was forked by hand every use is [`Error::Forked`]: two processes that read from one stream would
/// each get pieces of it. In a child of `Context::fork` it works; which of the two uses it is theirs to agree on.
///
/// A `Connection` may itself be a part of a message. Sending it hands it over: there is one owner,
/// and here every later use is [`Error::HandedOver`]. If the message cannot be sent, it stays. One that another thread
/// is using cannot be sent. Take it out of an event loop first: epoll goes on to watch what was handed over.
///
/// ```
/// use billiard_connection::Connection;
///
/// let (here, there) = Connection::pair()?;
/// let (mine, yours) = Connection::pair()?;
/// here.send(&yours)?; // the receiver is its only owner now
/// let theirs: Connection = there.recv()?;
/// mine.send_bytes(b"through a connection that came through a connection")?;
/// assert_eq!(theirs.recv_bytes()?.len(), 51);
/// assert!(yours.recv_bytes().is_err());
/// # Ok::<(), billiard_connection::Error>(())
/// ```
pub struct Connection(Arc<End>);

/// Who owns an end. Only the thread that encodes it leaves `HERE`, and only its message leaves `MOVING`.
const HERE: u8 = 0;
const MOVING: u8 = 1;
const MOVED: u8 = 2;

struct End {
    /// The copy of the process that it was made in.
    generation: Generation,
    socket: OwnedFd,
    owner: AtomicU8,
    reader: Mutex<FrameReader>,
    writer: Mutex<Writer>,
}

/// What one writer leaves to the next.
#[derive(Default)]
struct Writer {
    /// A frame broke off half-way.
    broken: bool,
}

impl Connection {
    /// Two ends that are connected with each other: `Pipe()` of Python's `multiprocessing`.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when the process may open no more files.
    pub fn pair() -> Result<(Self, Self), Error> {
        let (left, right) = sys::socketpair()?;
        Ok((Self::over(left), Self::over(right)))
    }

    fn over(socket: OwnedFd) -> Self {
        Self(Arc::new(End {
            generation: Generation::current(),
            socket,
            owner: AtomicU8::new(HERE),
            reader: Mutex::default(),
            writer: Mutex::default(),
        }))
    }

    /// Sends plain bytes as one message, exactly as Python's `Connection.send_bytes`.
    ///
    /// # Errors
    ///
    /// [`Error::Disconnected`] when nobody is at the other end. The message was then not delivered,
    /// or not whole.
    pub fn send_bytes(&self, bytes: &[u8]) -> Result<(), Error> {
        self.write(Header::new(bytes.len() as u64).as_bytes(), bytes, &Attachments::default())
    }

    /// Receives a message of plain bytes.
    ///
    /// # Errors
    ///
    /// [`Error::Eof`] when the other end is closed, [`Error::Truncated`] when that happened in the middle of a message.
    pub fn recv_bytes(&self) -> Result<Vec<u8>, Error> {
        self.read()?.into_bytes()
    }

    /// Sends a value as one message, with the descriptors of the handles in it.
    ///
    /// # Errors
    ///
    /// [`Error::Encode`] when the value cannot be encoded; nothing is sent then. Otherwise as [`send_bytes`](Self::send_bytes).
    pub fn send<T: Serialize + ?Sized>(&self, value: &T) -> Result<(), Error> {
        let (body, attachments) = codec::encode(value)?.into_parts();
        self.write(&typed_head(body.len(), &attachments), &body, &attachments)?;
        attachments.sent();
        Ok(())
    }

    /// Receives a value.
    ///
    /// # Errors
    ///
    /// [`Error::Decode`] when the message is of another type; it is consumed, its descriptors are
    /// closed, and the connection stays usable. Otherwise as [`recv_bytes`](Self::recv_bytes).
    pub fn recv<T: DeserializeOwned>(&self) -> Result<T, Error> {
        self.read()?.decode()
    }

    /// Sends one descriptor, outside any message, as `multiprocessing.reduction.send_handle` does.
    ///
    /// The other end calls [`recv_fd`](Self::recv_fd) next; the two ends have to agree on it.
    ///
    /// # Errors
    ///
    /// As [`send_bytes`](Self::send_bytes).
    pub fn send_fd(&self, fd: impl AsFd) -> Result<(), Error> {
        let mut attachments = Attachments::default();
        let duplicate = fd.as_fd().try_clone_to_owned().map_err(|source| Error::Io { call: "fcntl", source })?;
        attachments.push(Arc::new(duplicate)).expect("the list was empty");
        self.write(&[1], &[], &attachments) // the byte is the number of descriptors
    }

    /// Receives one descriptor that was sent by [`send_fd`](Self::send_fd). It is close-on-exec.
    ///
    /// # Errors
    ///
    /// [`Error::NoDescriptor`] when a message came instead: the ends are out of step and this one is
    /// [poisoned](Error::Poisoned).
    pub fn recv_fd(&self) -> Result<OwnedFd, Error> {
        let mut reader = lock(&self.0.reader);
        self.owned_here()?;
        if !reader.is_at_boundary() {
            return Err(Error::Poisoned);
        }
        let (mut byte, mut fds) = ([0], Vec::new());
        loop {
            match sys::recv(self.as_fd(), &mut byte, &mut fds, false)? {
                Transfer::Bytes(0) | Transfer::Reset => return Err(Error::Eof),
                Transfer::Bytes(_) => break,
                Transfer::BytesWithout(_) => return Err(Error::DescriptorsLost),
                Transfer::WouldBlock => drop(crate::wait(&[self], None)?),
            }
        }
        match (fds.pop(), fds.len(), byte) {
            (Some(fd), 0, [1]) => Ok(fd),
            _ => {
                reader.poison();
                Err(Error::NoDescriptor)
            }
        }
    }

    /// Whether a message, its beginning, or the end can be read without waiting, within `timeout`.
    ///
    /// # Errors
    ///
    /// As [`wait`](crate::wait()).
    pub fn poll(&self, timeout: Option<Duration>) -> Result<bool, Error> {
        self.owned_here()?;
        Ok(!crate::wait(&[self], timeout)?.is_empty())
    }

    /// Ends the connection for every process that has either end: receivers get what was sent before, and then
    /// [`Error::Eof`]; senders [`Error::Disconnected`]. Dropping it does so only where no other copy of this end exists.
    ///
    /// # Errors
    ///
    /// [`Error::HandedOver`] when it is somebody else's.
    pub fn shutdown(&self) -> Result<(), Error> {
        self.owned_here()?;
        sys::shutdown(self.as_fd())
    }

    fn owned_here(&self) -> Result<(), Error> {
        self.0.generation.check_usable()?;
        // Acquire: pairs with the Release in `sent`, so that who sees MOVED sees the socket buried.
        if self.0.owner.load(Ordering::Acquire) == HERE { Ok(()) } else { Err(Error::HandedOver) }
    }

    fn write(&self, head: &[u8], body: &[u8], attachments: &Attachments) -> Result<(), Error> {
        let mut writer = lock(&self.0.writer);
        self.owned_here()?; // under the lock: whoever hands it over takes both
        if writer.broken {
            return Err(Error::Poisoned);
        }
        let mut written = 0;
        let result = write_frame(self.as_fd(), head, body, attachments, &mut written, Mode::Wait);
        writer.broken = result.is_err() && written > 0;
        result.map(|_whole| ())
    }

    fn read(&self) -> Result<crate::Frame, Error> {
        let mut reader = lock(&self.0.reader);
        self.owned_here()?;
        let frame = reader.read(self, Mode::Wait)?;
        Ok(frame.expect("a reader that may wait returns a whole frame"))
    }
}

/// The locks guard only what their holder repairs itself: a panic while one was held changes nothing.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A Unix stream socket as a connection, for one that this process inherited or was given.
///
/// # Errors
///
/// The descriptor itself, when it is something else.
impl TryFrom<OwnedFd> for Connection {
    type Error = OwnedFd;

    fn try_from(fd: OwnedFd) -> Result<Self, OwnedFd> {
        if sys::is_unix_stream(fd.as_fd()) { Ok(Self::over(fd)) } else { Err(fd) }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.socket.as_fd()
    }
}

impl AsRawFd for Connection {
    fn as_raw_fd(&self) -> RawFd {
        self.0.socket.as_raw_fd()
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("fd", &self.as_raw_fd())
            .field("handed_over", &(self.0.owner.load(Ordering::Relaxed) != HERE))
            .finish()
    }
}

impl AsFd for End {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Attachment for End {
    fn sent(&self) {
        // The receiver has the connection now. If the number cannot be given to a dead one in its
        // place, it stays open here, unused, until the handle is dropped.
        let _ = sys::bury(&self.socket);
        // Release: pairs with the Acquire in `owned_here`.
        self.owner.store(MOVED, Ordering::Release);
    }

    fn kept(&self) {
        self.owner.store(HERE, Ordering::Release);
    }
}

impl Serialize for Connection {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let refuse = |why: &str| Err(ser::Error::custom(attachments::refuse(why)));
        if let Err(forked) = self.0.generation.check_usable() {
            return refuse(&forked.to_string());
        }
        match self.0.owner.compare_exchange(HERE, MOVING, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => {}
            Err(MOVED) => return refuse("the connection was handed over before"),
            Err(_) => return refuse("the connection is already part of a message"),
        }
        // Nobody is in the middle of anything: whoever waits for one of the locks sees MOVING once he has it.
        let idle = match (self.0.reader.try_lock(), self.0.writer.try_lock()) {
            (Ok(reader), Ok(writer)) => reader.is_at_boundary() && !writer.broken,
            _ => false,
        };
        if !idle {
            self.0.kept();
            return refuse("the connection is in use by another thread, or a message on it broke off half-way");
        }
        attachments::attach(self.0.clone()).map_err(ser::Error::custom)?.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Connection {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = u32::deserialize(deserializer)?;
        let fd = attachments::take(number).map_err(de::Error::custom)?;
        Self::try_from(fd).map_err(|_| de::Error::custom("the descriptor is not that of a connection"))
    }
}
