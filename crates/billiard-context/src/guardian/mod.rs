//! The helper process that forks, reaps and outlives. `docs/design/guardian.md` is its protocol.

mod client;
mod names;
mod server;

pub(crate) use client::{Guardian, Guardians, OF_THE_PROCESS, Origin, Preload, Requested, require_one_thread};
pub(crate) use server::{copied, main};
