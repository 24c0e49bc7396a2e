//! Why a process could not be started or waited for.

use std::io;

use billiard_wire::{
    Panic, RemoteError,
    codec::{DecodeError, EncodeError},
    generation::Forked,
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{exit::ExitStatus, task::ForeignFunction};

/// Why a process could not be started, signalled or waited for.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The program never called [`init`](crate::init()). Nothing was started.
    #[error(
        "this program cannot start processes yet: make `billiard::init();` the first line of `main` \
         (`billiard_context::init()`, `billiard_pool::init()` are the same function; in a crate of plain `#[test]` \
         functions, `billiard::init_for_tests!();` once at its top)"
    )]
    NotInitialized,
    /// The program has threads where it calls [`init`](crate::init()), so that children cannot be forked there.
    #[error(
        "{threads} threads exist where `init()` is called, so that no child can be forked there; with #[tokio::main] \
         the runtime is built before the first line of `main`: write `fn main() {{ billiard::init(); \
         tokio::runtime::Runtime::new().unwrap().block_on(async {{ … }}) }}` instead"
    )]
    ThreadsBeforeInit {
        /// How many threads there are.
        threads: usize,
    },
    /// The helper process ended, or did not answer, before it said that it is ready.
    #[error(
        "the helper process that starts children did not come up: {}; is `init()` the first line of `main`, \
         and does nothing before it fail?", status.as_deref().unwrap_or("it ended without a word")
    )]
    GuardianNotReady {
        /// What is known of it: how it ended, or what it lacks.
        status: Option<String>,
    },
    /// The helper process died while it started this child, whose function was not called. Starting again brings up another.
    #[error("the helper process that starts children died while it started this one; the next start brings up another")]
    GuardianDied,
    /// The helper process has not answered for a minute.
    #[error("the helper process that starts children has not answered for a minute: is it stopped?")]
    GuardianSilent,
    /// The helper process runs another executable than this one.
    #[error("the helper process runs another executable than this program: start children before `/proc` is hidden")]
    OtherExecutable,
    /// The kernel, or a filter of system calls around this process, lacks something that is needed.
    #[error("`{call}` is missing: Linux 5.10 or newer is needed, without a filter that forbids it")]
    Unsupported {
        /// The system call.
        call: &'static str,
    },
    /// The function is not in the main executable.
    #[error(transparent)]
    ForeignFunction(#[from] ForeignFunction),
    /// The argument cannot be encoded. Nothing was started.
    #[error("the argument of the process cannot be encoded")]
    Argument(#[from] EncodeError),
    /// A daemonic process asked for a child.
    #[error("daemonic processes are not allowed to have children")]
    DaemonicProcess,
    /// Threads exist, so that this process cannot be copied: what they hold would be held in the copy for ever.
    #[error(
        "this process has {threads} threads: a fork would copy the locks that they hold, and no one would ever release \
         them there; start processes by `forkserver` or `spawn`, or fork before the first thread"
    )]
    Threads {
        /// How many threads there are.
        threads: usize,
    },
    /// Nobody can tell how many threads this process has, so that it is not copied.
    #[error("without /proc nobody can tell whether this process has one thread, so that it is not forked")]
    ThreadsUnknown,
    /// The process is a copy of the one that the handle belongs to.
    #[error(transparent)]
    Forked(#[from] Forked),
    /// An option of the builder cannot be fulfilled. Nothing was started.
    #[error("{what}")]
    Configuration {
        /// Which one, and why.
        what: String,
        /// The kernel's answer, where it was asked.
        source: Option<io::Error>,
    },
    /// The function that the helper process shall run before it starts children failed.
    #[error("the helper process could not be preloaded")]
    Preload(#[from] PreloadError),
    /// The process could not be made.
    #[error("the process could not be made: {what}")]
    Start {
        /// What failed.
        what: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Talking to the helper process failed.
    #[error("talking to the helper process that starts children failed")]
    Connection(#[from] billiard_connection::Error),
    /// The kernel refuses.
    #[error("{call} failed")]
    Io {
        /// The system call.
        call: &'static str,
        /// Its error.
        source: io::Error,
    },
}

/// Why a helper process could not be preloaded. It was ended, and nothing was started.
#[derive(Clone, Debug, Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum PreloadError {
    /// The function returned an error.
    #[error("its function failed: {0}")]
    Failed(RemoteError),
    /// The function panicked.
    #[error("its function panicked: {0}")]
    Panicked(Panic),
    /// Its argument could not be decoded: the function was not called.
    #[error("it could not decode the argument: {0}")]
    Argument(RemoteError),
    /// The function left threads behind, so that no child can be forked.
    #[error("its function left {0} threads behind, so that no child can be forked: start them in the children")]
    Threads(usize),
    /// The helper process ended while it ran the function, or did not understand what it was to do.
    #[error("it ended while it ran the function: {0}")]
    Ended(String),
}

/// Why a process has no return value.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ChildError {
    /// It panicked; a panic ends a process with code 101.
    #[error("the process {0}")]
    Panicked(Panic),
    /// It ended by itself, without a value: `std::process::exit` was called.
    #[error("the process ended without a value: {0}")]
    Exited(ExitStatus),
    /// A signal ended it, or nobody can tell how it ended.
    #[error("the process was ended by {0}")]
    Signalled(ExitStatus),
    /// Its argument could not be decoded: the function was not called.
    #[error("the process could not decode its argument: {0}")]
    Argument(RemoteError),
    /// Its value could not be encoded.
    #[error("the process could not encode its value: {0}")]
    Encode(RemoteError),
    /// It failed before the function was called.
    #[error("the process could not be set up: {0}")]
    Setup(RemoteError),
    /// Its value cannot be decoded here.
    #[error("the value of the process cannot be decoded")]
    Decode(#[from] DecodeError),
    /// The value was taken before.
    #[error("the value of the process was taken before")]
    Taken,
    /// Waiting for it failed.
    #[error("waiting for the process failed")]
    Wait(#[source] Box<Error>),
}
