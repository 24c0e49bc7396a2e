//! A child process, from its start to its status.

use std::{
    fmt,
    marker::PhantomData,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
    time::{Duration, Instant},
};

use billiard_connection::{Connection, FrameReader, Mode};
use billiard_wire::{Message, attachments::Received, codec};
use nix::sys::signal::Signal;

use crate::{
    ChildError, Error,
    exit::ExitStatus,
    guardian::Guardian,
    protocol::{Body, Ended, Report},
    starting::Pending,
    sys,
};

/// How long dropping a process waits for one that does not die of KILL, since the kernel is busy in its name.
const DROP_PATIENCE: Duration = Duration::from_secs(10);

/// A child process that will return an `R`.
///
/// Dropping it kills and reaps the process, unless it was [detached](Process::detach). It also ends when this
/// program ends, however that happens. Whatever is left of its process group ends with it.
///
/// Its [`AsFd`] is the sentinel: a pidfd, readable once the process has ended.
///
/// ```no_run
/// # use billiard_context::{Context, Error};
/// # fn work(n: u64) -> u64 { n }
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// billiard_context::init();
/// let mut child = Context::forkserver().process(work, 20).name("worker").start()?;
/// println!("{} runs as {}", child.name(), child.pid());
/// assert!(child.join()?.success());
/// println!("it returned {}", child.take_result()?);
/// # Ok(())
/// # }
/// ```
pub struct Process<R = ()> {
    name: String,
    daemon: bool,
    pid: u32,
    pidfd: OwnedFd,
    report: Connection,
    reader: FrameReader,
    guardian: Arc<Guardian>,
    /// What the child said last; an error when this process could not receive it.
    ended: Option<Result<Last, Error>>,
    status: Option<ExitStatus>,
    /// Its value, or why there is none, was taken.
    taken: bool,
    /// The report channel says nothing more that could be understood.
    deaf: bool,
    detached: bool,
    result: PhantomData<fn() -> R>,
}

/// What a report was about.
enum Heard {
    Exited(ExitStatus),
    Ended,
}

/// A child's last word, as it came.
#[derive(Debug)]
pub(crate) struct Last {
    pub(crate) body: Body,
    pub(crate) behind: Vec<u8>,
    pub(crate) received: Received,
}

impl Last {
    /// How it ended, and the bytes of its value with its descriptors.
    fn read(self) -> Result<(Ended, Vec<u8>, Received), ChildError> {
        let Self { body, behind, mut received } = self;
        let mut bytes =
            body.into_bytes(behind).map_err(|source| ChildError::Wait(Box::new(Error::Io { call: "read", source })))?;
        let (ended, value) = codec::decode_prefix(&bytes, &mut received)?;
        let before = bytes.len() - value.len();
        bytes.drain(..before);
        Ok((ended, bytes, received))
    }
}

impl<R> Process<R> {
    pub(crate) fn new(pending: Pending, pid: u32, pidfd: OwnedFd) -> Self {
        let Pending { name, daemon, report, reader, guardian, ended } = pending;
        Self {
            name,
            daemon,
            pid,
            pidfd,
            report,
            reader,
            guardian,
            ended: ended.map(Ok),
            status: None,
            taken: false,
            deaf: false,
            detached: false,
            result: PhantomData,
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its pid. Signals sent by pid may hit another process once this one was reaped; the methods here never do.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether it was started as daemonic.
    #[must_use]
    pub fn is_daemon(&self) -> bool {
        self.daemon
    }

    /// Whether it has not ended yet.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.status.is_none() && !sys::is_readable(self.pidfd.as_fd())
    }

    /// Waits until it has ended.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when waiting fails, which the process survives.
    pub fn join(&mut self) -> Result<ExitStatus, Error> {
        Ok(self.join_until(None)?.unwrap_or_else(ExitStatus::unknown))
    }

    /// Waits until it has ended, but no longer than `timeout`; `None` when it still runs.
    ///
    /// # Errors
    ///
    /// As [`join`](Self::join).
    pub fn join_timeout(&mut self, timeout: Duration) -> Result<Option<ExitStatus>, Error> {
        // A time beyond what the clock can hold is as good as for ever.
        self.join_until(Instant::now().checked_add(timeout))
    }

    fn join_until(&mut self, deadline: Option<Instant>) -> Result<Option<ExitStatus>, Error> {
        loop {
            if let Some(status) = self.try_join()? {
                return Ok(Some(status));
            }
            if self.deaf || self.guardian.is_dead() {
                // No report will come any more: the process itself is all there is to wait for.
                sys::wait_readable([self.pidfd.as_fd()], deadline)?;
            } else {
                sys::wait_readable([self.report.as_fd(), self.guardian.as_fd()], deadline)?;
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return self.try_join();
            }
        }
    }

    /// Its status if it has ended; never waits.
    ///
    /// # Errors
    ///
    /// As [`join`](Self::join).
    pub fn try_join(&mut self) -> Result<Option<ExitStatus>, Error> {
        while self.status.is_none() {
            // Before looking into the channel: what was said of one that has ended is there soon, and what a dead
            // guardian said is all there.
            let ended = sys::is_readable(self.pidfd.as_fd());
            let guardian_died = ended && self.guardian.is_dead();
            match self.hear() {
                // Of one that still runs it is not the guardian who says so. It may have ended since.
                Some(Heard::Exited(status)) if sys::is_readable(self.pidfd.as_fd()) => self.status = Some(status),
                Some(Heard::Exited(_)) => self.deaf = true,
                Some(Heard::Ended) => {}
                None if guardian_died || (ended && self.deaf) => {
                    self.status = Some(ExitStatus::unknown());
                    // Nobody else ends what is left of its group.
                    sys::kill_group_of(self.pidfd.as_fd(), self.pid);
                }
                None => break,
            }
        }
        Ok(self.status.clone())
    }

    /// Takes the next thing off the report channel; `None` when nothing has come. The child's last word is kept.
    fn hear(&mut self) -> Option<Heard> {
        if self.deaf {
            return None;
        }
        let frame = match self.reader.read(&self.report, Mode::DontWait) {
            Ok(frame) => frame?,
            Err(_) => {
                self.deaf = true;
                return None;
            }
        };
        // One last word of the child, and one of the guardian. Who says anything else is not listened to any more: it
        // might go on for ever.
        let incomplete = frame.is_incomplete();
        match frame.decode_prefix::<Report>() {
            Ok((Report::Exited(status), ..)) => return Some(Heard::Exited(status)),
            Ok((Report::Ended(body), behind, received)) if self.ended.is_none() => {
                self.ended = Some(Ok(Last { body, behind, received }));
            }
            // Only the last word has descriptors that may be lost.
            Err(error) if incomplete && self.ended.is_none() => self.ended = Some(Err(error.into())),
            Ok(_) | Err(_) => {
                self.deaf = true;
                return None;
            }
        }
        Some(Heard::Ended)
    }

    /// A descriptor that is readable when [`try_join`](Self::try_join) has something to take. For event loops, beside
    /// the sentinel: the status follows the end of the process within microseconds.
    #[must_use]
    pub fn status_fd(&self) -> BorrowedFd<'_> {
        self.report.as_fd()
    }

    /// Asks it to end: SIGTERM, and SIGCONT so that a stopped process hears it. One that has ended is no error.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when the kernel refuses, since the process has changed its user.
    pub fn terminate(&self) -> Result<(), Error> {
        sys::signal(self.pidfd.as_fd(), Signal::SIGTERM)?;
        sys::signal(self.pidfd.as_fd(), Signal::SIGCONT)
    }

    /// Ends it at once: SIGKILL. One that has ended is no error.
    ///
    /// # Errors
    ///
    /// As [`terminate`](Self::terminate).
    pub fn kill(&self) -> Result<(), Error> {
        sys::signal(self.pidfd.as_fd(), Signal::SIGKILL)
    }

    /// Lets it outlive this handle, though never this program.
    pub fn detach(mut self) {
        self.detached = true;
    }
}

impl<R: Message> Process<R> {
    /// Waits until it has ended, and takes what its function returned.
    ///
    /// # Errors
    ///
    /// How else it ended. [`ChildError::Taken`] the second time.
    pub fn take_result(&mut self) -> Result<R, ChildError> {
        let status = self.join().map_err(|error| ChildError::Wait(Box::new(error)))?;
        if std::mem::replace(&mut self.taken, true) {
            return Err(ChildError::Taken);
        }
        let last = match self.ended.take() {
            Some(last) => last.map_err(|error| ChildError::Wait(Box::new(error)))?,
            None if status.code().is_some() => return Err(ChildError::Exited(status)),
            None => return Err(ChildError::Signalled(status)),
        };
        match last.read()? {
            (Ended::Returned, bytes, mut received) => Ok(codec::decode(&bytes, &mut received)?),
            (Ended::Panicked(panic), ..) => Err(ChildError::Panicked(panic)),
            (Ended::BadArgument(error), ..) => Err(ChildError::Argument(error)),
            (Ended::BadResult(error), ..) => Err(ChildError::Encode(error)),
            (Ended::NotSetUp(error), ..) => Err(ChildError::Setup(error)),
        }
    }
}

impl<R> AsFd for Process<R> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

impl<R> Drop for Process<R> {
    fn drop(&mut self) {
        if !self.detached && self.status.is_none() && self.kill().is_ok() {
            let _ = self.join_timeout(DROP_PATIENCE);
        }
    }
}

impl<R> fmt::Debug for Process<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Process");
        debug.field("name", &self.name).field("pid", &self.pid).field("daemon", &self.daemon);
        match &self.status {
            Some(status) => debug.field("status", &status.to_string()),
            None => debug.field("status", &if self.is_alive() { "started" } else { "ended" }),
        };
        debug.finish_non_exhaustive()
    }
}
