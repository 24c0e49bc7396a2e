//! How a child ended is told exactly, whatever the host program does with SIGCHLD and however it was started; or it is said to be unknown,
//! where only the host program itself could know. The table is printed even where tests' output is kept back.

use std::{
    io::Write,
    process::{Command, Output},
};

use billiard_test_support::Watchdog;

const METHODS: [&str; 3] = ["forkserver", "spawn", "fork"];
const HOSTS: [&str; 3] = ["quiet", "ignores", "reaps"];
/// The ends of a child, `WithItsParent` included.
const ENDS: usize = 11;

fn run(method: &str, host: &str, backtrace: bool) -> Output {
    let mut program = Command::new(env!("CARGO_BIN_EXE_child-matrix"));
    program.args([method, host]).env_remove("RUST_BACKTRACE").env_remove("RUST_LIB_BACKTRACE");
    if backtrace {
        program.env("RUST_BACKTRACE", "1");
    }
    program.output().expect("the helper program runs")
}

/// To standard output itself, which the test harness does not keep back.
fn say(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

#[test]
fn every_end_has_its_status_under_every_host() {
    let _watchdog = Watchdog::start("every_end_has_its_status_under_every_host", 110);
    let mut table = format!("\n{:<12}{:<9}{:<22}{:<22}{:<9}value\n", "method", "SIGCHLD", "end", "status", "by");
    let (mut rows, mut failed) = (0, Vec::new());
    for method in METHODS {
        for host in HOSTS {
            let output = run(method, host, false);
            let lines = String::from_utf8_lossy(&output.stdout);
            rows += lines.lines().filter(|line| line.starts_with(method)).count();
            table.push_str(&lines);
            if !output.status.success() {
                failed.push(format!(
                    "{method}, {host}: {}, {}",
                    output.status,
                    String::from_utf8_lossy(&output.stderr)
                ));
            }
        }
    }
    say(&table);
    assert!(failed.is_empty(), "{failed:#?}");
    assert_eq!(rows, METHODS.len() * HOSTS.len() * ENDS);
}

#[test]
fn a_panic_has_its_backtrace_where_that_was_asked_for() {
    let _watchdog = Watchdog::start("a_panic_has_its_backtrace_where_that_was_asked_for", 110);
    for method in METHODS {
        let output = run(method, "quiet", true);
        let lines = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{lines}\n{}", String::from_utf8_lossy(&output.stderr));
        assert!(lines.contains("lines of backtrace") && !lines.contains("panic, 0 lines"), "{lines}");
    }
}
