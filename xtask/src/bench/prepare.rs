//! Brings the subjects about: builds the programs and makes the virtual environment, each at most once, and only for
//! those that take part. Where a peer cannot be had, the reason is kept: it is left out, which is no failure.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use super::{
    case::Case,
    options::Peers,
    python::Python,
    subject::{Kind, Subject},
};
use crate::{process, workspace::Workspace};

/// Programs by name.
type Programs = BTreeMap<String, PathBuf>;

/// What may be missing, and then why.
type Available<T> = Result<T, String>;

/// The subjects' programs, as far as they can be had.
#[derive(Debug)]
pub(crate) struct Subjects {
    /// The workspace's, one for each group.
    own: Programs,
    /// The crates', each named after its crate.
    crates: Available<Programs>,
    /// Python by itself.
    python: Available<Python>,
    /// The program of a Python that has the packages.
    python_with_packages: Available<PathBuf>,
    /// Where Python finds what it runs.
    python_folder: PathBuf,
}

impl Subjects {
    /// Prepares those that take part in `cases`.
    pub(crate) fn prepare(workspace: &Workspace, cases: &[&Case], peers: Peers) -> Result<Self> {
        let present: Vec<_> = cases
            .iter()
            .flat_map(|case| case.entrants)
            .map(|entrant| entrant.subject.kind)
            .filter(|kind| peers.include(*kind))
            .collect();
        let wanted = |kind| if present.contains(&kind) { Ok(()) } else { Err("not asked for".to_owned()) };
        let folder = workspace.root.join("benches/peers");
        let python_folder = folder.join("python");
        let target = workspace.target.join("bench");

        eprintln!("building ours");
        let own = build(workspace.cargo(["build", "--release", "--locked", "-p", "billiard-benches", "--bins"]))
            .context("building ours")?;
        let crates = wanted(Kind::Crate).and_then(|()| {
            eprintln!("building the crates beside ours");
            build_peers(workspace, &folder, &target.join("peers")).map_err(reason)
        });
        let python = wanted(Kind::PythonStandard)
            .or_else(|_| wanted(Kind::PythonPackage))
            .and_then(|()| Python::find().map_err(reason));
        let python_with_packages = wanted(Kind::PythonPackage).and_then(|()| {
            let requirements = python_folder.join("requirements.txt");
            python.as_ref().map_err(String::clone)?.environment(&target.join("venv"), &requirements).map_err(reason)
        });
        Ok(Self { own, crates, python, python_with_packages, python_folder })
    }

    /// The command that runs `subject` for cases of `group`; an error says why it cannot be had.
    pub(crate) fn command(&self, subject: &Subject, group: &str) -> Available<Command> {
        match subject.kind {
            Kind::Ours | Kind::Variant | Kind::Ground => program_named(&self.own, group),
            Kind::Crate => program_named(self.crates.as_ref().map_err(String::clone)?, subject.name),
            Kind::PythonStandard => {
                let python = self.python.as_ref().map_err(String::clone)?;
                Ok(self.python_command(&python.program))
            }
            Kind::PythonPackage => {
                let program = self.python_with_packages.as_ref().map_err(String::clone)?;
                Ok(self.python_command(program))
            }
        }
    }

    /// The version of Python, where it is there.
    pub(crate) fn python_version(&self) -> Option<String> {
        self.python.as_ref().ok().map(|python| python.version.clone())
    }

    /// The command by which this Python runs its subjects. Their children import what they run: compiled once, and not
    /// again by each, whatever the user's habits are.
    fn python_command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.args(["-m", "subjects"]).env("PYTHONPATH", &self.python_folder).env_remove("PYTHONDONTWRITEBYTECODE");
        command
    }
}

/// An error as the reason why something is missing: one line.
fn reason(error: anyhow::Error) -> String {
    format!("{error:#}").replace('\n', " ")
}

/// The command for one of `programs`.
fn program_named(programs: &Programs, name: &str) -> Available<Command> {
    programs.get(name).map(Command::new).ok_or_else(|| format!("no program `{name}` was built"))
}

/// Builds the packages of the crates beside ours, which have a lock file and a target folder of their own. One that needs
/// what this machine does not have leaves the others be.
fn build_peers(workspace: &Workspace, folder: &Path, target: &Path) -> Result<Programs> {
    let mut cargo = workspace.cargo(["build", "--release", "--locked", "--workspace", "--bins", "--keep-going"]);
    cargo.arg("--manifest-path").arg(folder.join("Cargo.toml")).arg("--target-dir").arg(target);
    let (programs, failure) = try_build(cargo)?;
    if let Some(failure) = failure {
        ensure!(!programs.is_empty(), failure);
        eprintln!("not all of them: {failure}");
    }
    Ok(programs)
}

/// Runs a build and asks cargo for the programs that came of it.
fn build(cargo: Command) -> Result<Programs> {
    let (programs, failure) = try_build(cargo)?;
    failure.map_or(Ok(programs), |failure| Err(anyhow::Error::msg(failure)))
}

/// The same of a build that may fail in part: the programs there are, and what went wrong.
fn try_build(mut cargo: Command) -> Result<(Programs, Option<String>)> {
    cargo.arg("--message-format=json-render-diagnostics");
    let captured = process::capture(&mut cargo, None)?;
    let failed = captured.ended.ok().is_err();
    Ok((programs(&captured.stdout), failed.then(|| format!("cargo build: {}", first_error(&captured.stderr)))))
}

/// The line of cargo's output that says what went wrong.
fn first_error(stderr: &str) -> &str {
    let error = stderr.lines().find(|line| line.starts_with("error"));
    error.or_else(|| process::last_line(stderr)).unwrap_or("failed in silence")
}

/// The programs among cargo's messages.
fn programs(messages: &str) -> Programs {
    let program = |line: &str| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let path = message["executable"].as_str()?;
        Some((message["target"]["name"].as_str()?.to_owned(), PathBuf::from(path)))
    };
    messages.lines().filter_map(program).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_read_from_the_messages_of_cargo() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"lib"},"executable":null}
{"reason":"compiler-artifact","target":{"name":"pool"},"executable":"/t/release/pool"}
not json
{"reason":"build-finished","success":true}"#;
        assert_eq!(programs(messages), Programs::from([("pool".into(), PathBuf::from("/t/release/pool"))]));
    }

    #[test]
    fn of_an_output_the_error_is_told() {
        assert_eq!(first_error("   Compiling a\nerror: no network\n\nCaused by:\n  it is off\n"), "error: no network");
        assert_eq!(first_error("killed\n"), "killed");
    }
}
