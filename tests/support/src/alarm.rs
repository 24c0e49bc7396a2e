//! A watchdog for programs that may have no second thread.

use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

static NAME: AtomicPtr<u8> = AtomicPtr::new(std::ptr::null_mut());
static LEN: AtomicUsize = AtomicUsize::new(0);

/// Ends this process by SIGABRT when it still runs after so many seconds, and says its name. Processes that it forks are not
/// watched: whoever awaits them is.
pub fn end_after(name: &'static str, seconds: u32) {
    LEN.store(name.len(), Ordering::Relaxed);
    NAME.store(name.as_ptr().cast_mut(), Ordering::Relaxed);
    // SAFETY: the handler does what is safe in one.
    unsafe { libc::signal(libc::SIGALRM, rings as *const () as usize) };
    // SAFETY: it takes a number.
    unsafe { libc::alarm(seconds) };
}

extern "C" fn rings(_: libc::c_int) {
    let say = |text: *const u8, len: usize| {
        // SAFETY: the text is as long as it says, and lives as long as the program.
        unsafe { libc::write(2, text.cast(), len) };
    };
    let what = b"\nalarm: not done in time: ";
    say(what.as_ptr(), what.len());
    say(NAME.load(Ordering::Relaxed), LEN.load(Ordering::Relaxed));
    say(b"\n".as_ptr(), 1);
    // SAFETY: always; it is safe in a handler.
    unsafe { libc::abort() };
}
