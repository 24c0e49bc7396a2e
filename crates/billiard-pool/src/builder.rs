//! A pool's options.

use std::{sync::Arc, thread, time::Duration};

use billiard_context::{Context, StartMethod, cpu_count};

use crate::{
    error::{Error, ErrorKind},
    pool::{Pool, Shared},
    state::{Config, State},
    supervisor::Supervisor,
};

/// How much the workers of a pool are kept apart from each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Isolation {
    /// Each worker has a private socket pair with the pool and shares no memory with anybody: a worker that runs wild harms its own job alone.
    #[default]
    Strict,
}

/// The options of a pool. Those not given have their defaults.
#[derive(Clone, Debug)]
#[must_use = "nothing is started before `build()`"]
pub struct PoolBuilder {
    pub(crate) workers: Option<usize>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) queue_size: usize,
    pub(crate) grace: Duration,
    pub(crate) context: Context,
    pub(crate) isolation: Isolation,
}

impl Default for PoolBuilder {
    fn default() -> Self {
        Self {
            workers: None,
            timeout: None,
            queue_size: 4096,
            grace: Duration::from_millis(100),
            context: Context::default(),
            isolation: Isolation::default(),
        }
    }
}

impl PoolBuilder {
    /// How many worker processes. One for each CPU that this process may use by default, see [`cpu_count`].
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = Some(workers);
        self
    }

    /// How long a job may run, counted from when it is given to a worker; waiting in the queue does not count. Its worker is ended when it runs longer. No limit by default.
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = Some(limit);
        self
    }

    /// How long a worker that has to end has between SIGTERM and SIGKILL. 100 ms by default.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// How many jobs may wait for a worker; who hands in more has to wait. 4,096 by default.
    pub fn queue_size(mut self, jobs: usize) -> Self {
        self.queue_size = jobs;
        self
    }

    /// How workers are started. [`Context::forkserver`] by default.
    ///
    /// With [`Context::fork`] the pool forks one copy of this process while it is built, a [template](Context::template), off which
    /// its workers are forked: replacements too, when this process has threads, the pool's own at least.
    pub fn context(mut self, context: Context) -> Self {
        self.context = context;
        self
    }

    /// How much the workers are kept apart.
    pub fn isolation(mut self, isolation: Isolation) -> Self {
        self.isolation = isolation;
        self
    }

    /// Builds the pool. Its workers start at once, beside the caller: jobs may be handed in at once too.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Configuration`] for no workers or no queue; [`ErrorKind::Start`] when this program cannot start processes,
    /// since `main` does not begin with `init()` for example, or has threads where its context is to fork. Nothing is started then.
    pub fn build(mut self) -> Result<Pool, Error> {
        let workers = match self.workers {
            Some(0) => return Err(Error::new(ErrorKind::Configuration, "a pool needs at least one worker")),
            Some(workers) => workers,
            // Where quotas cannot be read, what the standard library can tell.
            None => cpu_count().or_else(|_| thread::available_parallelism()).map_or(1, usize::from),
        };
        if self.queue_size == 0 {
            return Err(Error::new(ErrorKind::Configuration, "a pool needs room for at least one job"));
        }
        if self.context.start_method() == StartMethod::Fork {
            self.context = Context::template()?;
        }
        self.context.prepare()?;
        let io = |message| move |error: std::io::Error| Error::new(ErrorKind::Io, message).because(error);
        let poll = mio::Poll::new().map_err(io("the pool's event loop could not be made"))?;
        let waker = mio::Waker::new(poll.registry(), Supervisor::WAKER)
            .map_err(io("the pool's event loop could not be made"))?;
        let state = State::new(Config { workers, grace: self.grace });
        let shared = Arc::new(Shared::new(state, waker, &self, workers));
        let supervisor = Supervisor::new(poll, shared.clone(), self.context);
        let thread = thread::Builder::new()
            .name("billiard-pool".into())
            .spawn(move || supervisor.run())
            .map_err(io("the pool's thread could not be started"))?;
        Ok(Pool::from_parts(shared, thread))
    }
}
