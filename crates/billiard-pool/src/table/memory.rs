//! The three kinds of memory that a job table is made of, and the records in them.

use std::os::fd::{AsFd, OwnedFd};

use billiard_context::task::Task;
use billiard_shm::{Kind, Place, Segment, SegmentError, SegmentOptions};
use std::sync::atomic::AtomicU64;

use super::control::{Control, Head, Seat, Slot};

const CONTROL: Kind = Kind::new("jobs", 1);
const INPUTS: Kind = Kind::new("inputs", 1);
const OUTPUTS: Kind = Kind::new("outputs", 1);

/// How large a record is.
pub(crate) const RECORD: usize = 256;
/// What comes over from another processor in one go.
const LINE: usize = 64;
const INPUT_HEAD: usize = 32;
const OUTPUT_HEAD: usize = 16;
/// The largest argument that fits into a record.
pub(crate) const MAX_ARGUMENT: usize = RECORD - INPUT_HEAD;
/// The largest result that fits into a record.
pub(crate) const MAX_RESULT: usize = RECORD - OUTPUT_HEAD;

/// How large a table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Shape {
    pub(crate) slots: u32,
    pub(crate) seats: u32,
}

impl Shape {
    fn cells(self) -> usize {
        (2 * self.slots as usize).next_power_of_two()
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

/// Writes a record: what stands in front, and the bytes, which the caller has checked to fit; in one go where both are on one line.
fn write<const HEAD: usize>(
    segment: &Segment,
    slot: usize,
    head: [u8; HEAD],
    bytes: &[u8],
) -> Result<(), SegmentError> {
    if HEAD + bytes.len() > LINE {
        segment.write(slot * RECORD, &head)?;
        return segment.write(slot * RECORD + HEAD, bytes);
    }
    let mut line = [0; LINE];
    line[..HEAD].copy_from_slice(&head);
    line[HEAD..HEAD + bytes.len()].copy_from_slice(bytes);
    segment.write(slot * RECORD, &line[..(HEAD + bytes.len()).next_multiple_of(8)])
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

/// Where an input record is copied to.
pub(crate) type Record = [u8; RECORD];

/// What jobs are to be done: one record for each slot. Only the pool can write it.
#[derive(Debug)]
pub(crate) struct Inputs(Segment);

impl Inputs {
    const MAIL: u32 = u32::MAX;

    pub(crate) fn create(shape: Shape) -> Result<Self, SegmentError> {
        let options = options().read_only_for_others(true);
        Ok(Self(options.create(INPUTS, shape.slots as usize * RECORD)?))
    }

    pub(crate) fn attach(fd: OwnedFd, shape: Shape) -> Result<Self, SegmentError> {
        let segment = attach(fd, INPUTS)?;
        segment.address(0, shape.slots as usize * RECORD, 8)?;
        Ok(Self(segment))
    }

    /// Writes the record of a slot: no argument where it comes by mail.
    pub(crate) fn write(
        &self,
        slot: usize,
        job: u64,
        (task, has_limit): (Task, bool),
        argument: Option<&[u8]>,
    ) -> Result<(), SegmentError> {
        let mut head = [0; INPUT_HEAD];
        let [function, call] = task.to_words();
        let len = argument.map_or(Self::MAIL, |bytes| bytes.len() as u32);
        head[..8].copy_from_slice(&job.to_ne_bytes());
        head[8..16].copy_from_slice(&function.to_ne_bytes());
        head[16..24].copy_from_slice(&call.to_ne_bytes());
        head[24..28].copy_from_slice(&len.to_ne_bytes());
        head[28] = u8::from(has_limit);
        write(&self.0, slot, head, argument.unwrap_or_default())
    }

    /// The record of a slot that the caller has claimed; none when it is another job's, or makes no sense.
    pub(crate) fn read<'r>(&self, slot: usize, record: &'r mut Record) -> Option<Input<'r>> {
        let (first, rest) = record.split_at_mut(LINE);
        self.0.read(slot * RECORD, first).ok()?;
        let word = |at: usize| u64::from_ne_bytes(first[at..at + 8].try_into().expect("eight bytes"));
        let (job, task, has_limit) = (word(0), Task::from_words([word(8), word(16)]), first[28] != 0);
        // Read once: it is this that is used.
        let argument = match word(24) as u32 {
            Self::MAIL => None,
            len if len as usize > MAX_ARGUMENT => return None,
            len => {
                let end = INPUT_HEAD + len as usize;
                if let Some(more @ 1..) = end.checked_sub(LINE) {
                    self.0.read(slot * RECORD + LINE, &mut rest[..more]).ok()?;
                }
                Some(&record[INPUT_HEAD..end])
            }
        };
        Some(Input { job, task, has_limit, argument })
    }

    /// A descriptor for a worker.
    pub(crate) fn descriptor(&self) -> Result<OwnedFd, SegmentError> {
        duplicate(&self.0)
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
pub(crate) struct Outputs(Segment);

impl Outputs {
    pub(crate) fn create(shape: Shape) -> Result<Self, SegmentError> {
        Ok(Self(options().create(OUTPUTS, shape.slots as usize * RECORD)?))
    }

    pub(crate) fn attach(fd: OwnedFd, shape: Shape) -> Result<Self, SegmentError> {
        let segment = attach(fd, OUTPUTS)?;
        segment.address(0, shape.slots as usize * RECORD, 8)?;
        Ok(Self(segment))
    }

    /// Lays down what became of a job. What is longer than [`MAX_RESULT`] has to go by mail.
    pub(crate) fn write(&self, slot: usize, job: u64, output: &Output) -> Result<(), SegmentError> {
        let (kind, bytes): (u32, &[u8]) = match output {
            Output::Value(bytes) => (0, bytes),
            Output::Failure(bytes) => (1, bytes),
            Output::Mail => (2, &[]),
        };
        let mut head = [0; OUTPUT_HEAD];
        head[..8].copy_from_slice(&job.to_ne_bytes());
        head[8..12].copy_from_slice(&(bytes.len() as u32).to_ne_bytes());
        head[12..16].copy_from_slice(&kind.to_ne_bytes());
        write(&self.0, slot, head, bytes)
    }

    /// What became of a job; none when the record says nothing about it, or nothing that makes sense.
    pub(crate) fn read(&self, slot: usize, job: u64) -> Option<Output> {
        let mut first = [0; LINE];
        self.0.read(slot * RECORD, &mut first).ok()?;
        let half = |at: usize| u32::from_ne_bytes(first[at..at + 4].try_into().expect("four bytes"));
        // Read once: it is these that are used.
        let (len, kind) = (half(8) as usize, half(12));
        if u64::from_ne_bytes(first[..8].try_into().expect("eight bytes")) != job || len > MAX_RESULT {
            return None;
        }
        let end = OUTPUT_HEAD + len;
        let mut bytes = first[OUTPUT_HEAD..end.min(LINE)].to_vec();
        if end > LINE {
            bytes.resize(len, 0);
            self.0.read(slot * RECORD + LINE, &mut bytes[LINE - OUTPUT_HEAD..]).ok()?;
        }
        match kind {
            0 => Some(Output::Value(bytes)),
            1 => Some(Output::Failure(bytes)),
            2 => Some(Output::Mail),
            _ => None,
        }
    }

    /// A descriptor for the worker.
    pub(crate) fn descriptor(&self) -> Result<OwnedFd, SegmentError> {
        duplicate(&self.0)
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
        let (task, mut record) = (Task::from_words([7, 9]), [0; RECORD]);
        let inputs = Inputs::create(SHAPE).unwrap();
        let theirs = Inputs::attach(inputs.descriptor().unwrap(), SHAPE).unwrap();
        for len in [0, 1, 7, MAX_ARGUMENT] {
            let argument: Vec<u8> = (0..len).map(|n| n as u8).collect();
            inputs.write(2, 5, (task, len == 1), Some(&argument)).unwrap();
            let input = theirs.read(2, &mut record).unwrap();
            let found = (input.job, input.task, input.has_limit, input.argument);
            assert_eq!(found, (5, task, len == 1, Some(&argument[..])));
        }
        inputs.write(2, 5, (task, false), None).unwrap();
        assert_eq!(theirs.read(2, &mut record).unwrap().argument, None);
        assert!(theirs.write(0, 1, (task, false), None).is_err(), "only the pool can write it");
        assert!(theirs.read(3, &mut record).is_none(), "there is no such slot");
        let outputs = Outputs::create(SHAPE).unwrap();
        for output in [Output::Value(vec![1; MAX_RESULT]), Output::Failure(Vec::new()), Output::Mail] {
            outputs.write(1, 8, &output).unwrap();
            assert_eq!(outputs.read(1, 8), Some(output));
            assert_eq!(outputs.read(1, 9), None, "another job's");
        }
    }

    #[test]
    fn nonsense_in_a_record_is_nothing() {
        let outputs = Outputs::create(SHAPE).unwrap();
        outputs.write(0, 8, &Output::Value(vec![1])).unwrap();
        outputs.0.write(8, &(MAX_RESULT as u32 + 1).to_ne_bytes()).unwrap();
        assert_eq!(outputs.read(0, 8), None);
        outputs.write(0, 8, &Output::Value(vec![1])).unwrap();
        outputs.0.write(12, &3u32.to_ne_bytes()).unwrap();
        assert_eq!(outputs.read(0, 8), None);
        let inputs = Inputs::create(SHAPE).unwrap();
        inputs.0.write(24, &(MAX_ARGUMENT as u32 + 1).to_ne_bytes()).unwrap();
        assert!(inputs.read(0, &mut [0; RECORD]).is_none());
    }
}
