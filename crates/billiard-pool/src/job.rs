//! A job before it is handed in, and what is told of it.

use std::{fmt, sync::Arc, time::Duration};

use billiard_context::Message;
use billiard_shm::futex::Deadline;

use crate::{
    error::{JobError, SubmitError},
    handle::{Callback, JobHandle, decode_outcome, guard},
    pool::Shared,
};

/// How long a caller waits for room.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Room {
    Never,
    Until(Deadline),
    Forever,
}

impl Room {
    /// Whether there is time left.
    pub(crate) fn waits(self) -> bool {
        match self {
            Self::Never => false,
            Self::Until(deadline) => !deadline.has_passed(),
            Self::Forever => true,
        }
    }

    pub(crate) fn deadline(self) -> Option<Deadline> {
        match self {
            Self::Until(deadline) => Some(deadline),
            Self::Never | Self::Forever => None,
        }
    }
}

/// How a job is handed in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct How {
    /// How long the caller waits for room.
    pub(crate) room: Room,
    /// The supervisor looks after it.
    pub(crate) look_after: bool,
}

/// A job before it is handed in.
#[must_use = "nothing is handed in before `submit()`"]
pub struct JobBuilder<'p, A, R> {
    pool: &'p Arc<Shared>,
    pub(crate) function: fn(A) -> R,
    pub(crate) argument: A,
    pub(crate) limit: Option<Duration>,
    pub(crate) callbacks: Callbacks<R>,
}

impl<'p, A, R> JobBuilder<'p, A, R> {
    /// One with no options.
    pub(crate) fn new(pool: &'p Arc<Shared>, function: fn(A) -> R, argument: A) -> Self {
        Self { pool, function, argument, limit: None, callbacks: Callbacks::default() }
    }
}

impl<A: Message, R: Message> JobBuilder<'_, A, R> {
    /// How long it may run, counted from when it is given to a worker; in place of the pool's own limit. It may be noticed some milliseconds late; a limit of zero
    /// ends a job as soon as it is seen to have begun, and none while it waits.
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Called with its value when it has one, before its handle is ready.
    ///
    /// Callbacks run one after the other on the pool's own thread, where nothing may wait, for a job least of all: they hand longer work to somebody else. That is where the value is decoded, too. Handing in a job from one is
    /// allowed; where the queue is full, that is an error. One that panics harms nobody: the panic is printed, and the value is there.
    pub fn on_success(mut self, callback: impl FnOnce(&R) + Send + 'static) -> Self {
        self.callbacks.success = Some(Box::new(callback));
        self
    }

    /// Called with the reason when it has no value, before its handle is ready; otherwise as [`on_success`](Self::on_success).
    pub fn on_error(mut self, callback: impl FnOnce(&JobError) + Send + 'static) -> Self {
        self.callbacks.error = Some(Box::new(callback));
        self
    }

    /// Hands it in. Waits only while the queue is full.
    ///
    /// # Errors
    ///
    /// As [`Pool::apply_async`](crate::Pool::apply_async).
    pub fn submit(self) -> Result<JobHandle<R>, SubmitError<A>> {
        self.submit_where(Room::Forever)
    }

    /// Hands it in without waiting.
    ///
    /// # Errors
    ///
    /// As [`Pool::apply_async`](crate::Pool::apply_async); [`SubmitError::is_full`] when the queue is full.
    pub fn try_submit(self) -> Result<JobHandle<R>, SubmitError<A>> {
        self.submit_where(Room::Never)
    }

    pub(crate) fn submit_where(self, room: Room) -> Result<JobHandle<R>, SubmitError<A>> {
        self.pool.submit(self, How { room, look_after: true })
    }
}

impl<A, R> fmt::Debug for JobBuilder<'_, A, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobBuilder").field("limit", &self.limit).finish_non_exhaustive()
    }
}

/// What a caller wants to be told.
pub(crate) struct Callbacks<R> {
    success: Option<Seer<R>>,
    error: Option<Seer<JobError>>,
}

type Seer<T> = Box<dyn FnOnce(&T) + Send>;

impl<R> Default for Callbacks<R> {
    fn default() -> Self {
        Self { success: None, error: None }
    }
}

impl<R: Message> Callbacks<R> {
    pub(crate) fn is_empty(&self) -> bool {
        self.success.is_none() && self.error.is_none()
    }

    /// Decodes the value, once; shows it, or the error; and keeps it for the handle.
    pub(crate) fn into_callback(self) -> Callback {
        Box::new(move |outcome| {
            let outcome: Result<R, JobError> = decode_outcome(outcome);
            guard(|| match (&outcome, self.success, self.error) {
                (Ok(value), Some(success), _) => success(value),
                (Err(why), _, Some(error)) => error(why),
                _ => {}
            });
            Box::new(outcome)
        })
    }
}
