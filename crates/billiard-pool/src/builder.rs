//! A pool's options.

use std::{sync::Arc, thread, time::Duration};

use billiard_context::{Context, StartMethod, cpu_count};

use crate::{
    error::{Error, ErrorKind},
    pool::{Pool, Shared},
    state::{Config, State},
    supervisor::Supervisor,
    table::{MAX_SEATS, MAX_SLOTS, Table},
};

/// How much the workers of a pool are kept apart from each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Isolation {
    /// Jobs wait in memory that the pool and its workers share, and workers take them by themselves: in the common case without a system call. A worker that runs wild and
    /// overwrites what it shares can make jobs that are in flight lost or wrong, and have other workers ended. It cannot harm this program's memory.
    #[default]
    Shared,
    /// Each worker has a private socket pair with the pool and shares no memory with anybody: a worker that runs wild harms its own job alone. Many times slower for small jobs.
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
    pub(crate) max_tasks: Option<u64>,
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
            max_tasks: None,
        }
    }
}

impl PoolBuilder {
    /// How many worker processes. One for each CPU that this process may use by default, see [`cpu_count`]; under [`Isolation::Shared`] 1,016 at the most.
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = Some(workers);
        self
    }

    /// How long a job may run, counted from when it is given to a worker; waiting in the queue does not count. Its worker is ended when it runs longer. No limit by default.
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = Some(limit);
        self
    }

    /// How long a worker that has to end has between SIGTERM and SIGKILL; its group, of the processes that its jobs have started, gets both signals too, and SIGKILL as soon as the worker has ended.
    /// 100 ms by default.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// How many jobs may wait for a worker; who hands in more has to wait. 4,096 by default; under [`Isolation::Shared`], 65,536 and no more with the workers. There, each takes 256 bytes
    /// for its argument, and as much in each worker for its value, once they are used. Larger ones, up to 4 MiB, take their room in 16 MiB for all arguments, and in 8 MiB of each worker for
    /// its values, of which pages that were used stay. None of these needs a system call. What has no room there is in memory of its own, and a message
    /// over a socket says so, as for descriptors.
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

    /// After how many jobs a worker ends, and another takes its place: for work that leaks. A job that failed counts. Without it, workers live as long as the pool.
    pub fn max_tasks_per_child(mut self, jobs: u64) -> Self {
        self.max_tasks = Some(jobs);
        self
    }

    /// Builds the pool. Its workers start at once, beside the caller: jobs may be handed in at once too.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Configuration`] for no workers, no queue, no job for a worker, or more than a job table has room for; [`ErrorKind::Io`] when the kernel refuses memory, a
    /// thread or descriptors; [`ErrorKind::Start`] when this program cannot start processes,
    /// since `main` does not begin with `init()` for example, or has threads where its context is to fork. No worker is started then.
    ///
    /// A pool whose workers cannot be started, or end as soon as they are up and before they have had a job, again and again, gives up: its jobs end as [`JobError::PoolFailed`](crate::JobError::PoolFailed).
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
        if self.max_tasks == Some(0) {
            return Err(Error::new(ErrorKind::Configuration, "a worker needs to do at least one job"));
        }
        let (slots, seats) =
            (self.queue_size.saturating_add(workers), workers.saturating_mul(2).saturating_add(8).min(MAX_SEATS));
        if self.isolation == Isolation::Shared && (slots > MAX_SLOTS || workers > MAX_SEATS - 8) {
            let message = "a job table has room for 65,536 jobs and 1,016 workers: take fewer, or Isolation::Strict";
            return Err(Error::new(ErrorKind::Configuration, message));
        }
        if self.context.start_method() == StartMethod::Fork {
            self.context = Context::template()?;
        }
        self.context.prepare()?;
        let io = |message| move |error: std::io::Error| Error::new(ErrorKind::Io, message).because(error);
        let poll = mio::Poll::new().map_err(io("the pool's event loop could not be made"))?;
        let waker = mio::Waker::new(poll.registry(), Supervisor::WAKER)
            .map_err(io("the pool's event loop could not be made"))?;
        let table =
            match self.isolation {
                Isolation::Strict => None,
                Isolation::Shared => Some(Table::create(slots, seats).map_err(|error| {
                    Error::new(ErrorKind::Io, "the pool's job table could not be made").because(error)
                })?),
            };
        let config = Config { workers, grace: self.grace, pulled: table.is_some(), max_tasks: self.max_tasks };
        let shared = Arc::new(Shared::new(State::new(config), waker, &self, workers, table));
        let supervisor = Supervisor::new(poll, shared.clone(), self.context, config)
            .map_err(io("the pool's event loop could not be made"))?;
        let thread = thread::Builder::new()
            .name("billiard-pool".into())
            .spawn(move || supervisor.run())
            .map_err(io("the pool's thread could not be started"))?;
        Ok(Pool::from_parts(shared, thread))
    }
}
