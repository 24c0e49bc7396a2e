//! A program that cannot start processes says why, and starts none.

use std::process::Command;

use billiard_test_support::Watchdog;

fn output(program: &str, arguments: &[&str]) -> (String, String, Option<i32>) {
    let output = Command::new(program).args(arguments).output().expect("the helper program runs");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (text(output.stdout), text(output.stderr), output.status.code())
}

#[test]
fn without_init_the_error_names_the_line_and_nothing_is_started() {
    let _watchdog = Watchdog::start("without_init_the_error_names_the_line_and_nothing_is_started", 60);
    let (out, err, code) = output(env!("CARGO_BIN_EXE_child-no-init"), &[]);
    assert_eq!(code, Some(0), "{err}");
    let lines: Vec<&str> = out.lines().collect();
    assert!(out.matches("`billiard::init();` the first line of `main`").count() == 2, "{out}");
    assert_eq!(lines.last(), Some(&"descendants: 0"), "{out}");
}

#[test]
fn threads_before_init_are_an_error_that_shows_what_to_do() {
    let _watchdog = Watchdog::start("threads_before_init_are_an_error_that_shows_what_to_do", 60);
    let (out, err, code) = output(env!("CARGO_BIN_EXE_child-threads-first"), &[]);
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("2 threads exist") && out.contains("tokio::runtime::Runtime::new()"), "{out}");
    assert!(out.contains("descendants gone: true"), "{out}");
}

#[test]
fn the_internal_arguments_cannot_be_used_by_hand() {
    let _watchdog = Watchdog::start("the_internal_arguments_cannot_be_used_by_hand", 60);
    for arguments in [["--billiard-guardian"], ["--billiard-child"]] {
        let (_, err, code) = output(env!("CARGO_BIN_EXE_child-spinning"), &arguments);
        assert_eq!(code, Some(2), "{arguments:?}: {err}");
        assert!(err.contains("cannot be used by hand"), "{err}");
    }
}
