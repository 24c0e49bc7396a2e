//! How processes are started.

use std::sync::Arc;

use billiard_wire::{Message, RemoteError, attachments::Attachments, exact};

use crate::{
    Error,
    builder::{Job, ProcessBuilder},
    current,
    guardian::{Guardian, Guardians, OF_THE_PROCESS, Origin, Preload, require_one_thread},
    protocol::StartMethod,
    task::Task,
};

/// How processes are started: a value, of which a program may have many.
///
/// | | a child is | fast | threads in this program | carries closures |
/// | --- | --- | --- | --- | --- |
/// | [`forkserver`](Self::forkserver), the default | a copy of a clean helper process | yes | any | no |
/// | [`spawn`](Self::spawn) | this program, executed afresh | no | any | no |
/// | [`fork`](Self::fork) | a copy of this process | where it is small | one | yes |
///
/// Cloning is cheap. Contexts that were made with [`forkserver_with`](Self::forkserver_with) or
/// [`template`](Self::template) have a helper process of their own, which ends, and its children with it, when the last clone of the context
/// and the last [`Process`](crate::Process) is dropped; all others share one, which is there from the first start to the end of the program.
#[derive(Clone, Debug, Default)]
pub struct Context {
    method: StartMethod,
    /// Fork although there may be threads.
    unchecked: bool,
    /// The helper process, where it is not the one that all share.
    own: Option<Arc<Guardians>>,
}

impl Context {
    /// Children are forked off a clean helper process with one thread: fast whatever the size of this one, and
    /// safe whatever its threads do.
    #[must_use]
    pub fn forkserver() -> Self {
        Self::with_method(StartMethod::Forkserver)
    }

    /// Children execute this very program afresh.
    #[must_use]
    pub fn spawn() -> Self {
        Self::with_method(StartMethod::Spawn)
    }

    /// Children are copies of this process.
    ///
    /// That is sound only while this process has one thread: a lock that another thread holds at that moment, in the allocator or a
    /// library, is held in the copy for ever. So every start looks, and is [`Error::Threads`] otherwise.
    ///
    /// A child is this process's own. It is a copy with all that is open here, so that a connection whose other end
    /// the child has too does not end when this process drops it. Handles that processes may share work in it;
    /// guards, [`Process`](crate::Process) and whatever else has one owner refuse. It ends, by
    /// SIGKILL, when the thread that started it ends, which is the only one. Processes that it has started itself and that live on
    /// when this program is killed are not ended by anybody: use another start method where that matters.
    ///
    /// Its status is unknown where this program reaps all children itself, or ignores SIGCHLD.
    #[must_use]
    pub fn fork() -> Self {
        Self::with_method(StartMethod::Fork)
    }

    /// As [`fork`](Self::fork), without looking for other threads.
    ///
    /// # Safety
    ///
    /// What the child does can do without every lock that another thread of this process may hold when it is started: those of
    /// the standard streams, of this crate and of other libraries among them; only the C library's allocator takes care of itself. No
    /// other thread changes the environment meanwhile.
    #[must_use]
    pub unsafe fn fork_unchecked() -> Self {
        Self { unchecked: true, ..Self::fork() }
    }

    /// The context of that start method.
    #[must_use]
    pub fn with_method(method: StartMethod) -> Self {
        Self { method, unchecked: false, own: None }
    }

    /// As [`forkserver`](Self::forkserver), with a helper process of its own that calls `function` first, once: what it loads or computes,
    /// every child finds in its memory, in statics. Waits until it has returned.
    ///
    /// Should the helper process die, the next start brings up another, which calls the function again. What it opens stays open
    /// in every child. Signal handlers that it installs are taken back; it must leave no thread behind.
    ///
    /// ```no_run
    /// use std::sync::OnceLock;
    ///
    /// use billiard_context::{Context, RemoteError};
    ///
    /// static WORDS: OnceLock<String> = OnceLock::new();
    ///
    /// fn load(path: String) -> Result<(), RemoteError> {
    ///     WORDS.get_or_init(|| std::fs::read_to_string(path).unwrap_or_default());
    ///     Ok(())
    /// }
    ///
    /// fn count(_: ()) -> usize {
    ///     WORDS.get().map_or(0, |words| words.lines().count())
    /// }
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// billiard_context::init();
    /// let context = Context::forkserver_with(load, "/usr/share/dict/words".into())?;
    /// println!("{} words", context.process(count, ()).start()?.take_result()?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Preload`] when the function fails or panics, [`Error::Argument`] when its argument cannot be encoded, and whatever keeps
    /// this program from starting processes.
    pub fn forkserver_with<A: Message>(function: fn(A) -> Result<(), RemoteError>, argument: A) -> Result<Self, Error> {
        current::may_start()?;
        let task = Task::new(function)?;
        let mut attachments = Attachments::default();
        let argument = exact::encode_after(&argument, &mut attachments)?;
        let mut descriptors = Vec::new();
        for fd in attachments.fds() {
            let fd = fd.try_clone_to_owned().map_err(|source| Error::Io { call: "fcntl", source })?;
            descriptors.push(Arc::new(fd));
        }
        let context = Self::with_own(Origin::Preloaded(Preload { task, argument, descriptors }));
        context.prepare()?;
        attachments.sent(); // the handles in the argument are the helper's now
        Ok(context)
    }

    /// As [`forkserver`](Self::forkserver), with a helper process of its own that is a copy of this one as it is now: children find
    /// in their memory what this process has there, while it may have any number of threads when it starts them.
    ///
    /// What this process has open stays open in the helper and in its children. Should the helper process die, the next start
    /// makes another copy if there is one thread by then, and is [`Error::Threads`] otherwise.
    ///
    /// # Errors
    ///
    /// [`Error::Threads`] unless this process has one thread, and whatever keeps this program from starting processes.
    pub fn template() -> Result<Self, Error> {
        let context = Self::with_own(Origin::Template);
        context.prepare()?;
        Ok(context)
    }

    fn with_own(origin: Origin) -> Self {
        Self { own: Some(Arc::new(Guardians::new(origin))), ..Self::forkserver() }
    }

    /// How it starts processes.
    #[must_use]
    pub fn start_method(&self) -> StartMethod {
        self.method
    }

    /// Sees to it that processes can be started: brings the helper process up, if it is not there yet, or looks for other threads where
    /// this process itself is forked. The first start would do the same.
    ///
    /// # Errors
    ///
    /// [`Error::NotInitialized`], [`Error::ThreadsBeforeInit`], [`Error::Threads`] and whatever else keeps this program from starting
    /// processes.
    pub fn prepare(&self) -> Result<(), Error> {
        current::may_start()?;
        match self.method {
            StartMethod::Fork => self.may_fork(),
            StartMethod::Forkserver | StartMethod::Spawn => self.guardian().map(drop),
        }
    }

    pub(crate) fn may_fork(&self) -> Result<(), Error> {
        if self.unchecked { Ok(()) } else { require_one_thread() }
    }

    pub(crate) fn guardian(&self) -> Result<Arc<Guardian>, Error> {
        self.own.as_deref().unwrap_or(&OF_THE_PROCESS).current()
    }

    /// A process that will call `function` with `argument`.
    ///
    /// Both are checked by the compiler: a function without captured variables, and types that can travel. Several
    /// arguments are given as a tuple. The argument is consumed: connections in it have one owner, the child.
    #[must_use = "nothing runs before `start()`"]
    pub fn process<A: Message, R: Message>(&self, function: fn(A) -> R, argument: A) -> ProcessBuilder<'static, A, R> {
        ProcessBuilder::new(self.clone(), Job::Call(function, argument))
    }
}

/// A process that will call `closure` in a copy of this process, as [`Context::fork`] makes it. Its return value travels; what it
/// has captured is copied with everything else, and is dropped here once it has started.
///
/// What is borrowed cannot be captured: a reference into memory that processes share (out of a guard, or of a shared buffer) would
/// be used by two of them. One that was leaked (`Box::leak`, [`std::mem::forget`]) can, and must not be used in the child: its memory is another's, or not there.
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// billiard_context::init();
/// let words = vec!["tea", "for", "two"];
/// let mut child = billiard_context::fork(move || words.concat()).start()?;
/// assert_eq!(child.take_result()?, "teafortwo");
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing runs before `start()`"]
pub fn fork<R: Message>(closure: impl FnOnce() -> R + 'static) -> ProcessBuilder<'static, (), R> {
    ProcessBuilder::new(Context::fork(), Job::Closure(Box::new(closure)))
}

/// As [`fork`], without looking for other threads, and with what the closure borrows.
///
/// # Safety
///
/// As [`Context::fork_unchecked`]. And no reference among what is borrowed leads into memory that processes share or that a copy does not have: that of a
/// guard or a buffer of `billiard-sync` or `billiard-shm`.
#[must_use = "nothing runs before `start()`"]
pub unsafe fn fork_unchecked<'a, R: Message>(closure: impl FnOnce() -> R + 'a) -> ProcessBuilder<'a, (), R> {
    // SAFETY: as the caller promises.
    let context = unsafe { Context::fork_unchecked() };
    ProcessBuilder::new(context, Job::Closure(Box::new(closure)))
}
