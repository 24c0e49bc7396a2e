//! Every system call of this crate, each behind a fault point.

mod machine;
mod others;
mod own;

use std::{
    fs::File,
    io::{self, Seek, Write},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::{FileExt, MetadataExt},
    },
    time::{Duration, Instant},
};

use billiard_wire::fault;
use rustix::{
    event::{PollFd, PollFlags, Timespec},
    fs::{MemfdFlags, SealFlags},
};

pub(crate) use self::{machine::*, others::*, own::*};
use crate::Error;

fn faulty(name: &'static str) -> io::Result<()> {
    fault::errno(name).map_err(io::Error::from_raw_os_error)
}

fn named<T>(call: &'static str, result: io::Result<T>) -> Result<T, Error> {
    result.map_err(|source| Error::Io { call, source })
}

/// Waits until one of `fds` is readable or at its end, at most until `deadline`; which are.
pub(crate) fn wait_readable<const N: usize>(
    fds: [BorrowedFd<'_>; N],
    deadline: Option<Instant>,
) -> Result<[bool; N], Error> {
    let mut polled = fds.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let timeout = left.map(|left| Timespec::try_from(left).unwrap_or(Timespec { tv_sec: i64::MAX, tv_nsec: 0 }));
        let result = faulty("sys.context.ppoll").and_then(|()| Ok(rustix::event::poll(&mut polled, timeout.as_ref())?));
        match result {
            Ok(0) if left != Some(Duration::ZERO) => {}
            Ok(_) => return Ok(polled.each_ref().map(|fd| !fd.revents().is_empty())),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(source) => return Err(Error::Io { call: "ppoll", source }),
        }
    }
}

/// Waits until `fd` has room or `ended` is readable, at most until `deadline`.
pub(crate) fn wait_room(fd: BorrowedFd<'_>, ended: BorrowedFd<'_>, deadline: Instant) {
    let left = deadline.saturating_duration_since(Instant::now());
    let mut polled = [PollFd::from_borrowed_fd(fd, PollFlags::OUT), PollFd::from_borrowed_fd(ended, PollFlags::IN)];
    if let Ok(left) = Timespec::try_from(left) {
        let _ = rustix::event::poll(&mut polled, Some(&left)); // the caller looks again, whatever it says
    }
}

/// Whether `fd` is readable or at its end now.
pub(crate) fn is_readable(fd: BorrowedFd<'_>) -> bool {
    wait_readable([fd], Some(Instant::now())).is_ok_and(|[ready]| ready)
}

/// Whether it is an end of a socket whose other end is closed.
pub(crate) fn is_abandoned(fd: BorrowedFd<'_>) -> bool {
    let mut polled = [PollFd::from_borrowed_fd(fd, PollFlags::empty())];
    let looked = rustix::event::poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
    looked.is_ok() && polled[0].revents().contains(PollFlags::HUP) && maker_of(fd).is_some()
}

/// A memory file with these contents that nobody can change any more.
pub(crate) fn sealed_file(contents: &[u8]) -> io::Result<File> {
    faulty("sys.context.memfd_create")?;
    let mut file = File::from(rustix::fs::memfd_create("billiard", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?);
    file.write_all(contents)?;
    file.rewind()?;
    rustix::fs::fcntl_add_seals(
        file.as_fd(),
        SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL,
    )?;
    Ok(file)
}

/// All of a file that was made by [`sealed_file`].
pub(crate) fn read_sealed(file: &File) -> io::Result<Vec<u8>> {
    if !rustix::fs::fcntl_get_seals(file)?.contains(SealFlags::SHRINK | SealFlags::WRITE) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the memory file is not sealed"));
    }
    let described = file.metadata()?;
    // One that was written has all that it says; one that was made to look large does not, and the memory for it need not exist.
    if described.blocks().saturating_mul(512) < described.len() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the memory file has holes"));
    }
    let len = usize::try_from(described.len()).map_err(|_| io::ErrorKind::OutOfMemory)?;
    let mut contents = Vec::new();
    contents.try_reserve_exact(len).map_err(|_| io::ErrorKind::OutOfMemory)?;
    contents.resize(len, 0);
    file.read_exact_at(&mut contents, 0)?;
    Ok(contents)
}
