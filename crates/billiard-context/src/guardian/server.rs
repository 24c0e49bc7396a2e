//! The guardian itself: one thread, one loop.

use std::{
    collections::HashMap,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
};

use billiard_connection::{Connection, Fd, Frame, FrameReader, FrameWriter, Mode};
use billiard_wire::{attachments::Attachments, fault};
use nix::sys::signal::Signal;
use rustix::process::Rlimit;

use crate::{
    Error,
    child::{self, Order},
    image::Image,
    protocol::{self, Environment, Hello, Report, Start},
    sys::{self, Forked},
};

/// What the guardian blocks: the end of children, which it takes from a descriptor, and the signals that a terminal or a
/// careless `kill` sends to a whole family, which are the program's affair. Blocked and not ignored, so that a signal
/// to a child that is still being set up waits until that is done.
const BLOCKED: &[Signal] = &[
    Signal::SIGCHLD,
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
];

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
    /// What the limit of open descriptors was before it was raised: the guardian has one for each child.
    descriptor_limit: Option<Rlimit>,
}

/// Why the loop ended.
enum Role {
    /// The program is gone, or wants no more.
    Done,
    /// This is a child.
    Child(Box<Order>),
}

/// Runs the guardian, and each child that it forks. Never returns.
pub(crate) fn main(control: Connection) -> ! {
    match Server::open(control) {
        None => sys::exit_now(1),
        Some(server) => match server.serve() {
            Role::Done => sys::exit_now(0),
            Role::Child(order) => child::after_fork(*order),
        },
    }
}

impl Server {
    /// Sets the guardian up and says so. `None` when the program was told that it cannot be.
    fn open(control: Connection) -> Option<Self> {
        let hello = match sys::threads() {
            Some(threads) if threads > 1 => Hello::Threads(threads),
            _ => {
                // What was inherited by mistake is not handed on to every child.
                let duplicate = sys::above_streams(control.as_fd()).ok()?;
                drop(control);
                return Self::open_alone(Connection::try_from(sys::keep_only(duplicate)).ok()?);
            }
        };
        let _ = control.send(&hello);
        None
    }

    fn open_alone(control: Connection) -> Option<Self> {
        sys::set_title("billiard-guard");
        let hello = match Self::set_up() {
            Ok((parent, signals, hello)) => {
                control.send(&hello).ok()?;
                fault::point("guardian.ready");
                return Some(Self {
                    control,
                    reader: FrameReader::new(),
                    parent,
                    signals,
                    children: HashMap::new(),
                    environment: Vec::new(),
                    descriptor_limit: sys::raise_descriptor_limit(),
                });
            }
            Err(Error::Unsupported { call }) => Hello::Unsupported(call.to_owned()),
            Err(error) => Hello::Failed(error.to_string()),
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
        sys::go_on_without_parent();
        sys::set_mask(BLOCKED);
        sys::default_dispositions();
        sys::lead_group(None);
        sys::become_subreaper()?;
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
        if frame.is_incomplete() {
            if let Ok(report) = protocol::take_report(&mut frame.into_received()) {
                tell(&report, &Report::NotStarted("its descriptors could not be received".into(), libc::EMFILE), None);
            }
            return None;
        }
        // A request that cannot be read is dropped: the program sees its report channel end.
        let (mut start, argument, mut received) = frame.decode_prefix::<Start>().ok()?;
        let report = protocol::take_report(&mut received).ok()?;
        let environment = std::mem::replace(&mut start.surroundings.environment, Environment::Inline(Vec::new()));
        if let Err(error) = environment.into_bytes().map(|environment| self.set_environment(environment)) {
            tell(&report, &not_started("its environment", &error), None);
            return None;
        }
        start.boot.guardian = std::process::id();
        fault::point("guardian.fork");
        // SAFETY: the guardian was checked to have one thread when it began, and starts none.
        match unsafe { sys::fork() } {
            Ok(Forked::Child) => {
                let descriptor_limit = self.descriptor_limit;
                Some(Role::Child(Box::new(Order { start, report, argument, received, descriptor_limit })))
            }
            Ok(Forked::Parent(pid)) => {
                sys::lead_group(Some(pid));
                fault::point("guardian.forked");
                self.introduce(pid, report);
                None
            }
            Err(error) => {
                tell(&report, &not_started("fork", &error), None);
                None
            }
        }
    }

    /// Tells the program of a child that was forked. It waits for the program's word before it runs anything; if the
    /// program cannot be told, that will never come.
    fn introduce(&mut self, pid: u32, report: Connection) {
        let told = match sys::pidfd_open(pid) {
            Ok(pidfd) => tell(&report, &Report::Started(pid), Some(pidfd)),
            Err(error) => {
                let why = match &error {
                    Error::Io { source, .. } => not_started("pidfd_open", source),
                    _ => Report::NotStarted(error.to_string(), libc::ENOSYS),
                };
                tell(&report, &why, None);
                false
            }
        };
        if !told {
            sys::kill_child(pid);
        }
        self.children.insert(pid, report);
    }

    /// The environment of the caller; nearly always the same as before.
    fn set_environment(&mut self, environment: Vec<u8>) {
        if self.environment != environment {
            // SAFETY: the guardian has one thread.
            unsafe { sys::set_environment(&environment) };
            self.environment = environment;
        }
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
                tell(&report, &Report::Exited(status), None);
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

fn not_started(what: &str, error: &std::io::Error) -> Report {
    Report::NotStarted(what.to_owned(), error.raw_os_error().unwrap_or(0))
}

/// Whether it could be told. A channel that is full or closed belongs to somebody who does not listen.
fn tell(report: &Connection, what: &Report, first: Option<OwnedFd>) -> bool {
    let mut attachments = Attachments::default();
    if let Some(first) = first
        && attachments.push(Arc::new(first)).is_err()
    {
        return false;
    }
    protocol::encode(what, &mut attachments).is_ok_and(|message| {
        FrameWriter::typed(&message, Vec::new(), attachments).write(report, Mode::DontWait).unwrap_or(false)
    })
}
