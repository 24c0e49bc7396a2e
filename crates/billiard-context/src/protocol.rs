//! What program, guardian and child say to each other. `docs/design/guardian.md` has the order of it.

use std::{fs::File, io};

use billiard_connection::{Connection, Fd};
use billiard_wire::{Panic, RemoteError, attachments::Attachments};
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

/// The program asks the guardian for a child. The bytes of an inline argument stand behind it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Start {
    pub(crate) method: StartMethod,
    pub(crate) surroundings: Surroundings,
    pub(crate) boot: Boot,
}

/// What a child inherits from its caller as it is at `start()`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Surroundings {
    pub(crate) directory: Fd,
    pub(crate) stdout: Option<Fd>,
    pub(crate) stderr: Option<Fd>,
    pub(crate) umask: Option<u32>,
    /// `NAME=value`, each ended by a NUL byte.
    #[serde(with = "serde_bytes")]
    pub(crate) environment: Vec<u8>,
}

/// What a child runs. The bytes of an inline argument stand behind it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Boot {
    pub(crate) name: String,
    pub(crate) daemon: bool,
    pub(crate) may_have_children: bool,
    pub(crate) print_panic: bool,
    pub(crate) task: Task,
    pub(crate) argument: Body,
    pub(crate) report: Connection,
}

/// What guardian and child say on a child's report channel. The bytes of an inline value stand behind it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Report {
    /// From the guardian: it runs.
    Started(u32, Fd),
    /// From the guardian: it could not be made. What failed, and the kernel's answer.
    NotStarted(String, i32),
    /// From the child, before it ends.
    Ended(Ended),
    /// From the guardian: it was reaped.
    Exited(ExitStatus),
}

/// A child's last word.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Ended {
    Returned(Body),
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

/// A message as bytes, behind attachments that were encoded before it.
pub(crate) fn encode<T: Serialize>(
    message: &T,
    attachments: &mut Attachments,
) -> Result<Vec<u8>, billiard_wire::codec::EncodeError> {
    billiard_wire::codec::encode_after(message, attachments)
}
