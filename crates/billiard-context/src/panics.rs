//! Catching a panic with what its hook was told.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    cell::RefCell,
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

thread_local! {
    /// Set while this thread runs under [`catch`]: whether to print, and the last panic.
    static CAUGHT: RefCell<Option<(Print, Option<Box<Panic>>)>> = const { RefCell::new(None) };
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
    let outer = CAUGHT.replace(Some((print, None)));
    let result = panic::catch_unwind(AssertUnwindSafe(work));
    let caught = CAUGHT.replace(outer).and_then(|(_, caught)| caught);
    result.map_err(|payload| {
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
    CAUGHT.with_borrow_mut(|caught| match caught {
        Some((print, last)) => {
            let backtrace = Backtrace::capture();
            let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
            let location = info.location().map(ToString::to_string);
            let message = info.payload_as_str().unwrap_or("a panic whose payload is no text").to_owned();
            *last = Some(Box::new(Panic::new(message, location, backtrace)));
            *print
        }
        None => Print::Yes,
    })
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
}
