//! Counts the words of files, one process per CPU.
//!
//! `cargo run --release --example quickstart` counts this repository's own sources and docs;
//! `cargo run --release --example quickstart -- PATH…` counts those files, and all files in those folders.

use std::{
    env,
    error::Error,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use billiard::{Pool, RemoteError};
use indicatif::ProgressBar;
use walkdir::WalkDir;

/// The job: it runs in a worker process. A path travels as `OsString`, since it need not be UTF-8.
fn count_words(path: OsString) -> Result<usize, RemoteError> {
    match fs::read_to_string(&path) {
        Ok(text) => Ok(text.split_whitespace().count()),
        Err(error) => Err(RemoteError::msg(format_args!("{}: {error}", path.display()))),
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    billiard::init(); // a worker process starts here and never returns

    let begin = Instant::now();
    let files = files(env::args_os().skip(1).map(PathBuf::from).collect())?;
    let pool = Pool::new()?; // one worker for each CPU that this process may use
    let progress = ProgressBar::new(files.len() as u64); // on standard error, if that is a terminal

    let (mut counted, mut words) = (0, 0);
    for result in progress.wrap_iter(pool.imap_unordered(count_words, files)) {
        match result? {
            Ok(n) => {
                counted += 1;
                words += n;
            }
            Err(why) => progress.suspend(|| eprintln!("skipped: {why}")), // no permission, not UTF-8 …
        }
    }
    progress.finish_and_clear();
    let workers = pool.workers();
    pool.join()?;
    println!("{counted} files, {words} words, {workers} workers, {:.1?}", begin.elapsed());
    Ok(())
}

/// The files named, and all files in the folders named; without names, this repository's sources and docs.
fn files(paths: Vec<PathBuf>) -> Result<Vec<OsString>, String> {
    let own = paths.is_empty();
    let roots = if own { vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")] } else { paths };
    let mut files = Vec::new();
    for root in roots {
        if let Err(error) = fs::metadata(&root) {
            return Err(format!("{}: {error}", root.display()));
        }
        let entries = WalkDir::new(&root).into_iter().filter_entry(|entry| {
            let name = entry.file_name().to_string_lossy();
            entry.depth() == 0 || !own || !(name.starts_with('.') || name == "target")
        });
        for entry in entries {
            match entry {
                Ok(entry) if entry.depth() == 0 && !entry.path().is_dir() => files.push(entry.into_path().into()),
                Ok(entry) if entry.file_type().is_file() && (!own || is_text(entry.path())) => {
                    files.push(entry.into_path().into());
                }
                Ok(_) => {}
                Err(error) => eprintln!("skipped: {error}"),
            }
        }
    }
    Ok(files)
}

fn is_text(path: &Path) -> bool {
    path.extension().is_some_and(|extension| ["rs", "md", "toml"].iter().any(|text| extension == *text))
}
