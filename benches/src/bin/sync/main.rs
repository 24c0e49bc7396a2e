//! The group `sync`: what locks and semaphores cost, alone and between two.
//!
//! Whatever works between processes is measured between a process and its forked child; what works between threads alone
//! (`std`, `parking_lot`), between two threads.

mod futex;
mod lock;
mod other;
mod ours;
mod permits;
mod pthread;
mod semaphore;

use std::process::ExitCode;

use billiard_benches::{
    frame::{self, Subject},
    version_of,
};

fn main() -> ExitCode {
    billiard::init();
    frame::answer(&[
        Subject { name: "billiard-rs", version: env!("CARGO_PKG_VERSION"), run: ours::run },
        Subject { name: "std", version: "", run: lock::std },
        Subject { name: "parking_lot", version: version_of("parking_lot"), run: lock::parking_lot },
        Subject { name: "pthread", version: "", run: pthread::normal },
        Subject { name: "pthread-robust", version: "", run: pthread::robust },
        Subject { name: "sem_t", version: "", run: semaphore::run },
        Subject { name: "limit:futex", version: "", run: futex::run },
    ])
}
