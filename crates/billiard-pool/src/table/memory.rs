//! The three kinds of memory that a job table is made of, and the records in them.

use std::os::fd::{AsFd, OwnedFd};

use billiard_context::task::{ItemsTask, Task};
use billiard_shm::{Kind, Place, Segment, SegmentError, SegmentOptions};
use billiard_wire::fault;
use std::sync::atomic::AtomicU64;

use super::{
    control::{Control, Head, Seat, Slot, cells},
    heap::{Heap, Span},
    records::{RECORD, Records},
};

const CONTROL: Kind = Kind::new("jobs", 1);
const INPUTS: Kind = Kind::new("inputs", 1);
const OUTPUTS: Kind = Kind::new("outputs", 1);

/// Words in front of an argument: the job, its function in two, length and whether it has a limit.
const INPUT_HEAD: usize = 4;
/// Words in front of a result: the job, length and kind.
const OUTPUT_HEAD: usize = 2;
/// The largest argument that fits into a record.
pub(crate) const MAX_ARGUMENT: usize = RECORD - 8 * INPUT_HEAD;
/// The largest result that fits into a record.
pub(crate) const MAX_RESULT: usize = RECORD - 8 * OUTPUT_HEAD;

/// How large the heap for arguments is that do not fit into records.
pub(crate) const INPUT_HEAP: usize = 16 << 20;
/// How large the heap of each worker is for such results.
pub(crate) const OUTPUT_HEAP: usize = 8 << 20;
/// The largest argument, and the largest result, for which there may be room in a heap.
pub(crate) const MAX_PLACED: usize = 4 << 20;
/// The most items that a chunk can have.
pub(crate) const MAX_ITEMS: usize = (1 << 24) - 1;

/// How large a table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Shape {
    pub(crate) slots: u32,
    pub(crate) seats: u32,
}

impl Shape {
    fn cells(self) -> usize {
        cells(self.slots as usize)
    }

    fn slots_at() -> usize {
        size_of::<Head>().next_multiple_of(64)
    }

    fn seats_at(self) -> usize {
        Self::slots_at() + self.slots as usize * size_of::<Slot>()
    }

    fn cells_at(self) -> usize {
        self.seats_at() + self.seats as usize * size_of::<Seat>()
    }

    fn len(self) -> usize {
        self.cells_at() + self.cells() * size_of::<AtomicU64>()
    }
}

/// Neither in copies of the process nor in core dumps: a job that forks cannot publish twice, and its core does not hold everybody's data.
fn options() -> SegmentOptions {
    // SAFETY: who has a table, or a worker's side of it, asks which copy of the process it is before it uses it; nobody keeps an address.
    unsafe { Segment::options().dont_fork() }.dont_dump(true)
}

fn duplicate(segment: &Segment) -> Result<OwnedFd, SegmentError> {
    segment.as_fd().try_clone_to_owned().map_err(|source| SegmentError::Io { call: "fcntl", source })
}

fn attach(fd: OwnedFd, kind: Kind) -> Result<Segment, SegmentError> {
    let segment = options().attach(fd)?;
    segment.check(kind)?;
    Ok(segment)
}

/// The words of a table, in shared memory.
#[derive(Debug)]
pub(crate) struct ControlMemory {
    head: Place<Head>,
    slots: Place<[Slot]>,
    cells: Place<[AtomicU64]>,
    seats: Place<[Seat]>,
}

impl ControlMemory {
    pub(crate) fn create(shape: Shape) -> Result<Self, SegmentError> {
        Self::at(&options().create(CONTROL, shape.len())?, shape)
    }

    pub(crate) fn attach(fd: OwnedFd, shape: Shape) -> Result<Self, SegmentError> {
        Self::at(&attach(fd, CONTROL)?, shape)
    }

    fn at(segment: &Segment, shape: Shape) -> Result<Self, SegmentError> {
        Ok(Self {
            head: segment.place(0)?,
            slots: segment.places(Shape::slots_at(), shape.slots as usize)?,
            cells: segment.places(shape.cells_at(), shape.cells())?,
            seats: segment.places(shape.seats_at(), shape.seats as usize)?,
        })
    }

    #[inline]
    pub(crate) fn words(&self) -> Control<'_> {
        Control { head: &self.head, slots: &self.slots, cells: &self.cells, seats: &self.seats }
    }

    /// A descriptor for a worker, which finds a segment there whatever others have made of it.
    pub(crate) fn descriptor(&self) -> Result<OwnedFd, SegmentError> {
        self.head.segment().mend()?;
        duplicate(self.head.segment())
    }
}

/// Where the argument of a job is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Argument<'a> {
    /// In its record.
    Here(&'a [u8]),
    /// In the heap.
    Placed(Span),
    /// It comes by mail.
    Mail,
}

/// What is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// A function, once.
    One(Task),
    /// Of a chunk: a function with each of so many items.
    Items(ItemsTask, usize),
}

impl Call {
    /// How many items there are, of a chunk; otherwise none.
    pub(crate) fn items(self) -> Option<usize> {
        match self {
            Self::One(_) => None,
            Self::Items(_, count) => Some(count),
        }
    }
}

/// What a record of an input says beside the argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct About {
    pub(crate) call: Call,
    /// Whether the moment of the claim is to be noted; of a chunk, when each item begins.
    pub(crate) has_limit: bool,
}

/// What a worker is to do.
#[derive(Debug)]
pub(crate) struct Input {
    pub(crate) job: u64,
    pub(crate) about: About,
    /// The argument comes by mail.
    pub(crate) is_mail: bool,
    /// Whether that was in the heap, where it stays only as long as the job is the worker's.
    pub(crate) was_placed: bool,
}

/// What jobs are to be done: one record for each slot. Only the pool can write it.
#[derive(Debug)]
pub(crate) struct Inputs {
    records: Records,
    heap: Heap,
}

impl Inputs {
    const MAIL: u32 = u32::MAX;
    /// Beside the length: the job has a limit.
    const LIMIT: u64 = 1 << 32;
    /// Beside the length: the record has the place in the heap.
    const PLACED: u64 = 1 << 33;
    /// And so many items, from this bit on.
    const ITEMS: u32 = 40;

    fn at(segment: Segment, shape: Shape) -> Result<Self, SegmentError> {
        let slots = shape.slots as usize;
        let heap = Heap::new(segment.clone(), slots * RECORD, INPUT_HEAP);
        Ok(Self { records: Records::new(segment, slots)?, heap })
    }

    pub(crate) fn create(shape: Shape) -> Result<Self, SegmentError> {
        let options = options().read_only_for_others(true);
        Self::at(options.create(INPUTS, shape.slots as usize * RECORD + INPUT_HEAP)?, shape)
    }

    pub(crate) fn attach(fd: OwnedFd, shape: Shape) -> Result<Self, SegmentError> {
        Self::at(attach(fd, INPUTS)?, shape)
    }

    /// Lays an argument down in the heap; false when there is no such span.
    #[must_use]
    pub(crate) fn place(&self, span: Span, argument: &[u8]) -> bool {
        self.heap.write(span, argument)
    }

    /// Writes the record of a slot. False when that is no slot, or the argument does not fit.
    #[inline]
    #[must_use]
    pub(crate) fn write(&self, slot: usize, job: u64, what: About, argument: Argument<'_>) -> bool {
        let ([function, call], items) = match what.call {
            Call::One(task) => (task.to_words(), 0),
            Call::Items(task, count) => (task.to_words(), count),
        };
        debug_assert!(items <= MAX_ITEMS);
        let flags = if what.has_limit { Self::LIMIT } else { 0 } | (items as u64) << Self::ITEMS;
        let (about, place);
        let (about, bytes): (u64, &[u8]) = match argument {
            Argument::Here(bytes) => (bytes.len() as u64, bytes),
            Argument::Placed(span) => {
                place = span.offset().to_ne_bytes();
                about = span.len() as u64 | Self::PLACED;
                (about, &place)
            }
            Argument::Mail => (u64::from(Self::MAIL), &[]),
        };
        self.records.write(slot, [job, function, call, about | flags], bytes)
    }

    /// The record of a slot that the caller has claimed; none when it makes no sense. The argument is in `buffer`, unless it comes by mail.
    #[inline]
    pub(crate) fn read(&self, slot: usize, buffer: &mut Vec<u8>) -> Option<Input> {
        // Read once: it is this that is used.
        let [job, function, call, about, place] = self.records.head(slot)?;
        let was_placed = about & Self::PLACED != 0;
        let is_mail = match about as u32 {
            len if was_placed => {
                self.heap.read(Span::new(place, len)?, buffer)?;
                false
            }
            Self::MAIL => true,
            len if len as usize > MAX_ARGUMENT => return None,
            len => {
                self.records.read(slot, INPUT_HEAD, len as usize, buffer)?;
                false
            }
        };
        let has_limit = about & Self::LIMIT != 0;
        let call = match (about >> Self::ITEMS) as usize {
            0 => Call::One(Task::from_words([function, call])),
            count => Call::Items(ItemsTask::from_words([function, call]), count),
        };
        let about = About { call, has_limit };
        Some(Input { job, about, is_mail, was_placed })
    }

    /// A descriptor for a worker.
    pub(crate) fn descriptor(&self) -> Result<OwnedFd, SegmentError> {
        duplicate(self.records.segment())
    }
}

/// What an output record holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    /// The job's value, encoded.
    Value(Vec<u8>),
    /// Why it has none: an encoded `Failure`.
    Failure(Vec<u8>),
    /// One of both, which the worker has sent over its socket.
    Mail,
    /// What became of items of a chunk, one behind the other. The one before `mailed`, if it is the last that is finished, came over the socket.
    Items { bytes: Vec<u8>, mailed: usize },
}

/// The results of the worker in one seat: one record for each slot.
#[derive(Clone, Debug)]
pub(crate) struct Outputs {
    records: Records,
    heap: Heap,
}

impl Outputs {
    /// Beside the kind: the record has the place in the heap.
    const PLACED: u64 = 1 << 8;
    /// The kind of what is items.
    const ITEMS: u64 = 3 | Self::PLACED;

    fn at(segment: Segment, shape: Shape) -> Result<Self, SegmentError> {
        let slots = shape.slots as usize;
        let heap = Heap::new(segment.clone(), slots * RECORD, OUTPUT_HEAP);
        Ok(Self { records: Records::new(segment, slots)?, heap })
    }

    pub(crate) fn create(shape: Shape) -> Result<Self, SegmentError> {
        Self::at(options().create(OUTPUTS, shape.slots as usize * RECORD + OUTPUT_HEAP)?, shape)
    }

    pub(crate) fn attach(fd: OwnedFd, shape: Shape) -> Result<Self, SegmentError> {
        Self::at(attach(fd, OUTPUTS)?, shape)
    }

    /// Lays down what became of a job, its bytes in the heap where there is a span for them. False when that is no slot, or the bytes do not fit.
    #[inline]
    #[must_use]
    pub(crate) fn write(&self, slot: usize, job: u64, output: &Output, span: Option<Span>) -> bool {
        let (kind, bytes): (u64, &[u8]) = match output {
            Output::Value(bytes) => (0, bytes),
            Output::Failure(bytes) => (1, bytes),
            Output::Mail => (2, &[]),
            Output::Items { .. } => return false, // laid down one by one
        };
        let about = kind << 32 | bytes.len() as u64;
        match span {
            None => self.records.write(slot, [job, about], bytes),
            Some(span) => {
                let is_placed = self.heap.write(span, bytes);
                fault::point("worker.placed");
                is_placed && self.records.write(slot, [job, about | Self::PLACED << 32, span.offset()], &[])
            }
        }
    }

    /// Says where the items of a chunk are laid down: in a span, of which so many bytes count; and whether one has come over the socket, by the number of the item
    /// behind it. False when that is no slot.
    #[must_use]
    pub(crate) fn write_items(&self, slot: usize, job: u64, span: Option<Span>, used: usize, mailed: usize) -> bool {
        let place = span.map_or(0, Span::offset);
        self.records.write(slot, [job, Self::ITEMS << 32 | used as u64, place, mailed as u64], &[])
    }

    /// Lays bytes down in a span, from `at` on; false when they do not fit.
    #[inline]
    #[must_use]
    pub(crate) fn append(&self, span: Span, at: usize, bytes: &[u8]) -> bool {
        self.heap.write_part(span, at, bytes)
    }

    /// What became of a job; none when the record says nothing about it, or nothing that makes sense. The bytes are in the room of `buffer`.
    #[inline]
    pub(crate) fn read(&self, slot: usize, job: u64, mut buffer: Vec<u8>) -> Option<Output> {
        // Read once: it is this that is used.
        let [its, about, place, mailed] = self.records.head(slot)?;
        let (kind, len) = (about >> 32, about as u32);
        if its != job {
            return None;
        }
        if kind & Self::PLACED != 0 {
            self.heap.read(Span::new(place, len).filter(|span| span.len() <= MAX_PLACED)?, &mut buffer)?;
        } else if len as usize <= MAX_RESULT {
            self.records.read(slot, OUTPUT_HEAD, len as usize, &mut buffer)?;
        } else {
            return None;
        }
        match kind & !Self::PLACED {
            0 => Some(Output::Value(buffer)),
            1 => Some(Output::Failure(buffer)),
            2 => Some(Output::Mail),
            3 if kind == Self::ITEMS => Some(Output::Items { bytes: buffer, mailed: mailed as usize }),
            _ => None,
        }
    }

    /// A descriptor for the worker.
    pub(crate) fn descriptor(&self) -> Result<OwnedFd, SegmentError> {
        duplicate(self.records.segment())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape { slots: 3, seats: 2 };

    #[test]
    fn the_layout_is_pinned() {
        assert_eq!((size_of::<Slot>(), size_of::<Seat>()), (64, 64));
        assert_eq!((Shape::slots_at(), SHAPE.seats_at(), SHAPE.cells_at()), (448, 640, 768));
        assert_eq!((SHAPE.cells(), SHAPE.len()), (8, 832));
    }

    #[test]
    fn records_come_back() {
        let (task, items, mut record) = (Task::from_words([7, 9]), ItemsTask::from_words([8, 9]), Vec::new());
        let inputs = Inputs::create(SHAPE).unwrap();
        let theirs = Inputs::attach(inputs.descriptor().unwrap(), SHAPE).unwrap();
        for len in [0, 1, 7, MAX_ARGUMENT] {
            let argument: Vec<u8> = (0..len).map(|n| n as u8).collect();
            let call = if len == 7 { Call::Items(items, MAX_ITEMS) } else { Call::One(task) };
            let about = About { call, has_limit: len == 1 };
            assert!(inputs.write(2, 5, about, Argument::Here(&argument)));
            let input = theirs.read(2, &mut record).unwrap();
            assert_eq!((input.job, input.about, input.is_mail), (5, about, false));
            assert_eq!(record, argument);
        }
        let about = About { call: Call::One(task), has_limit: false };
        assert!(inputs.write(2, 5, about, Argument::Mail));
        assert!(theirs.read(2, &mut record).unwrap().is_mail);
        assert!(!theirs.records.segment().is_writable(), "only the pool can write it");
        assert!(
            !inputs.write(3, 5, about, Argument::Mail)
                && !inputs.write(2, 5, about, Argument::Here(&[0; MAX_ARGUMENT + 1]))
        );
        assert!(theirs.read(3, &mut record).is_none(), "there is no such slot");
        let outputs = Outputs::create(SHAPE).unwrap();
        for output in [Output::Value(vec![1; MAX_RESULT]), Output::Failure(Vec::new()), Output::Mail] {
            assert!(outputs.write(1, 8, &output, None));
            assert_eq!(outputs.read(1, 8, Vec::new()), Some(output));
            assert_eq!(outputs.read(1, 9, Vec::new()), None, "another job's");
        }
    }

    #[test]
    fn items_are_where_the_record_says() {
        let outputs = Outputs::create(SHAPE).unwrap();
        let span = Span::new(128, 64).unwrap();
        assert!(outputs.write_items(1, 8, Some(span), span.len(), 0));
        assert!(outputs.append(span, 0, b"one") && outputs.append(span, 3, &[2; 61]));
        assert!(!outputs.append(span, 4, &[2; 61]) && !outputs.append(span, usize::MAX, &[2]), "it would not fit");
        let Some(Output::Items { bytes, mailed: 0 }) = outputs.read(1, 8, Vec::new()) else { panic!() };
        assert_eq!((bytes.len(), &bytes[..4]), (64, &b"one\x02"[..]));
        assert!(outputs.write_items(1, 8, Some(span), 3, 7));
        assert_eq!(outputs.read(1, 8, Vec::new()), Some(Output::Items { bytes: b"one".to_vec(), mailed: 7 }));
        assert!(outputs.write_items(1, 8, None, 0, 1));
        assert_eq!(outputs.read(1, 8, Vec::new()), Some(Output::Items { bytes: Vec::new(), mailed: 1 }));
    }

    #[test]
    fn nonsense_in_a_record_is_nothing() {
        let outputs = Outputs::create(SHAPE).unwrap();
        let about = |about: u64| {
            assert!(outputs.write(0, 8, &Output::Value(vec![1]), None));
            outputs.records.segment().write(8, &about.to_ne_bytes()).unwrap();
            outputs.read(0, 8, Vec::new())
        };
        assert_eq!(about(1), Some(Output::Value(vec![1])));
        let span = Span::new(64, 1).unwrap();
        assert!(outputs.write(0, 8, &Output::Value(vec![9]), Some(span)));
        assert_eq!(outputs.read(0, 8, Vec::new()), Some(Output::Value(vec![9])));
        for place in [OUTPUT_HEAP as u64, u64::MAX] {
            outputs.records.segment().write(16, &place.to_ne_bytes()).unwrap();
            assert_eq!(outputs.read(0, 8, Vec::new()), None, "outside of the heap");
        }
        assert_eq!(about(MAX_RESULT as u64 + 1), None);
        assert_eq!(about((Outputs::PLACED << 32) | (MAX_PLACED as u64 + 1)), None);
        assert_eq!(about(3 << 32 | 1), None);
        let inputs = Inputs::create(SHAPE).unwrap();
        inputs.records.segment().write(24, &(MAX_ARGUMENT as u32 + 1).to_ne_bytes()).unwrap();
        assert!(inputs.read(0, &mut Vec::new()).is_none());
    }
}
