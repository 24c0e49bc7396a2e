//! The table that ends a run of the gate: each step, how it ended and how long it took.

use std::{fmt::Write as _, time::Duration};

/// A line of the table.
#[derive(Debug)]
pub(super) struct Entry {
    /// The step.
    name: &'static str,
    /// Its time and whether it passed, once it has run.
    ended: Option<(Duration, bool)>,
}

impl Entry {
    /// A step that has not run.
    pub(super) fn not_run(name: &'static str) -> Self {
        Self { name, ended: None }
    }

    /// Notes how the step ended.
    pub(super) fn ended(&mut self, time: Duration, passed: bool) {
        self.ended = Some((time, passed));
    }
}

/// The table as text.
pub(super) fn render(entries: &[Entry], total: Duration) -> String {
    let mut text = String::new();
    let mut line = |name: &str, outcome: &str, time: Option<Duration>| {
        let time = time.map_or_else(|| "–".to_owned(), |time| format!("{:.1} s", time.as_secs_f64()));
        let _ = writeln!(text, "{name:<10} {outcome:<8} {time:>9}"); // a String takes all
    };
    for entry in entries {
        match entry.ended {
            Some((time, true)) => line(entry.name, "passed", Some(time)),
            Some((time, false)) => line(entry.name, "FAILED", Some(time)),
            None => line(entry.name, "not run", None),
        }
    }
    line("all", "", Some(total));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_what_passed_failed_and_did_not_run() {
        let mut entries = ["format", "lint", "test"].map(Entry::not_run);
        entries[0].ended(Duration::from_millis(420), true);
        entries[1].ended(Duration::from_secs(65), false);
        let expected = "\
format     passed       0.4 s
lint       FAILED      65.0 s
test       not run          –
all                    65.4 s
";
        assert_eq!(render(&entries, Duration::from_millis(65_420)), expected);
    }
}
