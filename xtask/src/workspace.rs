//! Where the workspace is and what is in it, as cargo tells.

use std::{
    env,
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::process;

/// The workspace that this program belongs to, whatever the current directory.
#[derive(Debug)]
pub(crate) struct Workspace {
    /// Its top folder.
    pub(crate) root: PathBuf,
    /// Where cargo builds.
    pub(crate) target: PathBuf,
    /// Its members.
    packages: Vec<Package>,
}

/// A member of the workspace.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Package {
    /// As cargo knows it.
    pub(crate) name: String,
    /// Where its manifest is.
    manifest_path: PathBuf,
    /// Its features, by name.
    features: serde_json::Map<String, serde_json::Value>,
    /// What it builds.
    targets: Vec<Target>,
}

/// Something that a package builds.
#[derive(Debug, Clone, Deserialize)]
struct Target {
    /// As cargo knows it.
    name: String,
    /// `lib`, `bin`, `example` …
    kind: Vec<String>,
}

/// What is read of cargo's description.
#[derive(Debug, Deserialize)]
struct Metadata {
    /// The members, dependencies left out.
    packages: Vec<Package>,
    /// Where cargo builds.
    target_directory: PathBuf,
}

impl Workspace {
    /// Asks cargo.
    pub(crate) fn load() -> Result<Self> {
        // Set at run time by `cargo run`; a program started by hand falls back to where it was built.
        let manifest =
            env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = manifest.parent().context("xtask has no folder above it")?.to_path_buf();

        let mut command = cargo_in(&root, ["metadata", "--no-deps", "--format-version=1"]);
        let printed = process::capture(&mut command, None)?.ok().context("cargo metadata")?;
        let metadata: Metadata = serde_json::from_str(&printed).context("cargo metadata")?;
        Ok(Self { root, target: metadata.target_directory, packages: metadata.packages })
    }

    /// A cargo command for this workspace.
    pub(crate) fn cargo<I: IntoIterator<Item: AsRef<OsStr>>>(&self, arguments: I) -> Command {
        cargo_in(&self.root, arguments)
    }

    /// The library crates: those in `crates/`, by name.
    pub(crate) fn libraries(&self) -> Vec<&Package> {
        let folder = self.root.join("crates");
        let mut libraries: Vec<_> = self.packages.iter().filter(|p| p.manifest_path.starts_with(&folder)).collect();
        libraries.sort_by(|a, b| a.name.cmp(&b.name));
        libraries
    }
}

impl Package {
    /// Whether some of it is there by default only.
    pub(crate) fn has_default_features(&self) -> bool {
        self.features.contains_key("default")
    }

    /// The names of its examples.
    pub(crate) fn examples(&self) -> impl Iterator<Item = &str> {
        let examples = |target: &&Target| target.kind.iter().any(|kind| kind == "example");
        self.targets.iter().filter(examples).map(|target| target.name.as_str())
    }
}

/// A cargo command to be run in `folder`.
fn cargo_in<I: IntoIterator<Item: AsRef<OsStr>>>(folder: &Path, arguments: I) -> Command {
    let mut command = Command::new("cargo");
    command.current_dir(folder).args(arguments);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_cargo_prints() {
        let printed = r#"{
            "packages": [{"name": "pool", "manifest_path": "/r/crates/pool/Cargo.toml", "features": {"default": ["a"]},
                "targets": [{"name": "pool", "kind": ["lib"]}, {"name": "quickstart", "kind": ["example"]}]}],
            "target_directory": "/r/target", "version": 1
        }"#;
        let metadata: Metadata = serde_json::from_str(printed).unwrap();
        let workspace =
            Workspace { root: PathBuf::from("/r"), target: metadata.target_directory, packages: metadata.packages };
        let [pool] = workspace.libraries()[..] else { panic!("one library") };
        assert!(pool.has_default_features());
        assert_eq!(pool.examples().collect::<Vec<_>>(), ["quickstart"]);
    }
}
