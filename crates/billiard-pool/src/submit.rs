//! How a job comes in: encoded in the thread of who hands it in, then into the table, or into the queue.

use std::sync::{Arc, MutexGuard, PoisonError};

use billiard_connection::FrameWriter;
use billiard_context::{Message, task::Task};
use billiard_shm::futex::Deadline;
use billiard_wire::{codec, exact};

use crate::{
    error::{JobError, SubmitError},
    handle::{Cell, JobHandle, keep_bytes, spare_bytes},
    job::{How, JobBuilder, Room},
    message::{Carried, ToWorker},
    pool::{Arrival, Inner, Record, Shared},
    state::{Event, JobId},
    table::{Call, NewJob, Refused, Table, Ticket},
};

impl Shared {
    pub(crate) fn submit<A: Message, R: Message>(
        self: &Arc<Self>,
        JobBuilder { function, argument, limit, callbacks, .. }: JobBuilder<'_, A, R>,
        how: How,
    ) -> Result<JobHandle<R>, SubmitError<A>> {
        if let Err(forked) = self.is_here() {
            return Err(SubmitError::new(argument, forked.into()));
        }
        let task = match Task::new(function) {
            Ok(task) => task,
            Err(foreign) => return Err(SubmitError::new(argument, JobError::ForeignFunction(foreign))),
        };
        let (encoded, kept) = match exact::encode_keeping(argument, spare_bytes()) {
            Ok(encoded) => encoded,
            Err((argument, why)) => return Err(SubmitError::new(argument, JobError::ArgumentEncode(why))),
        };
        let (bytes, attachments) = encoded.into_parts();
        let restore = |bytes| kept.restore(bytes).expect("these are the bytes that it was turned into");
        let cell = match callbacks.is_empty() {
            true => Cell::empty(),
            // Jobs that have ended and whose callbacks have yet to run are as many as may wait for a worker.
            false if self.await_room(how.room, |inner| inner.late.len() < self.queue_size).is_none() => {
                drop(attachments);
                return Err(SubmitError::new(restore(bytes), JobError::Full));
            }
            false => Arc::new(Cell::with_callback(callbacks.into_callback())),
        };
        let supervised = cell.has_callback();
        let limit = limit.or(self.default_limit);
        let mut new = NewJob {
            call: Call::One(task),
            argument: bytes,
            attachments,
            placed: None,
            limit,
            cell: cell.clone(),
            supervised,
        };
        match self.hand_in(&mut new, how) {
            Ok((id, ticket)) => Ok(JobHandle::new(id, ticket, cell, self.clone())),
            Err(refused) => {
                let NewJob { argument, attachments, .. } = new;
                drop(attachments); // those are the caller's again, before it gets the argument back
                Err(SubmitError::new(restore(argument), self.error_for(refused)))
            }
        }
    }

    /// Why a job was not accepted.
    pub(crate) fn error_for(&self, refused: Refused) -> JobError {
        match refused {
            Refused::Full | Refused::NoPlace => JobError::Full,
            Refused::Closed => self.inner().refusal(),
        }
    }

    /// Hands in a job that is encoded. One that is refused stays whole.
    #[inline]
    pub(crate) fn hand_in(&self, new: &mut NewJob, how: How) -> Result<(JobId, Option<Ticket>), Refused> {
        match &self.table {
            Some(table) => self.submit_to(table, new, how).map(|ticket| (JobId(ticket.job), Some(ticket))),
            None => self.enqueue(new, how).map(|id| (id, None)),
        }
    }

    /// Hands a job in that a worker gets over its socket.
    fn enqueue(&self, new: &mut NewJob, How { room, .. }: How) -> Result<JobId, Refused> {
        let Call::One(task) = new.call else { return Err(Refused::NoPlace) };
        let Some(mut inner) = self.await_room(room, |inner| inner.state.queued() < self.queue_size) else {
            return Err(Refused::Full);
        };
        if !inner.state.is_running() {
            return Err(Refused::Closed);
        }
        let id = JobId(inner.next_job);
        inner.next_job += 1;
        let head = (ToWorker { job: id, task }, Carried::None);
        let mut attachments = std::mem::take(&mut new.attachments);
        let prefix = codec::encode_after(&head, &mut attachments).expect("numbers encode");
        let frame = Some(FrameWriter::typed(&prefix, std::mem::take(&mut new.argument), attachments));
        inner.jobs.insert(id, Record { cell: new.cell.clone(), frame });
        self.decide(inner, Event::Submitted(id, new.limit), Arrival::None, true);
        Ok(id)
    }

    /// Waits until there is room, or the pool accepts no more. None where the caller does not wait, or no longer, or may not: on the pool's own thread, where nobody else
    /// would make room.
    fn await_room(&self, room: Room, has_room: impl Fn(&Inner) -> bool) -> Option<MutexGuard<'_, Inner>> {
        let mut inner = self.inner();
        while inner.state.is_running() && !has_room(&inner) {
            if !room.waits() || self.is_supervisor() {
                return None;
            }
            inner.waiting += 1;
            inner = match room.deadline().map(Deadline::remaining) {
                None => self.room.wait(inner).unwrap_or_else(PoisonError::into_inner),
                Some(left) => self.room.wait_timeout(inner, left).unwrap_or_else(PoisonError::into_inner).0,
            };
            inner.waiting -= 1;
        }
        Some(inner)
    }

    #[inline]
    fn submit_to(&self, table: &Table, new: &mut NewJob, How { room, look_after }: How) -> Result<Ticket, Refused> {
        let mut ended = Vec::new();
        let mut is_announced = false;
        loop {
            let submitted = table.submit(new, look_after, &mut ended);
            if !ended.is_empty() {
                self.finish(ended.drain(..));
            }
            match submitted {
                Ok((ticket, wake)) => {
                    if wake {
                        self.wake();
                    }
                    keep_bytes(std::mem::take(&mut new.argument));
                    return Ok(ticket);
                }
                // On the supervisor's own thread, where wakers of futures and callbacks run, nothing may wait: nobody else would make room.
                Err(Refused::Full) if self.is_supervisor() => return Err(Refused::Full),
                Err(Refused::Full) if is_announced && room.waits() => {
                    table.wait_room(room.deadline());
                    is_announced = false;
                }
                Err(Refused::Full) if room.waits() => {
                    table.want_room();
                    is_announced = true; // and once more: somebody may have made room before
                }
                Err(refused) => return Err(refused),
            }
        }
    }
}
