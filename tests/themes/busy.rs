//! Children are started while all locks that a copy could find held are held: the helper process has none of them, and `fork`
//! refuses.

use std::process::{Command, Stdio};

use billiard_test_support::{Watchdog, patience, rounds};

/// Starts in one program.
const STARTS: u64 = 50;

fn run(method: &str) -> String {
    let mut program = Command::new(env!("CARGO_BIN_EXE_child-busy"));
    let output = program.args([method, &STARTS.to_string()]).stdout(Stdio::null()).output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    assert!(output.status.success(), "{method}: {}\n{text}", output.status);
    text
}

#[test]
fn children_of_a_busy_program_never_stick_and_copies_are_refused() {
    let test = "children_of_a_busy_program_never_stick_and_copies_are_refused";
    let _watchdog = Watchdog::start(test, patience(110));
    let (mut starts, values, refused) =
        (0, format!("{STARTS} values, 0 refused"), format!("0 values, {STARTS} refused"));
    for _ in rounds(test, 1, 1.0) {
        assert_eq!(run("forkserver"), values);
        assert_eq!(run("spawn"), values);
        assert_eq!(run("fork"), refused);
        starts += STARTS;
    }
    println!("{starts} starts by each method");
}
