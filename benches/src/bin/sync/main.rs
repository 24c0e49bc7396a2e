//! The group `sync`: what locks and semaphores cost, alone and between two.
//!
//! Whatever works between processes is measured between a process and its forked child; what works between threads alone
//! (`std`, `parking_lot`), between two threads.

mod futex;
mod lock;
mod permits;
mod pthread;
mod semaphore;

use std::process::ExitCode;

use billiard_benches::{
    frame::{self, Subject},
    version_of,
};

fn main() -> ExitCode {
    frame::answer(&[
        Subject { name: "std", version: "", run: lock::std },
        Subject { name: "parking_lot", version: version_of("parking_lot"), run: lock::parking_lot },
        Subject { name: "pthread", version: "", run: pthread::normal },
        Subject { name: "pthread-robust", version: "", run: pthread::robust },
        Subject { name: "sem_t", version: "", run: semaphore::run },
        Subject { name: "limit:futex", version: "", run: futex::run },
    ])
}
