//! A place of one's own for files and names, so that whatever is left there was left by who ran in it.

use std::{
    collections::BTreeSet,
    ffi::CString,
    fs::{self, File},
    os::fd::{AsRawFd, RawFd},
    process::Command,
    ptr, thread,
};

/// Folders and names that only the calling thread and what it starts can see: `/tmp`, `/dev/shm`, System V IPC and the
/// network, sockets' names included. That needs the rights of root; without them the machine's own folders are looked at, where others are busy too,
/// for names that have `billiard` in them.
#[derive(Debug)]
pub struct Enclosure {
    private: bool,
    before: BTreeSet<String>,
}

/// Where things with a name could be left.
const FOLDERS: [&str; 2] = ["/tmp", "/dev/shm"];

/// Runs `work` in an enclosure, on a thread of its own.
///
/// # Panics
///
/// When `work` does.
pub fn enclosed<T: Send>(work: impl FnOnce(&Enclosure) -> T + Send) -> T {
    thread::scope(|scope| {
        let ran = scope.spawn(|| {
            let private = enter();
            let before = names(private);
            work(&Enclosure { private, before })
        });
        ran.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

impl Enclosure {
    /// Whether it is one: files and names are this thread's own.
    #[must_use]
    pub fn is_private(&self) -> bool {
        self.private
    }

    /// What is there that was not when it began: files, and sockets by what the kernel tells of them.
    #[must_use]
    pub fn left(&self) -> Vec<String> {
        names(self.private).difference(&self.before).cloned().collect()
    }
}

/// A program of a file that was opened before an enclosure was entered, wherever that file is; the file has to stay open until it runs.
#[must_use]
pub fn program(file: &File) -> Command {
    let number: RawFd = file.as_raw_fd();
    Command::new(format!("/proc/self/fd/{number}"))
}

fn enter() -> bool {
    // SAFETY: it changes what this thread sees, and nothing of its memory.
    if unsafe { libc::unshare(libc::CLONE_NEWNS | libc::CLONE_NEWIPC | libc::CLONE_NEWNET) } != 0 {
        return false;
    }
    let mount = |what: &str, place: &str, flags| {
        let (what, place) = (CString::new(what).expect("no NUL"), CString::new(place).expect("no NUL"));
        // SAFETY: two texts, and nothing that is needed beside them.
        unsafe { libc::mount(what.as_ptr(), place.as_ptr(), what.as_ptr(), flags, ptr::null()) == 0 }
    };
    mount("none", "/", libc::MS_REC | libc::MS_PRIVATE) && FOLDERS.iter().all(|folder| mount("tmpfs", folder, 0))
}

fn names(private: bool) -> BTreeSet<String> {
    let files = FOLDERS.iter().flat_map(|folder| fs::read_dir(folder).into_iter().flatten().flatten());
    let mut names: BTreeSet<_> = files.map(|entry| entry.path().display().to_string()).collect();
    if private {
        let sockets = fs::read_to_string("/proc/thread-self/net/unix").unwrap_or_default();
        names.extend(sockets.lines().skip(1).map(|line| format!("socket {line}")));
    } else {
        names.retain(|name| name.contains("billiard"));
    }
    names
}
