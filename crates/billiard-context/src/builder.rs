//! A process before its start, and the start itself.

use std::{
    ffi::{OsStr, OsString},
    fmt, io,
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use billiard_connection::{Connection, FrameWriter};
use billiard_wire::{
    Message,
    attachments::{Attachments, Received},
    exact, fault,
};

use crate::{
    Context, Error, Signal,
    authkey::authkey,
    child::{self, Work},
    children::Identity,
    current,
    guardian::Requested,
    limits::{Resource, Stdio},
    options::{self, Options, Resolved},
    process::{Heard, Keeper, Process},
    protocol::{self, Body, Boot, ChildIdentity, Environment, Go, Request, Start, StartMethod},
    starting::{PATIENCE, Pending, Starting},
    sys::{self, Forked},
    task::{self, Task},
};

/// The longest name of a process that is kept, in bytes.
const MAX_NAME: usize = 255;

/// How many guardians that are gone before they read a request are followed by another. Each of them was ready before: when so many end, what
/// ends them will end the next one too.
const MAX_ASKED: usize = 3;

/// How many processes this one has started.
static STARTED: AtomicU64 = AtomicU64::new(0);

/// In a copy of the process: it has started none.
pub(crate) fn count_anew() {
    STARTED.store(0, Ordering::Relaxed);
}

/// What a child calls.
pub(crate) enum Job<'a, A, R> {
    Call(fn(A) -> R, A),
    /// Only a copy of this process has it.
    Closure(Box<dyn FnOnce() -> R + 'a>),
}

/// A process before its start. What is not given is as it is for its starter, at the start.
#[must_use = "nothing runs before `start()`"]
pub struct ProcessBuilder<'a, A, R> {
    context: Context,
    job: Job<'a, A, R>,
    options: Options,
}

impl<A, R> fmt::Debug for ProcessBuilder<'_, A, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessBuilder")
            .field("context", &self.context)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl<'a, A: Message, R: Message> ProcessBuilder<'a, A, R> {
    pub(crate) fn new(context: Context, job: Job<'a, A, R>) -> Self {
        Self { context, job, options: Options::default() }
    }

    /// Its name, for [`current`](crate::current()), messages and, cut to 15 bytes, lists of processes. `Process-N` by default,
    /// with the numbers of its ancestors in front: `Process-1:2` is the second child of the first one.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.options.name = Some(name.into());
        self
    }

    /// Whether it is daemonic: it may then have no children of its own, and a [`scope`](crate::scope) ends it instead of waiting for it. By default
    /// as its starter is.
    pub fn daemon(mut self, daemon: bool) -> Self {
        self.options.daemon = Some(daemon);
        self
    }

    /// Whether it may start processes, whatever it is. By default all but daemonic ones may.
    pub fn may_have_children(mut self, allowed: bool) -> Self {
        self.options.may_have_children = Some(allowed);
        self
    }

    /// Whether a panic of its function is printed on standard error too, beside being the result. It is by default.
    pub fn print_panic(mut self, print: bool) -> Self {
        self.options.print_panic = print;
        self
    }

    /// Its number among its like, for [`Current::index`](crate::Current).
    pub fn index(mut self, index: u32) -> Self {
        self.options.index = Some(index);
        self
    }

    /// Its working directory. A relative path is relative to its starter's.
    pub fn directory(mut self, path: impl Into<PathBuf>) -> Self {
        self.options.directory = Some(path.into());
        self
    }

    /// Sets a variable of its environment.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.options.variables.insert(name.as_ref().to_owned(), Some(value.as_ref().to_owned()));
        self
    }

    /// Removes a variable from its environment.
    pub fn env_remove(mut self, name: impl Into<OsString>) -> Self {
        self.options.variables.insert(name.into(), None);
        self
    }

    /// Begins with an empty environment: only what [`env`](Self::env) sets from here on.
    pub fn env_clear(mut self) -> Self {
        self.options.variables.clear();
        self.options.clear_environment = true;
        self
    }

    /// Its standard input; `/dev/null` by default. A child that inherits a terminal cannot read from it: it is in a process group of its own,
    /// in the background, and the kernel stops it (SIGTTIN).
    pub fn stdin(mut self, stdin: impl Into<Stdio>) -> Self {
        self.options.streams[0] = stdin.into();
        self
    }

    /// Its standard output; its starter's by default.
    pub fn stdout(mut self, stdout: impl Into<Stdio>) -> Self {
        self.options.streams[1] = stdout.into();
        self
    }

    /// Its standard error; its starter's by default.
    pub fn stderr(mut self, stderr: impl Into<Stdio>) -> Self {
        self.options.streams[2] = stderr.into();
        self
    }

    /// Its umask: the permissions that new files do not have.
    pub fn umask(mut self, mask: u32) -> Self {
        self.options.umask = Some(mask);
        self
    }

    /// Sets what the kernel limits for it, soft and hard limit alike; never above its starter's hard limit.
    ///
    /// A limit counts from just before its function is called.
    pub fn limit(mut self, resource: Resource, value: u64) -> Self {
        self.options.limits.push((resource, value));
        self
    }

    /// Adds to its niceness: 19 for what may wait; below 0 needs rights.
    pub fn niceness(mut self, niceness: i32) -> Self {
        self.options.niceness = Some(niceness);
        self
    }

    /// The CPUs that it may run on, by number.
    pub fn cpus(mut self, cpus: impl IntoIterator<Item = u32>) -> Self {
        self.options.cpus = Some(cpus.into_iter().collect());
        self
    }

    /// Nothing that it executes, set-user-ID programs for example, gives it more rights:
    /// [PR_SET_NO_NEW_PRIVS](https://man7.org/linux/man-pages/man2/PR_SET_NO_NEW_PRIVS.2const.html).
    pub fn no_new_privileges(mut self) -> Self {
        self.options.no_new_privileges = true;
        self
    }

    /// Gives it a descriptor under a certain number, for code that expects it there. Elsewhere it is simpler to put a
    /// [`Fd`](crate::Fd) into the argument.
    ///
    /// In a child of [`fork`](Context::fork) it replaces whatever had that number here. It is close-on-exec.
    pub fn descriptor(mut self, number: i32, fd: impl Into<OwnedFd>) -> Self {
        self.options.descriptors.push((number, fd.into()));
        self
    }

    /// The signal by which [`terminate`](Process::terminate) asks it to end; SIGTERM by default.
    pub fn term_signal(mut self, signal: Signal) -> Self {
        self.options.term_signal = signal;
        self
    }

    /// Starts it, and returns once it exists.
    ///
    /// By default it has the working directory, environment, umask, standard output and error of this moment, and standard
    /// input from `/dev/null`; a process group of its own; signals as a Rust program begins with them. Children of `forkserver` and
    /// `spawn` have no other descriptor than those in their argument. Their user is this program's;
    /// capabilities, resource limits, niceness, CPU affinity, control group, namespaces, root directory and system call filters are those that the
    /// program had when it first started a process, except where the builder was told otherwise: what shall hold for children too has to be
    /// in force before that.
    ///
    /// When this fails, the function is not called. What a child finds to be impossible, a limit or a
    /// niceness say, is [`ChildError::Setup`](crate::ChildError::Setup) of [`take_result`](Process::take_result) instead.
    ///
    /// # Errors
    ///
    /// [`Error::NotInitialized`] when `main` does not begin with [`init`](crate::init()); [`Error::DaemonicProcess`] in a process that may have no
    /// children; [`Error::Threads`] for `fork` where there are others; [`Error::Argument`] when the
    /// argument cannot be encoded; [`Error::Configuration`] for options that cannot be; [`Error::Start`] when the kernel can make no process. Nothing
    /// is started then.
    pub fn start(self) -> Result<Process<R>, Error> {
        self.begin()?.wait()
    }

    /// Asks for it, and returns without waiting until it exists: [`start`](Self::start) for event loops. It waits only while a helper
    /// process has to be brought up, as after a death, or does not read: [`Context::prepare`] beforehand. Its function is not
    /// called before [`Starting::poll`] or [`Starting::wait`] has given the [`Process`].
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub fn begin(self) -> Result<Starting<R>, Error> {
        current::may_start()?;
        let Self { context, job, mut options } = self;
        let number = STARTED.fetch_add(1, Ordering::Relaxed) + 1;
        let this = current::current();
        let mut name = options.name.take().unwrap_or_else(|| match this.name.strip_prefix("Process-") {
            Some(path) => format!("Process-{path}:{number}"),
            None => format!("Process-{number}"),
        });
        name.truncate(name.floor_char_boundary(MAX_NAME));
        let daemon = options.daemon.unwrap_or(this.daemon);
        let identity = ChildIdentity {
            name,
            daemon,
            may_have_children: options.may_have_children.unwrap_or(!daemon),
            print_panic: options.print_panic,
            index: options.index,
            authkey: Some(authkey().reveal()),
            starter: (this.pid, this.name.to_owned()),
        };
        match (context.start_method(), job) {
            (StartMethod::Fork, job) => fork(&context, job, identity, options),
            (_, Job::Call(function, argument)) => ask(&context, function, argument, identity, options),
            (_, Job::Closure(_)) => unreachable!("only `fork` makes a builder with a closure"),
        }
    }
}

fn cannot(what: &str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Start { what: what.into(), source }
}

/// Asks a guardian.
fn ask<A: Message, R: Message>(
    context: &Context,
    function: fn(A) -> R,
    argument: A,
    identity: ChildIdentity,
    options: Options,
) -> Result<Starting<R>, Error> {
    let task = Task::new(function)?;
    let term_signal = options.term_signal;
    let Resolved { surroundings, environment, umask, limits, pipes } = options.resolve(StartMethod::Forkserver)?;
    let (ours, theirs) = Connection::pair()?;

    // Its end of the report channel comes first, whatever else does not arrive.
    let mut attachments = Attachments::default();
    let theirs = theirs.as_fd().try_clone_to_owned().map_err(cannot("its report channel"))?;
    attachments.push(Arc::new(theirs)).expect("the list was empty");
    let mut bytes = exact::encode_after(&argument, &mut attachments)?;
    let argument = Body::of(&mut bytes).map_err(cannot("its argument needs a memory file"))?;
    let key = protocol::new_key();
    let (name, daemon) = (identity.name.clone(), identity.daemon);
    // Its guardian fills in itself, and the limit that it has changed.
    let boot = Boot { task, argument, identity, surroundings, descriptor_limit: None, limits, guardian: 0 };
    let environment = Environment::of(environment.unwrap_or_default())
        .map_err(options::refused("the environment needs a memory file"))?;
    let start = Start { method: context.start_method(), environment, boot, key };
    let message = protocol::encode(&Request::Start(Box::new(start)), &mut attachments)
        .map_err(|error| cannot("its descriptors cannot be passed")(io::Error::other(error)))?;
    let mut frame = FrameWriter::typed(&message, bytes, attachments);
    fault::point("context.start");
    let deadline = Instant::now() + PATIENCE;
    let mut asked = 0;
    let guardian = loop {
        let guardian = context.guardian()?;
        match guardian.request(&mut frame, deadline)? {
            Requested::Sent => break guardian,
            // One that was gone before it read any of it has started nothing: another may be asked.
            Requested::Gone if asked < MAX_ASKED => asked += 1,
            Requested::Gone => return Err(Error::GuardianDied),
        }
    };
    fault::point("context.started");
    // While the guardian is at it: this takes a while.
    let go = Go { umask: umask.or_else(sys::umask) };
    Ok(Starting::asked(Pending {
        name,
        daemon,
        term_signal,
        pipes,
        report: ours,
        guardian,
        key,
        go,
        heard: Heard::default(),
    }))
}

/// Copies this process.
fn fork<A: Message, R: Message>(
    context: &Context,
    job: Job<'_, A, R>,
    identity: ChildIdentity,
    options: Options,
) -> Result<Starting<R>, Error> {
    context.may_fork()?;
    let term_signal = options.term_signal;
    let Resolved { surroundings, environment, umask, limits, pipes } = options.resolve(StartMethod::Fork)?;
    let (ours, theirs) = Connection::pair()?;
    let mut attachments = Attachments::default();
    let encoded = match job {
        Job::Call(function, argument) => Ok((Task::new(function)?, exact::encode_after(&argument, &mut attachments)?)),
        Job::Closure(closure) => Err(closure),
    };
    let (name, daemon, starter) = (identity.name.clone(), identity.daemon, std::process::id());
    fault::point("context.start");
    let born = Instant::now();
    // SAFETY: there is one thread, or the context was made by who promises that it does not matter.
    match unsafe { sys::fork_blocked() } {
        Ok(Forked::Child) => {
            drop((ours, pipes));
            let work = match encoded {
                Ok((task, bytes)) => Work::Task(task, bytes, received_by_a_copy(attachments)),
                Err(closure) => Work::Closure(Box::new(move |print| task::outcome(print, closure))),
            };
            child::copied(starter, identity, surroundings, environment.as_deref(), &limits, theirs, work)
        }
        Ok(Forked::Parent(pid)) => {
            drop(theirs);
            sys::lead_group(Some(pid));
            // When it fails the child has run nothing: it waits to be told that it may.
            let pidfd = sys::pidfd_of_child(pid)?;
            attachments.sent();
            let identity = Identity::new(name, daemon, pid, pidfd, term_signal, None);
            let process = Process::new(identity, ours, Keeper::Own { born }, pipes, Heard::default());
            Ok(Starting::made(process, Go { umask }))
        }
        Err(source) => Err(Error::Start { what: "fork".into(), source }),
    }
}

/// The descriptors of an argument, as if they had travelled. Should one be missing, decoding says so.
fn received_by_a_copy(attachments: Attachments) -> Received {
    let duplicates: io::Result<Vec<OwnedFd>> = attachments.fds().map(|fd| fd.try_clone_to_owned()).collect();
    // The handles of one owner that they came from are no longer that, here as there.
    attachments.sent();
    duplicates.unwrap_or_default().into()
}
