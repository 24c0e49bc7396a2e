//! Process-based parallelism: the job that Python's `multiprocessing` does, for Rust on Linux.
//!
//! Use threads where you can. Use processes where the work can crash (native libraries), hang (regexes, solvers),
//! leak, is not thread-safe, or must be killed on a deadline. A [`Pool`] runs such work and survives it:
//!
//! * **One job, one outcome.** Every job that is accepted ends once: with its value, or with a typed [`JobError`].
//! * **A death is a local event.** A worker that crashes, hangs or is killed takes down the job that it ran, no other.
//! * **Nothing is left behind.** Not a process, descriptor or file, whoever dies, this program by `kill -9` included.
//!
//! # The first program
//!
//! ```no_run
//! use billiard::{Pool, RemoteError};
//!
//! fn count_words(path: String) -> Result<usize, RemoteError> {
//!     Ok(std::fs::read_to_string(path)?.split_whitespace().count())
//! }
//!
//! fn main() -> Result<(), billiard::Error> {
//!     billiard::init(); // a worker process starts here and never returns
//!
//!     let pool = Pool::new()?; // one worker for each CPU
//!     for counted in pool.imap_unordered(count_words, std::env::args().skip(1)) {
//!         match counted? {
//!             Ok(words) => println!("{words}"),
//!             Err(why) => eprintln!("skipped: {why}"),
//!         }
//!     }
//!     pool.join()
//! }
//! ```
//!
//! # What to know
//!
//! **[`init`] is the first line of `main`.** Workers are this same executable: in them, `init` does the worker's work and never
//! returns. Without it, building a pool is an error that says so. In a crate of `#[test]` functions, [`init_for_tests!`]
//! does the same once. With `#[tokio::main]`, threads exist before the first line: build the runtime by hand after `init`.
//!
//! **A job is a function, `fn(A) -> R`.** A closure that captures variables could not be called in another process, and
//! does not compile. Arguments and results are any types with serde's two traits ([`Message`]); several arguments are a tuple, and
//! text is a `String` (a `&str` borrows, and cannot travel).
//! The encoding, postcard, is not self-describing: types with `#[serde(untagged)]`, `flatten` or
//! `skip_serializing_if` fail, with an error that names the type. A path that may not be UTF-8 travels as an `OsString`.
//!
//! **A job should leave its process as it found it.** Threads that it leaves behind, and copies that it forks, go on beside the
//! worker's next job, and what they do may cost that one.
//!
//! **Files and connections travel too.** Put a file into an [`Fd`]; a [`connection::Connection`] goes as it is.
//!
//! **Errors.** A job's own `Err` is a value. [`RemoteError`] takes any error, so that `?` works in jobs. What
//! happened *to* a job is a [`JobError`]: it panicked, its worker was lost (with pid, signal, resource usage), it ran over its limit.
//!
//! # Layers
//!
//! Each is a crate of its own: depend on the one that you need.
//!
//! | crate | what it is for |
//! | --- | --- |
//! | `billiard` | all of it: this crate |
//! | `billiard-pool` | many jobs over a few processes |
//! | `billiard-context` | single processes: start, name, join, signal, return value; here as [`context`] |
//! | `billiard-sync` | locks, semaphores, events, barriers and values that processes share; here as [`sync`] |
//! | `billiard-connection` | bytes, values and descriptors between processes; here as [`connection`] |
//! | `billiard-shm` | memory that processes share; here as [`shm`] |
//! | `billiard-wire` | values as bytes, with descriptors beside them |

/// Connections between processes: the crate `billiard-connection`.
pub mod connection {
    pub use billiard_connection::*;
}

/// Single processes: the crate `billiard-context`.
pub mod context {
    pub use billiard_context::{
        ActiveChild, AuthKey, ChildError, CloseError, Context, CpuCountError, Current, EndedBy, Error, ExitError,
        ExitStatus, MemoryError, MemoryUsage, NoSuchSignal, NoSuchStartMethod, OomWatch, Parent, ParentDeathError,
        PreloadError, Process, ProcessBuilder, Resource, ResourceUsage, Scope, Scoped, Signal, StartMethod, Starting,
        Stdio, Stop, StopSignals, TempDir, TempDirError, active_children, after_fork, authkey, close_fds_except,
        cpu_count, current, fork, fork_unchecked, max_fds, parent, parent_death_signal, scope, set_authkey,
        set_parent_death_signal,
    };
}

/// Memory that processes share: the crate `billiard-shm`.
pub mod shm {
    pub use billiard_shm::*;
}

/// Locks, semaphores, events, barriers and values that processes share: the crate `billiard-sync`.
pub mod sync {
    pub use billiard_sync::*;
}

pub use billiard_pool::{
    ByteBuf, Context, Error, ErrorKind, ExitStatus, Fd, Imap, ImapUnordered, Isolation, JobBuilder, JobError,
    JobHandle, JobsBuilder, MapHandle, MapPolicy, Message, Panic, Pool, PoolBuilder, RemoteError, ResourceUsage,
    SubmitError, TimedOut, WorkerLost, init, init_for_tests,
};

/// The example of the README compiles and runs.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
#[derive(Debug)]
pub struct Readme;
