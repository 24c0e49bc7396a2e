//! Nothing outlives the program.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use billiard_test_support::{Watchdog, descendants, enclosed, eventually, is_alive, marked, patience, program, rounds};

fn spinning() -> Child {
    Command::new(env!("CARGO_BIN_EXE_child-spinning")).stdout(Stdio::piped()).spawn().expect("the helper program runs")
}

/// Every descendant of it, once all of them are there: guardian, two workers, and two children of each.
fn whole_family(program: &Child) -> Vec<u32> {
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
    let family = whole_family(&program);
    program.kill().unwrap();
    let killed = Instant::now();
    program.wait().unwrap();
    let gone = || family.iter().all(|&pid| !is_alive(pid));
    assert!(eventually(20, gone), "left: {:?}", family.iter().filter(|&&pid| is_alive(pid)).collect::<Vec<_>>());
    println!("the last of {} descendants was gone {:?} after the kill", family.len(), killed.elapsed());
}

#[test]
fn a_killed_program_leaves_no_name() {
    let _watchdog = Watchdog::start("a_killed_program_leaves_no_name", 60);
    killed_with_names(false);
}

#[test]
fn a_killed_program_leaves_no_name_of_which_its_guardian_had_yet_to_hear() {
    let _watchdog = Watchdog::start("a_killed_program_leaves_no_name_of_which_its_guardian_had_yet_to_hear", 60);
    killed_with_names(true);
}

/// The guardian is stopped, or not, from before the last names are given until the program is dead.
fn killed_with_names(stopped: bool) {
    let mut program = Command::new(env!("CARGO_BIN_EXE_child-names"))
        .args(stopped.then_some("stopped"))
        .stdout(Stdio::piped())
        .spawn()
        .expect("the helper program runs");
    let mut line = String::new();
    BufReader::new(program.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let paths: Vec<_> = line.split_whitespace().map(|name| Path::new("/dev/shm").join(name)).collect();
    assert!(paths.len() == 5 && paths.iter().all(|path| path.exists()), "{line}");
    // What it has let go of is not removed; nor what is another's by now.
    std::fs::remove_file(&paths[3]).unwrap();
    let _others = File::create_new(&paths[3]).unwrap(); // nobody's by its lock, as with another program's
    let family = descendants(program.id());
    assert!(!family.is_empty(), "it has a guardian");
    program.kill().unwrap();
    program.wait().unwrap();
    if stopped {
        for &pid in &family {
            // SAFETY: a signal to a stopped process of the program that this test has started.
            unsafe { libc::kill(pid.cast_signed(), libc::SIGCONT) };
        }
    }
    assert!(eventually(20, || family.iter().all(|&pid| !is_alive(pid))));
    let left: Vec<_> = paths.iter().filter(|path| path.exists()).collect();
    assert_eq!(left, [&paths[3], &paths[4]]);
    for path in &paths[3..] {
        std::fs::remove_file(path).unwrap();
    }
}

/// How often a program is killed at least, for each start method.
const KILLS: usize = 12;

/// How long it may live, in microseconds. Half of the time, so short that it may not have come to its first child.
const LIVES: [u64; 2] = [8_000, 60_000];

/// How many descend from a program. Those of `fork` come and go faster than all processes can be looked through; they are its children.
fn family(method: &str, program: u32) -> usize {
    if method != "fork" {
        return descendants(program).len();
    }
    let children = std::fs::read_to_string(format!("/proc/{program}/task/{program}/children"));
    children.map_or_else(|_| descendants(program).len(), |list| list.split_whitespace().count())
}

fn killed_at_any_instant(method: &str) {
    // Opened outside of the enclosure, which may hide its folder.
    let file = File::open(env!("CARGO_BIN_EXE_child-family")).expect("the helper program is there");
    enclosed(|enclosure| {
        let (mut kills, mut largest) = (0, 0);
        for mut random in rounds(&format!("a program with children by {method} is killed"), KILLS, 0.2) {
            // The program's own environment marks whoever descends from it, wherever it is reparented to.
            let mark = format!("{:x}", random.number());
            let mut program = program(&file);
            program.arg(method).env("BILLIARD_TEST_MARK", &mark).stdin(Stdio::null()).stdout(Stdio::null());
            let mut program = program.spawn().expect("the helper program runs");
            if kills % 4 == 0 {
                // Some of those that are killed have a large family.
                assert!(eventually(20, || family(method, program.id()) > 4), "{:?}", descendants(program.id()));
                largest = family(method, program.id()).max(largest);
            }
            let longest = LIVES[random.below(2) as usize];
            std::thread::sleep(Duration::from_micros(random.below(longest)));
            program.kill().unwrap();
            assert_eq!(program.wait().unwrap().signal(), Some(libc::SIGKILL), "it starts children until it is killed");
            assert!(eventually(20, || marked(&mark).is_empty()), "left: {:?}", marked(&mark));
            // The kernel closes sockets that were in a message which nobody has received a moment later.
            assert!(eventually(20, || enclosure.left().is_empty()), "left: {:?}", enclosure.left());
            kills += 1;
        }
        let enclosed = if enclosure.is_private() { "in folders of its own" } else { "in the machine's folders" };
        println!("{method}: {kills} kills, {enclosed}; at most {largest} descendants were seen");
    });
}

#[test]
fn a_program_killed_at_any_instant_leaves_nothing() {
    let _watchdog = Watchdog::start("a_program_killed_at_any_instant_leaves_nothing", patience(100));
    killed_at_any_instant("forkserver");
    killed_at_any_instant("spawn");
    killed_at_any_instant("fork");
}
