//! Python and the virtual environment with its packages, made once and kept while the requirements stay the same.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result};

use crate::process::{self, Captured};

/// How long an interpreter, or the registry, may take.
const PATIENCE: Duration = Duration::from_secs(300);

/// An interpreter.
#[derive(Debug)]
pub(super) struct Python {
    /// Its program.
    pub(super) program: PathBuf,
    /// Its version.
    pub(super) version: String,
}

impl Python {
    /// The one that `python3` is.
    pub(super) fn find() -> Result<Self> {
        let question = "import sys, platform; print(sys.executable); print(platform.python_version())";
        let printed = said("python3", Command::new("python3").args(["-c", question]))?;
        let (program, version) = printed.trim().split_once('\n').context("python3 does not say what it is")?;
        Ok(Self { program: PathBuf::from(program), version: version.to_owned() })
    }

    /// The program of a virtual environment in `folder` that has what the file `requirements` asks for.
    pub(super) fn environment(&self, folder: &Path, requirements: &Path) -> Result<PathBuf> {
        let program = folder.join("bin/python");
        let wanted = fs::read_to_string(requirements).with_context(|| requirements.display().to_string())?;
        let stamp = format!("{} {}\n{wanted}", self.program.display(), self.version);
        let stamp_path = folder.join("made-from"); // written last: an environment without it is not whole
        if program.is_file() && fs::read_to_string(&stamp_path).is_ok_and(|made| made == stamp) {
            return Ok(program);
        }
        eprintln!("making the virtual environment {}", folder.display());
        if folder.exists() {
            fs::remove_dir_all(folder).with_context(|| folder.display().to_string())?;
        }
        said("python3 -m venv", Command::new(&self.program).args(["-m", "venv"]).arg(folder))?;
        let install = ["-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check", "-r"];
        said("pip install", Command::new(&program).args(install).arg(requirements))?;
        fs::write(stamp_path, stamp)?;
        Ok(program)
    }
}

/// What a command prints; its failure is told under the name of `what` it does.
fn said(what: &'static str, command: &mut Command) -> Result<String> {
    process::capture(command, Some(PATIENCE)).and_then(Captured::ok).context(what)
}
