//! A control group of the test's own, inside the one that the test is in, so that no limit is got rid of.

use std::{
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

/// A control group for processes of the test alone. It is removed when this is dropped, and when the test is killed.
pub(crate) struct Group {
    folder: PathBuf,
    /// Whether it has the first version's files.
    pub(crate) first_version: bool,
    keeper: Child,
}

impl Group {
    /// Makes one with a controller. Where that cannot be done, it says why, and the test has nothing to look at.
    pub(crate) fn make(controller: &str) -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let (around, first_version) = own_folder(controller).or_else(|| {
            println!("skipped: the group of this process with the controller {controller} cannot be seen");
            None
        })?;
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = around.join(format!("billiard-test-{}-{number}", std::process::id()));
        // Before the folder, so that there is never a folder without a keeper: it waits for its input's end, that is, the test's.
        let clean_up = "read _; n=0; while [ -d \"$1\" ] && [ $n -lt 200 ]; do \
            rmdir \"$1\"/*/ \"$1\"; n=$((n+1)); sleep 0.05; done 2> /dev/null";
        let mut keeper = Command::new("sh");
        keeper.args(["-c", clean_up, "keeper"]).arg(&folder).stdin(Stdio::piped()).process_group(0);
        let group = Self { keeper: keeper.spawn().expect("a shell"), folder, first_version };
        if let Err(error) = fs::create_dir(&group.folder) {
            println!("skipped: no group can be made in {}: {error}", around.display());
            return None;
        }
        let file = if controller == "cpu" { "cpu.cfs_quota_us cpu.max" } else { "memory.limit_in_bytes memory.max" };
        if !file.split(' ').any(|file| group.folder.join(file).exists()) {
            println!("skipped: groups in {} are not given the controller {controller}", around.display());
            return None;
        }
        Some(group)
    }

    /// Makes a group inside it, to be removed with it; its folder.
    pub(crate) fn inner(&self) -> PathBuf {
        let folder = self.folder.join("inner");
        fs::create_dir(&folder).unwrap();
        folder
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Writes one of its files.
    pub(crate) fn set(&self, file: &str, value: &str) {
        fs::write(self.folder.join(file), value).unwrap_or_else(|error| panic!("{file}: {error}"));
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
        assert!(!self.folder.exists() || std::thread::panicking(), "{} is left", self.folder.display());
    }
}

/// Puts this process into a group. It is called in a child of the test.
pub(crate) fn enter(folder: &str) {
    fs::write(Path::new(folder).join("cgroup.procs"), std::process::id().to_string()).unwrap();
}

/// The folder of this process's group, where whole hierarchies are mounted; whether it is of the first version.
fn own_folder(controller: &str) -> Option<(PathBuf, bool)> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let has = |list: &str| list.split(',').any(|name| name == controller);
    let line = |wanted: &dyn Fn(&str) -> bool| {
        groups.lines().find_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            wanted(controllers).then(|| path.trim_start_matches('/').to_owned())
        })
    };
    let (path, first_version) = match line(&has) {
        Some(path) => (path, true),
        None => (line(&str::is_empty)?, false),
    };
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    mounts.lines().find_map(|line| {
        let (mount, system) = line.split_once(" - ")?;
        let (mut mount, mut system) = (mount.split(' ').skip(3), system.split(' '));
        let (root, point) = (mount.next()?, mount.next()?);
        let kind = system.next()?;
        let fits = if first_version { kind == "cgroup" && has(system.nth(1)?) } else { kind == "cgroup2" };
        (root == "/" && fits).then(|| (Path::new(point).join(&path), first_version))
    })
}
