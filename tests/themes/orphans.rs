//! Nothing outlives the program.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use billiard_test_support::{Random, Watchdog, descendants, eventually, is_alive};

fn spinning() -> Child {
    Command::new(env!("CARGO_BIN_EXE_child-spinning")).stdout(Stdio::piped()).spawn().expect("the helper program runs")
}

/// Every descendant of it, once all of them are there: guardian, two workers, and two children of each.
fn family(program: &Child) -> Vec<u32> {
    let mut family = Vec::new();
    assert!(eventually(20, || {
        family = descendants(program.id()).into_iter().filter(|&pid| is_alive(pid)).collect();
        family.len() >= 7
    }));
    family
}

#[test]
fn a_killed_program_leaves_nobody() {
    let _watchdog = Watchdog::start("a_killed_program_leaves_nobody", 60);
    let mut program = spinning();
    let mut line = String::new();
    BufReader::new(program.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "spinning\n");
    let family = family(&program);
    program.kill().unwrap();
    let killed = Instant::now();
    program.wait().unwrap();
    let gone = || family.iter().all(|&pid| !is_alive(pid));
    assert!(eventually(20, gone), "left: {:?}", family.iter().filter(|&&pid| is_alive(pid)).collect::<Vec<_>>());
    println!("the last of {} descendants was gone {:?} after the kill", family.len(), killed.elapsed());
}

#[test]
fn a_program_killed_at_any_instant_leaves_nobody() {
    let _watchdog = Watchdog::start("a_program_killed_at_any_instant_leaves_nobody", 100);
    let mut random = Random::from_env("a_program_killed_at_any_instant_leaves_nobody");
    for _ in 0..40 {
        // The program's own environment marks whoever descends from it, wherever it is reparented to.
        let mark = format!("{:x}", random.number());
        let mut program = Command::new(env!("CARGO_BIN_EXE_child-spinning"))
            .env("BILLIARD_TEST_MARK", &mark)
            .stdout(Stdio::null())
            .spawn()
            .expect("the helper program runs");
        std::thread::sleep(Duration::from_micros(random.below(15_000)));
        program.kill().unwrap();
        program.wait().unwrap();
        assert!(eventually(20, || marked(&mark).is_empty()), "left: {:?}", marked(&mark));
    }
}

fn marked(mark: &str) -> Vec<u32> {
    let mark = format!("BILLIARD_TEST_MARK={mark}");
    std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| {
            let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|&byte| byte == 0).any(|variable| variable == mark.as_bytes()) && is_alive(*pid)
        })
        .collect()
}
