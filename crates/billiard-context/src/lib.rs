//! A child process's life: start, identify, signal, wait, clean up.
//!
//! A [`Context`] starts processes that call a function of this program with an argument that travels. Each is a
//! [`Process`]: it can be joined, signalled and asked for its function's value, and its end is never missed. No process
//! outlives the program, not even when the program is killed by SIGKILL.
//!
//! ```no_run
//! use billiard_context::Context;
//!
//! fn count((text, word): (String, String)) -> usize {
//!     text.matches(&word).count()
//! }
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     billiard_context::init(); // a child starts here and never returns
//!
//!     let mut child = Context::forkserver().process(count, ("tea for two".into(), "t".into())).start()?;
//!     assert_eq!(child.take_result()?, 2);
//!     Ok(())
//! }
//! ```
//!
//! What it does can be seen by any subscriber of the crate `tracing`: events of the target `billiard`, starts and ends at the level
//! debug, the death of a helper process at warn.
//!
//! How it works, and what happens when who dies where: `docs/design/guardian.md` in the repository.

mod authkey;
mod builder;
mod cgroup;
mod child;
mod children;
mod context;
mod cpus;
mod current;
mod descriptors;
mod error;
mod exit;
mod guardian;
mod hooks;
mod image;
mod init;
mod limits;
mod memory;
mod oom;
mod options;
pub mod panics;
mod parent_death;
mod process;
mod protocol;
mod scope;
mod signal;
mod starting;
mod stop;
mod sys;
pub mod task;
mod temp_dir;

pub use billiard_wire::{Fd, Message, Panic, RemoteError};

pub use authkey::{AuthKey, authkey, set_authkey};
pub use builder::ProcessBuilder;
pub use children::{ActiveChild, active_children};
pub use context::{Context, fork, fork_unchecked};
pub use cpus::{CpuCountError, cpu_count};
pub use current::{Current, Parent, current, parent};
pub use descriptors::{CloseError, close_fds_except, max_fds};
pub use error::{ChildError, Error, PreloadError};
pub use exit::{EndedBy, ExitError, ExitStatus, ResourceUsage};
pub use hooks::after_fork;
pub use init::init;
pub use limits::{Resource, Stdio};
pub use memory::{MemoryError, MemoryUsage};
pub use oom::OomWatch;
pub use parent_death::{ParentDeathError, parent_death_signal, set_parent_death_signal};
pub use process::Process;
pub use protocol::{NoSuchStartMethod, StartMethod};
pub use scope::{Scope, Scoped, scope};
pub use signal::{NoSuchSignal, Signal};
pub use starting::Starting;
pub use stop::{Stop, StopSignals};
pub use temp_dir::{TempDir, TempDirError};

/// The target of this crate's events.
const TARGET: &str = "billiard";
