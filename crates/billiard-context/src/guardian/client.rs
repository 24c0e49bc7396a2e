//! The program's side: bringing the guardian up, and asking it for children.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    process::Child,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use billiard_connection::{Connection, Fd, FrameWriter, Mode};

use crate::{Error, image::Image, init, protocol::Hello, sys};

/// How long a guardian may take until it is ready.
const PATIENCE: Duration = Duration::from_secs(30);

/// A guardian that has said that it is ready. Dropping it closes the control channel, which ends it.
#[derive(Debug)]
pub(crate) struct Guardian {
    /// One request at a time goes out. After half a one it is closed, which ends the guardian.
    control: Mutex<Option<Connection>>,
    pidfd: OwnedFd,
    process: Mutex<Child>,
}

/// The guardian of this process: brought up at first use, and anew after it died.
static CURRENT: Mutex<Option<Arc<Guardian>>> = Mutex::new(None);

impl Guardian {
    /// The guardian of this process, alive as far as one can know.
    pub(crate) fn current() -> Result<Arc<Self>, Error> {
        let mut current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(guardian) = &*current {
            if !guardian.is_dead() {
                return Ok(guardian.clone());
            }
            guardian.reap();
        }
        *current = None;
        Ok(current.insert(Arc::new(Self::bring_up()?)).clone())
    }

    fn bring_up() -> Result<Self, Error> {
        let (control, theirs) = Connection::pair()?;
        let theirs = theirs.as_fd().try_clone_to_owned().map_err(|source| Error::Io { call: "fcntl", source })?;
        let mut process = sys::execute_guardian(init::GUARDIAN, theirs)
            .map_err(|source| Error::Start { what: "the program could not execute itself".into(), source })?;
        match Self::greet(&control) {
            Ok(pidfd) => Ok(Self { control: Mutex::new(Some(control)), pidfd, process: Mutex::new(process) }),
            Err(error) => {
                let _ = process.kill();
                let status = process.wait();
                Err(match (error, status) {
                    (Error::GuardianNotReady { .. }, Ok(status)) => {
                        Error::GuardianNotReady { status: status.to_string() }
                    }
                    (error, _) => error,
                })
            }
        }
    }

    fn greet(control: &Connection) -> Result<OwnedFd, Error> {
        if !control.poll(Some(PATIENCE))? {
            let status = format!("it said nothing within {} s", PATIENCE.as_secs());
            return Err(Error::GuardianNotReady { status });
        }
        match control.recv::<Hello>() {
            Ok(Hello::Ready(identity, pidfd)) if identity == Image::this().identity() => Ok(Fd::into_inner(pidfd)),
            Ok(Hello::Ready(..)) => Err(Error::OtherExecutable),
            Ok(Hello::Threads(threads)) => Err(Error::ThreadsBeforeInit { threads }),
            Ok(Hello::Unsupported(call)) if call == "pidfd_open" => Err(Error::Unsupported { call: "pidfd_open" }),
            Ok(Hello::Unsupported(status) | Hello::Failed(status)) => Err(Error::GuardianNotReady { status }),
            Err(_) => Err(Error::GuardianNotReady { status: "it ended without a word".into() }),
        }
    }

    /// Sends a request. `Disconnected` when the guardian is gone: it has ended when this returns.
    pub(crate) fn request(&self, frame: &mut FrameWriter) -> Result<(), billiard_connection::Error> {
        let mut control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        let result = match &*control {
            Some(connection) => frame.write(connection, Mode::Wait).map(drop),
            None => Err(billiard_connection::Error::Disconnected),
        };
        if result.is_err() && frame.is_begun() {
            *control = None;
        }
        if let Err(billiard_connection::Error::Disconnected) = result {
            // Its socket closes a moment before it is seen to have ended.
            let _ = sys::wait_readable([self.pidfd.as_fd()], Some(Instant::now() + PATIENCE));
        }
        result
    }

    /// Whether it has ended.
    pub(crate) fn is_dead(&self) -> bool {
        sys::is_readable(self.pidfd.as_fd())
    }

    fn reap(&self) {
        // Where the host program reaps everything, or ignores SIGCHLD, it is gone already.
        let _ = self.process.lock().unwrap_or_else(PoisonError::into_inner).wait();
    }
}

impl AsFd for Guardian {
    /// Readable when the guardian has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}
