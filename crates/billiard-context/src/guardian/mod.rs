//! The helper process that forks, reaps and outlives. `docs/design/guardian.md` is its protocol.

mod client;
mod server;

pub(crate) use client::{Guardian, Requested};
pub(crate) use server::main;
