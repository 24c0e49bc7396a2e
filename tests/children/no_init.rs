//! A program whose `main` does not call `init()`: it prints what building a pool and starting a process say, and
//! how many processes it has then.

use billiard::{Context, Pool};
use billiard_test_support::descendants;

fn nothing(_: ()) {}

fn main() {
    println!("{:?}", Pool::new().map(drop));
    println!("{}", Context::forkserver().process(nothing, ()).start().map(drop).unwrap_err());
    println!("descendants: {}", descendants(std::process::id()).len());
}
