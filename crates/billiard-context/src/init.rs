//! The first line of `main`: where a helper or a child turns aside.

use std::{ffi::CStr, os::fd::AsFd};

use billiard_connection::Connection;

use crate::{child, current, guardian, sys};

/// The argument that makes the program a guardian; its standard input is the control channel.
pub(crate) const GUARDIAN: &str = "--billiard-guardian";
/// The argument that makes the program a spawned child; its standard input is the boot channel.
pub(crate) const CHILD: &CStr = c"--billiard-child";

/// Makes this program able to start processes. It has to be the first line of `main`.
///
/// In the program itself it does next to nothing. But the program's children are the same executable: in them, `init` runs what
/// they were started for and never returns. So whatever stands before it runs in every spawned child too. What a child sees in
/// `std::env::args()` is how it was started itself.
///
/// It has to be called while there is one thread. `#[tokio::main]` makes threads before the first line: build the runtime by
/// hand instead, after `init`. In a crate of plain `#[test]` functions, use [`init_for_tests!`](crate::init_for_tests).
///
/// ```no_run
/// fn main() {
///     billiard_context::init();
///     // the program
/// }
/// ```
#[allow(clippy::needless_doctest_main, reason = "the example is about the first line of `main`")]
pub fn init() {
    let arguments: Vec<_> = std::env::args_os().skip(1).take(2).collect();
    let arguments: Vec<_> = arguments.iter().map(|argument| argument.to_str()).collect();
    match arguments[..] {
        [Some(GUARDIAN)] => match channel() {
            Some(control) => guardian::main(control),
            None => not_by_hand(GUARDIAN),
        },
        [Some(argument)] if argument.as_bytes() == CHILD.to_bytes() => match channel() {
            Some(boot) => child::boot(boot),
            None => not_by_hand(argument),
        },
        _ => current::set_initialized(),
    }
}

/// The channel that this process was executed with: standard input, which is replaced by `/dev/null`. Whoever speaks through it can make this process
/// run anything: so it has to be made by this process's parent, as only billiard knows how to, and no help to gain rights.
fn channel() -> Option<Connection> {
    if sys::has_elevated_rights() {
        return None;
    }
    // SAFETY: the program's `main` has just begun: nobody owns the stream but the standard library, and only a duplicate
    // is kept.
    let inherited = std::mem::ManuallyDrop::new(unsafe { sys::adopt(0)? });
    if sys::maker_of(inherited.as_fd()) != Some(sys::parent()) {
        return None;
    }
    let own = sys::above_streams(inherited.as_fd()).ok()?;
    let null = sys::null().ok()?;
    sys::set_stream(null.as_fd(), 0).ok()?;
    Connection::try_from(own).ok()
}

fn not_by_hand(argument: &str) -> ! {
    // Whoever has started it may have ended before it came here: then nobody waits for it, and nothing was done by hand.
    if sys::is_abandoned(std::io::stdin().as_fd()) {
        std::process::exit(1);
    }
    eprintln!(
        "{argument} is how this program starts its own helper processes; it cannot be used by hand, and needs the \
         channel that they are started with"
    );
    std::process::exit(2)
}

/// Lets the plain `#[test]` functions of a crate start processes: one line at its top.
///
/// Each test binary is its own program, and its `main` belongs to the test harness; so this calls
/// [`init`](crate::init()) before that `main`, from the list of functions that the C library (glibc) runs at start-up. What the tests'
/// children run, they run there: constructors of C++ code, and of crates that use the same list, may not have run yet.
///
/// ```
/// billiard_context::init_for_tests!();
///
/// #[test]
/// fn a_child_counts() {
///     let mut child = billiard_context::Context::forkserver().process(u32::count_ones, 7).start().unwrap();
///     assert_eq!(child.take_result().unwrap(), 3);
/// }
/// # fn main() {}
/// ```
#[allow(clippy::test_attr_in_doctest, reason = "the example is about a crate's own tests")]
#[macro_export]
macro_rules! init_for_tests {
    () => {
        const _: () = {
            extern "C" fn init_before_main() {
                $crate::init();
            }

            // SAFETY: the C library calls every entry of this section once, before `main`, as a function of this type.
            #[used]
            #[unsafe(link_section = ".init_array")]
            static INIT_BEFORE_MAIN: extern "C" fn() = init_before_main;
        };
    };
}
