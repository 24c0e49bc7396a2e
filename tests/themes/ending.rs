//! `terminate_within`: who is asked to end has ended when the time is over, whatever it does, and whatever its starter does.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use billiard_test_support::{Watchdog, eventually, is_alive, state};

fn each_way_of_ending(method: &str) {
    let mut program = Command::new(env!("CARGO_BIN_EXE_child-ending"));
    let mut program = program.arg(method).stdout(Stdio::piped()).spawn().expect("the helper program runs");
    let mut line = String::new();
    BufReader::new(program.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let Ok(child) = line.trim().parse() else { panic!("{method}: {line:?}, {:?}", program.wait()) };
    assert!(eventually(20, || state(program.id()) == Some('T')), "the program stops itself");
    // Nobody goes on: the helper process alone can end it. A child of `fork` then waits for its starter to reap it.
    assert!(eventually(20, || !is_alive(child)), "{method}: {child} lives on");
    assert_eq!(state(program.id()), Some('T'));
    // SAFETY: a signal to a child that was not waited for.
    unsafe { libc::kill(program.id() as i32, libc::SIGCONT) };
    let status = program.wait().unwrap();
    assert!(status.success(), "{method}: {status}");
}

#[test]
fn whoever_is_asked_to_end_has_ended_when_the_time_is_over() {
    let _watchdog = Watchdog::start("whoever_is_asked_to_end_has_ended_when_the_time_is_over", 110);
    for method in ["forkserver", "spawn", "fork"] {
        each_way_of_ending(method);
    }
}
