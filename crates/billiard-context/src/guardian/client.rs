//! The program's side: bringing the guardian up, and asking it for children.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use billiard_connection::{Connection, Fd, FrameWriter, Mode};
use nix::sys::signal::Signal;

use crate::{Error, image::Image, init, protocol::Hello, sys};

/// How long a guardian may take until it is ready.
const PATIENCE: Duration = Duration::from_secs(30);

/// A guardian that has said that it is ready. Dropping it closes the control channel, which ends it.
#[derive(Debug)]
pub(crate) struct Guardian {
    /// One request at a time goes out.
    control: Mutex<Connection>,
    pidfd: OwnedFd,
    /// Whom the program was when it was brought up: its children are the same.
    credentials: [u32; 4],
}

/// The guardians of this process.
struct Guardians {
    /// Brought up at first use, and anew after it died.
    current: Option<Arc<Guardian>>,
    /// Those from before the program changed its user: they live on for the children that they have.
    former: Vec<Arc<Guardian>>,
}

static GUARDIANS: Mutex<Guardians> = Mutex::new(Guardians { current: None, former: Vec::new() });

impl Guardian {
    /// The guardian of this process, alive as far as one can know.
    pub(crate) fn current() -> Result<Arc<Self>, Error> {
        let mut guardians = lock(&GUARDIANS);
        guardians.former.retain(|guardian| !guardian.is_dead());
        if let Some(guardian) = guardians.current.take() {
            let same_user = guardian.credentials == sys::credentials();
            match guardian.is_dead() {
                true => {}
                false if same_user => return Ok(guardians.current.insert(guardian).clone()),
                false => guardians.former.push(guardian),
            }
        }
        Ok(guardians.current.insert(Arc::new(Self::bring_up()?)).clone())
    }

    fn bring_up() -> Result<Self, Error> {
        let (control, theirs) = Connection::pair()?;
        let theirs = {
            // Only the guardian may hold this end, so that its death closes it.
            let end = theirs;
            end.as_fd().try_clone_to_owned().map_err(|source| Error::Io { call: "fcntl", source })?
        };
        let pid = sys::execute_guardian(init::GUARDIAN, theirs)
            .map_err(|source| Error::Start { what: "the program could not execute itself".into(), source })?;
        let process = sys::pidfd_open(pid)?;
        match Self::greet(&control) {
            Ok(pidfd) => Ok(Self { control: Mutex::new(control), pidfd, credentials: sys::credentials() }),
            Err(error) => {
                let _ = sys::signal(process.as_fd(), Signal::SIGKILL);
                let _ = sys::wait_readable([process.as_fd()], Some(Instant::now() + PATIENCE));
                let status = sys::reap_by_pidfd(process.as_fd());
                Err(match (error, status) {
                    (Error::GuardianNotReady { status: None }, status) => Error::GuardianNotReady { status },
                    (error, _) => error,
                })
            }
        }
    }

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

    /// Sends a request, before `deadline`. `Gone` when the guardian had ended before it could have read any of it.
    pub(crate) fn request(&self, frame: &mut FrameWriter, deadline: Instant) -> Result<Requested, Error> {
        let control = lock(&self.control);
        loop {
            match frame.write(&*control, Mode::DontWait) {
                Ok(true) => return Ok(Requested::Sent),
                Ok(false) if Instant::now() < deadline && !self.is_dead() => {
                    sys::wait_room(control.as_fd(), self.pidfd.as_fd(), deadline);
                }
                Ok(false) => {
                    // After half a request it is of no more use. It has not read for a minute: it is stopped.
                    if frame.is_begun() {
                        let _ = sys::signal(self.pidfd.as_fd(), Signal::SIGKILL);
                    }
                    return Err(Error::GuardianSilent);
                }
                Err(billiard_connection::Error::Disconnected) => {
                    // Its socket closes a moment before it is seen to have ended.
                    sys::wait_readable([self.pidfd.as_fd()], Some(deadline))?;
                    return if frame.is_begun() { Err(Error::GuardianDied) } else { Ok(Requested::Gone) };
                }
                Err(error) if frame.is_begun() => {
                    let _ = sys::signal(self.pidfd.as_fd(), Signal::SIGKILL);
                    return Err(error.into());
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Whether it has ended. One that has is reaped, if the host program has not done so.
    pub(crate) fn is_dead(&self) -> bool {
        let dead = sys::is_readable(self.pidfd.as_fd());
        if dead {
            let _ = sys::reap_by_pidfd(self.pidfd.as_fd());
        }
        dead
    }
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Requested {
    Sent,
    Gone,
}

/// What the locks guard is whole between any two statements.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl AsFd for Guardian {
    /// Readable when the guardian has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}
