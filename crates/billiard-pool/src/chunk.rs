//! What became of a chunk: many items, each with an outcome of its own.

use std::collections::VecDeque;

use billiard_context::{
    Message, RemoteError,
    panics::{Print, catch},
};
use billiard_wire::{
    attachments::Received,
    codec,
    exact::{self, Bytes},
};

use crate::{
    error::JobError,
    handle::{RawOutcome, decode_outcome, decoded},
    message::Failure,
    table::items,
};

/// The outcomes of the items, in their order. Whoever takes them out knows how many there are.
#[derive(Debug, Default)]
pub(crate) struct Outcomes {
    parts: VecDeque<Part>,
    /// Why those behind have no value.
    rest: Option<JobError>,
}

#[derive(Debug)]
enum Part {
    /// So many as they were laid down by a worker, one behind the other, from `at` on. They may be anything.
    Laid { count: usize, bytes: Vec<u8>, at: usize },
    /// One.
    One(Box<RawOutcome>),
}

impl Outcomes {
    /// So many more, as they were laid down.
    pub(crate) fn laid(&mut self, count: usize, bytes: Vec<u8>) {
        if count > 0 {
            self.parts.push_back(Part::Laid { count, bytes, at: 0 });
        }
    }

    /// One more.
    pub(crate) fn one(&mut self, outcome: RawOutcome) {
        self.parts.push_back(Part::One(Box::new(outcome)));
    }

    /// No more have a value.
    pub(crate) fn end(&mut self, why: JobError) {
        self.rest = Some(why);
    }

    /// What became of so many items, one after the other.
    pub(crate) fn each<R: Message>(mut self, mut left: usize, mut with: impl FnMut(Result<R, JobError>)) {
        while left > 0 {
            match self.parts.front_mut() {
                Some(Part::Laid { count, bytes, at }) => {
                    left -= (*count).min(left);
                    take_many(bytes, at, *count, &mut with);
                    self.parts.pop_front();
                }
                _ => {
                    left -= 1;
                    with(self.next());
                }
            }
        }
    }

    /// What became of the next item.
    pub(crate) fn next<R: Message>(&mut self) -> Result<R, JobError> {
        match self.parts.front_mut() {
            Some(Part::Laid { count, bytes, at }) => {
                let outcome = take(bytes, at);
                *count -= 1;
                if *count == 0 {
                    self.parts.pop_front();
                }
                outcome
            }
            Some(Part::One(_)) => match self.parts.pop_front() {
                Some(Part::One(outcome)) => decode_outcome(*outcome),
                _ => unreachable!("it was in front"),
            },
            None => Err(self.rest.as_ref().map_or_else(misses, again)),
        }
    }
}

fn misses() -> JobError {
    JobError::ResultDecode(RemoteError::msg("its worker has laid down no result"))
}

#[inline]
fn take<R: Message>(bytes: &[u8], at: &mut usize) -> Result<R, JobError> {
    let Some((is_failure, item, rest)) = bytes.get(*at..).and_then(items::split) else {
        *at = bytes.len(); // nor is there anything behind
        return Err(misses());
    };
    *at = bytes.len() - rest.len();
    match is_failure {
        false => decoded(|| exact::decode(Bytes::Slice(item), &mut Received::default())),
        true => Err(match codec::decode::<Failure>(item, &mut Received::default()) {
            Ok(failure) => failure.into(),
            Err(error) => JobError::ResultDecode(error.into()),
        }),
    }
}

/// As [`take`], so many times. To catch costs as much as a small item does: it is done once, and again where one has panicked.
fn take_many<R: Message>(bytes: &[u8], at: &mut usize, count: usize, with: &mut impl FnMut(Result<R, JobError>)) {
    let (mut left, mut decoder) = (count, exact::Decoder::default());
    while left > 0 {
        let caught = catch(Print::No, || {
            while left > 0 {
                left -= 1;
                match bytes.get(*at..).and_then(items::split) {
                    Some((false, item, rest)) => {
                        *at = bytes.len() - rest.len();
                        with(decoder.decode(item).map_err(|error| JobError::ResultDecode(error.into())));
                    }
                    _ => with(take(bytes, at)),
                }
            }
        });
        if let Err(panic) = caught {
            with(Err(JobError::ResultDecode(RemoteError::from(panic))));
        }
    }
}

/// The same for another item.
fn again(why: &JobError) -> JobError {
    match why {
        JobError::Cancelled => JobError::Cancelled,
        JobError::PoolFailed(error) => JobError::PoolFailed(error.clone()),
        JobError::ResultDecode(error) => JobError::ResultDecode(error.clone()),
        JobError::WorkerLost(lost) => JobError::WorkerLost(lost.clone()),
        JobError::TimeLimitExceeded(limit) => JobError::TimeLimitExceeded(*limit),
        _ => JobError::Terminated,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_come_in_their_order_and_nonsense_is_an_error() {
        let encode = |n: u32| n.to_le_bytes().to_vec();
        let mut laid = Vec::new();
        items::push(&mut laid, false, &encode(300));
        items::push(&mut laid, true, &[9, 9]);
        items::push(&mut laid, false, &encode(1));
        let make = || {
            let mut outcomes = Outcomes::default();
            outcomes.one(Err(JobError::Cancelled));
            outcomes.laid(5, laid.clone());
            outcomes.laid(0, vec![1]);
            outcomes.one(Ok((encode(7).into(), Received::default())));
            outcomes.end(JobError::PoolFailed(RemoteError::msg("why")));
            outcomes
        };
        let mut outcomes = make();
        assert!(matches!(outcomes.next::<u32>(), Err(JobError::Cancelled)));
        assert!(matches!(outcomes.next::<u32>(), Ok(300)));
        assert!(matches!(outcomes.next::<u32>(), Err(JobError::ResultDecode(_))));
        assert!(matches!(outcomes.next::<u32>(), Ok(1)));
        assert!(matches!(outcomes.next::<u32>(), Err(JobError::ResultDecode(_))), "there is no fourth");
        assert!(matches!(outcomes.next::<u32>(), Err(JobError::ResultDecode(_))), "nor a fifth");
        assert!(matches!(outcomes.next::<u32>(), Ok(7)));
        for _ in 0..2 {
            assert!(matches!(outcomes.next::<u32>(), Err(JobError::PoolFailed(why)) if why.to_string() == "why"));
        }
        let said = |outcome: Result<u32, JobError>| outcome.map_err(|error| error.to_string());
        let (mut one_by_one, mut at_once) = (make(), Vec::new());
        make().each::<u32>(9, |outcome| at_once.push(said(outcome)));
        assert_eq!(at_once.len(), 9);
        assert!(at_once.iter().all(|outcome| *outcome == said(one_by_one.next())), "{at_once:?}");
    }

    /// Decodes to itself, or panics.
    #[derive(Debug, PartialEq, serde::Serialize)]
    struct Touchy(u32);

    impl<'de> serde::Deserialize<'de> for Touchy {
        fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let value = u32::deserialize(deserializer)?;
            assert!(!value.is_multiple_of(3), "three");
            Ok(Self(value))
        }
    }

    #[test]
    fn a_value_whose_decoding_panics_fails_alone() {
        let (mut laid, mut at) = (Vec::new(), 0);
        for n in 0..10_u32 {
            items::push(&mut laid, false, codec::encode(&n).unwrap().body());
        }
        let mut all = Vec::new();
        take_many::<Touchy>(&laid, &mut at, 10, &mut |outcome| all.push(outcome));
        for (n, outcome) in (0..).zip(&all) {
            match outcome {
                Ok(value) => assert_eq!(*value, Touchy(n)),
                Err(JobError::ResultDecode(why)) => assert!(n % 3 == 0 && why.to_string().contains("three"), "{why}"),
                Err(other) => panic!("{other}"),
            }
        }
        assert_eq!(all.len(), 10);
    }
}
