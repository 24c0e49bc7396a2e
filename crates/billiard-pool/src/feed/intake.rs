//! Items on their way into a pool: encoded one by one, and handed in as jobs or chunks.

use std::{collections::VecDeque, iter::Fuse, time::Duration};

use billiard_context::{
    Message,
    task::{ItemsTask, Task},
};
use billiard_shm::futex::Deadline;
use billiard_wire::{attachments::Attachments, exact};

use super::unit::Unit;
use crate::{
    error::JobError,
    handle::{Cell, JobHandle, spare_bytes},
    job::{How, Room},
    pool::Pool,
    table::{Call, MAX_ITEMS, NewJob, Refused, items},
};

/// How large the items of a chunk may be together: there is always room for some such in the job table, no worker waits long for its first, and what one side has written
/// is still in the cache when the other reads it.
const MAX_CHUNK: usize = 1 << 18;

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
    /// The chunk that is being filled, and how many items it has by now.
    filling: Vec<u8>,
    filled: usize,
    /// How much of it are whole items: one whose encoding panicked is not.
    whole: usize,
    encoder: exact::Encoder,
    /// What there was no room for yet, in its order.
    ready: VecDeque<Ready>,
    /// The pool accepts no more.
    is_over: bool,
}

/// The function of the items, for one of them and for many.
#[derive(Clone, Copy, Debug)]
struct Tasks {
    one: Task,
    items: ItemsTask,
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
        // Chunks are in the job table; where there is none, each item is a job of its own.
        let most = if pool.shared().table().is_some() { MAX_ITEMS } else { 1 };
        Self {
            pool,
            function,
            items: items.fuse(),
            manner: Manner { chunk_size: manner.chunk_size.clamp(1, most), limit },
            filling: Vec::new(),
            filled: 0,
            whole: 0,
            encoder: exact::Encoder::default(),
            ready: VecDeque::new(),
            is_over: false,
        }
    }

    /// How many items there are at the least, as the input says.
    pub(super) fn len_hint(&self) -> usize {
        self.items.size_hint().0
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
        let tasks = Task::new(self.function).and_then(|one| Ok(Tasks { one, items: ItemsTask::new(self.function)? }));
        let tasks = match tasks {
            Ok(tasks) => tasks,
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
                Some(item) => self.take(tasks, item),
                None if self.filled > 0 => self.close_chunk(tasks),
                None => return Taken::End,
            }
        }
        self.hand_in(tasks, if is_alone { deadline.map_or(Room::Forever, Room::Until) } else { Room::Never })
    }

    /// Encodes an item, which is then in the chunk, or ready.
    #[inline]
    fn take(&mut self, tasks: Tasks, item: I::Item) {
        if self.manner.chunk_size == 1 {
            let ready = self.encode_one(tasks, item);
            self.ready.push_back(ready);
            return;
        }
        self.filling.truncate(self.whole);
        let begin = items::begin(&mut self.filling);
        let encoded = self.encoder.append(&item, &mut self.filling);
        let size = self.filling.len() - begin - items::HEAD;
        match encoded {
            Ok(None) if size < MAX_CHUNK => {
                items::seal(&mut self.filling, begin, false);
                self.filled += 1;
                self.whole = self.filling.len();
                if self.filled == self.manner.chunk_size || self.filling.len() >= MAX_CHUNK {
                    self.close_chunk(tasks);
                }
            }
            Ok(attachments) => {
                let bytes = self.filling.split_off(begin + items::HEAD);
                self.filling.truncate(begin);
                self.filling.shrink_to(MAX_CHUNK); // of an item that was too large for it nothing stays
                self.close_chunk(tasks);
                self.ready.push_back(self.work(Call::One(tasks.one), bytes, attachments.unwrap_or_default()));
            }
            Err(error) => {
                self.filling.truncate(begin);
                self.close_chunk(tasks);
                self.ready.push_back(Ready::Failed(JobError::ArgumentEncode(error)));
            }
        }
    }

    /// An item as a job of its own.
    fn encode_one(&self, tasks: Tasks, item: I::Item) -> Ready {
        match exact::encode(item, spare_bytes()) {
            Ok(encoded) => {
                let (bytes, attachments) = encoded.into_parts();
                self.work(Call::One(tasks.one), bytes, attachments)
            }
            Err(error) => Ready::Failed(JobError::ArgumentEncode(error)),
        }
    }

    /// The items that are in the chunk are ready.
    fn close_chunk(&mut self, tasks: Tasks) {
        if self.filled > 0 {
            self.filling.truncate(self.whole);
            let bytes = std::mem::replace(&mut self.filling, spare_bytes());
            self.filling.clear();
            self.whole = 0;
            let work = self.work(Call::Items(tasks.items, self.filled), bytes, Attachments::default());
            self.ready.push_back(work);
            self.filled = 0;
        }
    }

    fn work(&self, call: Call, argument: Vec<u8>, attachments: Attachments) -> Ready {
        let (cell, limit) = (Cell::empty(), self.manner.limit);
        // Whatever ends a part of a chunk, the supervisor sees to the rest.
        let supervised = call.items().is_some();
        Ready::Work(Box::new(NewJob { call, argument, attachments, placed: None, limit, cell, supervised }))
    }

    /// Hands in what is ready first.
    fn hand_in(&mut self, tasks: Tasks, room: Room) -> Taken<R> {
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
                Ok((_, Some(ticket))) if let Some(count) = new.call.items() => {
                    return Taken::Unit(Unit::chunk(count, new.cell, ticket, shared.clone()));
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
                Err(Refused::NoPlace) => self.take_apart(tasks, &new),
                // On the pool's own thread.
                Err(Refused::Full) => return Taken::Unit(Unit::failed(JobError::Full)),
                Err(Refused::Closed) => return self.give_up(shared.error_for(Refused::Closed)),
            }
        }
    }

    /// Where there is no place for a chunk, each item is a job of its own.
    fn take_apart(&mut self, tasks: Tasks, chunk: &NewJob) {
        let mut at = 0;
        let mut rest = &chunk.argument[..];
        while let Some((_, item, behind)) = items::split(rest) {
            rest = behind;
            let work = self.work(Call::One(tasks.one), item.to_vec(), Attachments::default());
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
