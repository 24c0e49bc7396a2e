//! A hang is a failure, and it says where.

use std::{
    fs,
    io::Write,
    sync::mpsc::{self, RecvTimeoutError},
    thread::{self, JoinHandle},
    time::Duration,
};

/// Ends the test process when the test takes too long, with a list of its threads and descendants and what
/// each waits for. The first line of every test: `let _watchdog = Watchdog::start("what it does", 60);`
#[derive(Debug)]
#[must_use = "the watch ends when it is dropped"]
pub struct Watchdog {
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watchdog {
    /// Watches until it is dropped.
    ///
    /// # Panics
    ///
    /// When no thread can be started.
    pub fn start(test: &'static str, seconds: u64) -> Self {
        let (stop, stopped) = mpsc::channel();
        let watch = move || {
            if let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(Duration::from_secs(seconds)) {
                say(format_args!("\nwatchdog: `{test}` is not done after {seconds} s; who waits for what:"));
                report();
                std::process::abort();
            }
        };
        let thread = thread::Builder::new().name("watchdog".into()).spawn(watch).expect("a thread for the watchdog");
        Self { stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// To standard error itself: what the macros print is kept back by the test harness, and lost when the process aborts.
fn say(what: std::fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stderr(), "{what}");
}

fn report() {
    let this = std::process::id();
    for pid in std::iter::once(this).chain(crate::descendants(this)) {
        for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
            let read = |name: &str| fs::read_to_string(task.path().join(name)).unwrap_or_default().trim().to_owned();
            let state = read("status").lines().find(|line| line.starts_with("State")).unwrap_or_default().to_owned();
            say(format_args!(
                "  process {pid}, thread {:?} ({}): {state}, in {}, call {}",
                task.file_name(),
                read("comm"),
                read("wchan"),
                read("syscall"),
            ));
        }
    }
}
