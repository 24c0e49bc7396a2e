//! The group `pool`: jobs through a pool of processes.

mod futex;
mod ours;

use std::process::ExitCode;

use billiard::{Isolation, Pool};
use billiard_benches::frame::{self, Subject};

fn main() -> ExitCode {
    billiard::init();
    let version = env!("CARGO_PKG_VERSION");
    frame::answer(&[
        Subject { name: "billiard-rs", version, run: |request| ours::run(request, Pool::builder(), None) },
        Subject {
            name: "billiard-rs:strict",
            version,
            run: |request| ours::run(request, Pool::builder().isolation(Isolation::Strict), None),
        },
        Subject { name: "billiard-rs:2", version, run: |request| ours::run(request, Pool::builder(), Some(2)) },
        Subject { name: "billiard-rs:16", version, run: |request| ours::run(request, Pool::builder(), Some(16)) },
        Subject { name: "billiard-rs:64", version, run: |request| ours::run(request, Pool::builder(), Some(64)) },
        Subject { name: "limit:futex", version: "", run: futex::run },
    ])
}
