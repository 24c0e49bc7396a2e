//! The group `context`: from the request for a process to its first sign of life, or to its end.
//!
//! A sample is the median over `--count` starts, one after the other, from a parent with `--parent-mib` of touched memory.
//! The checksum is the number of children that ended with status 0. Ours is held against the kernel (`kernel`) and the
//! standard library (`command`), which execute this same program where they execute one.

mod command;
mod kernel;
mod ours;

use std::{error::Error, process::ExitCode, time::Duration};

use billiard_benches::frame::{self, Subject};

/// The argument of an executed child that ends at once.
const CHILD_ENDS: &str = "child-ends";
/// The argument of an executed child that writes a byte on its standard output, then ends.
const CHILD_SPEAKS: &str = "child-speaks";
/// What a child says first.
const WORD: [u8; 1] = [7];

/// How long what is timed of a start took, and 1 if the child ended with status 0.
type Start = Result<(Duration, u64), Box<dyn Error>>;

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some(CHILD_ENDS) => return ExitCode::SUCCESS,
        Some(CHILD_SPEAKS) => return command::speak(),
        _ => billiard::init(),
    }
    frame::answer(&[
        Subject { name: "billiard-rs", version: env!("CARGO_PKG_VERSION"), run: ours::run },
        Subject { name: "limit:fork", version: "", run: kernel::fork_small },
        Subject { name: "limit:fork-byte", version: "", run: kernel::fork_byte },
        Subject { name: "limit:fork-here", version: "", run: kernel::fork_here },
        Subject { name: "limit:posix_spawn", version: "", run: kernel::posix_spawn },
        Subject { name: "std", version: "", run: command::run },
    ])
}

/// Fails unless the first word of a child is what it should be.
fn expect_word(word: &[u8]) -> Result<(), Box<dyn Error>> {
    if word == WORD { Ok(()) } else { Err(format!("a child said {word:?}").into()) }
}
