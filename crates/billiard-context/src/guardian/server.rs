//! The guardian itself: one thread, one loop.

use std::{
    collections::{BTreeSet, HashMap},
    ffi::OsStr,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    sync::Arc,
    time::{Duration, Instant},
};

use billiard_connection::{Connection, Fd, Frame, FrameReader, FrameWriter, Mode};
use billiard_wire::{
    RemoteError,
    attachments::{Attachments, Received},
    codec,
    exact::Bytes,
    fault,
};
use rustix::process::Rlimit;

use crate::{
    Error, Signal, builder,
    child::{self, Order},
    error::PreloadError,
    image::Image,
    init,
    panics::{self, Print},
    protocol::{self, Body, Boot, FIRST, FileName, Hello, Preloaded, Report, Request, Start, StartMethod},
    stop,
    sys::{self, Forked, Whom},
    task::{Outcome, Task},
};

/// What the guardian blocks: the end of children, which it takes from a descriptor, and the signals that a terminal or a
/// careless `kill` sends to a whole family, which are the program's affair. Blocked and not ignored, so that a signal
/// to a child that is still being set up waits until that is done.
const BLOCKED: &[Signal] =
    &[Signal::CHLD, Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT, Signal::USR1, Signal::USR2];

/// What the guardian holds. In the copy that becomes a child, dropping it closes all of that.
struct Server {
    control: Connection,
    reader: FrameReader,
    parent_process: u32,
    parent: OwnedFd,
    signals: OwnedFd,
    /// Those that were not reaped.
    children: HashMap<u32, Child>,
    /// Who has been asked to end and will be made to.
    ending: Vec<Ending>,
    /// What the program has in the file system.
    names: BTreeSet<FileName>,
    /// What the environment was set to last, if it was.
    environment: Option<Vec<u8>>,
    /// What the limit of open descriptors was before it was raised: the guardian has one for each child.
    descriptor_limit: Option<Rlimit>,
}

struct Child {
    /// Its report channel.
    report: Connection,
    key: u64,
    born: Instant,
}

/// The leader of a group that gets KILL when it lives on for too long.
struct Ending {
    at: Instant,
    pid: u32,
    pidfd: OwnedFd,
}

/// Longer than anybody waits; what clocks can add to a moment is limited.
const LONGEST_GRACE: Duration = Duration::from_secs(365 * 24 * 3600);

/// How long copies of a dead program may take to die too.
const MOMENT: Duration = Duration::from_secs(1);

/// Why the loop ended.
enum Role {
    /// The program is gone, or wants no more.
    Done,
    /// This is a child.
    Child(Box<Order>),
}

/// Runs the guardian in a program that was executed for it, and each child that it forks. Never returns.
pub(crate) fn main(control: Connection) -> ! {
    run(Server::open(control))
}

/// Runs the guardian in a copy of the program. Never returns.
pub(crate) fn copied(control: Connection) -> ! {
    stop::forget();
    builder::count_anew();
    // As one that was executed has them.
    let nowhere = sys::null().and_then(|null| (0..2).try_for_each(|stream| sys::set_stream(null.as_fd(), stream)));
    match nowhere {
        Ok(()) => run(Server::open_alone(control)),
        Err(_) => sys::exit_now(1),
    }
}

fn run(server: Option<Server>) -> ! {
    match server {
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
            Ok((parent_process, parent, signals, hello)) => {
                control.send(&hello).ok()?;
                fault::point("guardian.ready");
                return Some(Self {
                    control,
                    reader: FrameReader::new(),
                    parent_process,
                    parent,
                    signals,
                    children: HashMap::new(),
                    ending: Vec::new(),
                    names: BTreeSet::new(),
                    environment: None,
                    descriptor_limit: sys::raise_descriptor_limit(),
                });
            }
            Err(Error::Unsupported { call }) => Hello::Unsupported(call.to_owned()),
            Err(error) => Hello::Failed(error.to_string()),
        };
        let _ = control.send(&hello);
        None
    }

    fn set_up() -> Result<(u32, OwnedFd, OwnedFd, Hello), Error> {
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
        // What every child would do for itself, and pay for, is done once.
        let _ = panics::catch(Print::No, || ());
        let own = sys::pidfd_open(std::process::id())?;
        Ok((parent_process, parent, sys::child_signals()?, Hello::Ready(Image::this().identity(), Fd::new(own))))
    }

    fn serve(mut self) -> Role {
        loop {
            let fds = [self.control.as_fd(), self.parent.as_fd(), self.signals.as_fd()];
            let due = self.ending.iter().map(|ending| ending.at).min();
            let Ok([request, parent_ended, signal]) = sys::wait_readable(fds, due) else { break };
            if parent_ended {
                break;
            }
            if signal {
                sys::take_signal(&self.signals);
                self.reap();
            }
            self.make_end();
            if request {
                match self.reader.read(&self.control, Mode::DontWait) {
                    Ok(None) => {}
                    Ok(Some(frame)) => {
                        if let Some(child) = self.answer(frame) {
                            return child; // and what the guardian holds is closed here
                        }
                    }
                    Err(_) => break, // the program closed its end, or is no longer to be understood
                }
            }
        }
        self.end();
        self.hear_last_names();
        self.remove_names();
        Role::Done
    }

    /// The program's last words may still be on their way to this process when its end is seen. No start among them matters any more.
    fn hear_last_names(&mut self) {
        while let Ok(Some(frame)) = self.reader.read(&self.control, Mode::DontWait) {
            if let Ok((Request::Name { name, given }, ..)) = frame.decode_prefix() {
                self.note_name(name, given);
            }
        }
    }

    fn note_name(&mut self, name: FileName, given: bool) {
        match given {
            true => self.names.insert(name),
            false => self.names.remove(&name),
        };
    }

    /// Does what is asked; what a child is to do, in the child.
    fn answer(&mut self, frame: Frame) -> Option<Role> {
        if frame.is_incomplete() {
            // Only a start has a channel to say so.
            if let Ok(report) = protocol::take_report(&mut frame.into_received()) {
                tell(&report, &Report::NotStarted("its descriptors could not be received".into(), libc::EMFILE), None);
            }
            return None;
        }
        // A request that cannot be read is dropped: the program sees its report channel end.
        let (request, argument, mut received) = frame.decode_prefix::<Request>().ok()?;
        match request {
            Request::Start(start) => return self.start(*start, argument, received),
            Request::End { pid, signal, grace } => {
                if let Ok(pidfd) = received.take(FIRST) {
                    let at = Instant::now() + grace.min(LONGEST_GRACE);
                    self.signal_group(pid, &pidfd, signal);
                    self.signal_group(pid, &pidfd, Signal::CONT); // the stopped shall hear it
                    self.ending.push(Ending { at, pid, pidfd });
                }
            }
            Request::Name { name, given } => self.note_name(name, given),
            Request::Preload { task, argument: body } => {
                let done = self.preload(task, body, argument, received);
                let _ = self.control.send(&done); // who is not there needs no answer
            }
        }
        None
    }

    /// Runs the program's function. If the program ends meanwhile, so does this process: the thread that asked for it, by whose end that
    /// signal would come too, waits for the answer.
    fn preload(&mut self, task: Task, body: Body, argument: Vec<u8>, mut received: Received) -> Preloaded {
        fault::point("guardian.preload");
        if !sys::die_with(self.parent_process) {
            sys::exit_now(1);
        }
        let argument = body.into_bytes(argument).map_err(|error| PreloadError::Argument(error.into()))?;
        // SAFETY: the task came from the program, whose executable was compared with this one.
        let outcome = unsafe { task.run(Bytes::Slice(&argument), &mut received, Print::No, Vec::new()) };
        sys::go_on_without_parent();
        match outcome.map_err(|error| PreloadError::Argument(error.into()))? {
            Outcome::Returned(bytes, _) => codec::decode::<Result<(), RemoteError>>(&bytes, &mut Received::default())
                .map_err(|error| PreloadError::Failed(error.into()))?
                .map_err(PreloadError::Failed)?,
            Outcome::Panicked(panic) => return Err(PreloadError::Panicked(panic)),
            Outcome::BadArgument(error) => return Err(PreloadError::Argument(error)),
            Outcome::BadResult(error) => return Err(PreloadError::Failed(error)),
        }
        // It may have changed either for itself; children begin as all do.
        sys::set_mask(BLOCKED);
        sys::default_dispositions();
        match sys::threads() {
            Some(threads) if threads > 1 => Err(PreloadError::Threads(threads - 1)),
            _ => Ok(()),
        }
    }

    /// A signal to the group of a leader that lives. Of one that has ended, the group ends with it, and the number may be another's.
    fn signal_group(&self, pid: u32, pidfd: &OwnedFd, signal: Signal) {
        match (sys::is_readable(pidfd.as_fd()), self.children.contains_key(&pid)) {
            (true, _) => {}
            (false, true) => sys::signal_group(pid, signal),
            (false, false) => sys::signal_group_of(pidfd.as_fd(), pid, signal), // a child of the program itself
        }
        // It may have left its group. Only KILL may come twice: a second request to stop ends a process at once.
        if signal == Signal::KILL {
            let _ = sys::signal(pidfd.as_fd(), signal);
        }
    }

    /// KILL to those whose time is over.
    fn make_end(&mut self) {
        if self.ending.is_empty() {
            return;
        }
        let now = Instant::now();
        let (due, waiting) = std::mem::take(&mut self.ending).into_iter().partition(|ending| ending.at <= now);
        self.ending = waiting;
        for Ending { pid, pidfd, .. } in Vec::from_iter::<Vec<_>>(due) {
            self.signal_group(pid, &pidfd, Signal::KILL);
        }
    }

    /// Starts a child; what it is to do, in the child.
    fn start(&mut self, mut start: Start, argument: Vec<u8>, mut received: Received) -> Option<Role> {
        let report = protocol::take_report(&mut received).ok()?;
        start.boot.guardian = std::process::id();
        let (key, born) = (start.key, Instant::now());
        let environment = match start.environment.take().into_bytes() {
            Ok(environment) => environment,
            Err(error) => {
                tell(&report, &not_started("its environment", &error), None);
                return None;
            }
        };
        fault::point("guardian.fork");
        if start.method == StartMethod::Spawn {
            start.boot.descriptor_limit = self.descriptor_limit.as_ref().map(|limit| (limit.current, limit.maximum));
            match execute(&start.boot, &report, argument, received, &environment) {
                Ok(pid) => self.introduce(pid, Child { report, key, born }),
                Err(error) => drop(tell(&report, &not_started("the program could not be executed", &error), None)),
            }
            return None;
        }
        self.set_environment(environment);
        // SAFETY: the guardian was checked to have one thread when it began, and starts none.
        match unsafe { sys::fork() } {
            Ok(Forked::Child) => {
                let descriptor_limit = self.descriptor_limit;
                let boot = Box::new(start.boot);
                Some(Role::Child(Box::new(Order { boot, report, argument, received, descriptor_limit })))
            }
            Ok(Forked::Parent(pid)) => {
                sys::lead_group(Some(pid));
                self.introduce(pid, Child { report, key, born });
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
    fn introduce(&mut self, pid: u32, child: Child) {
        fault::point("guardian.forked");
        let report = &child.report;
        let told = match sys::pidfd_open(pid) {
            Ok(pidfd) => tell(report, &Report::Started(pid), Some(pidfd)),
            Err(error) => {
                let why = match &error {
                    Error::Io { source, .. } => not_started("pidfd_open", source),
                    _ => Report::NotStarted(error.to_string(), libc::ENOSYS),
                };
                tell(report, &why, None);
                false
            }
        };
        if !told {
            sys::kill_child(pid);
        }
        self.children.insert(pid, child);
    }

    /// The environment of the caller; nearly always the same as before.
    fn set_environment(&mut self, environment: Vec<u8>) {
        if self.environment.as_ref() != Some(&environment) {
            // SAFETY: the guardian has one thread.
            unsafe { sys::set_environment(&environment) };
            self.environment = Some(environment);
        }
    }

    /// Reaps all that have ended, children and orphans alike.
    fn reap(&mut self) {
        while let Ok(Some((pid, _))) = sys::ended(Whom::Any, false) {
            let child = self.children.remove(&pid);
            if child.is_some() {
                sys::signal_group(pid, Signal::KILL); // while the number is still the leader's
                self.ending.retain(|ending| ending.pid != pid);
            }
            fault::point("guardian.reap");
            let Ok(Some((_, status))) = sys::ended(Whom::Pid(pid), true) else { break };
            if let Some(child) = child {
                let status = status.lived(child.born.elapsed());
                tell(&child.report, &Report::Exited(child.key, status), None);
            }
        }
    }

    /// Removes what the program has left in the file system. What it has forked itself dies with it, and may hold the locks for a moment.
    fn remove_names(&mut self) {
        let until = Instant::now() + MOMENT;
        loop {
            self.names.retain(|name| !sys::remove_abandoned(OsStr::from_bytes(&name.path), (name.device, name.inode)));
            // While the program lives, what is locked is its own. One that ends closes the control channel before its other files.
            let lives = !sys::is_ending(self.parent.as_fd(), self.parent_process);
            if self.names.is_empty() || lives || Instant::now() >= until {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Kills until nobody is left.
    fn end(&mut self) {
        for &pid in self.children.keys() {
            sys::signal_group(pid, Signal::KILL);
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

/// Executes the program afresh; `init` in it goes on in [`child::boot`].
fn execute(
    boot: &Boot,
    report: &Connection,
    argument: Vec<u8>,
    received: Received,
    environment: &[u8],
) -> std::io::Result<u32> {
    let (near, far) = Connection::pair().map_err(std::io::Error::other)?;
    // In the order of their numbers: the report channel, then those of the argument, of which none was taken, then the surroundings'.
    let mut attachments = Attachments::default();
    for fd in std::iter::once(report.as_fd().try_clone_to_owned()?).chain(received.into_untaken()) {
        attachments.push(Arc::new(fd)).map_err(std::io::Error::other)?;
    }
    let message = protocol::encode(boot, &mut attachments).map_err(std::io::Error::other)?;
    if !FrameWriter::typed(&message, argument, attachments)
        .write(&near, Mode::DontWait)
        .map_err(std::io::Error::other)?
    {
        return Err(std::io::Error::new(std::io::ErrorKind::WouldBlock, "the boot channel has no room"));
    }
    // SAFETY: the guardian was checked to have one thread, starts none, and has the default dispositions.
    unsafe { sys::execute_from_one_thread(init::CHILD, far.as_fd(), environment) }
}

fn not_started(what: &str, error: &std::io::Error) -> Report {
    match error.raw_os_error() {
        Some(number) => Report::NotStarted(what.to_owned(), number),
        None => Report::NotStarted(format!("{what}: {error}"), 0),
    }
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
