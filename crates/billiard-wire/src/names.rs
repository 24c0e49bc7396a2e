//! The names that this process has in the file system, for a process that outlives it and removes what it has left.
//!
//! A name (of shared memory, of a socket) stays when its owner is killed. Who gives one says so here, before it is there; who keeps a
//! process that ends later, as `billiard-context` does, [observes](observe) it and tells that process. The
//! owner of a name is who has the lock ([flock(2)](https://man7.org/linux/man-pages/man2/flock.2.html)) of its file. So whoever removes it
//! takes that lock first, and does no harm when he knows too many names, or old ones.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
};

use crate::generation::Generation;

/// What happens to a name that this process owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NameEvent<'a> {
    /// It is about to be given.
    Giving(&'a Path),
    /// It was removed, or is no longer to be; or could not be given.
    Done(&'a Path),
}

type Observer = Box<dyn Fn(NameEvent<'_>) + Send + Sync>;

static OBSERVER: OnceLock<Observer> = OnceLock::new();

/// Those that were given, and by which copy of the process.
static OWNED: Mutex<BTreeMap<PathBuf, Generation>> = Mutex::new(BTreeMap::new());

fn owned() -> MutexGuard<'static, BTreeMap<PathBuf, Generation>> {
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
pub fn current() -> Vec<PathBuf> {
    owned().iter().filter(|(_, generation)| generation.is_current()).map(|(path, _)| path.clone()).collect()
}

/// To be called before the name is there, so that no death falls in between; its file has to be locked by then.
pub fn giving(path: &Path) {
    owned().insert(path.to_owned(), Generation::current());
    tell(NameEvent::Giving(path));
}

/// To be called when the name is gone, or is to stay.
pub fn done(path: &Path) {
    owned().remove(path);
    tell(NameEvent::Done(path));
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
        static SEEN: Mutex<Vec<(bool, PathBuf)>> = Mutex::new(Vec::new());
        giving(Path::new("before"));
        let see = |event: NameEvent<'_>| match event {
            NameEvent::Giving(path) => SEEN.lock().unwrap().push((true, path.to_owned())),
            NameEvent::Done(path) => SEEN.lock().unwrap().push((false, path.to_owned())),
        };
        assert!(observe(see));
        assert!(!observe(|_| {}), "there is one already");
        giving(Path::new("after"));
        assert_eq!(current(), [Path::new("after"), Path::new("before")]);
        done(Path::new("before"));
        assert_eq!(current(), [Path::new("after")]);
        assert_eq!(*SEEN.lock().unwrap(), [(true, "after".into()), (false, "before".into())]);
        done(Path::new("after"));
    }
}
