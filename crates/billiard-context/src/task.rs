//! A function that another process of the same executable calls.

use billiard_wire::{
    Message, Panic, RemoteError,
    attachments::{Attachments, Received},
    exact::{self, Bytes},
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    image::Image,
    panics::{self, Print},
};

/// A function `fn(A) -> R` as it travels: where it is in the executable, and where the code is that
/// decodes its argument, calls it and encodes its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    function: u64,
    call: u64,
}

/// A function outside the main executable, in a plug-in say: a child could not find it.
#[derive(Clone, Copy, Debug, Error)]
#[error(
    "the function is not in the main executable but in a library that was loaded: a child could not find it; wrap it in a function of the program"
)]
pub struct ForeignFunction;

/// How a task ended.
#[derive(Debug)]
pub enum Outcome {
    /// It returned, and this is its value.
    Returned(Vec<u8>, Attachments),
    /// It panicked.
    Panicked(Panic),
    /// Its argument could not be decoded: it was not called.
    BadArgument(RemoteError),
    /// It returned a value that cannot be encoded.
    BadResult(RemoteError),
}

/// Items that go through one function, one after the other: where their arguments come from, and what becomes of them.
pub trait Items {
    /// The encoded argument of the next item, and a buffer for its value, which goes behind what is in it; none when there are no more.
    fn next(&mut self) -> Option<(&[u8], &mut Vec<u8>)>;

    /// The value of that item is in the buffer, and has no descriptors. Whether to go on.
    fn returned(&mut self) -> bool;

    /// Anything else has become of it. Whether to go on.
    fn ended(&mut self, outcome: Outcome) -> bool;
}

type CallItems = fn(usize, &mut dyn Items, Print);

/// A function that is called with many items: what a [`Task`] is for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ItemsTask(Task);

impl ItemsTask {
    /// `function`, ready to travel.
    ///
    /// # Errors
    ///
    /// [`ForeignFunction`] when it is not in the main executable.
    pub fn new<A: Message, R: Message>(function: fn(A) -> R) -> Result<Self, ForeignFunction> {
        let call: CallItems = call_items::<A, R>;
        Ok(Self(Task { function: offset_of(function as usize)?, call: offset_of(call as usize)? }))
    }

    /// The task as two numbers.
    #[must_use]
    pub fn to_words(self) -> [u64; 2] {
        self.0.to_words()
    }

    /// The task of these two numbers, which [`to_words`](Self::to_words) gave.
    #[must_use]
    pub fn from_words(words: [u64; 2]) -> Self {
        Self(Task::from_words(words))
    }

    /// Calls the function with each item. One that panics is no end.
    ///
    /// # Safety
    ///
    /// The task was made by [`ItemsTask::new`] in a process that runs the same executable as this one.
    ///
    /// # Errors
    ///
    /// [`ForeignFunction`] when there is no code where the task points.
    pub unsafe fn run(self, items: &mut dyn Items, print: Print) -> Result<(), ForeignFunction> {
        let at = |offset| Image::this().function_at(offset).ok_or(ForeignFunction);
        let (function, call) = (at(self.0.function)?, at(self.0.call)?);
        // SAFETY: `new` made the offset from a function of this type in this executable, as the caller promises.
        let call = unsafe { std::mem::transmute::<usize, CallItems>(call) };
        call(function, items, print);
        Ok(())
    }
}

fn offset_of(address: usize) -> Result<u64, ForeignFunction> {
    Image::this().offset_of(address).ok_or(ForeignFunction)
}

type Call = fn(usize, Bytes<'_>, &mut Received, Print, Vec<u8>) -> Outcome;

impl Task {
    /// `function`, ready to travel.
    ///
    /// # Errors
    ///
    /// [`ForeignFunction`] when it is not in the main executable.
    pub fn new<A: Message, R: Message>(function: fn(A) -> R) -> Result<Self, ForeignFunction> {
        let call: Call = call::<A, R>;
        Ok(Self { function: offset_of(function as usize)?, call: offset_of(call as usize)? })
    }

    /// The task as two numbers.
    #[must_use]
    pub fn to_words(self) -> [u64; 2] {
        [self.function, self.call]
    }

    /// The task of these two numbers, which [`to_words`](Self::to_words) gave.
    #[must_use]
    pub fn from_words([function, call]: [u64; 2]) -> Self {
        Self { function, call }
    }

    /// Calls the function with the argument in `bytes`, whose descriptors are in `received`. Its value is encoded into the room of `buffer`.
    ///
    /// # Safety
    ///
    /// The task was made by [`Task::new`] in a process that runs the same executable as this one.
    ///
    /// # Errors
    ///
    /// [`ForeignFunction`] when there is no code where the task points.
    pub unsafe fn run(
        self,
        bytes: Bytes<'_>,
        received: &mut Received,
        print: Print,
        buffer: Vec<u8>,
    ) -> Result<Outcome, ForeignFunction> {
        let at = |offset| Image::this().function_at(offset).ok_or(ForeignFunction);
        let (function, call) = (at(self.function)?, at(self.call)?);
        // SAFETY: `new` made the offset from a function of this type in this executable, as the caller promises.
        let call = unsafe { std::mem::transmute::<usize, Call>(call) };
        Ok(call(function, bytes, received, print, buffer))
    }
}

/// Runs a closure, and encodes its value, as a task does with its function.
pub(crate) fn outcome<R: Message>(print: Print, closure: impl FnOnce() -> R) -> Outcome {
    panics::catch(print, || encode(closure(), Vec::new())).unwrap_or_else(Outcome::Panicked)
}

fn encode<R: Message>(value: R, buffer: Vec<u8>) -> Outcome {
    match exact::encode(value, buffer) {
        Ok(encoded) => {
            let (bytes, attachments) = encoded.into_parts();
            Outcome::Returned(bytes, attachments)
        }
        Err(why) => Outcome::BadResult(why.into()),
    }
}

fn call<A: Message, R: Message>(
    function: usize,
    bytes: Bytes<'_>,
    received: &mut Received,
    print: Print,
    buffer: Vec<u8>,
) -> Outcome {
    // SAFETY: `Task::new` puts only this instance of `call` beside a function of this type.
    let function = unsafe { std::mem::transmute::<usize, fn(A) -> R>(function) };
    // Everything that may run code of the user's types is inside: decoding, the call, encoding.
    let outcome = panics::catch(print, || {
        let argument = match exact::decode::<A>(bytes, received) {
            Ok(argument) => argument,
            Err(why) => return Outcome::BadArgument(why.into()),
        };
        encode(function(argument), buffer)
    });
    outcome.unwrap_or_else(Outcome::Panicked)
}

fn call_items<A: Message, R: Message>(function: usize, items: &mut dyn Items, print: Print) {
    // SAFETY: `ItemsTask::new` puts only this instance of `call_items` beside a function of this type.
    let function = unsafe { std::mem::transmute::<usize, fn(A) -> R>(function) };
    let (mut decoder, mut encoder) = (exact::Decoder::default(), exact::Encoder::default());
    let mut run = |items: &mut dyn Items| {
        while let Some((bytes, buffer)) = items.next() {
            let goes_on = match decoder.decode::<A>(bytes) {
                Ok(argument) => {
                    let begin = buffer.len();
                    let value = function(argument);
                    let encoded = encoder.append(&value, buffer);
                    drop(value); // which may panic: before the item has ended
                    match encoded {
                        Ok(None) => items.returned(),
                        Ok(Some(attachments)) => {
                            let bytes = buffer.split_off(begin);
                            items.ended(Outcome::Returned(bytes, attachments))
                        }
                        Err(why) => items.ended(Outcome::BadResult(why.into())),
                    }
                }
                Err(why) => items.ended(Outcome::BadArgument(why.into())),
            };
            if !goes_on {
                return;
            }
        }
    };
    // To catch costs as much as a small item does: it is done once, and again where one has panicked.
    while let Err(panic) = panics::catch(print, || run(items)) {
        if !items.ended(Outcome::Panicked(panic)) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add((a, b): (u32, u32)) -> u32 {
        a + b
    }

    fn run(task: Task, bytes: &[u8]) -> Outcome {
        // SAFETY: the task was made in this process.
        unsafe { task.run(Bytes::Slice(bytes), &mut Received::default(), Print::No, Vec::new()) }.unwrap()
    }

    #[test]
    fn a_task_is_called_with_its_argument() {
        let task = Task::new(add).unwrap();
        let Outcome::Returned(bytes, _) = run(task, exact::encode((2u32, 3u32), Vec::new()).unwrap().body()) else {
            panic!()
        };
        assert_eq!(exact::decode::<u32>(Bytes::Slice(&bytes), &mut Received::default()).unwrap(), 5);
    }

    #[test]
    fn each_failure_has_its_name() {
        let task = Task::new(add).unwrap();
        let Outcome::BadArgument(why) = run(task, &[]) else { panic!() };
        assert!(why.message().contains("(u32, u32)"), "{why}");
        let overflow = exact::encode((u32::MAX, 3u32), Vec::new()).unwrap();
        let Outcome::Panicked(panic) = run(task, overflow.body()) else { panic!() };
        assert!(panic.message().contains("overflow"), "{panic}");
    }

    /// Items in lists.
    #[derive(Default)]
    struct Listed {
        arguments: Vec<Vec<u8>>,
        argument: Vec<u8>,
        buffer: Vec<u8>,
        outcomes: Vec<Result<u32, String>>,
        most: usize,
    }

    impl Items for Listed {
        fn next(&mut self) -> Option<(&[u8], &mut Vec<u8>)> {
            self.argument = self.arguments.pop()?;
            self.buffer = vec![9];
            Some((&self.argument, &mut self.buffer))
        }

        fn returned(&mut self) -> bool {
            assert_eq!(self.buffer[0], 9);
            self.outcomes.push(Ok(exact::Decoder::default().decode(&self.buffer[1..]).unwrap()));
            self.outcomes.len() < self.most
        }

        fn ended(&mut self, outcome: Outcome) -> bool {
            self.outcomes.push(Err(format!("{outcome:?}")));
            self.outcomes.len() < self.most
        }
    }

    type Is = fn(&Result<u32, String>) -> bool;

    #[test]
    fn items_are_called_one_after_the_other_whatever_becomes_of_one() {
        let task = ItemsTask::new(add).unwrap();
        let task = ItemsTask::from_words(task.to_words());
        let encoded = |pair: (u32, u32)| exact::encode(pair, Vec::new()).unwrap().into_parts().0;
        for most in [usize::MAX, 4, 3, 2, 1] {
            let arguments = [(1, 2), (u32::MAX, 1), (3, 4)].map(encoded);
            let arguments = arguments.into_iter().rev().chain([vec![], encoded((5, 6))]).collect();
            let mut items = Listed { arguments, most, ..Listed::default() };
            // SAFETY: the task was made in this process.
            unsafe { task.run(&mut items, Print::No) }.unwrap();
            let outcomes = items.outcomes;
            assert_eq!(outcomes.len(), most.min(5));
            let expected: [Is; 5] = [
                |outcome| *outcome == Ok(11),
                |outcome| outcome.as_ref().is_err_and(|why| why.starts_with("BadArgument")),
                |outcome| *outcome == Ok(3),
                |outcome| outcome.as_ref().is_err_and(|why| why.starts_with("Panicked")),
                |outcome| *outcome == Ok(7),
            ];
            assert!(expected.iter().zip(&outcomes).all(|(is, outcome)| is(outcome)), "{outcomes:?}");
        }
    }

    #[test]
    fn a_task_that_points_beside_the_code_is_refused() {
        let task = Task { function: u64::MAX, call: 0 };
        // SAFETY: nothing is called, since nothing is there.
        assert!(unsafe { task.run(Bytes::Slice(&[]), &mut Received::default(), Print::No, Vec::new()) }.is_err());
    }
}
