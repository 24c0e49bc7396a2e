//! What program, guardian and child say to each other. `docs/design/guardian.md` has the order of it.

use std::{fs::File, io};

use billiard_connection::{Connection, Fd};
use billiard_wire::{
    Panic, RemoteError,
    attachments::{Attachments, Received},
};
use serde::{Deserialize, Serialize};

use crate::{exit::ExitStatus, image::Identity, sys, task::Task};

/// The guardian's first and only word on the control channel.
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum StartMethod {
    /// A copy of the guardian: a clean process that has run nothing but what comes before `init()`. The default.
    Forkserver,
    /// The same executable, run afresh.
    Spawn,
}

/// The number of the descriptor that a message is about, which comes before those of any value: the report channel of
/// a [`Start`] and a [`Boot`], the pidfd of [`Report::Started`].
pub(crate) const FIRST: u32 = 0;

/// The program asks the guardian for a child. Descriptor [`FIRST`] is the child's end of its report channel; the bytes
/// of an inline argument stand behind the message.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Start {
    pub(crate) method: StartMethod,
    pub(crate) surroundings: Surroundings,
    pub(crate) boot: Boot,
}

/// What a child inherits from its caller as it is at `start()`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Surroundings {
    /// None where the caller may not look at its own directory; it is then the guardian's.
    pub(crate) directory: Option<Fd>,
    pub(crate) stdout: Option<Fd>,
    pub(crate) stderr: Option<Fd>,
    pub(crate) umask: Option<u32>,
    pub(crate) environment: Environment,
}

/// `NAME=value`, each ended by a NUL byte. In a file when it is large, so that a request always fits into the channel.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Environment {
    Inline(#[serde(with = "serde_bytes")] Vec<u8>),
    File(Fd<File>),
}

impl Environment {
    const MAX_INLINE: usize = 16 << 10;

    pub(crate) fn of(variables: Vec<u8>) -> io::Result<Self> {
        if variables.len() <= Self::MAX_INLINE {
            return Ok(Self::Inline(variables));
        }
        Ok(Self::File(sys::sealed_file(&variables)?.into()))
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
    pub(crate) name: String,
    pub(crate) daemon: bool,
    pub(crate) may_have_children: bool,
    pub(crate) print_panic: bool,
    pub(crate) task: Task,
    pub(crate) argument: Body,
    /// The process that its life depends on.
    pub(crate) guardian: u32,
}

/// What guardian and child say on a child's report channel. Each fits into one write of a socket, so that the two never
/// mix. The other way goes one empty message: the child may run.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Report {
    /// From the guardian: it exists, with this pid; descriptor [`FIRST`] is its pidfd.
    Started(u32),
    /// From the guardian: it could not be made. What failed, and the kernel's answer.
    NotStarted(String, i32),
    /// From the child, before it ends: an [`Ended`], and behind that the bytes of its value.
    Ended(Body),
    /// From the guardian: it was reaped.
    Exited(ExitStatus),
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
