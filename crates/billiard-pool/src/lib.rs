//! A pool of worker processes.
//!
//! People reach for processes instead of threads when the work can crash, hang, leak, use a library that is not
//! thread-safe, or must be killed on a deadline. A [`Pool`] takes such work, and promises:
//!
//! * **One job, one outcome.** Every job that is accepted ends once: with its value, or with a [`JobError`] that says why.
//! * **A death is a local event.** A worker that crashes, hangs or is killed takes down the job that it ran and no other; for one that overwrites memory at random there
//!   is [`Isolation::Strict`].
//! * **Nothing is left behind.** Whoever dies, in whatever order: no process, descriptor or file stays.
//!
//! ```no_run
//! use billiard_pool::{JobError, Pool};
//!
//! fn divide((a, b): (i32, i32)) -> i32 {
//!     a / b
//! }
//!
//! fn main() -> Result<(), billiard_pool::Error> {
//!     billiard_pool::init(); // a worker process starts here and never returns
//!
//!     let pool = Pool::builder().workers(2).build()?;
//!     assert_eq!(pool.apply(divide, (7, 2))?, 3);
//!     match pool.apply(divide, (7, 0)) {
//!         Err(JobError::Panicked(panic)) => println!("{panic}"), // where, and "attempt to divide by zero"
//!         other => println!("{other:?}"),
//!     }
//!     Ok(()) // dropping the pool ends its workers
//! }
//! ```
//!
//! No job is begun twice: one whose worker was lost may have run in part, and is not run again.
//!
//! A job is a plain function: one that captures variables could not be called in another process, and does not compile.
//!
//! ```compile_fail
//! # let pool: billiard_pool::Pool = unimplemented!();
//! let factor = 3;
//! let _ = pool.apply(|n: u32| n * factor, 14);
//! ```

#[cfg(not(loom))]
mod apart;
#[cfg(not(loom))]
mod builder;
#[cfg(not(loom))]
mod chunk;
#[cfg(not(loom))]
mod error;
#[cfg(not(loom))]
mod feed;
#[cfg(not(loom))]
mod handle;
#[cfg(not(loom))]
mod job;
#[cfg(not(loom))]
mod message;
#[cfg(not(loom))]
mod pool;
#[cfg(not(loom))]
mod state;
#[cfg(not(loom))]
mod submit;
#[cfg(not(loom))]
mod supervisor;
#[cfg(not(loom))]
mod sys;
#[cfg_attr(loom, allow(dead_code, reason = "its users are not there under loom"))]
mod table;
#[cfg(not(loom))]
mod worker;

#[cfg(not(loom))]
/// The fast way for bytes to travel. As the whole of an argument or a value, a `Vec<u8>` or a `String` is as fast: its bytes change hands and bypass serde, as numbers do
/// ([`billiard_wire::exact`]). As a part of one, a `Vec<u8>` is encoded element by element, as any list, and this is copied as a whole. (The type of the crate
/// `serde_bytes`, whose attribute `#[serde(with = "serde_bytes")]` does the same for a field.)
pub use serde_bytes::ByteBuf;

pub use billiard_context::{Context, ExitStatus, Fd, Message, Panic, RemoteError, ResourceUsage, init, init_for_tests};

#[cfg(not(loom))]
pub use builder::{Isolation, PoolBuilder};
#[cfg(not(loom))]
pub use error::{Error, ErrorKind, JobError, SubmitError, TimedOut, WorkerLost};
#[cfg(not(loom))]
pub use feed::{Imap, ImapUnordered, JobsBuilder, MapHandle, MapPolicy};
#[cfg(not(loom))]
pub use handle::JobHandle;
#[cfg(not(loom))]
pub use job::JobBuilder;
#[cfg(not(loom))]
pub use pool::Pool;
