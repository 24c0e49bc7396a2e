//! The three kinds of memory that a job table is made of, and the records in them.

use std::os::fd::{AsFd, OwnedFd};

use billiard_context::task::Task;
use billiard_shm::{Kind, Place, Segment, SegmentError, SegmentOptions};
use std::sync::atomic::AtomicU64;

use super::{
    control::{Control, Head, Seat, Slot, cells},
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

/// What a worker is to do.
#[derive(Debug)]
pub(crate) struct Input<'r> {
    pub(crate) job: u64,
    pub(crate) task: Task,
    /// Whether the moment of the claim is to be noted.
    pub(crate) has_limit: bool,
    /// The argument; none when it comes by mail.
    pub(crate) argument: Option<&'r [u8]>,
}

/// What jobs are to be done: one record for each slot. Only the pool can write it.
#[derive(Debug)]
pub(crate) struct Inputs(Records);

impl Inputs {
    const MAIL: u32 = u32::MAX;
    /// Beside the length: the job has a limit.
    const LIMIT: u64 = 1 << 32;

    pub(crate) fn create(shape: Shape) -> Result<Self, SegmentError> {
        let options = options().read_only_for_others(true);
        let segment = options.create(INPUTS, shape.slots as usize * RECORD)?;
        Ok(Self(Records::new(segment, shape.slots as usize)?))
    }

    pub(crate) fn attach(fd: OwnedFd, shape: Shape) -> Result<Self, SegmentError> {
        Ok(Self(Records::new(attach(fd, INPUTS)?, shape.slots as usize)?))
    }

    /// Writes the record of a slot: no argument where it comes by mail. False when that is no slot, or the argument does not fit.
    #[inline]
    #[must_use]
    pub(crate) fn write(
        &self,
        slot: usize,
        job: u64,
        (task, has_limit): (Task, bool),
        argument: Option<&[u8]>,
    ) -> bool {
        let [function, call] = task.to_words();
        let len = argument.map_or(Self::MAIL, |bytes| bytes.len() as u32);
        let about = u64::from(len) | if has_limit { Self::LIMIT } else { 0 };
        self.0.write(slot, [job, function, call, about], argument.unwrap_or_default())
    }

    /// The record of a slot that the caller has claimed; none when it makes no sense. The argument is in `buffer`.
    #[inline]
    pub(crate) fn read<'r>(&self, slot: usize, buffer: &'r mut Vec<u8>) -> Option<Input<'r>> {
        // Read once: it is this that is used.
        let [job, function, call, about] = self.0.head(slot)?;
        let argument = match about as u32 {
            Self::MAIL => None,
            len if len as usize > MAX_ARGUMENT => return None,
            len => {
                self.0.read(slot, INPUT_HEAD, len as usize, buffer)?;
                Some(&buffer[..])
            }
        };
        Some(Input { job, task: Task::from_words([function, call]), has_limit: about & Self::LIMIT != 0, argument })
    }

    /// A descriptor for a worker.
    pub(crate) fn descriptor(&self) -> Result<OwnedFd, SegmentError> {
        duplicate(self.0.segment())
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
}

/// The results of the worker in one seat: one record for each slot.
#[derive(Clone, Debug)]
pub(crate) struct Outputs(Records);

impl Outputs {
    pub(crate) fn create(shape: Shape) -> Result<Self, SegmentError> {
        let segment = options().create(OUTPUTS, shape.slots as usize * RECORD)?;
        Ok(Self(Records::new(segment, shape.slots as usize)?))
    }

    pub(crate) fn attach(fd: OwnedFd, shape: Shape) -> Result<Self, SegmentError> {
        Ok(Self(Records::new(attach(fd, OUTPUTS)?, shape.slots as usize)?))
    }

    /// Lays down what became of a job. False when that is no slot, or the bytes are more than [`MAX_RESULT`], which have to go by mail.
    #[inline]
    #[must_use]
    pub(crate) fn write(&self, slot: usize, job: u64, output: &Output) -> bool {
        let (kind, bytes): (u64, &[u8]) = match output {
            Output::Value(bytes) => (0, bytes),
            Output::Failure(bytes) => (1, bytes),
            Output::Mail => (2, &[]),
        };
        self.0.write(slot, [job, kind << 32 | bytes.len() as u64], bytes)
    }

    /// What became of a job; none when the record says nothing about it, or nothing that makes sense. The bytes are in the room of `buffer`.
    #[inline]
    pub(crate) fn read(&self, slot: usize, job: u64, mut buffer: Vec<u8>) -> Option<Output> {
        // Read once: it is this that is used.
        let [its, about] = self.0.head(slot)?;
        let len = about as u32 as usize;
        if its != job || len > MAX_RESULT {
            return None;
        }
        self.0.read(slot, OUTPUT_HEAD, len, &mut buffer)?;
        match about >> 32 {
            0 => Some(Output::Value(buffer)),
            1 => Some(Output::Failure(buffer)),
            2 => Some(Output::Mail),
            _ => None,
        }
    }

    /// A descriptor for the worker.
    pub(crate) fn descriptor(&self) -> Result<OwnedFd, SegmentError> {
        duplicate(self.0.segment())
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
        let (task, mut record) = (Task::from_words([7, 9]), Vec::new());
        let inputs = Inputs::create(SHAPE).unwrap();
        let theirs = Inputs::attach(inputs.descriptor().unwrap(), SHAPE).unwrap();
        for len in [0, 1, 7, MAX_ARGUMENT] {
            let argument: Vec<u8> = (0..len).map(|n| n as u8).collect();
            assert!(inputs.write(2, 5, (task, len == 1), Some(&argument)));
            let input = theirs.read(2, &mut record).unwrap();
            let found = (input.job, input.task, input.has_limit, input.argument);
            assert_eq!(found, (5, task, len == 1, Some(&argument[..])));
        }
        assert!(inputs.write(2, 5, (task, false), None));
        assert_eq!(theirs.read(2, &mut record).unwrap().argument, None);
        assert!(!theirs.0.segment().is_writable(), "only the pool can write it");
        assert!(
            !inputs.write(3, 5, (task, false), None)
                && !inputs.write(2, 5, (task, false), Some(&[0; MAX_ARGUMENT + 1]))
        );
        assert!(theirs.read(3, &mut record).is_none(), "there is no such slot");
        let outputs = Outputs::create(SHAPE).unwrap();
        for output in [Output::Value(vec![1; MAX_RESULT]), Output::Failure(Vec::new()), Output::Mail] {
            assert!(outputs.write(1, 8, &output));
            assert_eq!(outputs.read(1, 8, Vec::new()), Some(output));
            assert_eq!(outputs.read(1, 9, Vec::new()), None, "another job's");
        }
    }

    #[test]
    fn nonsense_in_a_record_is_nothing() {
        let outputs = Outputs::create(SHAPE).unwrap();
        let about = |about: u64| {
            assert!(outputs.write(0, 8, &Output::Value(vec![1])));
            outputs.0.segment().write(8, &about.to_ne_bytes()).unwrap();
            outputs.read(0, 8, Vec::new())
        };
        assert_eq!(about(1), Some(Output::Value(vec![1])));
        assert_eq!(about(MAX_RESULT as u64 + 1), None);
        assert_eq!(about(3 << 32 | 1), None);
        let inputs = Inputs::create(SHAPE).unwrap();
        inputs.0.segment().write(24, &(MAX_ARGUMENT as u32 + 1).to_ne_bytes()).unwrap();
        assert!(inputs.read(0, &mut Vec::new()).is_none());
    }
}
