//! What must not compile, and what the compiler says of it.

use std::process::Command;

/// The compiler whose words are in `compile_fail/*.stderr`. Another one may say the same in other words; that the
/// mistakes do not compile at all is shown for every compiler by the examples in the documentation.
const COMPILER: &str = "rustc 1.95.";

#[test]
fn mistakes_are_found_by_the_compiler() {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = Command::new(rustc).arg("--version").output().expect("the compiler runs").stdout;
    if String::from_utf8_lossy(&version).starts_with(COMPILER) {
        trybuild::TestCases::new().compile_fail("compile_fail/*.rs");
    } else {
        println!("not compared: the expected messages are those of {COMPILER}");
    }
}
