//! Items on their way into a pool: encoded one by one, and handed in as jobs or chunks.

use std::{collections::VecDeque, iter::Fuse, time::Duration};

use billiard_context::{Message, task::Task};
use billiard_shm::futex::Deadline;
use billiard_wire::{attachments::Attachments, codec};

use super::unit::Unit;
use crate::{
    error::JobError,
    handle::{Cell, JobHandle},
    job::{How, Room},
    pool::Pool,
    table::{MAX_ITEMS, NewJob, Refused, items},
};

/// How large the items of a chunk may be together: there is always room for some such in the job table, and no worker waits long for its first.
const MAX_CHUNK: usize = 1 << 20;

/// How items are handed in.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Manner {
    /// How many make a chunk.
    pub(super) chunk_size: usize,
    /// How long each may run.
    pub(super) limit: Option<Duration>,
}

pub(super) struct Intake<'p, I: Iterator, R> {
    pool: &'p Pool,
    function: fn(I::Item) -> R,
    items: Fuse<I>,
    manner: Manner,
    /// The chunk that is being filled.
    filling: Vec<u8>,
    filled: usize,
    /// What there was no room for yet, in its order.
    ready: VecDeque<Ready>,
    /// The room of one encoded item after the other.
    buffer: Vec<u8>,
    /// The pool accepts no more.
    is_over: bool,
}

/// What can be handed in.
#[derive(Debug)]
enum Ready {
    Work(Box<NewJob>),
    /// An item that cannot.
    Failed(JobError),
}

/// What came of it.
#[derive(Debug)]
pub(super) enum Taken<R> {
    /// Items were handed in, or failed.
    Unit(Unit<R>),
    /// There is no room for what is next.
    Full,
    /// Something else is better to do.
    Interrupted,
    /// There are no more items, or the pool accepts none.
    End,
}

impl<'p, I: Iterator, R> Intake<'p, I, R> {
    pub(super) fn new(pool: &'p Pool, function: fn(I::Item) -> R, items: I, manner: Manner) -> Self {
        let limit = manner.limit.or(pool.shared().default_limit);
        Self {
            pool,
            function,
            items: items.fuse(),
            manner: Manner { chunk_size: manner.chunk_size.clamp(1, MAX_ITEMS), limit },
            filling: Vec::new(),
            filled: 0,
            ready: VecDeque::new(),
            buffer: Vec::new(),
            is_over: false,
        }
    }

    /// Whether there are items that wait for room.
    pub(super) fn is_stalled(&self) -> bool {
        !self.ready.is_empty()
    }
}

impl<I, R> Intake<'_, I, R>
where
    I: Iterator,
    I::Item: Message,
    R: Message,
{
    /// Hands in the next items. What `is_alone` waits for room, until `deadline`: with something under way there is something else to wait for. Before each item is
    /// taken, `has_better` says whether there is something better to do.
    pub(super) fn next(
        &mut self,
        is_alone: bool,
        deadline: Option<Deadline>,
        mut has_better: impl FnMut() -> bool,
    ) -> Taken<R> {
        let task = match Task::new(self.function) {
            Ok(task) => task,
            Err(_) if self.is_over => return Taken::End,
            Err(foreign) => {
                self.is_over = true;
                return Taken::Unit(Unit::failed(JobError::ForeignFunction(foreign)));
            }
        };
        while self.ready.is_empty() {
            if self.is_over {
                return Taken::End;
            }
            if has_better() {
                return Taken::Interrupted;
            }
            match self.items.next() {
                Some(item) => self.take(task, &item),
                None if self.filled > 0 => self.close_chunk(task),
                None => return Taken::End,
            }
        }
        self.hand_in(if is_alone { deadline.map_or(Room::Forever, Room::Until) } else { Room::Never })
    }

    /// Encodes an item, which is then in the chunk, or ready.
    fn take(&mut self, task: Task, item: &I::Item) {
        let (bytes, attachments) = match codec::encode_into(item, std::mem::take(&mut self.buffer)) {
            Ok(encoded) => encoded.into_parts(),
            Err(error) => {
                self.close_chunk(task);
                self.ready.push_back(Ready::Failed(JobError::ArgumentEncode(error)));
                return;
            }
        };
        if self.manner.chunk_size == 1 || !attachments.is_empty() || bytes.len() >= MAX_CHUNK {
            self.close_chunk(task);
            self.ready.push_back(self.work(task, bytes, attachments, 0));
            return;
        }
        items::push(&mut self.filling, false, &bytes);
        self.filled += 1;
        self.buffer = bytes;
        if self.filled == self.manner.chunk_size || self.filling.len() >= MAX_CHUNK {
            self.close_chunk(task);
        }
    }

    /// The items that are in the chunk are ready.
    fn close_chunk(&mut self, task: Task) {
        if self.filled > 0 {
            let size = self.filling.len();
            let bytes = std::mem::replace(&mut self.filling, Vec::with_capacity(size));
            let work = self.work(task, bytes, Attachments::default(), self.filled);
            self.ready.push_back(work);
            self.filled = 0;
        }
    }

    fn work(&self, task: Task, argument: Vec<u8>, attachments: Attachments, items: usize) -> Ready {
        let (cell, limit) = (Cell::empty(), self.manner.limit);
        // Whatever ends a part of a chunk, the supervisor sees to the rest.
        let supervised = items > 0;
        Ready::Work(Box::new(NewJob { task, argument, attachments, placed: None, items, limit, cell, supervised }))
    }

    /// Hands in what is ready first.
    fn hand_in(&mut self, room: Room) -> Taken<R> {
        let shared = self.pool.shared();
        loop {
            let mut new = match self.ready.pop_front() {
                Some(Ready::Work(new)) => new,
                Some(Ready::Failed(why)) => return Taken::Unit(Unit::failed(why)),
                None => return Taken::End,
            };
            if let Err(forked) = shared.is_here() {
                return self.give_up(forked.into());
            }
            match shared.hand_in(&mut new, How { room, look_after: true }) {
                Ok((_, Some(ticket))) if new.items > 0 => {
                    return Taken::Unit(Unit::chunk(new.items, new.cell, ticket, shared.clone()));
                }
                Ok((id, ticket)) => {
                    return Taken::Unit(Unit::job(JobHandle::new(id, ticket, new.cell, shared.clone())));
                }
                // There will be, where that is taken by what is under way.
                Err(Refused::NoPlace) if matches!(room, Room::Never) && shared.table().is_some() => {
                    self.ready.push_front(Ready::Work(new));
                    return Taken::Full;
                }
                Err(Refused::Full) if !matches!(room, Room::Forever) => {
                    self.ready.push_front(Ready::Work(new));
                    return Taken::Full;
                }
                Err(Refused::NoPlace) => self.take_apart(&new),
                // On the pool's own thread.
                Err(Refused::Full) => return Taken::Unit(Unit::failed(JobError::Full)),
                Err(Refused::Closed) => return self.give_up(shared.error_for(Refused::Closed)),
            }
        }
    }

    /// Where there is no place for a chunk, each item is a job of its own.
    fn take_apart(&mut self, chunk: &NewJob) {
        let mut at = 0;
        let mut rest = &chunk.argument[..];
        while let Some((_, item, behind)) = items::split(rest) {
            rest = behind;
            let work = self.work(chunk.task, item.to_vec(), Attachments::default(), 0);
            self.ready.insert(at, work);
            at += 1;
        }
    }

    /// The pool accepts no more: that is the last error.
    fn give_up(&mut self, why: JobError) -> Taken<R> {
        self.is_over = true;
        self.ready.clear();
        self.filled = 0;
        Taken::Unit(Unit::failed(why))
    }
}
