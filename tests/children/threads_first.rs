//! A program that has threads before `init()`, as every one with `#[tokio::main]` has.

use billiard::Pool;
use billiard_test_support::{descendants, eventually};

fn main() {
    std::thread::spawn(std::thread::park);
    billiard::init();
    println!("{:?}", Pool::new().map(drop));
    println!("descendants gone: {}", eventually(10, || descendants(std::process::id()).is_empty()));
}
