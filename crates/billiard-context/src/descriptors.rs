//! Closing every descriptor but some, and how many there may be.
//!
//! Children of this crate need neither: they get what they were given and nothing else. It is for a process that
//! was forked or executed by other means, and for one that turns itself into a service.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

use rustix::io::Errno;
use thiserror::Error;

use crate::sys;

/// Closes every descriptor of this process except `keep`: 0, 1 and 2 as well, unless they are named.
///
/// Where [`close_range(2)`](https://man7.org/linux/man-pages/man2/close_range.2.html) is missing or forbidden, it closes what
/// `/proc/self/fd` lists. What other threads open meanwhile may be closed or not.
///
/// # Errors
///
/// [`CloseError`] when neither way is open; then nothing was closed.
///
/// # Safety
///
/// Whatever owns one of the other descriptors, in this thread or another, must not use it any more, its destructor included: the
/// number may be another's by then. That is so at the start of a forked child that goes on to execute a program or to `_exit`. It is
/// also so for descriptors that nobody in this process knows of: those that it inherited.
///
/// ```no_run
/// use std::os::fd::AsFd;
///
/// // SAFETY: the first line of `main`: what is open beside the standard streams was inherited by accident.
/// unsafe {
///     billiard_context::close_fds_except(&[std::io::stdin().as_fd(), std::io::stdout().as_fd(), std::io::stderr().as_fd()])
/// }
/// .expect("close_range or /proc");
/// ```
pub unsafe fn close_fds_except(keep: &[BorrowedFd<'_>]) -> Result<(), CloseError> {
    let mut keep: Vec<u32> = keep.iter().map(|fd| fd.as_raw_fd().cast_unsigned()).collect();
    keep.sort_unstable();
    let mut first = 0;
    // The last gap ends with the largest number there is, which is never one of a descriptor.
    for next in keep.iter().copied().chain([u32::MAX]) {
        if first < next {
            // SAFETY: the caller's promise, for all numbers that are not in `keep`.
            match unsafe { sys::close_range(first, next - 1) } {
                Err(error) if matches!(Errno::from_io_error(&error), Some(Errno::NOSYS | Errno::PERM)) => {
                    // SAFETY: as above.
                    return unsafe { close_listed(&keep) };
                }
                result => result.map_err(|source| CloseError { call: "close_range", source })?,
            }
        }
        first = next.saturating_add(1);
    }
    Ok(())
}

/// As [`close_fds_except`], one by one; `keep` is sorted.
///
/// # Safety
///
/// The same.
unsafe fn close_listed(keep: &[u32]) -> Result<(), CloseError> {
    let open = sys::open_numbers().map_err(|source| CloseError { call: "reading /proc/self/fd", source })?;
    for number in open.into_iter().filter(|number| keep.binary_search(number).is_err()) {
        // SAFETY: the caller's promise.
        unsafe { sys::close(number) };
    }
    Ok(())
}

/// The descriptors could not be closed.
#[derive(Debug, Error)]
#[error("descriptors cannot be closed: {call} failed; allow `close_range`, or mount `/proc`")]
pub struct CloseError {
    call: &'static str,
    source: io::Error,
}

/// How many descriptors this process may have open at a time: the soft limit
/// [`RLIMIT_NOFILE`](https://man7.org/linux/man-pages/man2/getrlimit.2.html). `None` where there is no limit.
///
/// A descriptor opened before the limit was lowered may have a larger number.
///
/// ```
/// assert!(billiard_context::max_fds().is_none_or(|most| most > 3));
/// ```
#[must_use]
pub fn max_fds() -> Option<u64> {
    sys::descriptor_limit()
}
