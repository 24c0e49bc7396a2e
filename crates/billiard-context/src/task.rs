//! A function that another process of the same executable calls.

use billiard_wire::{
    Message, Panic, RemoteError,
    attachments::{Attachments, Received},
    codec,
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

type Call = fn(usize, &[u8], &mut Received, Print, Vec<u8>) -> Outcome;

impl Task {
    /// `function`, ready to travel.
    ///
    /// # Errors
    ///
    /// [`ForeignFunction`] when it is not in the main executable.
    pub fn new<A: Message, R: Message>(function: fn(A) -> R) -> Result<Self, ForeignFunction> {
        let offset = |address: usize| Image::this().offset_of(address).ok_or(ForeignFunction);
        let call: Call = call::<A, R>;
        Ok(Self { function: offset(function as usize)?, call: offset(call as usize)? })
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
        bytes: &[u8],
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
    panics::catch(print, || encode(&closure(), Vec::new())).unwrap_or_else(Outcome::Panicked)
}

fn encode<R: Message>(value: &R, buffer: Vec<u8>) -> Outcome {
    match codec::encode_into(value, buffer) {
        Ok(encoded) => {
            let (bytes, attachments) = encoded.into_parts();
            Outcome::Returned(bytes, attachments)
        }
        Err(why) => Outcome::BadResult(why.into()),
    }
}

fn call<A: Message, R: Message>(
    function: usize,
    bytes: &[u8],
    received: &mut Received,
    print: Print,
    buffer: Vec<u8>,
) -> Outcome {
    // SAFETY: `Task::new` puts only this instance of `call` beside a function of this type.
    let function = unsafe { std::mem::transmute::<usize, fn(A) -> R>(function) };
    // Everything that may run code of the user's types is inside: decoding, the call, encoding.
    let outcome = panics::catch(print, || {
        let argument = match codec::decode::<A>(bytes, received) {
            Ok(argument) => argument,
            Err(why) => return Outcome::BadArgument(why.into()),
        };
        encode(&function(argument), buffer)
    });
    outcome.unwrap_or_else(Outcome::Panicked)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add((a, b): (u32, u32)) -> u32 {
        a + b
    }

    fn run(task: Task, bytes: &[u8]) -> Outcome {
        // SAFETY: the task was made in this process.
        unsafe { task.run(bytes, &mut Received::default(), Print::No, Vec::new()) }.unwrap()
    }

    #[test]
    fn a_task_is_called_with_its_argument() {
        let task = Task::new(add).unwrap();
        let Outcome::Returned(bytes, _) = run(task, codec::encode(&(2u32, 3u32)).unwrap().body()) else { panic!() };
        assert_eq!(codec::decode::<u32>(&bytes, &mut Received::default()).unwrap(), 5);
    }

    #[test]
    fn each_failure_has_its_name() {
        let task = Task::new(add).unwrap();
        let Outcome::BadArgument(why) = run(task, &[]) else { panic!() };
        assert!(why.message().contains("(u32, u32)"), "{why}");
        let overflow = codec::encode(&(u32::MAX, 3u32)).unwrap();
        let Outcome::Panicked(panic) = run(task, overflow.body()) else { panic!() };
        assert!(panic.message().contains("overflow"), "{panic}");
    }

    #[test]
    fn a_task_that_points_beside_the_code_is_refused() {
        let task = Task { function: u64::MAX, call: 0 };
        // SAFETY: nothing is called, since nothing is there.
        assert!(unsafe { task.run(&[], &mut Received::default(), Print::No, Vec::new()) }.is_err());
    }
}
