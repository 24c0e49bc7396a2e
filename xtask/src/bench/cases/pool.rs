//! The group `pool`: jobs through a pool of processes.

use std::time::Duration;

use crate::bench::{
    case::{Better, Case, Entrant},
    subject::{BILLIARD, MULTIPROCESSING, OURS, PROCSPAWN},
};

/// Python's pools have one fast way in common.
const FED_BY_A_GENERATOR: &str = "Pool.imap_unordered with chunksize=1, fed by a generator that keeps the window";

/// The cases.
pub(crate) static CASES: &[Case] = &[Case {
    group: "pool",
    name: "tiny_oneway",
    question: "How many tiny jobs (x + 1 on a u64), each submitted by itself, go through a pool in a second?",
    unit: "jobs/s",
    better: Better::Higher,
    options: &[("workers", 2), ("window", 1024)],
    entrants: &[
        Entrant::new(&OURS, 100_000, 50_000, "Pool::apply_async and JobHandle::get, the oldest handle first"),
        Entrant::new(&BILLIARD, 40_000, 20_000, FED_BY_A_GENERATOR),
        Entrant::new(&MULTIPROCESSING, 40_000, 20_000, FED_BY_A_GENERATOR),
        Entrant::new(&PROCSPAWN, 30_000, 15_000, "Pool::spawn and JoinHandle::join, the oldest handle first"),
    ],
    checksum: |jobs| (1..=jobs).fold(0, u64::wrapping_add),
    cap: Duration::from_secs(60),
}];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_of_the_tiny_jobs() {
        assert_eq!((CASES[0].checksum)(4), 1 + 2 + 3 + 4);
    }
}
