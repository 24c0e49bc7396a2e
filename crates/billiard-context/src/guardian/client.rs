//! The program's side: bringing a guardian up, and asking it for children.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use billiard_connection::{Connection, Fd, FrameWriter, Mode};
use billiard_wire::{attachments::Attachments, fault, generation::Generation};

use super::names;
use crate::{
    Error, Signal, TARGET, children,
    error::PreloadError,
    image::Image,
    init,
    protocol::{self, Body, Hello, Preloaded, Request},
    sys::{self, Forked, Whom},
    task::Task,
};

/// How long a guardian may take until it is ready.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long one that is of no use may take to end by itself.
const CLEAN_UP: Duration = Duration::from_secs(5);

/// A guardian that has said that it is ready. Dropping it ends it, and whoever it has left.
#[derive(Debug)]
pub(crate) struct Guardian {
    /// One request at a time goes out.
    control: Mutex<Connection>,
    pidfd: OwnedFd,
    /// Whom the program was when it was brought up: its children are the same.
    credentials: [u32; 4],
    /// The copy of the program whose guardian it is.
    generation: Generation,
}

/// What a guardian is made of.
#[derive(Debug)]
pub(crate) enum Origin {
    /// The program, executed afresh.
    Executed,
    /// The same, and then a function was run in it.
    Preloaded(Preload),
    /// A copy of the program as it was.
    Template,
}

/// A function to be run in a guardian, as often as one is brought up.
#[derive(Debug)]
pub(crate) struct Preload {
    pub(crate) task: Task,
    pub(crate) argument: Vec<u8>,
    pub(crate) descriptors: Vec<Arc<OwnedFd>>,
}

/// The guardians of one origin: one at a time, brought up at first use, and anew after it died.
#[derive(Debug)]
pub(crate) struct Guardians {
    origin: Origin,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    current: Option<Arc<Guardian>>,
    /// Those from before the program changed its user: they live on for the children that they have.
    former: Vec<Arc<Guardian>>,
}

/// Those of contexts that have none of their own.
pub(crate) static OF_THE_PROCESS: Guardians = Guardians::new(Origin::Executed);

impl Guardians {
    pub(crate) const fn new(origin: Origin) -> Self {
        Self { origin, state: Mutex::new(State { current: None, former: Vec::new() }) }
    }

    /// The guardian, alive as far as one can know.
    pub(crate) fn current(&self) -> Result<Arc<Guardian>, Error> {
        let mut state = lock(&self.state);
        // What a fork has copied is the other process's.
        state.current.take_if(|guardian| !guardian.generation.is_current());
        state.former.retain(|guardian| guardian.generation.is_current() && !guardian.is_dead());
        let credentials = sys::credentials();
        if let Some(guardian) = state.current.take() {
            match guardian.is_dead() {
                true => {
                    tracing::warn!(target: TARGET, "the helper process that starts children has died; another is brought up");
                    children::end_groups_of_the_abandoned();
                }
                false if guardian.credentials == credentials => return Ok(state.current.insert(guardian).clone()),
                false => state.former.push(guardian),
            }
        }
        // The program may be who it was before.
        if let Some(place) = state.former.iter().position(|guardian| guardian.credentials == credentials) {
            let guardian = state.former.swap_remove(place);
            return Ok(state.current.insert(guardian).clone());
        }
        let mut state = Some(state);
        let guardian = self.bring_up(&mut state)?;
        let mut state = state.unwrap_or_else(|| lock(&self.state));
        let guardian = state.current.insert(Arc::new(guardian)).clone();
        drop(state);
        names::introduce(&guardian);
        Ok(guardian)
    }

    /// The lock is held meanwhile, and let go of in a copy that becomes a guardian, whose children may use the same context.
    fn bring_up(&self, state: &mut Option<MutexGuard<'_, State>>) -> Result<Guardian, Error> {
        fault::point("context.bring_up");
        let (control, theirs) = Connection::pair()?;
        let pid = match &self.origin {
            Origin::Executed | Origin::Preloaded(_) => {
                // Only the guardian may hold this end, so that its death closes it.
                let end = theirs;
                let end = end.as_fd().try_clone_to_owned().map_err(|source| Error::Io { call: "fcntl", source })?;
                sys::execute(init::GUARDIAN, end)
                    .map_err(|source| Error::Start { what: "the program could not execute itself".into(), source })?
            }
            Origin::Template => copy_as_guardian(theirs, state)?,
        };
        let process = sys::pidfd_of_child(pid)?;
        let ready = Guardian::greet(&control).and_then(|pidfd| match &self.origin {
            Origin::Preloaded(preload) => preload.run(&control, &pidfd).map(|()| pidfd),
            Origin::Executed | Origin::Template => Ok(pidfd),
        });
        match ready {
            Ok(pidfd) => {
                tracing::debug!(target: TARGET, pid, "the helper process that starts children is ready");
                Ok(Guardian {
                    control: Mutex::new(control),
                    pidfd,
                    credentials: sys::credentials(),
                    generation: Generation::current(),
                })
            }
            Err(error) => {
                // It ends what a preload function has started, if it still can.
                let _ = control.shutdown();
                let _ = sys::signal(process.as_fd(), Signal::CONT);
                let _ = sys::wait_readable([process.as_fd()], Some(Instant::now() + CLEAN_UP));
                let _ = sys::signal(process.as_fd(), Signal::KILL);
                let _ = sys::wait_readable([process.as_fd()], Some(Instant::now() + PATIENCE));
                let status = sys::ended(Whom::Of(process.as_fd()), true).ok().flatten();
                let status = status.map(|(_, status)| format!("it ended with {status}"));
                Err(match (error, status) {
                    (Error::GuardianNotReady { status: None }, status) => Error::GuardianNotReady { status },
                    (Error::Preload(PreloadError::Ended(_)), Some(status)) => {
                        Error::Preload(PreloadError::Ended(status))
                    }
                    (error, _) => error,
                })
            }
        }
    }
}

/// Forks this process, which has one thread; the copy becomes a guardian.
fn copy_as_guardian(control: Connection, state: &mut Option<MutexGuard<'_, State>>) -> Result<u32, Error> {
    require_one_thread()?;
    // SAFETY: this is the only thread.
    match unsafe { sys::fork_blocked() } {
        Ok(Forked::Parent(pid)) => Ok(pid),
        Ok(Forked::Child) => {
            drop(state.take());
            super::copied(control)
        }
        Err(source) => Err(Error::Start { what: "fork".into(), source }),
    }
}

/// An error unless this process is known to have one thread, so that it can be copied.
pub(crate) fn require_one_thread() -> Result<(), Error> {
    match sys::threads() {
        Some(1) => Ok(()),
        Some(threads) => Err(Error::Threads { threads }),
        None => Err(Error::ThreadsUnknown),
    }
}

impl Preload {
    fn run(&self, control: &Connection, pidfd: &OwnedFd) -> Result<(), Error> {
        let silent = || Error::Preload(PreloadError::Ended("nobody knows how".into()));
        let mut attachments = Attachments::default();
        for descriptor in &self.descriptors {
            attachments.push(descriptor.clone()).map_err(|error| Error::Start {
                what: "its descriptors cannot be passed".into(),
                source: std::io::Error::other(error),
            })?;
        }
        let mut argument = self.argument.clone();
        let body = Body::of(&mut argument)
            .map_err(|source| Error::Start { what: "its argument needs a memory file".into(), source })?;
        let request = Request::Preload { task: self.task, argument: body };
        let message = protocol::encode(&request, &mut attachments)
            .map_err(|error| Error::Connection(billiard_connection::Error::Encode(error)))?;
        FrameWriter::typed(&message, argument, attachments).write(control, Mode::Wait)?;
        // However long it takes: this thread is whose end would end it.
        sys::wait_readable([control.as_fd(), pidfd.as_fd()], None)?;
        match control.recv::<Preloaded>() {
            Ok(done) => Ok(done?),
            Err(_) => Err(silent()),
        }
    }
}

impl Guardian {
    fn greet(control: &Connection) -> Result<OwnedFd, Error> {
        if !control.poll(Some(PATIENCE))? {
            let status = Some(format!("it said nothing within {} s", PATIENCE.as_secs()));
            return Err(Error::GuardianNotReady { status });
        }
        match control.recv::<Hello>() {
            Ok(Hello::Ready(identity, pidfd)) if identity == Image::this().identity() => Ok(Fd::into_inner(pidfd)),
            Ok(Hello::Ready(..)) => Err(Error::OtherExecutable),
            Ok(Hello::Threads(threads)) => Err(Error::ThreadsBeforeInit { threads }),
            Ok(Hello::Unsupported(call)) if call == "pidfd_open" => Err(Error::Unsupported { call: "pidfd_open" }),
            Ok(Hello::Unsupported(status) | Hello::Failed(status)) => {
                Err(Error::GuardianNotReady { status: Some(status) })
            }
            // It ended without a word: how, its status says.
            Err(_) => Err(Error::GuardianNotReady { status: None }),
        }
    }

    /// Sends a request, which begins before `deadline`. `Gone` when the guardian had ended before it could have read any of it.
    pub(crate) fn request(&self, frame: &mut FrameWriter, deadline: Instant) -> Result<Requested, Error> {
        let control = lock(&self.control);
        let to_its_end = deadline.max(Instant::now() + PATIENCE);
        loop {
            let deadline = if frame.is_begun() { to_its_end } else { deadline };
            match frame.write(&*control, Mode::DontWait) {
                Ok(true) => return Ok(Requested::Sent),
                Ok(false) if Instant::now() < deadline && !self.is_dead() => {
                    sys::wait_room(control.as_fd(), self.pidfd.as_fd(), deadline);
                }
                Ok(false) => {
                    // After half a request it is of no more use. It has not read for a minute: it is stopped.
                    if frame.is_begun() {
                        let _ = sys::signal(self.pidfd.as_fd(), Signal::KILL);
                    }
                    return Err(Error::GuardianSilent);
                }
                Err(billiard_connection::Error::Disconnected) => {
                    // Its socket closes a moment before it is seen to have ended.
                    sys::wait_readable([self.pidfd.as_fd()], Some(deadline))?;
                    return if frame.is_begun() { Err(Error::GuardianDied) } else { Ok(Requested::Gone) };
                }
                Err(error) if frame.is_begun() => {
                    let _ = sys::signal(self.pidfd.as_fd(), Signal::KILL);
                    return Err(error.into());
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Has the group of a process ended: `signal` now, KILL if its leader lives on after `grace`. Returns at once: where there is no room for that request, the
    /// guardian is silent.
    pub(crate) fn end(&self, pid: u32, pidfd: OwnedFd, signal: Signal, grace: Duration) -> Result<(), Error> {
        let mut attachments = Attachments::default();
        attachments.push(Arc::new(pidfd)).expect("the list was empty");
        let message = protocol::encode(&Request::End { pid, signal, grace }, &mut attachments)
            .map_err(|error| Error::Connection(billiard_connection::Error::Encode(error)))?;
        let mut frame = FrameWriter::typed(&message, Vec::new(), attachments);
        match self.request(&mut frame, Instant::now())? {
            Requested::Sent => Ok(()),
            Requested::Gone => Err(Error::GuardianDied),
        }
    }

    /// Whether it is this process's, and not that of one it was forked from.
    pub(super) fn is_usable(&self) -> bool {
        self.generation.is_current()
    }

    /// Whether it has ended. One that has is reaped, if the host program has not done so.
    pub(crate) fn is_dead(&self) -> bool {
        let dead = sys::is_readable(self.pidfd.as_fd());
        if dead {
            let _ = sys::ended(Whom::Of(self.pidfd.as_fd()), true);
        }
        dead
    }
}

impl Drop for Guardian {
    fn drop(&mut self) {
        // A copy of this process may hold the channel too, and would keep it open.
        if self.generation.is_current() {
            let _ = lock(&self.control).shutdown();
            let _ = sys::signal(self.pidfd.as_fd(), Signal::CONT);
            let _ = sys::wait_readable([self.pidfd.as_fd()], Some(Instant::now() + PATIENCE));
            let _ = self.is_dead(); // and reaped
        }
    }
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Requested {
    Sent,
    Gone,
}

/// What the locks guard is whole between any two statements.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl AsFd for Guardian {
    /// Readable when the guardian has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}
