//! Named points at which a test kills, stops, delays or fails a process.
//!
//! Every named step of a protocol passes through [`point`], every system call through [`errno`].
//! Unless the crates are compiled with `--cfg billiard_fault` both are empty and cost nothing.
//! With it, the environment variable `BILLIARD_FAULT` says what happens where, for example
//! `worker.run=kill@3,sys.connection.sendmsg=errno:11@1`: `kill` and `stop` send the process that
//! signal, `delay:MS` sleeps, `errno:N` makes the system call fail; `@n` names the n-th pass
//! (the first when it is left out), `@*` every one. Passes are counted by process, from its start.
//! The names of all that has happened are written to the file that `BILLIARD_FAULT_LOG` names, a line each.

/// The environment variable that holds the plan.
pub const VARIABLE: &str = "BILLIARD_FAULT";
/// The environment variable that names the file for what has happened.
pub const LOG: &str = "BILLIARD_FAULT_LOG";

/// A step of a protocol. Does nothing unless compiled with `--cfg billiard_fault`.
#[inline(always)]
pub fn point(name: &'static str) {
    #[cfg(billiard_fault)]
    let _ = active::pass(name);
    let _ = name;
}

/// A system call about to be made: the error that it shall return instead, if any.
///
/// # Errors
///
/// The number that the plan asks for; never unless compiled with `--cfg billiard_fault`.
#[inline(always)]
pub fn errno(name: &'static str) -> Result<(), i32> {
    #[cfg(billiard_fault)]
    return active::pass(name).map_or(Ok(()), Err);
    #[cfg(not(billiard_fault))]
    {
        let _ = name;
        Ok(())
    }
}

/// Reads the plan anew and counts from nothing: a child calls it once its environment is its own.
#[inline(always)]
pub fn reload() {
    #[cfg(billiard_fault)]
    active::reload();
}

#[cfg(billiard_fault)]
mod active {
    use std::{
        collections::HashMap,
        sync::{
            Mutex, PoisonError,
            atomic::{AtomicBool, Ordering},
        },
        time::Duration,
    };

    #[derive(Clone, Copy, Debug)]
    enum Action {
        Kill,
        Stop,
        Delay(Duration),
        Errno(i32),
    }

    #[derive(Debug, Default)]
    struct Plan {
        /// By name: what to do, and at which pass (none: at every one).
        actions: HashMap<String, (Action, Option<u64>)>,
        passes: HashMap<&'static str, u64>,
    }

    static PLAN: Mutex<Option<Plan>> = Mutex::new(None);
    static EMPTY: AtomicBool = AtomicBool::new(false);

    pub(super) fn reload() {
        EMPTY.store(false, Ordering::Relaxed);
        *PLAN.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(super) fn pass(name: &'static str) -> Option<i32> {
        if EMPTY.load(Ordering::Relaxed) {
            return None;
        }
        let action = {
            let mut plan = PLAN.lock().unwrap_or_else(PoisonError::into_inner);
            let plan = plan.get_or_insert_with(|| parse(&std::env::var(super::VARIABLE).unwrap_or_default()));
            EMPTY.store(plan.actions.is_empty(), Ordering::Relaxed);
            let count = plan.passes.entry(name).and_modify(|n| *n += 1).or_insert(1);
            match plan.actions.get(name) {
                Some(&(action, at)) if at.is_none_or(|at| at == *count) => action,
                _ => return None,
            }
        };
        note(name);
        match action {
            Action::Kill => signal(libc::SIGKILL),
            Action::Stop => signal(libc::SIGSTOP),
            Action::Delay(time) => std::thread::sleep(time),
            Action::Errno(number) => return Some(number),
        }
        None
    }

    /// One write, so that the lines of many processes do not mix.
    fn note(name: &str) {
        use std::io::Write;

        if let Some(path) = std::env::var_os(super::LOG) {
            let file = std::fs::OpenOptions::new().append(true).create(true).open(path);
            let written = file.and_then(|mut file| file.write_all(format!("{name}\n").as_bytes()));
            if let Err(error) = written {
                eprintln!("{}: {error}", super::LOG);
                std::process::abort();
            }
        }
    }

    fn signal(signal: libc::c_int) {
        // SAFETY: getpid has no preconditions.
        let this = unsafe { libc::getpid() };
        // SAFETY: kill takes two numbers; the process named is this one.
        unsafe { libc::kill(this, signal) };
    }

    /// A plan that cannot be read is the test's mistake: say so and end, lest it pass for nothing.
    fn parse(text: &str) -> Plan {
        let mut plan = Plan::default();
        for entry in text.split(',').filter(|entry| !entry.is_empty()) {
            let Some((name, action)) = parse_entry(entry) else {
                eprintln!("{}: cannot read {entry:?}", super::VARIABLE);
                std::process::abort();
            };
            plan.actions.insert(name, action);
        }
        plan
    }

    fn parse_entry(entry: &str) -> Option<(String, (Action, Option<u64>))> {
        let (name, action) = entry.split_once('=')?;
        let (action, at) = match action.split_once('@') {
            None => (action, Some(1)),
            Some((action, "*")) => (action, None),
            Some((action, at)) => (action, Some(at.parse().ok()?)),
        };
        let action = match action.split_once(':') {
            None if action == "kill" => Action::Kill,
            None if action == "stop" => Action::Stop,
            Some(("delay", ms)) => Action::Delay(Duration::from_millis(ms.parse().ok()?)),
            Some(("errno", number)) => Action::Errno(number.parse().ok()?),
            _ => return None,
        };
        Some((name.to_owned(), (action, at)))
    }
}
