//! What program, guardian and child say to each other. `docs/design/guardian.md` has the order of it.

use std::{
    fmt,
    fs::File,
    hash::{BuildHasher, RandomState},
    io,
    str::FromStr,
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use billiard_connection::{Connection, Fd};
use billiard_wire::{
    Panic, RemoteError,
    attachments::{Attachments, Received},
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    Signal,
    authkey::Revealed,
    error::PreloadError,
    exit::ExitStatus,
    image::Identity,
    limits::{Attributes, Resource},
    sys,
    task::Task,
};

/// The guardian's first word on the control channel.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Hello {
    /// It serves; with a pidfd of itself.
    Ready(Identity, Fd),
    /// It cannot fork: so many threads exist.
    Threads(usize),
    /// It lacks a system call.
    Unsupported(String),
    /// It cannot set itself up.
    Failed(String),
}

/// How a child comes to its code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum StartMethod {
    /// A copy of the guardian: a clean process that has run nothing but what comes before `init()`. The default.
    #[default]
    Forkserver,
    /// The same executable, run afresh.
    Spawn,
    /// A copy of the process that starts it.
    Fork,
}

/// As Python's `multiprocessing` calls it.
impl fmt::Display for StartMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Forkserver => "forkserver",
            Self::Spawn => "spawn",
            Self::Fork => "fork",
        })
    }
}

/// There is no start method of that name.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{0:?} is no start method: there are `forkserver`, `spawn` and `fork`")]
pub struct NoSuchStartMethod(String);

impl FromStr for StartMethod {
    type Err = NoSuchStartMethod;

    fn from_str(name: &str) -> Result<Self, NoSuchStartMethod> {
        match name {
            "forkserver" => Ok(Self::Forkserver),
            "spawn" => Ok(Self::Spawn),
            "fork" => Ok(Self::Fork),
            other => Err(NoSuchStartMethod(other.to_owned())),
        }
    }
}

/// The number of the descriptor that a message is about, which comes before those of any value: the report channel of
/// a [`Start`] and a [`Boot`], the pidfd of [`Report::Started`] and [`Request::End`].
pub(crate) const FIRST: u32 = 0;

/// What the program asks of the guardian.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// A child. Descriptor [`FIRST`] is the child's end of its report channel; the bytes of an inline argument stand behind the
    /// message.
    Start(Box<Start>),
    /// The end of a process group: this signal now, KILL when the leader lives on after so long. Descriptor [`FIRST`] is
    /// the leader's pidfd.
    End { pid: u32, signal: Signal, grace: Duration },
    /// Run this function, once. It is answered by [`Preloaded`] on the control channel.
    Preload { task: Task, argument: Body },
    /// The program has given a name in the file system, or has removed it.
    Name { name: FileName, given: bool },
}

/// A name in the file system, and the file that it is of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct FileName {
    #[serde(with = "serde_bytes")]
    pub(crate) path: Vec<u8>,
    pub(crate) device: u64,
    pub(crate) inode: u64,
}

/// What became of [`Request::Preload`].
pub(crate) type Preloaded = Result<(), PreloadError>;

/// What a child is to be.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Start {
    pub(crate) method: StartMethod,
    pub(crate) environment: Environment,
    pub(crate) boot: Boot,
    /// The guardian's word on this child comes with it: the child, which writes to the same channel, does not know it.
    pub(crate) key: u64,
}

/// What a child has around it: as its caller has it at `start()`, or as the builder was told.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Surroundings {
    /// None where the caller may not look at its own directory; it is then the guardian's. In a copy of the caller: as it is.
    pub(crate) directory: Option<Fd>,
    /// Standard input, output and error.
    pub(crate) streams: [Stream; 3],
    pub(crate) attributes: Attributes,
}

/// The program's word to a child whose pidfd it has: it may run. What takes long to find out comes with it.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Go {
    /// None: as it is.
    pub(crate) umask: Option<u32>,
}

/// Where a standard stream leads.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) enum Stream {
    /// Where it does already: in a copy of the caller, and of a guardian, whose standard input is `/dev/null`.
    #[default]
    Keep,
    Null,
    To(Fd),
}

/// `NAME=value`, each ended by a NUL byte. In a file when it is large, so that a request always fits into the channel.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Environment {
    Inline(#[serde(with = "serde_bytes")] Vec<u8>),
    File(Fd<File>),
}

impl Default for Environment {
    fn default() -> Self {
        Self::Inline(Vec::new())
    }
}

impl Environment {
    const MAX_INLINE: usize = 16 << 10;

    pub(crate) fn of(variables: Vec<u8>) -> io::Result<Self> {
        if variables.len() <= Self::MAX_INLINE {
            return Ok(Self::Inline(variables));
        }
        Ok(Self::File(sys::sealed_file(&variables)?.into()))
    }

    /// Leaves an empty one behind.
    pub(crate) fn take(&mut self) -> Self {
        std::mem::take(self)
    }

    pub(crate) fn into_bytes(self) -> io::Result<Vec<u8>> {
        match self {
            Self::Inline(variables) => Ok(variables),
            Self::File(file) => sys::read_sealed(&file),
        }
    }
}

/// What a child runs. Descriptor [`FIRST`] is its end of the report channel; the bytes of an inline argument stand
/// behind the message.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Boot {
    pub(crate) task: Task,
    pub(crate) argument: Body,
    pub(crate) identity: ChildIdentity,
    pub(crate) surroundings: Surroundings,
    /// What the limit of open descriptors is to be, soft and hard; None: as it is. No number stands for no limit.
    pub(crate) descriptor_limit: Option<(Option<u64>, Option<u64>)>,
    /// Limits, which count from here: a fresh execution is not held to them.
    pub(crate) limits: Vec<(Resource, u64)>,
    /// The process that its life depends on.
    pub(crate) guardian: u32,
}

/// Who a child is, as [`current`](crate::current()) and [`parent`](crate::parent()) tell it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ChildIdentity {
    pub(crate) name: String,
    pub(crate) daemon: bool,
    pub(crate) may_have_children: bool,
    pub(crate) print_panic: bool,
    pub(crate) index: Option<u32>,
    pub(crate) authkey: Option<Revealed>,
    /// Pid and name of the process that asked for it.
    pub(crate) starter: (u32, String),
}

/// What guardian and child say on a child's report channel. Each fits into one write of a socket, so that the two never
/// mix. The other way goes one [`Go`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Report {
    /// From the guardian: it exists, with this pid; descriptor [`FIRST`] is its pidfd.
    Started(u32),
    /// From the guardian: it could not be made. What failed, and the kernel's answer.
    NotStarted(String, i32),
    /// From the child, before it ends: an [`Ended`], and behind that the bytes of its value.
    Ended(Body),
    /// From the guardian, with the key of the start: it was reaped.
    Exited(u64, ExitStatus),
}

/// A child's last word.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Ended {
    Returned,
    Panicked(Panic),
    BadArgument(RemoteError),
    BadResult(RemoteError),
    NotSetUp(RemoteError),
}

/// Where the bytes of an encoded value are.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Body {
    /// Behind this message.
    Inline,
    /// In a sealed memory file.
    File(Fd<File>),
}

impl Body {
    /// The most that travels inside a message: what a socket takes whole even on a small machine.
    const MAX_INLINE: usize = 2 << 10;

    /// Decides where `bytes` travel: left where they are, or moved into a file.
    pub(crate) fn of(bytes: &mut Vec<u8>) -> io::Result<Self> {
        if bytes.len() <= Self::MAX_INLINE {
            return Ok(Self::Inline);
        }
        let file = sys::sealed_file(bytes)?;
        *bytes = Vec::new();
        Ok(Self::File(file.into()))
    }

    /// The bytes, of which `behind` stood behind the message.
    pub(crate) fn into_bytes(self, behind: Vec<u8>) -> io::Result<Vec<u8>> {
        match self {
            Self::Inline => Ok(behind),
            Self::File(file) => sys::read_sealed(&file),
        }
    }
}

/// The child's end of its report channel, out of the descriptors that came with a request.
pub(crate) fn take_report(received: &mut Received) -> Result<Connection, billiard_connection::Error> {
    let report = received.take(FIRST).ok().and_then(|fd| Connection::try_from(fd).ok());
    report.ok_or(billiard_connection::Error::NoDescriptor)
}

/// A message as bytes, behind attachments that were encoded before it.
pub(crate) fn encode<T: Serialize>(
    message: &T,
    attachments: &mut Attachments,
) -> Result<Vec<u8>, billiard_wire::codec::EncodeError> {
    billiard_wire::codec::encode_after(message, attachments)
}

/// A number that nobody can guess who has not been told.
pub(crate) fn new_key() -> u64 {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    static SECRET: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    SECRET.hash_one(COUNT.fetch_add(1, Ordering::Relaxed))
}
