//! The names that this process has in the file system, for a process that outlives it and removes what it has left.
//!
//! A name (of shared memory, of a socket) stays when its owner is killed. Who gives one says so here, before it is there; who keeps a
//! process that ends later, as `billiard-context` does, [observes](observe) it and tells that process. The
//! owner of a name is who has the lock ([flock(2)](https://man7.org/linux/man-pages/man2/flock.2.html)) of its file. So whoever removes it
//! looks whether it still is that file, takes its lock first, and does no harm when he knows too many names, or old ones.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
};

use crate::generation::Generation;

/// A name, and the file that it is to be of: device and inode, which a file without a name has too.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    /// Where.
    pub path: PathBuf,
    /// The file's device.
    pub device: u64,
    /// The file's inode.
    pub inode: u64,
}

/// What happens to a name that this process owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NameEvent<'a> {
    /// It is about to be given.
    Giving(&'a Name),
    /// It was removed, or is no longer to be; or could not be given.
    Done(&'a Name),
}

type Observer = Box<dyn Fn(NameEvent<'_>) + Send + Sync>;

static OBSERVER: OnceLock<Observer> = OnceLock::new();

/// Those that were given, and by which copy of the process.
static OWNED: Mutex<BTreeMap<Name, Generation>> = Mutex::new(BTreeMap::new());

fn owned() -> MutexGuard<'static, BTreeMap<Name, Generation>> {
    OWNED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tells `observer` of every name from now on, in the thread that gives or removes it. [`current`] has those from before.
///
/// There is one observer; false when there is another already.
pub fn observe(observer: impl Fn(NameEvent<'_>) + Send + Sync + 'static) -> bool {
    OBSERVER.set(Box::new(observer)).is_ok()
}

/// The names that this process has now.
#[must_use]
pub fn current() -> Vec<Name> {
    owned().iter().filter(|(_, generation)| generation.is_current()).map(|(name, _)| name.clone()).collect()
}

/// To be called before the name is there, so that no death falls in between; its file has to be locked by then.
pub fn giving(name: &Name) {
    owned().insert(name.clone(), Generation::current());
    tell(NameEvent::Giving(name));
}

/// To be called when the name is gone, or is to stay.
pub fn done(name: &Name) {
    owned().remove(name);
    tell(NameEvent::Done(name));
}

fn tell(event: NameEvent<'_>) {
    if let Some(observer) = OBSERVER.get() {
        observer(event);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn names_are_observed_and_known() {
        static SEEN: Mutex<Vec<(bool, Name)>> = Mutex::new(Vec::new());
        let name = |path: &str, inode| Name { path: path.into(), device: 1, inode };
        giving(&name("before", 1));
        let see = |event: NameEvent<'_>| match event {
            NameEvent::Giving(name) => SEEN.lock().unwrap().push((true, name.clone())),
            NameEvent::Done(name) => SEEN.lock().unwrap().push((false, name.clone())),
        };
        assert!(observe(see));
        assert!(!observe(|_| {}), "there is one already");
        giving(&name("after", 2));
        giving(&name("before", 3)); // which exists, so that it is not given
        done(&name("before", 3));
        assert_eq!(current(), [name("after", 2), name("before", 1)]);
        done(&name("before", 1));
        assert_eq!(current(), [name("after", 2)]);
        let seen = [(true, "after", 2), (true, "before", 3), (false, "before", 3), (false, "before", 1)];
        assert_eq!(*SEEN.lock().unwrap(), seen.map(|(given, path, inode)| (given, name(path, inode))));
        done(&name("after", 2));
    }
}
