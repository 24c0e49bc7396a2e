//! Starting processes.

use std::{
    fmt, io,
    os::{fd::AsFd, unix::ffi::OsStrExt},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use billiard_connection::{Connection, FrameWriter};
use billiard_wire::{Message, attachments::Attachments, codec, fault};

use crate::{
    Error, current,
    guardian::{Guardian, Requested},
    process::Process,
    protocol::{self, Body, Boot, Environment, Start, StartMethod, Surroundings},
    starting::{PATIENCE, Starting},
    sys,
    task::Task,
};

/// The longest name of a process that is kept, in bytes.
const MAX_NAME: usize = 255;

/// How processes are started. It holds nothing that would have to be given back, and may be copied.
///
/// The default is [`forkserver`](Context::forkserver).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    method: StartMethod,
}

impl Default for Context {
    fn default() -> Self {
        Self::forkserver()
    }
}

impl Context {
    /// Children are forked off a clean helper process with one thread: fast whatever the size of this one, and
    /// safe whatever its threads do.
    #[must_use]
    pub fn forkserver() -> Self {
        Self { method: StartMethod::Forkserver }
    }

    /// Children execute this very program afresh.
    #[must_use]
    pub fn spawn() -> Self {
        Self { method: StartMethod::Spawn }
    }

    /// How it starts processes.
    #[must_use]
    pub fn start_method(&self) -> StartMethod {
        self.method
    }

    /// Brings the helper process up that starts the children, if it is not there yet. The first start would do the same.
    ///
    /// # Errors
    ///
    /// [`Error::NotInitialized`], [`Error::ThreadsBeforeInit`] and whatever else keeps this program from starting processes.
    pub fn prepare(&self) -> Result<(), Error> {
        current::may_start()?;
        Guardian::current().map(drop)
    }

    /// A process that will call `function` with `argument`.
    ///
    /// Both are checked by the compiler: a function without captured variables, and types that can travel. Several
    /// arguments are given as a tuple. The argument is consumed: connections in it have one owner, the child.
    #[must_use = "nothing runs before `start()`"]
    pub fn process<A: Message, R: Message>(&self, function: fn(A) -> R, argument: A) -> ProcessBuilder<A, R> {
        ProcessBuilder {
            context: *self,
            function,
            argument,
            name: None,
            daemon: None,
            may_have_children: None,
            print_panic: true,
        }
    }
}

/// A process before its start.
#[must_use = "nothing runs before `start()`"]
pub struct ProcessBuilder<A, R> {
    context: Context,
    function: fn(A) -> R,
    argument: A,
    name: Option<String>,
    daemon: Option<bool>,
    may_have_children: Option<bool>,
    print_panic: bool,
}

impl<A, R> fmt::Debug for ProcessBuilder<A, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessBuilder")
            .field("context", &self.context)
            .field("name", &self.name)
            .field("daemon", &self.daemon)
            .finish_non_exhaustive()
    }
}

impl<A: Message, R: Message> ProcessBuilder<A, R> {
    /// Its name, for [`current`](crate::current()), messages and, cut to 15 bytes, lists of processes. `Process-N` by default.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Whether it is daemonic: it may then have no children of its own. By default as its starter is.
    pub fn daemon(mut self, daemon: bool) -> Self {
        self.daemon = Some(daemon);
        self
    }

    /// Whether it may start processes, whatever it is. By default all but daemonic ones may.
    pub fn may_have_children(mut self, allowed: bool) -> Self {
        self.may_have_children = Some(allowed);
        self
    }

    /// Whether a panic of its function is printed on standard error too, beside being the result. It is by default.
    pub fn print_panic(mut self, print: bool) -> Self {
        self.print_panic = print;
        self
    }

    /// Starts it, and returns once it exists.
    ///
    /// It has the working directory, environment, umask, standard output and error of this moment, and standard
    /// input from `/dev/null`; a process group of its own; no other descriptor than those in its argument. Its user is this program's;
    /// capabilities, resource limits, CPU affinity and namespaces are those that the program had when it first started
    /// a process.
    ///
    /// When this fails, the function is not called.
    ///
    /// # Errors
    ///
    /// [`Error::NotInitialized`] when `main` does not begin with [`init`](crate::init()); [`Error::Argument`] when the
    /// argument cannot be encoded; [`Error::Start`] when the kernel can make no process. Nothing is started then.
    pub fn start(self) -> Result<Process<R>, Error> {
        self.begin()?.wait()
    }

    /// Asks for it, and returns without waiting until it exists: [`start`](Self::start) for event loops. Its function is not
    /// called before [`Starting::poll`] or [`Starting::wait`] has given the [`Process`].
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub fn begin(self) -> Result<Starting<R>, Error> {
        static STARTED: AtomicU64 = AtomicU64::new(0);

        current::may_start()?;
        let task = Task::new(self.function)?;
        let number = STARTED.fetch_add(1, Ordering::Relaxed) + 1;
        let daemon = self.daemon.unwrap_or(current::current().daemon);
        let mut name = self.name.unwrap_or_else(|| format!("Process-{number}"));
        name.truncate(name.floor_char_boundary(MAX_NAME));
        let (ours, theirs) = Connection::pair()?;
        let cannot = |what: &str, source| Error::Start { what: what.into(), source };

        // Its end of the report channel comes first, whatever else does not arrive.
        let mut attachments = Attachments::default();
        let theirs = theirs.as_fd().try_clone_to_owned().map_err(|source| cannot("its report channel", source))?;
        attachments.push(Arc::new(theirs)).expect("the list was empty");
        let mut bytes = codec::encode_after(&self.argument, &mut attachments)?;
        let argument = Body::of(&mut bytes).map_err(|source| cannot("its argument needs a memory file", source))?;
        let start = Start {
            method: self.context.method,
            surroundings: surroundings().map_err(|source| cannot("its environment needs a memory file", source))?,
            boot: Boot {
                name: name.clone(),
                daemon,
                may_have_children: self.may_have_children.unwrap_or(!daemon),
                print_panic: self.print_panic,
                task,
                argument,
                guardian: 0, // it fills that in itself
            },
        };
        let message = protocol::encode(&start, &mut attachments)
            .map_err(|error| cannot("its descriptors cannot be passed", io::Error::other(error)))?;
        let mut frame = FrameWriter::typed(&message, bytes, attachments);
        fault::point("context.start");
        let deadline = Instant::now() + PATIENCE;
        let guardian = loop {
            let guardian = Guardian::current()?;
            // One that was gone before it read any of it has started nothing: another may be asked.
            if guardian.request(&mut frame, deadline)? == Requested::Sent {
                break guardian;
            }
        };
        fault::point("context.started");
        Ok(Starting::new(name, daemon, ours, guardian))
    }
}

fn surroundings() -> io::Result<Surroundings> {
    let mut environment = Vec::new();
    for (name, value) in std::env::vars_os() {
        environment.extend([name.as_bytes(), b"=", value.as_bytes(), b"\0"].concat());
    }
    Ok(Surroundings {
        directory: sys::working_directory().map(Into::into),
        stdout: sys::stream(1).map(Into::into),
        stderr: sys::stream(2).map(Into::into),
        umask: sys::umask(),
        environment: Environment::of(environment)?,
    })
}
