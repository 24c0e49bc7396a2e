//! Names in `/dev/shm`: who owns one, and who removes it.
//!
//! The owner holds a lock ([flock(2)](https://man7.org/linux/man-pages/man2/flock.2.html)) on the file, through the descriptor that made it, from
//! before the file has its name until after it has none. A killed owner's lock is free. Unlike a record lock, it is not
//! lost when the same process opens and closes its own memory by name; and a child forked by hand, which has the descriptor too,
//! keeps it: then the name stays until that child has ended as well.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use billiard_wire::{fault, generation::Generation, names};

use super::NamedError;
use crate::sys;

/// What every random name begins with; 16 hexadecimal digits follow.
const PREFIX: &str = "billiard-";

/// The longest name of a file.
const MAX: usize = 255;

/// A name that nobody has.
pub(super) fn random() -> Result<String, NamedError> {
    Ok(format!("{PREFIX}{:016x}", sys::random()?))
}

/// Whether it could be one that [`random`] has made.
pub(super) fn is_random(name: &str) -> bool {
    let digits = name.strip_prefix(PREFIX).unwrap_or_default();
    digits.len() == 16 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The name without its slash, if it can be one.
pub(super) fn checked(name: &str) -> Result<String, NamedError> {
    let bare = name.strip_prefix('/').unwrap_or(name);
    let is_good = (1..=MAX).contains(&bare.len()) && !bare.contains(['/', '\0']) && bare != "." && bare != "..";
    if is_good { Ok(bare.to_owned()) } else { Err(NamedError::BadName(name.to_owned())) }
}

/// Removes the random names of this user whose owners are gone, and returns how many those were.
///
/// [`NamedMemory::create`](super::NamedMemory::create) calls it. What cannot be looked at is left alone.
pub fn sweep() -> usize {
    let Ok(folder) = std::fs::read_dir(sys::NAMES) else { return 0 };
    let names = folder.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| is_random(name) && sweep_one(name)).count()
}

/// Removes the name if its owner is gone. The file's lock is held meanwhile, so that of many who sweep one does it; and nobody
/// who lives gives the same random name again.
pub(super) fn sweep_one(name: &str) -> bool {
    let Ok(Some(fd)) = sys::open_name(name, true) else { return false };
    let is_ours = |info: sys::FileInfo| info.is_regular && info.owner == sys::user();
    let Ok(info) = sys::info(fd.as_fd()) else { return false };
    if !is_ours(info) || !sys::try_own(fd.as_fd()).unwrap_or(false) {
        return false;
    }
    fault::point("shm.named.swept");
    // Another may have removed it before we had the lock.
    sys::identity_of_name(name) == Some(info.identity) && sys::remove_name(name).unwrap_or(false)
}

/// The name of that file, as others are told of it.
fn told(name: &str, file: BorrowedFd<'_>) -> Result<names::Name, sys::Failed> {
    let sys::FileIdentity { device, inode } = sys::info(file)?.identity;
    Ok(names::Name { path: sys::path_of(name), device, inode })
}

/// A name, and the descriptor whose lock says that it has an owner.
#[derive(Debug)]
pub(super) struct Name {
    name: String,
    owner: Option<Owner>,
}

#[derive(Debug)]
struct Owner {
    /// Open for as long as the name is owned.
    lock: OwnedFd,
    generation: Generation,
}

impl Name {
    /// Gives the file its name, and makes this process its owner.
    pub(super) fn give(name: String, file: OwnedFd) -> Result<Self, NamedError> {
        let told = told(&name, file.as_fd())?;
        names::giving(&told);
        match sys::give_name(file.as_fd(), &name) {
            Ok(true) => Ok(Self { name, owner: Some(Owner { lock: file, generation: Generation::current() }) }),
            Ok(false) => {
                names::done(&told);
                Err(NamedError::Exists(name))
            }
            Err(error) => {
                names::done(&told);
                Err(error.into())
            }
        }
    }

    /// The file of that name, which is somebody else's.
    pub(super) fn find(name: String, writable: bool) -> Result<(Self, OwnedFd), NamedError> {
        match sys::open_name(&name, writable)? {
            Some(fd) => Ok((Self { name, owner: None }, fd)),
            None => Err(NamedError::NotFound(name)),
        }
    }

    pub(super) fn as_str(&self) -> &str {
        &self.name
    }

    /// Removes it, whoever owns it.
    pub(super) fn remove(&mut self) -> Result<(), NamedError> {
        let removed = sys::remove_name(&self.name)?;
        self.disown();
        if removed { Ok(()) } else { Err(NamedError::NotFound(self.name.clone())) }
    }

    /// Leaves it where it is.
    pub(super) fn keep(&mut self) {
        self.disown();
    }

    fn disown(&mut self) {
        if let Some(owner) = self.owner.take()
            && let Ok(told) = told(&self.name, owner.lock.as_fd())
        {
            names::done(&told);
        }
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        let Some(owner) = &self.owner else { return };
        // Not in a copy of the process: the name is that of the one who made it. And not when somebody has removed it, and
        // another has given the same since.
        let is_ours = |info: sys::FileInfo| sys::identity_of_name(&self.name) == Some(info.identity);
        if owner.generation.is_current() && sys::info(owner.lock.as_fd()).is_ok_and(is_ours) {
            let _ = self.remove();
        } else if owner.generation.is_current() {
            self.disown();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        assert_eq!(checked("/psm_1").unwrap(), "psm_1");
        for bad in ["", "/", "a/b", "//a", "..", ".", "a\0b", &"n".repeat(256)] {
            assert!(matches!(checked(bad), Err(NamedError::BadName(_))), "{bad:?}");
        }
        assert!(checked(&"n".repeat(255)).is_ok());
        assert!(is_random(&random().unwrap()));
        for other in [
            "billiard-",
            "billiard-12345678",
            "psm_12345678",
            "billiard-0123456789abcdeg",
            "billiard-0123456789abcdef0",
        ] {
            assert!(!is_random(other), "{other}");
        }
    }
}
