//! Where a thread runs: two that wake each other cost many times less on one processor than on two, so it is not left to
//! chance.
//!
//! The peers in `benches/peers` are built with this very file too.

use rustix::{
    io,
    thread::{CpuSet, sched_getaffinity, sched_setaffinity},
};

/// The processors that the calling thread might use when this was made. One that stays on a processor, and whoever it starts
/// then, could not find the others any more.
#[derive(Debug)]
pub struct Places(Vec<usize>);

impl Places {
    /// Looks which there are.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn find() -> io::Result<Self> {
        let allowed = sched_getaffinity(None)?;
        Ok(Self((0..CpuSet::MAX_CPU).filter(|&processor| allowed.is_set(processor)).collect()))
    }

    /// Keeps the calling thread on the `number`th of them, counted round and round.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn stay_on(&self, number: usize) -> io::Result<()> {
        let mut one = CpuSet::new();
        one.set(*self.0.iter().cycle().nth(number).ok_or(io::Errno::INVAL)?);
        sched_setaffinity(None, &one)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_stays_on_one_processor_and_finds_the_others_again() {
        let thread = std::thread::spawn(|| {
            let places = Places::find().unwrap();
            for number in 0..2 * places.0.len() {
                places.stay_on(number).unwrap();
                assert_eq!(Places::find().unwrap().0, [places.0[number % places.0.len()]]);
            }
        });
        thread.join().unwrap();
    }
}
