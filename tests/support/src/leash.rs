//! Whether anybody is left of those who were given something.

use std::{
    io::{PipeReader, PipeWriter, Read},
    os::fd::AsRawFd,
};

/// The reading end of a pipe: it is at its end when nobody has the other one any more, neither those who were given it nor
/// whoever descends from them, wherever they have gone.
#[derive(Debug)]
pub struct Leash(PipeReader);

impl Leash {
    /// With the end that is to be given away.
    ///
    /// # Panics
    ///
    /// When there can be no pipe.
    #[must_use]
    pub fn new() -> (Self, PipeWriter) {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        (Self(reader), writer)
    }

    /// Waits until nobody is left; false when somebody is after so many seconds.
    ///
    /// # Panics
    ///
    /// When the kernel refuses to wait.
    #[must_use]
    pub fn is_loose_within(&mut self, seconds: i32) -> bool {
        loop {
            let mut polled = libc::pollfd { fd: self.0.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            // SAFETY: one entry, as said.
            match unsafe { libc::poll(&mut polled, 1, seconds * 1000) } {
                0 => return false,
                1 => {
                    // What somebody has written to it is of no interest.
                    if self.0.read(&mut [0; 64]).expect("a pipe can be read") == 0 {
                        return true;
                    }
                }
                _ => {
                    let error = std::io::Error::last_os_error();
                    assert_eq!(error.kind(), std::io::ErrorKind::Interrupted, "{error}");
                }
            }
        }
    }
}
