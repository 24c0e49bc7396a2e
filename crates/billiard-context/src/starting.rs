//! A process that was asked for and of which nothing was heard yet.

use std::{
    fmt,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
    time::{Duration, Instant},
};

use billiard_connection::{Connection, Mode};
use billiard_wire::generation::Generation;

use crate::{
    Error, Signal,
    children::Identity,
    guardian::Guardian,
    options::Pipes,
    process::{Heard, Keeper, Last, Process},
    protocol::{FIRST, Go, Report},
    sys,
};

/// How long a start may take before it is given up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A process that was asked for: it is being made, or waits for that.
///
/// For event loops, which may not wait: its [`status_fd`](Starting::status_fd) is readable when [`poll`](Starting::poll) has something to say. One
/// that was [forked](crate::Context::fork) exists at once: poll first.
/// Dropping it gives the start up: the process is not made, or ends before its function is called. In a copy of this process, made
/// by a fork, it is [`Error::Forked`].
#[must_use = "dropping it gives the start up"]
pub struct Starting<R = ()> {
    state: State<R>,
    /// The process that has asked for it.
    generation: Generation,
}

enum State<R> {
    /// The guardian was asked.
    Asked(Pending),
    /// It exists, and waits for the word to run.
    Made(Process<R>, Go),
    /// It was given.
    Given,
}

/// All that a process has before it has a pid.
pub(crate) struct Pending {
    pub(crate) name: String,
    pub(crate) daemon: bool,
    pub(crate) term_signal: Signal,
    pub(crate) pipes: Pipes,
    pub(crate) report: Connection,
    pub(crate) guardian: Arc<Guardian>,
    pub(crate) key: u64,
    pub(crate) go: Go,
    pub(crate) heard: Heard,
}

impl Pending {
    fn into_process<R>(self, pid: u32, pidfd: OwnedFd) -> Process<R> {
        let identity = Identity::new(self.name, self.daemon, pid, pidfd, self.term_signal, Some(&self.guardian));
        let keeper = Keeper::Guardian(self.guardian, self.key);
        Process::new(identity, self.report, keeper, self.pipes, self.heard)
    }
}

impl<R> Starting<R> {
    pub(crate) fn asked(pending: Pending) -> Self {
        Self { state: State::Asked(pending), generation: Generation::current() }
    }

    pub(crate) fn made(process: Process<R>, go: Go) -> Self {
        Self { state: State::Made(process, go), generation: Generation::current() }
    }

    /// The process, if it exists by now; never waits. `None` too once the process was given.
    ///
    /// # Errors
    ///
    /// [`Error::Start`] when the kernel can make no process, [`Error::GuardianDied`] when the helper process died meanwhile,
    /// [`Error::Forked`] in a copy of its starter.
    pub fn poll(&mut self) -> Result<Option<Process<R>>, Error> {
        self.generation.check_current()?;
        let (process, go) = match std::mem::replace(&mut self.state, State::Given) {
            State::Given => return Ok(None),
            State::Made(process, go) => (process, go),
            State::Asked(mut pending) => match pending.hear()? {
                Some((pid, pidfd)) => {
                    let go = pending.go;
                    (pending.into_process(pid, pidfd), go)
                }
                None => {
                    self.state = State::Asked(pending);
                    return Ok(None);
                }
            },
        };
        process.let_run(go);
        Ok(Some(process))
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
            let State::Asked(pending) = &self.state else { return Err(Error::GuardianSilent) };
            if Instant::now() >= deadline {
                return Err(Error::GuardianSilent);
            }
            sys::wait_readable([pending.report.as_fd(), pending.guardian.as_fd()], Some(deadline))?;
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        match &self.state {
            State::Asked(pending) => &pending.name,
            State::Made(process, _) => process.name(),
            State::Given => "",
        }
    }

    /// The descriptor to watch, which stays the same once it has become a [`Process`]: its
    /// [`status_fd`](Process::status_fd). `None` once the process was given.
    #[must_use]
    pub fn status_fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.state {
            State::Asked(pending) => Some(pending.report.as_fd()),
            State::Made(process, _) => Some(process.status_fd()),
            State::Given => None,
        }
    }
}

impl Pending {
    /// Pid and pidfd, once the guardian has told them.
    fn hear(&mut self) -> Result<Option<(u32, OwnedFd)>, Error> {
        loop {
            // Before looking into the channel: what a dead guardian said is all there by then.
            let last = self.guardian.is_dead();
            let said = match self.heard.reader.read(&self.report, Mode::DontWait) {
                Ok(None) if last => return Err(Error::GuardianDied),
                Ok(None) => return Ok(None),
                Ok(Some(frame)) => frame.decode_prefix(),
                Err(error) => Err(error),
            };
            match said {
                Ok((Report::Started(pid), _, mut received)) => {
                    let pidfd = received.take(FIRST).map_err(|_| Error::GuardianDied)?;
                    return Ok(Some((pid, pidfd)));
                }
                Ok((Report::Ended(body), behind, received)) => {
                    self.heard.ended = Some(Ok(Last { body, behind, received }));
                }
                // Without its pidfd it cannot be watched, and it does not run before it is.
                Err(error @ billiard_connection::Error::DescriptorsLost) => return Err(error.into()),
                Ok((Report::NotStarted(what, errno), ..)) => {
                    let source = match errno {
                        0 => std::io::Error::other("the helper process says no more"),
                        errno => std::io::Error::from_raw_os_error(errno),
                    };
                    return Err(Error::Start { what, source });
                }
                // It died, or could make nothing of the request.
                Ok((Report::Exited(..), ..)) | Err(_) => return Err(Error::GuardianDied),
            }
        }
    }
}

impl<R> Drop for Starting<R> {
    fn drop(&mut self) {
        // The child that waits for the word is told that it will not come, although a copy of this process may hold this end too.
        if let State::Asked(pending) = &self.state
            && self.generation.is_current()
        {
            let _ = pending.report.shutdown();
        }
    }
}

impl<R> fmt::Debug for Starting<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Starting").field("name", &self.name()).finish_non_exhaustive()
    }
}
