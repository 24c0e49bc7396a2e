//! The kernel's futex with next to nothing around it: one word, one who waits, one who wakes. It never spins.

use std::sync::atomic::{AtomicU32, Ordering};

use rustix::{
    io::Errno,
    thread::futex::{Flags, wait, wake},
};

/// One permit or none. It works between processes, in memory that they share.
#[derive(Debug, Default)]
pub struct Word(AtomicU32);

impl Word {
    /// Sleeps until there is a permit, and takes it.
    ///
    /// # Panics
    ///
    /// When the kernel refuses, which it has no reason to.
    pub fn acquire(&self) {
        // PAIR word.release: sees what was written before the store in `release`.
        while self.0.swap(0, Ordering::Acquire) == 0 {
            // Not private: the other is another process.
            match wait(&self.0, Flags::empty(), 0, None) {
                Ok(()) | Err(Errno::AGAIN | Errno::INTR) => {}
                Err(error) => panic!("futex: {error}"),
            }
        }
    }

    /// Gives a permit and wakes who waits for it.
    ///
    /// # Panics
    ///
    /// As [`acquire`](Self::acquire).
    pub fn release(&self) {
        // PAIR word.release: seen by the swap in `acquire`.
        self.0.store(1, Ordering::Release);
        wake(&self.0, Flags::empty(), 1).expect("the word is there");
    }
}
