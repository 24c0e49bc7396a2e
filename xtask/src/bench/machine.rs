//! Where the figures were taken: a figure without its machine says nothing. Nothing here names a person or a host.

use std::{fs, process::Command, thread, time::Duration};

use serde::Serialize;

use crate::{process, workspace::Workspace};

/// The machine and the tools. What cannot be found out is null.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Machine {
    /// The processor's model.
    cpu: Option<String>,
    /// How many processors this process may use.
    cpus: Option<usize>,
    /// The memory, in bytes.
    memory: Option<u64>,
    /// The architecture.
    arch: &'static str,
    /// The distribution.
    os: Option<String>,
    /// The kernel's release.
    kernel: Option<String>,
    /// The compiler.
    rustc: Option<String>,
    /// The interpreter, where Python's subjects took part.
    pub(crate) python: Option<String>,
    /// The state of the sources: the commit, and whether anything was changed since.
    commit: Option<String>,
    /// When the run began, in UTC.
    date: Option<String>,
    /// The load of the last minute when the run began; well below one on a quiet machine.
    load: Option<f64>,
}

impl Machine {
    /// Looks around.
    pub(crate) fn look(workspace: &Workspace) -> Self {
        let root = &workspace.root;
        Self {
            cpu: value_in("/proc/cpuinfo", "model name"),
            cpus: thread::available_parallelism().ok().map(usize::from),
            memory: value_in("/proc/meminfo", "MemTotal").as_deref().and_then(kibibytes),
            arch: std::env::consts::ARCH,
            os: value_in("/etc/os-release", "PRETTY_NAME").map(|name| name.trim_matches('"').to_owned()),
            kernel: line_of("/proc/sys/kernel/osrelease"),
            rustc: said(Command::new("rustc").arg("--version").current_dir(root)),
            python: None,
            commit: said(Command::new("git").args(["describe", "--always", "--dirty"]).current_dir(root)),
            date: said(Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%SZ"])),
            load: line_of("/proc/loadavg").and_then(|line| line.split(' ').next()?.parse().ok()),
        }
    }

    /// Whether others are at work here, so that the figures will be poor.
    pub(crate) fn is_busy(&self) -> bool {
        let cpus = self.cpus.unwrap_or(1) as f64;
        self.load.is_some_and(|load| load > cpus / 2.0)
    }

    /// What is known, for people.
    pub(crate) fn described(&self) -> Vec<(&'static str, String)> {
        let gibibytes = |bytes: u64| format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30));
        let known = [
            ("date", self.date.clone()),
            ("processor", self.cpu.clone()),
            ("processors", self.cpus.map(|cpus| cpus.to_string())),
            ("memory", self.memory.map(gibibytes)),
            ("architecture", Some(self.arch.to_owned())),
            ("system", self.os.clone()),
            ("kernel", self.kernel.clone()),
            ("compiler", self.rustc.clone()),
            ("Python", self.python.clone()),
            ("sources", self.commit.clone()),
            ("load at the start", self.load.map(|load| load.to_string())),
        ];
        known.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
    }
}

/// The value of the first line `key: value` or `key=value` of a file.
fn value_in(path: &str, key: &str) -> Option<String> {
    value_of(&fs::read_to_string(path).ok()?, key)
}

/// The value of the first line `key: value` or `key=value` of a text.
fn value_of(text: &str, key: &str) -> Option<String> {
    let value = |line: &str| {
        let rest = line.strip_prefix(key)?.trim_start();
        Some(rest.strip_prefix([':', '='])?.trim().to_owned())
    };
    text.lines().find_map(value)
}

/// The first line of a file.
fn line_of(path: &str) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.lines().next()?.to_owned())
}

/// `12 kB` in bytes.
fn kibibytes(text: &str) -> Option<u64> {
    text.strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// What a program prints, if it can be run.
fn said(command: &mut Command) -> Option<String> {
    let printed = process::capture(command, Some(Duration::from_secs(10))).ok()?.ok().ok()?;
    Some(printed.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_with_keys_are_read() {
        let text = "model name\t: One CPU @ 2 GHz\nPRETTY_NAME=\"A System\"\nMemTotal:  12 kB\n";
        assert_eq!(value_of(text, "model name").as_deref(), Some("One CPU @ 2 GHz"));
        assert_eq!(value_of(text, "PRETTY_NAME").as_deref(), Some("\"A System\""));
        assert_eq!(value_of(text, "MemTotal").as_deref().and_then(kibibytes), Some(12 * 1024));
        assert_eq!(value_of(text, "model"), None);
    }

    #[test]
    fn half_the_processors_at_work_is_busy() {
        let machine = |load| Machine { cpus: Some(2), load, ..Machine::default() };
        assert!(machine(Some(1.5)).is_busy());
        assert!(!machine(Some(0.2)).is_busy() && !machine(None).is_busy());
    }
}
