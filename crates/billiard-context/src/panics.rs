//! Catching a panic with what its hook was told.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    cell::{Cell, RefCell},
    panic::{self, AssertUnwindSafe, PanicHookInfo},
    sync::Once,
};

use billiard_wire::Panic;

/// Whether a panic that is caught is also printed, as an uncaught one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Print {
    /// On standard error, as usual.
    Yes,
    /// Not at all: whoever gets the error decides.
    No,
}

/// A call of [`catch`] that this thread is in.
#[derive(Clone, Copy)]
struct Call {
    print: Print,
    /// Tells it from others of the thread.
    number: u64,
}

thread_local! {
    /// The innermost.
    static CALL: Cell<Option<Call>> = const { Cell::new(None) };
    /// How many there have been.
    static CALLS: Cell<u64> = const { Cell::new(0) };
    /// The last panic, and the call that it was in.
    static LAST: RefCell<Option<(u64, Box<Panic>)>> = const { RefCell::new(None) };
}

/// Runs `work`; a panic comes back with message, place, and the backtrace that `RUST_BACKTRACE` asks for.
///
/// Panics of other threads, and of calls outside, are treated as before.
///
/// # Errors
///
/// The panic.
pub fn catch<R>(print: Print, work: impl FnOnce() -> R) -> Result<R, Panic> {
    static HOOK: Once = Once::new();
    // In a destructor that runs while a thread unwinds the hook cannot be changed: this panic is then known by its payload alone.
    let may_change = !std::thread::panicking();
    let _ = may_change.then(|| {
        HOOK.call_once(|| {
            let before = panic::take_hook();
            panic::set_hook(Box::new(move |info| {
                if note(info) == Print::Yes {
                    before(info);
                }
            }));
        });
    });
    let number = CALLS.get().wrapping_add(1);
    CALLS.set(number);
    let outer = CALL.replace(Some(Call { print, number }));
    let result = panic::catch_unwind(AssertUnwindSafe(work));
    CALL.set(outer);
    result.map_err(|payload| {
        let last = LAST.try_with(RefCell::take).ok().flatten();
        let caught = last.and_then(|(its, panic)| (its == number).then_some(panic));
        let message = Panic::message_of(&*payload);
        // A payload may itself panic when it is dropped, with one that does again: there it ends.
        if let Err(again) = panic::catch_unwind(AssertUnwindSafe(|| drop(payload))) {
            std::mem::forget(again);
        }
        match caught {
            // The hook may have seen an earlier panic that the work caught itself, or none (`resume_unwind`).
            Some(panic) if panic.message() == message => *panic,
            _ => Panic::new(message, None, None),
        }
    })
}

fn note(info: &PanicHookInfo<'_>) -> Print {
    match CALL.get() {
        Some(Call { print, number }) => {
            let backtrace = Backtrace::capture();
            let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
            let location = info.location().map(ToString::to_string);
            let message = info.payload_as_str().unwrap_or("a panic whose payload is no text").to_owned();
            let panic = Box::new(Panic::new(message, location, backtrace));
            let _ = LAST.try_with(|last| last.replace(Some((number, panic)))); // a thread at its very end has no place for it
            print
        }
        None => Print::Yes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_says_what_and_where() {
        let panic = catch(Print::No, || panic!("out of {}", "cheese")).unwrap_err();
        assert_eq!(panic.message(), "out of cheese");
        assert!(panic.location().unwrap().contains("panics.rs:"), "{panic}");
        assert_eq!(catch(Print::No, || 7), Ok(7));
    }

    #[test]
    fn a_panic_that_the_work_caught_is_not_mistaken_for_another() {
        let panic = catch(Print::No, || {
            let _ = panic::catch_unwind(|| panic!("harmless"));
            panic::resume_unwind(Box::new("from elsewhere"))
        })
        .unwrap_err();
        assert_eq!((panic.message(), panic.location()), ("from elsewhere", None));
    }

    #[test]
    fn a_panic_of_an_earlier_call_is_not_mistaken_for_another() {
        assert_eq!(catch(Print::No, || panic::catch_unwind(|| panic!("the same")).is_err()), Ok(true));
        let panic = catch(Print::No, || panic::resume_unwind(Box::new("the same"))).unwrap_err();
        assert_eq!((panic.message(), panic.location()), ("the same", None));
        let outer = catch(Print::No, || {
            let inner = catch(Print::No, || panic!("inside")).unwrap_err();
            assert!(inner.location().is_some());
            panic!("outside")
        });
        assert!(outer.unwrap_err().location().is_some());
    }
}
