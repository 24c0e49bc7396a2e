//! A private folder for temporary files that does not outlive its owner.
//!
//! Its owner removes it when it is done. An owner that is killed cannot; so each holds a lock on its folder, which the kernel
//! takes from the dead, and the next owner removes the folders of the same user that nobody has locked.
//!
//! Between the making of a folder and its locking it looks like one whose owner has died, and may be removed. Its owner
//! finds that out, since after locking it looks whether the folder is still in its place, and makes another: nothing was in
//! it yet. Conversely nobody removes a folder without having its lock.
//!
//! Locks are known to one kernel alone, while a folder of temporary files may be shared by several machines. So the name says
//! in which run of which kernel it was made, and nobody touches those of another: what a machine leaves when it goes down is for
//! whoever cleans such folders at boot. Nothing here knows what the files are for.

use std::{
    ffi::OsStr,
    fs::{self, File, Permissions},
    io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use billiard_wire::{fault, generation::Generation};
use thiserror::Error;

use crate::sys;

const PREFIX: &str = "billiard-dir-";

/// How often making a folder is tried: each time, somebody who cleans up must have met the new folder in its first microseconds.
const TRIES: u32 = 100;

/// A folder that only this user can enter (mode 0700), removed with all that is in it when this is dropped.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let scratch = billiard_context::TempDir::new()?;
/// let file = scratch.path().join("part-1");
/// std::fs::write(&file, "so far")?;
/// scratch.close()?;
/// assert!(!file.exists());
/// # Ok(())
/// # }
/// ```
///
/// If the process is killed, or ends by `std::process::exit`, the folder stays, unlocked, and the next `TempDir` of the same user at the
/// same place removes it. A copy of the process made by a fork can use the folder but does not remove it; while such a copy lives, the
/// folder counts as in use, though its owner may have died.
///
/// Python's `multiprocessing.util.get_temp_dir` is one such folder per program, removed at exit; here it is a value, whose owner decides.
#[derive(Debug)]
pub struct TempDir {
    path: PathBuf,
    /// Open as long as the folder is ours: the lock is on it.
    locked: File,
    generation: Generation,
    removed: bool,
}

impl TempDir {
    /// Makes one in the system's folder for temporary files, [`std::env::temp_dir`].
    ///
    /// # Errors
    ///
    /// [`TempDirError`]. Nothing is left then. What cannot be cleaned up of others' is no error.
    pub fn new() -> Result<Self, TempDirError> {
        Self::new_in(std::env::temp_dir())
    }

    /// Makes one in this folder. It has to be one in which others cannot rename this user's files, as in `/tmp`.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn new_in(place: impl AsRef<Path>) -> Result<Self, TempDirError> {
        let place = place.as_ref();
        let error = |source| TempDirError::Make { place: place.to_owned(), source };
        let place = std::path::absolute(place).map_err(error)?;
        let boot = boot();
        if let Some(boot) = &boot {
            sweep(&place, boot);
        }
        for _ in 0..TRIES {
            let name = sys::random().map(|random| name(boot.as_deref(), random)).map_err(error)?;
            if let Some(made) = Self::make(place.join(name)).map_err(error)? {
                return Ok(made);
            }
        }
        Err(error(io::Error::new(io::ErrorKind::ResourceBusy, "new folders are removed as soon as they are made")))
    }

    /// `None` when somebody who cleaned up took it for one that was left, or it has the name of another.
    fn make(path: PathBuf) -> io::Result<Option<Self>> {
        match sys::make_private_folder(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(None),
            made => made?,
        }
        fault::point("temp_dir.made");
        let locked = lock(&path).inspect_err(|_| {
            let _ = fs::remove_dir(&path);
        })?;
        let Some(locked) = locked else { return Ok(None) };
        fault::point("temp_dir.locked");
        let made = Self { path, locked, generation: Generation::current(), removed: false };
        // The umask may have taken something away, the folder around it may have added something.
        made.locked.set_permissions(Permissions::from_mode(0o700))?;
        Ok(Some(made))
    }

    /// Where it is: an absolute path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes it now, and says what went wrong, where dropping would not.
    ///
    /// # Errors
    ///
    /// [`TempDirError::Remove`], when somebody still makes files in it, for example. What is left is unlocked, and the next `TempDir` tries
    /// again. [`TempDirError::Forked`] in a copy of the process that made it.
    pub fn close(mut self) -> Result<(), TempDirError> {
        self.generation.check_current()?;
        self.removed = true;
        remove(&self.path).map_err(|source| TempDirError::Remove { path: self.path.clone(), source })
    }
}

impl AsRef<Path> for TempDir {
    fn as_ref(&self) -> &Path {
        self.path()
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        if !self.removed && self.generation.is_current() {
            let _ = remove(&self.path); // the next one tries again
        }
    }
}

/// Why there is no such folder, or why there still is.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TempDirError {
    /// It could not be made, or not be locked.
    #[error(
        "no private folder can be made in {}: set TMPDIR to one on a local file system that this user may write to",
        place.display()
    )]
    Make {
        /// The folder that it was to be in.
        place: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// It could not be removed.
    #[error("the private folder {} cannot be removed", path.display())]
    Remove {
        /// Which.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// This process is a copy of the one that has made it.
    #[error(transparent)]
    Forked(#[from] billiard_wire::generation::Forked),
}

/// Names the run of this machine's kernel; `None` when it is not to be had, and nothing can be cleaned up.
fn boot() -> Option<String> {
    let id = sys::read(Path::new("/proc/sys/kernel/random/boot_id")).ok()?;
    let digits: String = id.iter().filter(|byte| byte.is_ascii_hexdigit()).map(|&byte| char::from(byte)).collect();
    (digits.len() == 32).then_some(digits)
}

fn name(boot: Option<&str>, random: [u8; 16]) -> String {
    format!("{PREFIX}{}-{:032x}", boot.unwrap_or("unknown"), u128::from_ne_bytes(random))
}

/// Whether a folder of this name was made by us in this run of the kernel.
fn is_name(name: &OsStr, boot: &str) -> bool {
    let random = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.strip_prefix(boot)?.strip_prefix('-'));
    random.is_some_and(|random| random.len() == 32 && random.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// Removes what dead owners of this user have left.
fn sweep(place: &Path, boot: &str) {
    let user = sys::credentials()[1];
    for entry in fs::read_dir(place).into_iter().flatten().flatten() {
        if !is_name(&entry.file_name(), boot) {
            continue;
        }
        let path = entry.path();
        let is_ours = |found: fs::Metadata| found.is_dir() && found.uid() == user;
        // Looked at before as well: the folders of other users are not even locked.
        if path.symlink_metadata().is_ok_and(is_ours)
            && let Ok(Some(locked)) = lock(&path)
            && locked.metadata().is_ok_and(is_ours)
        {
            fault::point("temp_dir.sweep");
            let _ = remove(&path);
        }
    }
}

/// The folder, locked; `None` when another has it, or it is no longer there.
fn lock(path: &Path) -> io::Result<Option<File>> {
    let folder = match sys::open_folder(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    if !sys::try_lock(&folder)? {
        return Ok(None);
    }
    let opened = folder.metadata()?;
    let in_place =
        path.symlink_metadata().is_ok_and(|found| (found.dev(), found.ino()) == (opened.dev(), opened.ino()));
    Ok(in_place.then_some(folder))
}

/// Removes a folder with all that is in it. Symbolic links are removed, never followed.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        // A folder inside may have been closed to its own user.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            open_up(path.to_owned());
            fs::remove_dir_all(path)
        }
        // Somebody else has removed it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Gives the user back all rights in a folder and in those inside it.
fn open_up(folder: PathBuf) {
    let mut left = vec![folder];
    while let Some(folder) = left.pop() {
        let _ = sys::open_up_folder(&folder); // what stays closed is met again by who removes it
        let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
        left.extend(
            entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()),
        );
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::symlink, thread};

    use billiard_test_support::{Random, Watchdog, eventually};

    use super::*;

    /// A folder whose owner was killed: no longer locked, and not removed.
    fn abandon(mut folder: TempDir) -> PathBuf {
        folder.removed = true;
        folder.path.clone()
    }

    /// A new one, made when the abandoned is gone: a test beside this one may be forking, whose child holds the lock until it ends.
    fn next_once_gone(place: &TempDir, left: &Path) -> TempDir {
        let mut next = TempDir::new_in(place).unwrap();
        assert!(eventually(20, || {
            next = TempDir::new_in(place).unwrap();
            !left.exists()
        }));
        next
    }

    fn names(place: &TempDir) -> Vec<PathBuf> {
        let mut names: Vec<_> = fs::read_dir(place).unwrap().map(|entry| entry.unwrap().path()).collect();
        names.sort();
        names
    }

    #[test]
    fn it_is_private_and_goes_with_all_that_is_in_it() {
        let outside = TempDir::new().unwrap();
        fs::write(outside.path().join("kept"), "x").unwrap();
        let inside = TempDir::new_in(&outside).unwrap();
        let path = inside.path().to_owned();
        assert!(path.is_absolute());
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, 0o700);
        fs::create_dir_all(path.join("a/b/c")).unwrap();
        fs::write(path.join("a/b/file"), "x").unwrap();
        symlink(outside.path(), path.join("a/link")).unwrap();
        drop(inside);
        assert_eq!(names(&outside), [outside.path().join("kept")]);

        let inside = TempDir::new_in(&outside).unwrap();
        fs::remove_dir(inside.path()).unwrap();
        inside.close().unwrap(); // removed by somebody else: it is gone, as was asked for
    }

    #[test]
    fn where_none_can_be_made_is_an_error() {
        let place = TempDir::new().unwrap();
        let missing = place.path().join("missing");
        let error = TempDir::new_in(&missing).unwrap_err();
        assert!(error.to_string().contains("/missing: set TMPDIR"), "{error}");
        assert!(matches!(error, TempDirError::Make { source, .. } if source.kind() == io::ErrorKind::NotFound));
    }

    #[test]
    fn the_next_one_removes_what_the_dead_left_and_nothing_else() {
        let place = TempDir::new().unwrap();
        let lives = TempDir::new_in(&place).unwrap();
        let left = abandon(TempDir::new_in(&place).unwrap());
        fs::create_dir(left.join("inside")).unwrap();

        let boot = boot().unwrap();
        let in_place = |name: &str| place.path().join(name);
        let others = [
            in_place(&name(Some("0123456789abcdef0123456789abcdef"), [1; 16])),
            in_place(&name(None, [2; 16])),
            in_place(&format!("{PREFIX}{boot}-12")),
            in_place(&format!("{PREFIX}{boot}-{}", "z".repeat(32))),
            in_place("billiard"),
        ];
        for path in &others {
            fs::create_dir(path).unwrap();
        }
        let (file, link) = (in_place(&name(Some(&boot), [3; 16])), in_place(&name(Some(&boot), [4; 16])));
        fs::write(&file, "").unwrap();
        symlink(&others[0], &link).unwrap();
        let mut stay = [&others[..], &[file, link, lives.path().to_owned()]].concat();
        if sys::credentials()[1] == 0 {
            let foreign = in_place(&name(Some(&boot), [5; 16]));
            fs::create_dir(&foreign).unwrap();
            std::os::unix::fs::chown(&foreign, Some(12345), None).unwrap();
            stay.push(foreign);
        } else {
            println!("not root: the folder of another user is left out");
        }

        let next = next_once_gone(&place, &left);
        stay.push(next.path().to_owned());
        stay.sort();
        assert_eq!(names(&place), stay);
    }

    #[test]
    fn a_copy_of_the_process_does_not_remove_it() {
        let _watchdog = Watchdog::start("a_copy_of_the_process_does_not_remove_it", 60);
        let folder = TempDir::new().unwrap();
        // SAFETY: the child frees memory, which the C library keeps possible in a copy of a threaded process, and ends.
        match unsafe { libc::fork() } {
            0 => {
                let path = folder.path().to_owned();
                let refused = matches!(folder.close(), Err(TempDirError::Forked(_)));
                let code = if refused && path.exists() { 0 } else { 1 };
                // SAFETY: always.
                unsafe { libc::_exit(code) }
            }
            child => {
                let mut status = 0;
                // SAFETY: the place is valid, and the child this function's own.
                assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
                assert_eq!(status, 0);
            }
        }
        assert!(folder.path().exists());
        folder.close().unwrap();
    }

    #[test]
    fn a_new_one_is_never_lost_to_those_who_clean_up() {
        let _watchdog = Watchdog::start("a_new_one_is_never_lost_to_those_who_clean_up", 120);
        let place = TempDir::new().unwrap();
        let round = |mut random: Random| {
            for _ in 0..150 {
                let folder = TempDir::new_in(&place).unwrap();
                let file = folder.path().join("file");
                fs::write(&file, "mine").unwrap();
                thread::yield_now();
                assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
                if random.below(2) == 0 {
                    abandon(folder);
                }
            }
        };
        let (round, mut random) = (&round, Random::from_env("a_new_one_is_never_lost_to_those_who_clean_up"));
        thread::scope(|scope| {
            for _ in 0..8 {
                let random = random.fork();
                scope.spawn(move || round(random));
            }
        });
        assert!(eventually(20, || {
            let last = TempDir::new_in(&place).unwrap();
            names(&place) == [last.path()]
        }));
    }
}
