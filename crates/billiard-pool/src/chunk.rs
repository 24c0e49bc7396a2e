//! What became of a chunk: many items, each with an outcome of its own.

use std::collections::VecDeque;

use billiard_context::{Message, RemoteError};
use billiard_wire::{attachments::Received, codec};

use crate::{
    error::JobError,
    handle::{RawOutcome, decode_outcome, decode_value},
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

    /// What became of the next item.
    #[inline]
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
        false => decode_value(item, &mut Received::default()),
        true => Err(match codec::decode::<Failure>(item, &mut Received::default()) {
            Ok(failure) => failure.into(),
            Err(error) => JobError::ResultDecode(error.into()),
        }),
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
        let encode = |n: u32| codec::encode(&n).unwrap().into_parts().0;
        let mut laid = Vec::new();
        items::push(&mut laid, false, &encode(300));
        items::push(&mut laid, true, &[9, 9]);
        items::push(&mut laid, false, &encode(1));
        let mut outcomes = Outcomes::default();
        outcomes.one(Err(JobError::Cancelled));
        outcomes.laid(5, laid);
        outcomes.laid(0, vec![1]);
        outcomes.one(Ok((encode(7).into(), Received::default())));
        outcomes.end(JobError::PoolFailed(RemoteError::msg("why")));
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
    }
}
