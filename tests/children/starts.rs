//! Starts children at once and joins them all, while a plan in the environment kills, stops or fails processes at named
//! steps: `child-starts METHOD`. Says on standard output what became of the starts and of the children; that each of them has one outcome that
//! such a fault explains is checked here, which it has to be by the program's caller.
//!
//! It is of use only in a build with `--cfg billiard_fault`.

use std::{collections::BTreeMap, thread, time::Duration};

use billiard_context::{ChildError, Context, EndedBy, Error, Process, StartMethod};
use billiard_test_support::{descendants, end_after, eventually, is_alive, state};

/// Children that return a value.
const VALUES: u64 = 6;
/// Argument and value have so many bytes: more than travels inside a message.
const LARGE: usize = 5000;

/// What a start or a child came to, and how often.
type Outcomes = BTreeMap<String, u64>;

fn double((n, bytes): (u64, Vec<u8>)) -> (u64, Vec<u8>) {
    (2 * n, bytes)
}

fn waits(_: (u64, Vec<u8>)) -> (u64, Vec<u8>) {
    loop {
        thread::park();
    }
}

/// Why a child could not be started. Any other reason is none that a fault explains.
fn refused(error: &Error) -> &'static str {
    match error {
        Error::GuardianDied => "died",
        Error::GuardianNotReady { .. } => "not-ready",
        Error::GuardianSilent => "silent",
        Error::Start { .. } => "not-made",
        Error::Io { .. } | Error::Connection(_) => "call-failed",
        other => panic!("a start: {other:?}"),
    }
}

/// What became of a child; a value is right or the end of this program.
fn outcome(n: u64, mut child: Process<(u64, Vec<u8>)>) -> String {
    let asked = match n {
        VALUES => child.kill(),
        n if n > VALUES => child.terminate_within(Duration::from_millis(100)),
        _ => Ok(()),
    };
    if let Err(error) = asked {
        let why = refused(&error);
        drop(child); // which ends it
        return format!("unasked-{why}");
    }
    let status = child.join().expect("it can be joined");
    let how = match (status.code(), status.signal(), status.ended_by()) {
        (Some(code), None, EndedBy::Itself) => format!("code-{code}"),
        (None, Some(signal), EndedBy::Us) => format!("our-{signal}"),
        (None, Some(signal), _) => format!("signal-{signal}"),
        _ => "unknown".into(),
    };
    let result = child.take_result();
    assert!(!is_alive(child.pid()), "{status}");
    match result {
        Ok((twice, bytes)) => {
            assert!(n < VALUES && twice == 2 * n && bytes == vec![n as u8; LARGE], "another child's value");
            format!("value-{how}")
        }
        Err(ChildError::Exited(_) | ChildError::Signalled(_)) => how,
        Err(ChildError::Encode(_)) => format!("unencoded-{how}"),
        Err(ChildError::Setup(_)) => format!("not-set-up-{how}"),
        Err(ChildError::Argument(_)) => format!("undecoded-{how}"),
        Err(other) => panic!("child {n}: {other:?}"),
    }
}

fn main() {
    billiard_context::init();
    end_after("child-starts", 100);
    let method: StartMethod = std::env::args().nth(1).and_then(|name| name.parse().ok()).expect("a start method");
    let context = Context::with_method(method);
    let mut outcomes = Outcomes::new();
    let mut note = |outcome: String| *outcomes.entry(outcome).or_insert(0) += 1;
    // All are under way before the first is there.
    let starts: Vec<_> = (0..VALUES + 2)
        .map(|n| {
            let function = if n < VALUES { double } else { waits };
            (n, context.process(function, (n, vec![n as u8; LARGE])).begin())
        })
        .collect();
    let started: Vec<_> = starts.into_iter().map(|(n, start)| (n, start.and_then(|start| start.wait()))).collect();
    for (n, child) in started {
        match child {
            Ok(child) => note(outcome(n, child)),
            Err(error) => note(format!("refused-{}", refused(&error))),
        }
    }
    // The helper process may be there.
    let left = || descendants(std::process::id());
    assert!(eventually(20, || left().len() <= 1), "zombies included: {:?}", left());
    let zombies = left().into_iter().filter(|&pid| state(pid) == Some('Z')).count();
    println!("{zombies} zombies");
    let all: Vec<String> = outcomes.iter().map(|(outcome, count)| format!("{outcome} {count}")).collect();
    println!("{}", all.join(", "));
    assert_eq!(outcomes.values().sum::<u64>(), VALUES + 2);
}
