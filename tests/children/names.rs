//! A program with names in the file system: made before it has a guardian, and after; random and chosen; and one that it lets go of. It prints
//! them and waits to be killed. `child-names stopped`: its guardian is stopped when the latter are made.

use std::io::Write;

use billiard::{context::Context, shm::NamedMemory};
use billiard_test_support::{Stopped, descendants, is_alive};

fn nothing(_: ()) {}

fn main() {
    billiard::init();
    let chosen = |what: &str| NamedMemory::create_named(&format!("billiard-test-{what}-{}", std::process::id()), 1);
    let before = [NamedMemory::create(1), chosen("before")].map(|made| made.expect("a name"));
    Context::forkserver().process(nothing, ()).start().expect("a child").join().expect("its end");
    let guardian: Vec<_> = descendants(std::process::id()).into_iter().filter(|&pid| is_alive(pid)).collect();
    assert_eq!(guardian.len(), 1);
    let _stopped = (std::env::args().nth(1).as_deref() == Some("stopped")).then(|| Stopped::new(&guardian));
    let after = [NamedMemory::create(1), chosen("after")].map(|made| made.expect("a name"));
    let again = NamedMemory::create_named(after[1].name(), 1);
    assert!(again.is_err(), "it has it already, and has it still");
    let mut given_up = chosen("given-up").expect("a name");
    given_up.keep_name();
    let names: Vec<&str> = before.iter().chain(&after).chain([&given_up]).map(NamedMemory::name).collect();
    println!("{}", names.join(" "));
    std::io::stdout().flush().expect("somebody listens");
    loop {
        std::thread::park();
    }
}
