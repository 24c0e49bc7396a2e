//! Children that end with a block of code.

use std::{
    fmt,
    ops::{Deref, DerefMut},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use billiard_wire::Message;

use crate::{Error, ProcessBuilder, process::Process};

/// How long a daemonic process that is asked to end at the end of a scope may take.
const GRACE: Duration = Duration::from_secs(1);

/// The children of a [`scope`].
pub struct Scope {
    /// Those whose handle was dropped, in that order.
    left: Mutex<Vec<Box<dyn Left>>>,
}

/// A process whose value nobody will ask for any more.
trait Left: Send {
    fn end(&self);
    fn ask_to_end(&self);
    fn is_daemon(&self) -> bool;
    fn has_ended(&mut self) -> bool;
    fn wait(&mut self);
}

impl<R> Left for Process<R> {
    fn end(&self) {
        let _ = self.kill(); // dropping it would do the same, one after the other
    }

    fn ask_to_end(&self) {
        if self.terminate_within(GRACE).is_err() {
            self.end();
        }
    }

    fn is_daemon(&self) -> bool {
        Process::is_daemon(self)
    }

    fn has_ended(&mut self) -> bool {
        matches!(self.try_join(), Ok(Some(_)))
    }

    fn wait(&mut self) {
        let _ = self.join();
    }
}

/// Runs `work`, and lets no child that was started in it live longer.
///
/// At its end the daemonic ones are asked to end, by [`terminate_within`](Process::terminate_within) one second, and the others are waited for:
/// what Python's `multiprocessing` does when a program ends. If `work` panics, all of them are ended, since
/// they may wait for it.
///
/// ```no_run
/// use billiard_context::{Context, scope};
///
/// fn log(path: String) {}
/// fn work(n: u64) -> u64 { n * n }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// billiard_context::init();
/// let context = Context::forkserver();
/// let square = scope(|scope| -> Result<u64, Box<dyn std::error::Error>> {
///     scope.start(context.process(log, "work.log".into()).daemon(true))?;
///     Ok(scope.start(context.process(work, 7))?.take_result()?)
/// })?;
/// assert_eq!(square, 49);
/// # Ok(())
/// # }
/// ```
pub fn scope<T>(work: impl FnOnce(&Scope) -> T) -> T {
    let scope = Scope { left: Mutex::default() };
    let mut end = End { scope: &scope, panicked: true };
    let result = work(&scope);
    end.panicked = false;
    drop(end);
    result
}

/// Ends the scope however `work` ended.
struct End<'a> {
    scope: &'a Scope,
    panicked: bool,
}

impl Drop for End<'_> {
    fn drop(&mut self) {
        let mut left = std::mem::take(&mut *self.scope.left());
        for process in &left {
            match (self.panicked, process.is_daemon()) {
                (true, _) => process.end(),
                (false, true) => process.ask_to_end(),
                (false, false) => {}
            }
        }
        left.iter_mut().for_each(|process| process.wait());
    }
}

impl Scope {
    /// Starts a process that ends with the scope.
    ///
    /// # Errors
    ///
    /// As [`ProcessBuilder::start`].
    pub fn start<A: Message, R: Message>(&self, process: ProcessBuilder<'_, A, R>) -> Result<Scoped<'_, R>, Error> {
        Ok(Scoped { process: Some(process.start()?), scope: self })
    }

    fn left(&self) -> MutexGuard<'_, Vec<Box<dyn Left>>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope").field("left", &self.left().len()).finish()
    }
}

/// A [`Process`] that ends with its [`scope`]. Dropping it leaves the process to the scope.
#[derive(Debug)]
pub struct Scoped<'scope, R: 'static> {
    /// There until it is dropped.
    process: Option<Process<R>>,
    scope: &'scope Scope,
}

impl<R> Deref for Scoped<'_, R> {
    type Target = Process<R>;

    fn deref(&self) -> &Process<R> {
        self.process.as_ref().expect("it is there until the handle is dropped")
    }
}

impl<R> DerefMut for Scoped<'_, R> {
    fn deref_mut(&mut self) -> &mut Process<R> {
        self.process.as_mut().expect("it is there until the handle is dropped")
    }
}

impl<R: 'static> Drop for Scoped<'_, R> {
    fn drop(&mut self) {
        if let Some(process) = self.process.take() {
            let mut left = self.scope.left();
            // A scope that lives long does not keep what has ended; looked for now and then, since there may be many.
            if left.len().is_power_of_two() {
                left.retain_mut(|process| !process.has_ended());
            }
            left.push(Box::new(process));
        }
    }
}
