//! What a forked child does to shared memory is seen here. A program of its own with one thread, since it forks.

use std::sync::atomic::{AtomicU32, Ordering};

use billiard_benches::{forked::Forked, shared::Shared};

fn main() {
    nix::unistd::alarm::set(60); // a watchdog without a thread: a hang ends by its signal
    let shared = Shared::new(AtomicU32::new(3)).unwrap();
    let mut private = 3;
    // SAFETY: this program has one thread.
    let child = unsafe {
        Forked::start(|| {
            private += 1;
            shared.fetch_add(private, Ordering::Relaxed) == 3
        })
    };
    assert!(child.unwrap().ends_well().unwrap());
    assert_eq!((shared.load(Ordering::Relaxed), private), (7, 3));

    // SAFETY: as above.
    let child = unsafe { Forked::start(|| false) };
    assert!(!child.unwrap().ends_well().unwrap());
    println!("forked: ok");
}
