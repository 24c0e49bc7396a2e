//! Which of many are ready.

use std::{
    os::fd::AsFd,
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags, Timespec};

use crate::{Error, sys};

/// Waits until at least one of `sources` can be read without waiting, and returns the indices of all that can, in order.
///
/// A source is ready when a message (or its beginning) has come, or when its other end is closed;
/// for a process's sentinel, when the process has ended. Nothing is consumed. `None` waits for ever,
/// a timeout of zero only looks; an empty list means that the time ran out. With no sources and no
/// timeout there is nothing to wait for: the list is empty at once. Signals do not end the wait.
///
/// # Errors
///
/// [`Error::Io`] when the kernel refuses, which includes more sources than the process may have open files.
///
/// ```
/// use std::time::Duration;
///
/// use billiard_connection::{Connection, wait};
///
/// let (left, right) = Connection::pair()?;
/// assert!(wait(&[&left, &right], Some(Duration::ZERO))?.is_empty());
/// left.send_bytes(b"ready")?;
/// assert_eq!(wait(&[&left, &right], None)?, [1]);
/// # Ok::<(), billiard_connection::Error>(())
/// ```
pub fn wait<S: AsFd>(sources: &[S], timeout: Option<Duration>) -> Result<Vec<usize>, Error> {
    if sources.is_empty() && timeout.is_none() {
        return Ok(Vec::new());
    }
    let mut fds: Vec<PollFd<'_>> = sources.iter().map(|source| PollFd::new(source, PollFlags::IN)).collect();
    // A deadline beyond what the clock can hold is as good as none.
    let deadline = timeout.map(|timeout| Instant::now().checked_add(timeout));
    loop {
        let left = deadline.flatten().map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let timespec = left.map(|left| Timespec::try_from(left).unwrap_or(Timespec { tv_sec: i64::MAX, tv_nsec: 0 }));
        if sys::poll(&mut fds, timespec.as_ref())? > 0 {
            return Ok((0..fds.len()).filter(|&i| !fds[i].revents().is_empty()).collect());
        }
        if left == Some(Duration::ZERO) {
            return Ok(Vec::new());
        }
    }
}
