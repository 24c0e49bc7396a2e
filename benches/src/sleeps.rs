//! How many times those who do the work have gone to sleep: each time somebody had to wake them, which costs more than
//! a tiny job.
//!
//! The peers in `benches/peers` are built with this very file too.

use std::{collections::BTreeMap, error::Error, fs, io, process};

use crate::{
    frame::{Answer, Request},
    timing::WARM_UP,
};

/// Sleeps for every thousand jobs: warms up, then counts over `--count` of them. `run` does as many as it is told and
/// gives the sum of their results. Fewer than one sleep counts as one.
///
/// # Errors
///
/// What `run` returns, a missing option, and the kernel's.
pub fn per_thousand<E: Into<Box<dyn Error>>>(
    request: &Request,
    mut run: impl FnMut(u64) -> Result<u64, E>,
) -> Result<Answer, Box<dyn Error>> {
    let count: u64 = request.option("count")?;
    run(WARM_UP).map_err(Into::into)?;
    let before = of_family()?;
    let checksum = run(count).map_err(Into::into)?;
    let sleeps = of_family()?.saturating_sub(before).max(1);
    Ok(Answer { value: sleeps as f64 * 1e3 / count as f64, unit: "sleeps/1,000 jobs", checksum })
}

/// How many times the threads that there are of this process, its children and theirs have gone to sleep.
///
/// # Errors
///
/// The kernel's, if it does not tell.
pub fn of_family() -> io::Result<u64> {
    below(process::id())
}

/// The same of the family of that process.
fn below(pid: u32) -> io::Result<u64> {
    let mut children = BTreeMap::<u32, Vec<u32>>::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // Who has ended meanwhile is nobody's.
        if let Some(parent) = fs::read_to_string(format!("/proc/{pid}/stat")).ok().as_deref().and_then(parent_in) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let (mut family, mut sleeps) = (vec![pid], 0);
    while let Some(pid) = family.pop() {
        family.extend(children.remove(&pid).unwrap_or_default());
        let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { continue };
        for thread in threads.flatten() {
            sleeps += fs::read_to_string(thread.path().join("status")).ok().as_deref().and_then(sleeps_in).unwrap_or(0);
        }
    }
    Ok(sleeps)
}

/// The parent in a `/proc/PID/stat`. The name before it is in parentheses, and may hold any.
fn parent_in(stat: &str) -> Option<u32> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// How many times a thread has gone to sleep, in its `status`.
fn sleeps_in(status: &str) -> Option<u64> {
    status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::{thread, time::Duration};

    use super::*;

    #[test]
    fn the_parent_comes_behind_the_name() {
        assert_eq!(parent_in("12 (a) S 3 (b)) R 7 1 1"), Some(7));
        assert_eq!((parent_in("12 a S 3"), parent_in("")), (None, None));
        assert_eq!(sleeps_in("Name:\tvoluntary\nvoluntary_ctxt_switches:\t5\nnonvoluntary_ctxt_switches:\t6"), Some(5));
    }

    #[test]
    fn sleeps_of_this_process_and_of_a_child_are_counted() {
        let before = of_family().unwrap();
        for _ in 0..20 {
            thread::sleep(Duration::from_millis(1));
        }
        let after = of_family().unwrap();
        assert!(after >= before + 20, "{before}, then {after}");

        // A shell that waits for what it runs sleeps each time.
        let script = "for i in 1 2 3; do sleep 0.01; done; read line";
        let mut child =
            process::Command::new("sh").args(["-c", script]).stdin(process::Stdio::piped()).spawn().unwrap();
        while below(child.id()).unwrap() < 3 {
            thread::yield_now();
        }
        assert!(of_family().unwrap() >= after + 3);
        drop(child.stdin.take());
        child.wait().unwrap();
    }
}
