//! Where a process stands in the kernel's control groups: the folders that hold its limits and its counters.
//!
//! The kernel says it in two files of `/proc`: the group of a process in each hierarchy, and where hierarchies are mounted. Either
//! may be seen through a namespace, or through a mount of a part of the hierarchy; so the folder is the group's
//! path without the mount's root, beneath the mount point. [`cpus`](crate::cpus) reads quotas there, [`oom`](crate::oom)
//! counters. This module reads no limit and changes nothing. The files: [cgroups(7)](https://man7.org/linux/man-pages/man7/cgroups.7.html),
//! [proc_pid_mountinfo(5)](https://man7.org/linux/man-pages/man5/proc_pid_mountinfo.5.html).

use std::{
    ffi::OsString,
    io,
    os::unix::ffi::OsStringExt,
    path::{Component, Path, PathBuf},
};

use rustix::io::Errno;

use crate::sys;

/// Which of the kernel's two interfaces a hierarchy has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    V1,
    V2,
}

/// The folder of a process's group in one hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) version: Version,
    folder: PathBuf,
    mount_point: PathBuf,
}

impl Place {
    /// The group's folder and those of the groups around it, as far as this process sees them, the group's own first.
    pub(crate) fn upwards(&self) -> impl Iterator<Item = &Path> {
        self.folder.ancestors().take_while(|folder| folder.starts_with(&self.mount_point))
    }
}

/// What the kernel says of a process.
#[derive(Clone, Debug, Default)]
pub(crate) struct Texts {
    /// `/proc/self/mountinfo`
    pub(crate) mountinfo: Vec<u8>,
    /// `/proc/<pid>/cgroup`
    pub(crate) cgroup: Vec<u8>,
}

impl Texts {
    /// Of a process, of this one by default. An error with the file that cannot be read: there is no `/proc`, or no such process.
    pub(crate) fn read(process: Option<u32>) -> Result<Self, (PathBuf, io::Error)> {
        let mounts = Path::new("/proc/self/mountinfo");
        let mountinfo = sys::read(mounts).map_err(|source| (mounts.to_owned(), source))?;
        let groups = match process {
            None => PathBuf::from("/proc/self/cgroup"),
            Some(pid) => PathBuf::from(format!("/proc/{pid}/cgroup")),
        };
        let cgroup = match sys::read(&groups) {
            // A kernel that was built without groups.
            Err(error) if error.kind() == io::ErrorKind::NotFound && process.is_none() => Vec::new(),
            read => read.map_err(|source| (groups, source))?,
        };
        Ok(Self { mountinfo, cgroup })
    }

    /// Where the process stands in the hierarchy that has this controller; `None` where that cannot be seen from here. `root`
    /// is `/`, or for tests the folder that stands for it.
    pub(crate) fn place(&self, root: &Path, controller: &str) -> Option<Place> {
        let (version, group) = self.group(controller)?;
        let mounts = self.mountinfo.split(|&byte| byte == b'\n').filter_map(Mount::parse);
        let mut places: Vec<(usize, Place)> = mounts
            .filter(|mount| mount.has(version, controller))
            .filter_map(|mount| {
                let below = group.strip_prefix(&mount.root).ok()?;
                // A group beside this namespace's own has `..` in its path: the folder above a mount point is no group's.
                if below.components().any(|part| !matches!(part, Component::Normal(_))) {
                    return None;
                }
                let mount_point = root.join(mount.point.strip_prefix("/").ok()?);
                let folder = if below.as_os_str().is_empty() { mount_point.clone() } else { mount_point.join(below) };
                Some((mount.root.components().count(), Place { version, folder, mount_point }))
            })
            .filter(|(_, place)| !place.folder.symlink_metadata().is_err_and(|error| is_missing(&error)))
            .collect();
        // Several mounts may show the group: the one that shows most of what is around it, then the one mounted last.
        places.reverse();
        places.into_iter().min_by_key(|(depth, _)| *depth).map(|(_, place)| place)
    }

    /// The group in the hierarchy that has this controller: a controller is in one only, the second version's if it was given to no
    /// other.
    fn group(&self, controller: &str) -> Option<(Version, PathBuf)> {
        let mut second = None;
        for line in self.cgroup.split(|&byte| byte == b'\n') {
            let mut fields = line.splitn(3, |&byte| byte == b':');
            let (Some(number), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
                continue;
            };
            let path = PathBuf::from(OsString::from_vec(path.to_vec()));
            if controllers.split(|&byte| byte == b',').any(|name| name == controller.as_bytes()) {
                return Some((Version::V1, path));
            }
            if number == b"0" && controllers.is_empty() {
                second = Some((Version::V2, path));
            }
        }
        second
    }
}

/// Whether a file, or the group that it belongs to, is not there. A group can be removed while its file is open.
pub(crate) fn is_missing(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOENT | Errno::NOTDIR | Errno::NODEV))
}

/// A line of `mountinfo`.
struct Mount<'a> {
    /// What of the file system is mounted.
    root: PathBuf,
    point: PathBuf,
    kind: &'a [u8],
    options: &'a [u8],
}

impl<'a> Mount<'a> {
    /// `id parent device root point options tags… - kind source options`
    fn parse(line: &'a [u8]) -> Option<Self> {
        let fields: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
        let dash = fields.iter().skip(6).position(|&field| field == b"-")? + 6;
        Some(Self {
            root: unescape(fields[3]),
            point: unescape(fields[4]),
            kind: fields.get(dash + 1)?,
            options: fields.get(dash + 3)?,
        })
    }

    fn has(&self, version: Version, controller: &str) -> bool {
        match version {
            Version::V1 => {
                self.kind == b"cgroup"
                    && self.options.split(|&byte| byte == b',').any(|option| option == controller.as_bytes())
            }
            Version::V2 => self.kind == b"cgroup2",
        }
    }
}

/// Blanks, line ends and backslashes are written as a backslash and three octal digits.
fn unescape(field: &[u8]) -> PathBuf {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, behind @ ..] = rest {
        match rest {
            [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', behind @ ..] => {
                plain.push(((a - b'0') << 6) | ((b - b'0') << 3) | (c - b'0'));
                rest = behind;
            }
            _ => {
                plain.push(*first);
                rest = behind;
            }
        }
    }
    OsString::from_vec(plain).into()
}

/// A folder that stands for `/` in the tests of this crate, with the files of a machine that they describe.
#[cfg(test)]
pub(crate) mod fixture {
    use std::{fs, path::Path};

    use super::Texts;
    use crate::TempDir;

    /// A machine.
    #[derive(Debug)]
    pub(crate) struct Machine {
        root: TempDir,
        pub(crate) texts: Texts,
    }

    impl Machine {
        /// With these texts and, by path from the root, these files.
        pub(crate) fn new(mountinfo: &str, cgroup: &str, files: &[(&str, &str)]) -> Self {
            let root = TempDir::new().unwrap();
            for (path, contents) in files {
                let path = root.path().join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, contents).unwrap();
            }
            Self { root, texts: Texts { mountinfo: mountinfo.into(), cgroup: cgroup.into() } }
        }

        pub(crate) fn root(&self) -> &Path {
            self.root.path()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{fixture::Machine, *};

    /// Where the machine's process stands: the version, then its folder and those above, as paths from the root.
    fn upwards(machine: &Machine, controller: &str) -> Option<(Version, Vec<String>)> {
        let place = machine.texts.place(machine.root(), controller)?;
        let folders = place.upwards().map(|folder| folder.strip_prefix(machine.root()).unwrap());
        Some((place.version, folders.map(|folder| folder.display().to_string()).collect()))
    }

    fn found(version: Version, folders: &[&str]) -> Option<(Version, Vec<String>)> {
        Some((version, folders.iter().map(|&folder| folder.to_owned()).collect()))
    }

    const V2: &str = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
    const V1: &str = "22 27 0:21 / /proc rw - proc proc rw\n\
        32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:5 master:2 - cgroup cgroup rw,cpu,cpuacct\n\
        33 31 0:30 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n";

    #[test]
    fn the_second_version_has_one_hierarchy_for_all() {
        let machine = Machine::new(V2, "0::/a.slice/b c.service\n", &[("sys/fs/cgroup/a.slice/b c.service/x", "")]);
        let folders = ["sys/fs/cgroup/a.slice/b c.service", "sys/fs/cgroup/a.slice", "sys/fs/cgroup"];
        assert_eq!(upwards(&machine, "cpu"), found(Version::V2, &folders));
    }

    #[test]
    fn the_first_version_has_a_hierarchy_for_some_controllers() {
        let groups = "12:cpuset:/one\n4:cpu,cpuacct:/two:2/three\n1:name=cpu:/four\n";
        let files = [("sys/fs/cgroup/cpu,cpuacct/two:2/three/x", ""), ("sys/fs/cgroup/cpuset/one/x", "")];
        let machine = Machine::new(V1, groups, &files);
        let folders =
            ["sys/fs/cgroup/cpu,cpuacct/two:2/three", "sys/fs/cgroup/cpu,cpuacct/two:2", "sys/fs/cgroup/cpu,cpuacct"];
        assert_eq!(upwards(&machine, "cpu"), found(Version::V1, &folders));
        assert_eq!(upwards(&machine, "cpuset").unwrap().1[0], "sys/fs/cgroup/cpuset/one");
        assert_eq!(upwards(&machine, "memory"), None);
    }

    #[test]
    fn with_both_versions_a_controller_is_where_it_was_given_to() {
        let mounts = format!("{V1}40 31 0:40 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n");
        let files = [("sys/fs/cgroup/cpu,cpuacct/x/y", ""), ("sys/fs/cgroup/unified/z/y", "")];
        let machine = Machine::new(&mounts, "4:cpu,cpuacct:/x\n0::/z\n", &files);
        assert_eq!(
            upwards(&machine, "cpu"),
            found(Version::V1, &["sys/fs/cgroup/cpu,cpuacct/x", "sys/fs/cgroup/cpu,cpuacct"])
        );
        assert_eq!(
            upwards(&machine, "memory"),
            found(Version::V2, &["sys/fs/cgroup/unified/z", "sys/fs/cgroup/unified"])
        );
    }

    #[test]
    fn a_container_that_sees_its_own_part_finds_itself() {
        let mounts = "32 31 0:29 /docker/abc /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu\n";
        let machine = Machine::new(mounts, "4:cpu:/docker/abc\n", &[("sys/fs/cgroup/cpu/x", "")]);
        assert_eq!(upwards(&machine, "cpu"), found(Version::V1, &["sys/fs/cgroup/cpu"]));
        let machine = Machine::new(mounts, "4:cpu:/docker/abc/d\n", &[("sys/fs/cgroup/cpu/d/x", "")]);
        assert_eq!(upwards(&machine, "cpu"), found(Version::V1, &["sys/fs/cgroup/cpu/d", "sys/fs/cgroup/cpu"]));
        // The same letters are not the same group.
        let machine = Machine::new(mounts, "4:cpu:/docker/abcd\n", &[("sys/fs/cgroup/cpu/d/x", "")]);
        assert_eq!(upwards(&machine, "cpu"), None);
    }

    #[test]
    fn groups_outside_the_namespace_are_found_where_a_mount_shows_them_only() {
        let files = [("sys/fs/cgroup/b/x", ""), ("sys/fs/b/x", "")];
        let machine = Machine::new(V2, "0::/../b\n", &files);
        assert_eq!(upwards(&machine, "cpu"), None, "the folder above the mount point is another thing");
        let mounts = V2.replace(" / /sys", " /.. /sys");
        let machine = Machine::new(&mounts, "0::/../b\n", &files);
        assert_eq!(upwards(&machine, "cpu"), found(Version::V2, &["sys/fs/cgroup/b", "sys/fs/cgroup"]));
        let machine = Machine::new(&mounts, "0::/../../b\n", &files);
        assert_eq!(upwards(&machine, "cpu"), None);
    }

    #[test]
    fn of_several_mounts_the_one_that_shows_most_counts() {
        let mounts = "1 0 0:1 /a/b /part rw - cgroup2 none rw\n2 0 0:1 / /first rw - cgroup2 none rw\n\
            3 0 0:1 / /last rw - cgroup2 none rw\n4 0 0:1 / /gone rw - cgroup2 none rw\n";
        let files = [("part/x", ""), ("first/a/b/x", ""), ("last/a/b/x", "")];
        let machine = Machine::new(mounts, "0::/a/b\n", &files);
        assert_eq!(upwards(&machine, "cpu"), found(Version::V2, &["last/a/b", "last/a", "last"]));
    }

    #[test]
    fn odd_characters_are_read_as_they_are() {
        assert_eq!(unescape(br"/a\040b\011c\012d\134e\043"), Path::new("/a b\tc\nd\\e#"));
        assert_eq!(unescape(br"/a\04"), Path::new(r"/a\04"), "not an escape");
        assert_eq!(unescape(br"\\777\"), Path::new(r"\\777\"), "not one either");
        let mounts = "30 23 0:26 / /odd\\040place\\134 rw - cgroup2  rw\n";
        let machine = Machine::new(mounts, "0::/ä - b\n", &[("odd place\\/ä - b/x", "")]);
        assert_eq!(upwards(&machine, "cpu"), found(Version::V2, &["odd place\\/ä - b", "odd place\\"]));
    }

    #[test]
    fn broken_lines_are_passed_over() {
        let mounts =
            format!("\n1\n1 2 3 4 5 6 -\n1 2 3 4 5 6 - cgroup2\n1 2 3 / sys rw - cgroup2 none rw\n - - - - -\n{V2}");
        let machine = Machine::new(&mounts, "\n0\n0:\n:::\n0::/a", &[("sys/fs/cgroup/a/x", "")]);
        assert_eq!(upwards(&machine, "cpu"), found(Version::V2, &["sys/fs/cgroup/a", "sys/fs/cgroup"]));
        assert_eq!(upwards(&Machine::new("", "", &[]), "cpu"), None);
    }

    #[test]
    fn this_process_and_a_missing_one() {
        let texts = Texts::read(None).unwrap();
        assert!(!texts.mountinfo.is_empty());
        let (path, error) = Texts::read(Some(u32::MAX)).unwrap_err();
        assert_eq!((path.to_str(), error.kind()), (Some("/proc/4294967295/cgroup"), io::ErrorKind::NotFound));
    }
}
