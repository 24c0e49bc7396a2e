//! A child process, from its start to its status.

use std::{
    fmt,
    io::{PipeReader, PipeWriter},
    marker::PhantomData,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    sync::Arc,
    time::{Duration, Instant},
};

use billiard_connection::{Connection, FrameReader, Mode};
use billiard_wire::{
    Message,
    attachments::Received,
    codec,
    exact::{self, Bytes},
};

use crate::{
    ChildError, Error, Signal, TARGET,
    children::Identity,
    exit::ExitStatus,
    guardian::{Guardian, OF_THE_PROCESS},
    oom,
    options::Pipes,
    protocol::{Body, Ended, Go, Report},
    sys,
};

/// How long the guardian's word on a process that has ended may take: it follows within microseconds, unless the guardian is stopped, or
/// the process has written half a message before it ended.
const REPORT_PATIENCE: Duration = Duration::from_secs(5);

/// How long dropping a process waits for one that does not die of KILL, since the kernel is busy in its name.
const DROP_PATIENCE: Duration = Duration::from_secs(10);

/// A child process that will return an `R`.
///
/// Dropping it kills and reaps the process, unless it was [detached](Process::detach). It also ends when this
/// program ends, however that happens. Whatever is left of its process group ends with it.
///
/// Its [`AsFd`] is the sentinel: a pidfd, readable once the process has ended. In a process that is a copy of this one, made
/// by a fork, everything that acts on it is [`Error::Forked`].
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
#[must_use = "dropping it kills the process; `detach` lets it go"]
pub struct Process<R = ()> {
    identity: Arc<Identity>,
    report: Connection,
    heard: Heard,
    keeper: Keeper,
    pipes: Pipes,
    status: Option<ExitStatus>,
    /// Its value, or why there is none, was taken.
    taken: bool,
    /// The report channel says nothing more that could be understood.
    deaf: bool,
    /// When it was first seen to have ended.
    ended_since: Option<Instant>,
    detached: bool,
    result: PhantomData<fn() -> R>,
}

/// Who reaps a child.
pub(crate) enum Keeper {
    /// The guardian, whose word on it comes with this key.
    Guardian(Arc<Guardian>, u64),
    /// This process.
    Own { born: Instant },
}

/// What came on the report channel so far.
pub(crate) struct Heard {
    pub(crate) reader: FrameReader,
    /// What the child said last; an error when this process could not receive it. One that cannot be set up may say so before the
    /// guardian has said that it exists.
    pub(crate) ended: Option<Result<Last, Error>>,
}

impl Default for Heard {
    fn default() -> Self {
        // What a report may have is a few KiB; more is none of ours.
        Self { reader: FrameReader::with_limit(64 << 10), ended: None }
    }
}

/// What a report was about.
enum About {
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
    pub(crate) fn new(identity: Arc<Identity>, report: Connection, keeper: Keeper, pipes: Pipes, heard: Heard) -> Self {
        Self {
            identity,
            report,
            heard,
            keeper,
            pipes,
            status: None,
            taken: false,
            deaf: false,
            ended_since: None,
            detached: false,
            result: PhantomData,
        }
    }

    /// Lets the child run: it has a handle now.
    pub(crate) fn let_run(&self, go: Go) {
        // If it has ended by now, its status says so.
        let _ = self.report.send(&go);
    }

    fn pidfd(&self) -> BorrowedFd<'_> {
        self.identity.pidfd.as_fd()
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.identity.name
    }

    /// Its pid. Signals sent by pid may hit another process once this one was reaped; the methods here never do.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.identity.pid
    }

    /// Whether it was started as daemonic.
    #[must_use]
    pub fn is_daemon(&self) -> bool {
        self.identity.daemon
    }

    /// Whether it has not ended yet.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.status.is_none() && self.identity.is_alive()
    }

    /// The writing end of its standard input, if that was to be a [pipe](crate::Stdio::Pipe); once. Dropping it ends the
    /// child's input.
    pub fn take_stdin(&mut self) -> Option<PipeWriter> {
        self.pipes.stdin.take()
    }

    /// The reading end of its standard output, if that was to be a [pipe](crate::Stdio::Pipe); once.
    ///
    /// A child that writes more than a pipe holds waits until it is read: read before you [`join`](Self::join).
    pub fn take_stdout(&mut self) -> Option<PipeReader> {
        self.pipes.stdout.take()
    }

    /// The reading end of its standard error, as [`take_stdout`](Self::take_stdout).
    pub fn take_stderr(&mut self) -> Option<PipeReader> {
        self.pipes.stderr.take()
    }

    /// Waits until it has ended.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when waiting fails, which the process survives; [`Error::Forked`] in a copy of its starter.
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
            match &self.keeper {
                // What the guardian has to say comes right behind the end: waiting for that first wakes this thread once, and
                // beside the guardian instead of after it.
                Keeper::Guardian(guardian, _) if !self.deaf && !self.identity.is_alive() => {
                    let patience = self.ended_since.map(|since| since + REPORT_PATIENCE);
                    let until = patience.into_iter().chain(deadline).min();
                    sys::wait_readable([self.report.as_fd(), guardian.as_fd()], until)?;
                }
                _ => drop(sys::wait_readable([self.pidfd()], deadline)?),
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
        self.identity.generation.check_current()?;
        while self.status.is_none() {
            // Before looking into the channel: what was said of one that has ended is there soon, and what a dead
            // guardian said is all there.
            let ended = !self.identity.is_alive();
            if ended && self.ended_since.get_or_insert_with(Instant::now).elapsed() > REPORT_PATIENCE {
                // What it left in the channel hides the guardian's word, and a process that it has started holds its end.
                self.go_deaf();
            }
            let last = match &self.keeper {
                Keeper::Guardian(guardian, _) => ended && (self.deaf || guardian.is_dead()),
                Keeper::Own { .. } => ended,
            };
            let status = match self.hear() {
                // Of one that still runs it is not the guardian who says so. It may have ended since.
                Some(About::Exited(status)) if !self.identity.is_alive() => status,
                Some(About::Exited(_)) => {
                    self.go_deaf();
                    continue;
                }
                Some(About::Ended) => continue,
                None if last => match self.keeper {
                    Keeper::Guardian(..) => {
                        // Nobody else ends what is left of its group.
                        sys::signal_group_of(self.pidfd(), self.pid(), Signal::KILL);
                        ExitStatus::unknown()
                    }
                    Keeper::Own { born } => sys::end_group_and_reap(self.pidfd(), self.pid())
                        .map_or_else(ExitStatus::unknown, |status| status.lived(born.elapsed())),
                },
                None => break,
            };
            let status = status.judged(self.identity.sent(), oom::killed_one_of_ours);
            tracing::debug!(target: TARGET, name = self.name(), pid = self.pid(), %status, "a process has ended");
            self.status = Some(status);
        }
        Ok(self.status.clone())
    }

    /// Takes the next thing off the report channel; `None` when nothing has come. The child's last word is kept.
    fn hear(&mut self) -> Option<About> {
        if self.deaf {
            return None;
        }
        let frame = match self.heard.reader.read(&self.report, Mode::DontWait) {
            Ok(frame) => frame?,
            Err(_) => {
                self.go_deaf();
                return None;
            }
        };
        // One last word of the child, and one of the guardian. Who says anything else is not listened to any more: it
        // might go on for ever.
        let incomplete = frame.is_incomplete();
        match frame.decode_prefix::<Report>() {
            Ok((Report::Exited(key, status), ..)) if self.is_key(key) => return Some(About::Exited(status)),
            Ok((Report::Ended(body), behind, received)) if self.heard.ended.is_none() => {
                self.heard.ended = Some(Ok(Last { body, behind, received }));
            }
            // Only the last word has descriptors that may be lost.
            Err(error) if incomplete && self.heard.ended.is_none() => self.heard.ended = Some(Err(error.into())),
            Ok(_) | Err(_) => {
                self.go_deaf();
                return None;
            }
        }
        Some(About::Ended)
    }

    /// Listens no more. Whoever watches the channel in an event loop sees the end of the process there from now on.
    fn go_deaf(&mut self) {
        if !self.deaf {
            self.deaf = true;
            // SAFETY: the number is that of the channel, which nobody reads any more, and stays open and this handle's.
            let _ = unsafe { sys::place(self.pidfd(), self.report.as_raw_fd()) };
        }
    }

    /// Whether the guardian was told it for this child; the child was not.
    fn is_key(&self, key: u64) -> bool {
        matches!(self.keeper, Keeper::Guardian(_, own) if own == key)
    }

    /// A descriptor that is readable when [`try_join`](Self::try_join) has something to take. For event loops, beside
    /// the sentinel: the status follows the end of the process within microseconds.
    #[must_use]
    pub fn status_fd(&self) -> BorrowedFd<'_> {
        match self.keeper {
            Keeper::Guardian(..) => self.report.as_fd(),
            Keeper::Own { .. } => self.pidfd(),
        }
    }

    /// Asks it to end: SIGTERM, or what the [builder](crate::ProcessBuilder::term_signal) says, and SIGCONT so that a stopped process hears it.
    /// One that has ended is no error.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when the kernel refuses, since the process has changed its user; [`Error::Forked`] in a copy of its starter.
    pub fn terminate(&self) -> Result<(), Error> {
        self.identity.terminate()
    }

    /// Asks it and its whole process group to end, as [`terminate`](Self::terminate) does, and has them ended by SIGKILL if it lives on after
    /// `grace`. Returns at once: the helper process does the waiting, so that this holds even if this program is busy or stopped.
    ///
    /// # Errors
    ///
    /// As [`terminate`](Self::terminate), and when the helper process cannot be asked: [`Error::GuardianSilent`] where it has not taken for long what it was asked before.
    pub fn terminate_within(&self, grace: Duration) -> Result<(), Error> {
        self.identity.generation.check_current()?;
        if !self.is_alive() {
            return Ok(());
        }
        let guardian = match &self.keeper {
            Keeper::Guardian(guardian, _) => guardian.clone(),
            Keeper::Own { .. } => OF_THE_PROCESS.current()?,
        };
        for signal in [self.identity.term_signal, Signal::CONT, Signal::KILL] {
            self.identity.note_sent(signal);
        }
        let pidfd = self.pidfd().try_clone_to_owned().map_err(|source| Error::Io { call: "fcntl", source })?;
        match guardian.end(self.pid(), pidfd, self.identity.term_signal, grace) {
            // With a dead guardian its children end too.
            Err(Error::GuardianDied) if matches!(self.keeper, Keeper::Guardian(..)) => Ok(()),
            result => result,
        }
    }

    /// Interrupts it, as Ctrl-C does: SIGINT. One that has ended is no error.
    ///
    /// # Errors
    ///
    /// As [`terminate`](Self::terminate).
    pub fn interrupt(&self) -> Result<(), Error> {
        self.identity.signal(Signal::INT)
    }

    /// Ends it at once: SIGKILL. One that has ended is no error.
    ///
    /// # Errors
    ///
    /// As [`terminate`](Self::terminate).
    pub fn kill(&self) -> Result<(), Error> {
        self.identity.signal(Signal::KILL)
    }

    /// Sends it a signal. One that has ended is no error.
    ///
    /// # Errors
    ///
    /// As [`terminate`](Self::terminate).
    pub fn send_signal(&self, signal: Signal) -> Result<(), Error> {
        self.identity.signal(signal)
    }

    /// Lets it outlive this handle, though never this program, nor the last clone of a [`Context`](crate::Context) with a helper process of its own.
    ///
    /// One that this process has forked itself becomes a zombie when it ends, until this program ends, unless [`active_children`](crate::active_children()) or
    /// another start finds it.
    pub fn detach(mut self) {
        self.detached = true;
        if self.identity.is_alive() {
            self.identity.detach();
        } else {
            let _ = self.try_join(); // one that has ended is not kept in mind; a child of this process itself is reaped
        }
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
        let last = match self.heard.ended.take() {
            Some(last) => last.map_err(|error| ChildError::Wait(Box::new(error)))?,
            None if status.code().is_some() => return Err(ChildError::Exited(status)),
            None => return Err(ChildError::Signalled(status)),
        };
        match last.read()? {
            (Ended::Returned, mut bytes, mut received) => Ok(exact::decode(Bytes::Vec(&mut bytes), &mut received)?),
            (Ended::Panicked(panic), ..) => Err(ChildError::Panicked(panic)),
            (Ended::BadArgument(error), ..) => Err(ChildError::Argument(error)),
            (Ended::BadResult(error), ..) => Err(ChildError::Encode(error)),
            (Ended::NotSetUp(error), ..) => Err(ChildError::Setup(error)),
        }
    }
}

impl<R> AsFd for Process<R> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd()
    }
}

impl<R> Drop for Process<R> {
    fn drop(&mut self) {
        // In a copy of its starter `kill` refuses.
        if !self.detached && self.status.is_none() && self.kill().is_ok() {
            let _ = self.join_timeout(DROP_PATIENCE);
        }
        self.identity.forget();
    }
}

impl<R> fmt::Debug for Process<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Process");
        debug.field("name", &self.name()).field("pid", &self.pid()).field("daemon", &self.is_daemon());
        match &self.status {
            Some(status) => debug.field("status", &status.to_string()),
            None => debug.field("status", &if self.is_alive() { "started" } else { "ended" }),
        };
        debug.finish_non_exhaustive()
    }
}
