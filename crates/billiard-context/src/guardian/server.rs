//! The guardian itself: one thread, one loop.

use std::{
    collections::HashMap,
    os::fd::{AsFd, OwnedFd},
};

use billiard_connection::{Connection, Fd, Frame, FrameReader, FrameWriter, Mode};
use billiard_wire::{
    attachments::{Attachments, Received},
    codec, fault,
};
use nix::sys::signal::{SigHandler, Signal};

use crate::{
    Error, child,
    image::Image,
    protocol::{Hello, Report, Start},
    sys::{self, Forked},
};

/// The signals that a terminal or a careless `kill` sends to a whole family: the decision is the program's.
const IGNORED: &[Signal] =
    &[Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGUSR1, Signal::SIGUSR2];

/// What the guardian holds. In the copy that becomes a child, dropping it closes all of that.
struct Server {
    control: Connection,
    reader: FrameReader,
    parent: OwnedFd,
    signals: OwnedFd,
    /// The report channel of each child that was not reaped.
    children: HashMap<u32, Connection>,
    /// What the environment was set to last.
    environment: Vec<u8>,
}

/// Why the loop ended.
enum Role {
    /// The program is gone, or wants no more.
    Done,
    /// This is a child.
    Child { guardian: u32, start: Box<Start>, argument: Vec<u8>, received: Received },
}

/// Runs the guardian, and each child that it forks. Never returns.
pub(crate) fn main(control: Connection) -> ! {
    match Server::open(control) {
        None => sys::exit_now(1),
        Some(server) => match server.serve() {
            Role::Done => sys::exit_now(0),
            Role::Child { guardian, start, argument, received } => {
                child::after_fork(guardian, *start, argument, received)
            }
        },
    }
}

impl Server {
    /// Sets the guardian up and says so. `None` when the program was told that it cannot be.
    fn open(control: Connection) -> Option<Self> {
        // Before anything else: what was inherited by mistake is not handed on to every child.
        let duplicate = sys::above_streams(control.as_fd()).ok()?;
        drop(control);
        let control = Connection::try_from(sys::keep_only(duplicate)).ok()?;
        sys::set_title("billiard-guard");
        let hello = match sys::threads() {
            Some(threads) if threads > 1 => Hello::Threads(threads),
            _ => match Self::set_up() {
                Ok((parent, signals, hello)) => {
                    let reader = FrameReader::new();
                    control.send(&hello).ok()?;
                    fault::point("guardian.ready");
                    let (children, environment) = (HashMap::new(), Vec::new());
                    return Some(Self { control, reader, parent, signals, children, environment });
                }
                Err(Error::Unsupported { call }) => Hello::Unsupported(call.to_owned()),
                Err(error) => Hello::Failed(error.to_string()),
            },
        };
        let _ = control.send(&hello);
        None
    }

    fn set_up() -> Result<(OwnedFd, OwnedFd, Hello), Error> {
        let parent_process = sys::parent();
        let parent = sys::pidfd_open(parent_process)?;
        if sys::parent() != parent_process {
            return Err(Error::GuardianDied); // nobody is left to read it
        }
        sys::set_dispositions(IGNORED, SigHandler::SigIgn);
        sys::set_dispositions(&[Signal::SIGCHLD], SigHandler::SigDfl);
        sys::set_mask(&[Signal::SIGCHLD]);
        sys::lead_group(None);
        sys::become_subreaper()?;
        // No folder is kept busy; children get their caller's.
        let _ = std::env::set_current_dir("/");
        let own = sys::pidfd_open(std::process::id())?;
        Ok((parent, sys::child_signals()?, Hello::Ready(Image::this().identity(), Fd::new(own))))
    }

    fn serve(mut self) -> Role {
        loop {
            let fds = [self.control.as_fd(), self.parent.as_fd(), self.signals.as_fd()];
            let Ok([request, parent_ended, signal]) = sys::wait_readable(fds, None) else { break };
            if parent_ended {
                break;
            }
            if signal {
                sys::drain_signals(&self.signals);
                self.reap();
            }
            if request {
                match self.reader.read(&self.control, Mode::DontWait) {
                    Ok(None) => {}
                    Ok(Some(frame)) => {
                        if let Some(child) = self.start(frame) {
                            return child; // and what the guardian holds is closed here
                        }
                    }
                    Err(_) => break, // the program closed its end, or is no longer to be understood
                }
            }
        }
        self.end();
        Role::Done
    }

    /// Forks a child; what it is to do, in the child.
    fn start(&mut self, frame: Frame) -> Option<Role> {
        // A request that cannot be read is dropped: the program sees its report channel end.
        let (start, argument, received) = frame.decode_prefix::<Start>().ok()?;
        self.set_environment(&start.surroundings.environment);
        fault::point("guardian.fork");
        let guardian = std::process::id();
        // SAFETY: the guardian was checked to have one thread when it began, and starts none.
        match unsafe { sys::fork() } {
            Ok(Forked::Child) => Some(Role::Child { guardian, start: Box::new(start), argument, received }),
            Ok(Forked::Parent(pid)) => {
                sys::lead_group(Some(pid));
                fault::point("guardian.forked");
                let report = start.boot.report;
                let told = sys::pidfd_open(pid).map(|pidfd| tell(&report, Report::Started(pid, Fd::new(pidfd))));
                if !matches!(told, Ok(true)) {
                    // Nobody holds a handle: it must not run on.
                    if let Err(error) = told {
                        tell(&report, Report::NotStarted(error.to_string(), 0));
                    }
                    sys::kill_child(pid);
                }
                self.children.insert(pid, report);
                None
            }
            Err(error) => {
                tell(&start.boot.report, Report::NotStarted("fork".into(), error.raw_os_error().unwrap_or(0)));
                None
            }
        }
    }

    /// The environment of the caller; nearly always the same as before.
    fn set_environment(&mut self, environment: &[u8]) {
        use std::os::unix::ffi::OsStrExt;

        if self.environment == environment {
            return;
        }
        for (name, _) in std::env::vars_os() {
            // SAFETY: the guardian has one thread.
            unsafe { std::env::remove_var(name) };
        }
        for variable in environment.split(|&byte| byte == 0) {
            // A name may begin with `=`, as on other systems; it never is one.
            if let Some(at) = variable.iter().skip(1).position(|&byte| byte == b'=') {
                let (name, value) = variable.split_at(at + 1);
                let (name, value) = (std::ffi::OsStr::from_bytes(name), std::ffi::OsStr::from_bytes(&value[1..]));
                // SAFETY: the guardian has one thread.
                unsafe { std::env::set_var(name, value) };
            }
        }
        self.environment = environment.to_vec();
    }

    /// Reaps all that have ended, children and orphans alike.
    fn reap(&mut self) {
        while let Some(pid) = sys::ended_child() {
            let report = self.children.remove(&pid);
            if report.is_some() {
                sys::kill_group(pid); // while the number is still the leader's
            }
            fault::point("guardian.reap");
            let Some(status) = sys::reap(pid) else { break };
            if let Some(report) = report {
                tell(&report, Report::Exited(status));
            }
        }
    }

    /// Kills until nobody is left.
    fn end(&mut self) {
        for &pid in self.children.keys() {
            sys::kill_group(pid);
        }
        loop {
            for pid in sys::children() {
                sys::kill_child(pid);
            }
            if !sys::reap_any() {
                return;
            }
        }
    }
}

/// Whether it could be told. A channel that is full or closed belongs to somebody who does not listen.
fn tell(report: &Connection, what: Report) -> bool {
    let mut attachments = Attachments::default();
    codec::encode_after(&what, &mut attachments).is_ok_and(|message| {
        FrameWriter::typed(&message, Vec::new(), attachments).write(report, Mode::DontWait).unwrap_or(false)
    })
}
