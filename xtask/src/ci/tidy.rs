//! What no compiler checks: words that mean unfinished work or name a developer's machine, files that no longer fit in
//! a head, and crates that the documents have forgotten.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use walkdir::{DirEntry, WalkDir};

use super::Failure;
use crate::workspace::Workspace;

/// Words that do not land, spelled so that this file has none of them.
const FORBIDDEN: &[(&str, &str)] = &[
    (concat!("/wo", "rk/"), "a path of a developer's machine"),
    (concat!("/ho", "me/"), "a path of a developer's machine"),
    (concat!("TO", "DO"), "unfinished work"),
    (concat!("FIX", "ME"), "unfinished work"),
];

/// A Rust file longer than this wants a seam.
const LINES: usize = 700;

/// What holds nothing of the project's own.
const SKIPPED: &[&str] = &[".git", "target", "__pycache__"];

/// Prints every offence, then fails if there was one.
pub(super) fn step(workspace: &Workspace) -> Result<(), Failure> {
    let names: Vec<_> = workspace.libraries().into_iter().map(|package| package.name.as_str()).collect();
    let mut offences = offences_in_files(&workspace.root)?;
    offences.extend(crates_not_named(&names, "docs/architecture.md", &read(workspace, "docs/architecture.md"), false));
    offences.extend(crates_not_named(&names, "README.md", &read(workspace, "README.md"), true));
    if offences.is_empty() {
        return Ok(());
    }
    offences.iter().for_each(|offence| println!("{offence}"));
    Err(anyhow::anyhow!("{} not tidy", offences.len()).into())
}

/// A document of the project; empty when it is missing, so that each crate counts as not named in it.
fn read(workspace: &Workspace, path: &str) -> String {
    fs::read_to_string(workspace.root.join(path)).unwrap_or_default()
}

/// The offences of every text file under `root`.
fn offences_in_files(root: &Path) -> Result<Vec<String>> {
    let mut offences = Vec::new();
    for entry in WalkDir::new(root).sort_by_file_name().into_iter().filter_entry(is_ours) {
        let entry = entry?;
        if !entry.file_type().is_file() {
            continue;
        }
        let bytes = fs::read(entry.path()).with_context(|| entry.path().display().to_string())?;
        let Ok(text) = String::from_utf8(bytes) else { continue };
        let path = entry.path().strip_prefix(root).unwrap_or(entry.path());
        offences.extend(offences_in(path, &text));
    }
    Ok(offences)
}

/// Whether the walk goes there.
fn is_ours(entry: &DirEntry) -> bool {
    // `.git` is a file where the tree is one of several of a repository.
    !SKIPPED.iter().any(|skipped| entry.file_name() == *skipped)
}

/// The offences of one file.
fn offences_in(path: &Path, text: &str) -> Vec<String> {
    let mut offences = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        for (word, meaning) in FORBIDDEN.iter().filter(|(word, _)| line.contains(word)) {
            offences.push(format!("{}:{number}: `{word}`: {meaning}", path.display()));
        }
    }
    let lines = text.lines().count();
    if path.extension().is_some_and(|extension| extension == "rs") && lines > LINES {
        offences.push(format!("{}: {lines} lines, over {LINES}", path.display()));
    }
    offences
}

/// An offence for each crate that `text` does not name, or not in a table where `in_table` asks for that.
fn crates_not_named(names: &[&str], document: &str, text: &str, in_table: bool) -> Vec<String> {
    let place = if in_table { "a table of " } else { "" };
    let counts = |line: &&str| !in_table || line.trim_start().starts_with('|');
    names
        .iter()
        .filter(|name| !text.lines().filter(counts).any(|line| names_crate(line, name)))
        .map(|name| format!("{name}: not named in {place}{document}"))
        .collect()
}

/// Whether `line` has `name` as a word: `billiard-pool` does not name `billiard`.
fn names_crate(line: &str, name: &str) -> bool {
    line.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '_')).any(|word| word == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forbidden_words_are_found_with_their_place() {
        for (word, meaning) in FORBIDDEN {
            let found = offences_in(Path::new("docs/a.md"), &format!("fine\nsee {word}x\n"));
            assert_eq!(found, [format!("docs/a.md:2: `{word}`: {meaning}")]);
        }
        assert!(offences_in(Path::new("a.md"), "homework, to do\n").is_empty());
    }

    #[test]
    fn only_rust_files_are_measured() {
        let long = "//\n".repeat(LINES + 1);
        assert_eq!(offences_in(Path::new("a.rs"), &long), ["a.rs: 701 lines, over 700"]);
        assert!(offences_in(Path::new("a.md"), &long).is_empty());
        assert!(offences_in(Path::new("a.rs"), &"//\n".repeat(LINES)).is_empty());
    }

    #[test]
    fn crates_are_words_and_tables_are_tables() {
        let text = "the crate `billiard` is\n| `billiard-pool` | jobs |\n";
        let names = ["billiard", "billiard-pool", "billiard-wire"];
        let anywhere = crates_not_named(&names, "a.md", text, false);
        assert_eq!(anywhere, ["billiard-wire: not named in a.md"]);
        let table = crates_not_named(&names, "a.md", text, true);
        assert_eq!(table, ["billiard: not named in a table of a.md", "billiard-wire: not named in a table of a.md"]);
    }

    #[test]
    fn this_package_is_tidy() {
        assert_eq!(offences_in_files(Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap(), Vec::<String>::new());
    }
}
