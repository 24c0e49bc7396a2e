//! A process is killed, stopped or failed at every named step of a start: each start and each child has one outcome, the one
//! that docs/design/guardian.md says, nothing hangs, nothing is left. Built with `--cfg billiard_fault` only: `cargo xtask verify faults`.
#![cfg(billiard_fault)]

use std::{
    collections::BTreeMap,
    io::Read,
    os::unix::process::ExitStatusExt,
    process::{Command, ExitStatus, Stdio},
    thread,
    time::Duration,
};

use billiard_test_support::{Random, Watchdog, eventually, marked, patience, rounds, state};

/// The children of a program: these return a value, one is killed, one is made to end.
const VALUES: u64 = 6;
const ALL: u64 = VALUES + 2;

const FORKSERVER: &str = "forkserver";
const SPAWN: &str = "spawn";
const FORK: &str = "fork";

/// What a run came to.
struct Run {
    status: ExitStatus,
    outcomes: BTreeMap<String, u64>,
    /// Helper processes that have ended, which the program has not reaped yet.
    zombies: bool,
    /// How often somebody had stopped, and was let go on.
    stops: u32,
    text: String,
}

impl Run {
    /// How many starts and children have come to something that begins so.
    fn count(&self, what: &str) -> u64 {
        self.outcomes.iter().filter(|(outcome, _)| outcome.starts_with(what)).map(|(_, count)| count).sum()
    }

    /// All children have ended as if there were no faults, but for those that were refused.
    fn is_whole_but(&self, refused: &str, most: u64) {
        let (refused, value, killed, ended) =
            (self.count(refused), self.count("value-code-0"), self.count("our-9"), self.count("our-15"));
        assert!(refused <= most && refused + value + killed + ended == ALL, "{}", self.text);
        assert!(value <= VALUES && killed <= 1 && ended <= 1, "{}", self.text);
    }

    fn is_whole(&self) {
        self.is_whole_but("nothing", 0);
        assert!(self.status.success(), "{}", self.text);
    }
}

/// Runs the program under a plan. Whoever stops is let go on; nobody is left.
fn run(method: &str, plan: &str, random: &mut Random) -> Run {
    let mark = format!("{:x}", random.number());
    let mut program = Command::new(env!("CARGO_BIN_EXE_child-starts"));
    program.arg(method).env("BILLIARD_FAULT", plan).env("BILLIARD_TEST_MARK", &mark).env_remove("RUST_BACKTRACE");
    let program = program.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut program = program.spawn().expect("the helper program runs");
    let (mut out, mut err) = (program.stdout.take().unwrap(), program.stderr.take().unwrap());
    // That both are at their end says that nobody is left who has them.
    let reader = thread::spawn(move || {
        let (mut said, mut complained) = (String::new(), String::new());
        out.read_to_string(&mut said).unwrap();
        err.read_to_string(&mut complained).unwrap();
        (said, complained)
    });
    let mut stops = 0;
    while !reader.is_finished() {
        if plan.contains("=stop") {
            for pid in marked(&mark).into_iter().filter(|&pid| state(pid) == Some('T')) {
                // SAFETY: a signal to a process of the program that this test has started.
                unsafe { libc::kill(pid as i32, libc::SIGCONT) };
                stops += 1;
            }
        }
        thread::sleep(Duration::from_millis(1));
    }
    let (said, complained) = reader.join().unwrap();
    let status = program.wait().unwrap();
    assert!(eventually(20, || marked(&mark).is_empty()), "{method}, {plan}: left {:?}", marked(&mark));
    let text =
        format!("{method}, {plan}: {status}, {stops} stops: {} {}", said.trim().replace('\n', ", "), complained.trim());
    println!("{text}");
    assert!(status.success() || status.signal() == Some(libc::SIGKILL), "{text}");
    assert_eq!(complained, "", "nobody has anything to complain of");
    let words = said.lines().last().unwrap_or_default().split(", ").filter_map(|word| word.rsplit_once(' '));
    let outcomes: BTreeMap<String, u64> =
        words.filter_map(|(outcome, count)| Some((outcome.into(), count.parse().ok()?))).collect();
    assert!(!status.success() || outcomes.values().sum::<u64>() == ALL, "{text}");
    Run { status, outcomes, zombies: !said.starts_with("0 zombies"), stops, text }
}

#[test]
fn without_a_fault_all_is_well() {
    let _watchdog = Watchdog::start("without_a_fault_all_is_well", 300);
    let mut random = Random::from_env("without_a_fault_all_is_well");
    for method in [FORKSERVER, SPAWN, FORK] {
        run(method, "", &mut random).is_whole();
    }
}

#[test]
fn a_program_killed_while_it_starts_children_leaves_nobody() {
    let _watchdog = Watchdog::start("a_program_killed_while_it_starts_children_leaves_nobody", patience(300));
    for mut random in rounds("a_program_killed_while_it_starts_children", 2, 0.1) {
        for (method, step, passes) in [
            (FORKSERVER, "context.bring_up", 1),
            (FORKSERVER, "context.start", ALL),
            (FORKSERVER, "context.started", ALL),
            (SPAWN, "context.start", ALL),
            (SPAWN, "context.started", ALL),
            (FORK, "context.start", ALL),
        ] {
            let run = run(method, &format!("{step}=kill@{}", 1 + random.below(passes)), &mut random);
            assert_eq!(run.status.signal(), Some(libc::SIGKILL), "{}", run.text);
        }
    }
}

#[test]
fn a_guardian_killed_at_any_step_takes_its_children_and_the_next_one_serves() {
    let test = "a_guardian_killed_at_any_step_takes_its_children_and_the_next_one_serves";
    let _watchdog = Watchdog::start(test, patience(300));
    for mut random in rounds(test, 2, 0.1) {
        for method in [FORKSERVER, SPAWN] {
            for step in ["guardian.fork", "guardian.forked", "guardian.reap"] {
                let run = run(method, &format!("{step}=kill@{}", 1 + random.below(4)), &mut random);
                assert!(run.status.success(), "{}", run.text);
                // Whatever had begun ends without a status, or with the one that was told before; of values, those that were told count.
                let (exact, unknown) = (run.count("value-code-0") + run.count("our-"), run.count("unknown"));
                let (told, refused) = (run.count("value-unknown"), run.count("refused-") + run.count("unasked-"));
                assert_eq!(exact + unknown + told + refused, ALL, "{}", run.text);
                assert!(unknown + told + refused > 0, "somebody has noticed: {}", run.text);
            }
        }
    }
}

#[test]
fn a_guardian_that_never_serves_is_an_error() {
    let _watchdog = Watchdog::start("a_guardian_that_never_serves_is_an_error", 300);
    let mut random = Random::from_env("a_guardian_that_never_serves_is_an_error");
    // The last: the program is so slow that the guardian is always gone before it is asked.
    for plan in
        ["guardian.fork=kill@1", "guardian.ready=kill@1", "guardian.ready=kill@1,sys.connection.recvmsg=delay:10@*"]
    {
        let run = run(FORKSERVER, plan, &mut random);
        assert!(run.status.success() && run.count("refused-") == ALL, "{}", run.text);
    }
}

#[test]
fn a_child_killed_at_any_step_has_that_as_its_status() {
    let test = "a_child_killed_at_any_step_has_that_as_its_status";
    let _watchdog = Watchdog::start(test, patience(300));
    for mut random in rounds(test, 1, 0.1) {
        let before = ["child.forked", "child.set_up", "child.run"];
        for (method, steps) in [(FORKSERVER, &before[..]), (FORK, &before[..]), (SPAWN, &["child.booted", "child.run"])]
        {
            for step in steps {
                let run = run(method, &format!("{step}=kill@1"), &mut random);
                let killed = run.count("signal-9") + run.count("our-9") + run.count("our-15");
                assert!(
                    run.status.success() && killed == ALL,
                    "it runs nothing, and its status is exact: {}",
                    run.text
                );
            }
            // Its last word was said.
            let run = run(method, "child.ended=kill@1", &mut random);
            assert!(run.status.success() && run.count("value-signal-9") == VALUES, "{}", run.text);
        }
    }
}

#[test]
fn a_stop_at_any_step_changes_nothing() {
    let _watchdog = Watchdog::start("a_stop_at_any_step_changes_nothing", patience(300));
    for mut random in rounds("a_stop_at_any_step_changes_nothing", 1, 0.1) {
        let everywhere = ["context.start", "child.run", "child.ended"];
        let copied = ["child.forked", "child.set_up"];
        let guarded = [
            "context.bring_up",
            "context.started",
            "guardian.ready",
            "guardian.fork",
            "guardian.forked",
            "guardian.reap",
        ];
        for (method, steps) in [
            (FORKSERVER, [&everywhere[..], &copied, &guarded].concat()),
            (SPAWN, [&everywhere[..], &["child.booted"], &guarded].concat()),
            (FORK, [&everywhere[..], &copied].concat()),
        ] {
            for step in steps {
                let run = run(method, &format!("{step}=stop@1"), &mut random);
                run.is_whole();
                assert!(run.stops > 0, "somebody has stopped: {}", run.text);
            }
        }
    }
}

/// System calls that fail in the program or in its guardian, with which error, from which pass on; and what comes of
/// it: the outcome, and how many starts or children may have it. No outcome: nobody notices.
const FAILURES: &[(&str, &str, i32, u64, &str, u64)] = &[
    (FORKSERVER, "sys.context.execute", libc::EAGAIN, 1, "refused-not-made", 1),
    (SPAWN, "sys.context.execute", libc::EAGAIN, 1, "refused-not-made", 2),
    (SPAWN, "sys.context.execute", libc::ENOMEM, 2, "refused-not-made", 1),
    (FORKSERVER, "sys.context.fork", libc::EAGAIN, 1, "refused-not-made", 1),
    (FORKSERVER, "sys.context.fork", libc::ENOMEM, 4, "refused-not-made", 1),
    (FORK, "sys.context.fork", libc::EAGAIN, 2, "refused-not-made", 1),
    // The program's own, of the guardian that it executes.
    (FORKSERVER, "sys.context.pidfd_open", libc::EMFILE, 1, "refused-", ALL),
    // The guardian's, of its parent and itself: no guardian gets further.
    (SPAWN, "sys.context.pidfd_open", libc::EMFILE, 2, "refused-", ALL),
    // The guardian's, of a child.
    (FORKSERVER, "sys.context.pidfd_open", libc::EMFILE, 3, "refused-not-made", 1),
    (SPAWN, "sys.context.pidfd_open", libc::ENFILE, 5, "refused-not-made", 1),
    (FORK, "sys.context.pidfd_open", libc::EMFILE, 3, "refused-call-failed", 1),
    // The program's, for its argument; those that it forks have passed it as often as the program has.
    (FORKSERVER, "sys.context.memfd_create", libc::EMFILE, 1, "", 0),
    (FORKSERVER, "sys.connection.socketpair", libc::EMFILE, 3, "refused-call-failed", 1),
    (SPAWN, "sys.connection.socketpair", libc::EMFILE, 4, "refused-", 2),
    (FORK, "sys.connection.socketpair", libc::ENFILE, 2, "refused-call-failed", 1),
    (FORKSERVER, "sys.context.pidfd_send_signal", libc::EPERM, 1, "unasked-call-failed", 1),
    (FORK, "sys.context.pidfd_send_signal", libc::EPERM, 1, "unasked-call-failed", 1),
    (FORKSERVER, "sys.context.ppoll", libc::EINTR, 1, "nothing", 0),
    (SPAWN, "sys.context.ppoll", libc::EINTR, 2, "nothing", 0),
    (FORK, "sys.context.ppoll", libc::EINTR, 3, "nothing", 0),
    (FORKSERVER, "sys.context.waitid", libc::EINTR, 1, "nothing", 0),
    (SPAWN, "sys.context.waitid", libc::EINTR, 4, "nothing", 0),
    (FORK, "sys.context.waitid", libc::EINTR, 2, "nothing", 0),
    (FORKSERVER, "sys.connection.sendmsg", libc::EINTR, 2, "nothing", 0),
    (SPAWN, "sys.connection.recvmsg", libc::EINTR, 2, "nothing", 0),
];

#[test]
fn a_system_call_that_fails_is_an_error_of_one_start() {
    let test = "a_system_call_that_fails_is_an_error_of_one_start";
    let _watchdog = Watchdog::start(test, patience(300));
    for mut random in rounds(test, 1, 0.1) {
        for &(method, call, errno, pass, outcome, most) in FAILURES {
            let run = run(method, &format!("{call}=errno:{errno}@{pass}"), &mut random);
            assert!(run.status.success() && !run.zombies, "{}", run.text);
            if outcome.is_empty() {
                // Neither the argument nor the value of anybody gets through more than once: each child is at its first pass.
                assert!(
                    run.count("refused-not-made") == 1 && run.count("unencoded-code-1") >= VALUES - 1,
                    "{}",
                    run.text
                );
                continue;
            }
            run.is_whole_but(outcome, most);
            assert!(most == 0 || run.count(outcome) > 0, "somebody has noticed: {}", run.text);
        }
    }
}
