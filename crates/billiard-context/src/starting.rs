//! A process that was asked for and of which nothing was heard yet.

use std::{
    fmt,
    marker::PhantomData,
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
    time::{Duration, Instant},
};

use billiard_connection::{Connection, FrameReader, Mode};

use crate::{
    Error,
    guardian::Guardian,
    process::{Last, Process},
    protocol::{FIRST, Report},
    sys,
};

/// How long a start may take before it is given up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A process that was asked for: it is being made, or waits for that.
///
/// For event loops, which may not wait: its [`status_fd`](Starting::status_fd) is readable when [`poll`](Starting::poll) has something to say.
/// Dropping it gives the start up: the process is not made, or ends before its function is called.
pub struct Starting<R = ()> {
    /// None once it has become a process.
    pending: Option<Pending>,
    result: PhantomData<fn() -> R>,
}

/// All that a process has before it has a pid.
pub(crate) struct Pending {
    pub(crate) name: String,
    pub(crate) daemon: bool,
    pub(crate) report: Connection,
    pub(crate) reader: FrameReader,
    pub(crate) guardian: Arc<Guardian>,
    /// A child that cannot be set up may say so before the guardian has said that it exists.
    pub(crate) ended: Option<Last>,
}

impl<R> Starting<R> {
    pub(crate) fn new(name: String, daemon: bool, report: Connection, guardian: Arc<Guardian>) -> Self {
        let pending = Pending { name, daemon, report, reader: FrameReader::new(), guardian, ended: None };
        Self { pending: Some(pending), result: PhantomData }
    }

    /// The process, if it exists by now; never waits. `None` too once the process was given.
    ///
    /// # Errors
    ///
    /// [`Error::Start`] when the kernel can make no process, [`Error::GuardianDied`] when the helper process died meanwhile.
    pub fn poll(&mut self) -> Result<Option<Process<R>>, Error> {
        while let Some(pending) = &mut self.pending {
            // Before looking into the channel: what a dead guardian said is all there by then.
            let last = pending.guardian.is_dead();
            let said = match pending.reader.read(&pending.report, Mode::DontWait) {
                Ok(None) if last => return Err(Error::GuardianDied),
                Ok(None) => return Ok(None),
                Ok(Some(frame)) => frame.decode_prefix(),
                Err(error) => Err(error),
            };
            match said {
                Ok((Report::Started(pid), _, mut received)) => {
                    let pidfd = received.take(FIRST).map_err(|_| Error::GuardianDied)?;
                    // It may run. If it has ended by now, its status says so.
                    let _ = pending.report.send_bytes(&[]);
                    return Ok(self.pending.take().map(|pending| Process::new(pending, pid, pidfd)));
                }
                Ok((Report::Ended(body), behind, received)) => pending.ended = Some(Last { body, behind, received }),
                // Without its pidfd it cannot be watched, and it does not run before it is.
                Err(error @ billiard_connection::Error::DescriptorsLost) => return Err(error.into()),
                Ok((Report::NotStarted(what, errno), ..)) => {
                    return Err(Error::Start { what, source: std::io::Error::from_raw_os_error(errno) });
                }
                // It died, or could make nothing of the request.
                Ok((Report::Exited(_), ..)) | Err(_) => return Err(Error::GuardianDied),
            }
        }
        Ok(None)
    }

    /// Waits until the process exists.
    ///
    /// # Errors
    ///
    /// As [`poll`](Self::poll); [`Error::GuardianSilent`] after a minute.
    pub fn wait(mut self) -> Result<Process<R>, Error> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(process) = self.poll()? {
                return Ok(process);
            }
            let Some(pending) = &self.pending else { return Err(Error::GuardianSilent) };
            if Instant::now() >= deadline {
                return Err(Error::GuardianSilent);
            }
            sys::wait_readable([pending.report.as_fd(), pending.guardian.as_fd()], Some(deadline))?;
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.pending.as_ref().map_or("", |pending| &pending.name)
    }

    /// The descriptor to watch, which stays the same once it has become a [`Process`]: its
    /// [`status_fd`](Process::status_fd). `None` once the process was given.
    #[must_use]
    pub fn status_fd(&self) -> Option<BorrowedFd<'_>> {
        self.pending.as_ref().map(|pending| pending.report.as_fd())
    }
}

impl<R> fmt::Debug for Starting<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Starting").field("name", &self.name()).finish_non_exhaustive()
    }
}
