//! Locks between processes.
mod words;
