//! The group `sync`: what locks and semaphores cost, alone and between two.
//!
//! What works between processes is measured between two processes; `std` and `parking_lot`, which do not, between two
//! threads.

use std::time::Duration;

use crate::bench::{
    case::{Better, Case, Entrant},
    subject::{FUTEX, MULTIPROCESSING, OURS, PARKING_LOT, PTHREAD, PTHREAD_ROBUST, SEM_T, STD},
};

/// Twice a permit of one, in turn.
const TWO_SEMAPHORES: &str = "two semaphores: each releases one, then acquires the other";

/// A case of this group. The checksum of each is how often it was done.
const fn case(
    name: &'static str,
    question: &'static str,
    unit: &'static str,
    better: Better,
    entrants: &'static [Entrant],
) -> Case {
    let checksum = |count| count;
    Case { group: "sync", name, question, unit, better, options: &[], entrants, checksum, cap: Duration::from_secs(60) }
}

/// The cases.
pub(crate) static CASES: &[Case] = &[
    case(
        "lock_uncontended",
        "How long does it take to lock, add one to a counter, and unlock, when nobody else wants the lock?",
        "ns",
        Better::Lower,
        &[
            Entrant::new(&OURS, 20_000_000, 5_000_000, "Mutex<u64>, between processes"),
            Entrant::new(&PTHREAD_ROBUST, 20_000_000, 5_000_000, "pthread_mutex_t, process-shared and robust")
                .with_aim(1.0),
            Entrant::new(&PTHREAD, 20_000_000, 5_000_000, "pthread_mutex_t, process-shared"),
            Entrant::new(&STD, 20_000_000, 5_000_000, "std::sync::Mutex, within one process").with_aim(1.2),
            Entrant::new(&PARKING_LOT, 20_000_000, 5_000_000, "parking_lot::Mutex, within one process"),
            Entrant::new(&MULTIPROCESSING, 2_000_000, 500_000, "Lock.acquire and Lock.release"),
        ],
    ),
    case(
        "rlock_uncontended",
        "The same with a lock that its thread might take again.",
        "ns",
        Better::Lower,
        &[
            Entrant::new(&OURS, 20_000_000, 5_000_000, "RLock, between processes"),
            Entrant::new(
                &PTHREAD_ROBUST,
                20_000_000,
                5_000_000,
                "pthread_mutex_t, recursive, process-shared and robust",
            )
            .with_aim(1.2),
            Entrant::new(&PTHREAD, 20_000_000, 5_000_000, "pthread_mutex_t, recursive and process-shared"),
            Entrant::new(&MULTIPROCESSING, 2_000_000, 500_000, "RLock.acquire and RLock.release"),
        ],
    ),
    case(
        "lock_contended2",
        "How often a second is a lock taken by two, each on a processor of its own, that do nothing but count under it?",
        "pairs/s",
        Better::Higher,
        &[
            Entrant::new(&OURS, 10_000_000, 2_000_000, "Mutex<u64>, between processes"),
            Entrant::new(&PTHREAD_ROBUST, 10_000_000, 2_000_000, "pthread_mutex_t, process-shared and robust")
                .with_aim(1.0),
            Entrant::new(&PTHREAD, 10_000_000, 2_000_000, "pthread_mutex_t, process-shared"),
            Entrant::new(&STD, 10_000_000, 2_000_000, "std::sync::Mutex, between two threads"),
            Entrant::new(&PARKING_LOT, 10_000_000, 2_000_000, "parking_lot::Mutex, between two threads"),
            Entrant::new(&MULTIPROCESSING, 1_000_000, 300_000, "Lock.acquire and Lock.release"),
        ],
    ),
    case(
        "semaphore_uncontended",
        "How long does it take to acquire and release a semaphore that nobody else wants?",
        "ns",
        Better::Lower,
        &[
            Entrant::new(&OURS, 20_000_000, 5_000_000, "Semaphore::acquire and Semaphore::release"),
            Entrant::new(&SEM_T, 20_000_000, 5_000_000, "sem_wait and sem_post, process-shared"),
            Entrant::new(&MULTIPROCESSING, 2_000_000, 500_000, "Semaphore.acquire and Semaphore.release"),
        ],
    ),
    case(
        "wake_latency",
        "How long is a round trip between two processes on two processors, each blocked until the other wakes it?",
        "µs",
        Better::Lower,
        &[
            Entrant::new(&OURS, 10_000, 2_000, TWO_SEMAPHORES),
            Entrant::new(&FUTEX, 10_000, 2_000, "two futex words, without spinning").with_aim(1.2),
            Entrant::new(&SEM_T, 10_000, 2_000, TWO_SEMAPHORES),
            Entrant::new(&MULTIPROCESSING, 10_000, 2_000, TWO_SEMAPHORES),
        ],
    ),
];
