//! The group `pool`: jobs through a pool of processes.
//!
//! Each job is `x + 1` on a u64, so that what is measured is the pool. `crossbeam-channel` has threads and plain values
//! in place of processes and messages: what ours is held against there is how little processes need cost.

use std::time::Duration;

use crate::bench::{
    case::{Better, Case, Entrant},
    subject::{
        BILLIARD, CONCURRENT_FUTURES, CROSSBEAM_CHANNEL, FUTEX, ICEORYX2, IPC_CHANNEL, MULTIPROCESSING,
        MULTIPROCESSING_FORK, MULTIPROCESSING_FORKSERVER, MULTIPROCESSING_SPAWN, OURS, OURS_2, OURS_16, OURS_64,
        OURS_STRICT, PROCSPAWN,
    },
};

/// Python's pools have one fast way in common.
const FED_BY_A_GENERATOR: &str = "Pool.imap_unordered with chunksize=1, fed by a generator that keeps the window";
/// Many of ours.
const OLDEST_HANDLE_FIRST: &str = "Pool::apply_async and JobHandle::get, the oldest handle first";
/// Many of the channels'.
const TWO_CHANNELS: &str =
    "threads that receive from one unbounded channel and send on another, blocked while there is nothing";
/// One of ours.
const APPLY: &str = "Pool::apply, the worker's processor chosen by its first job";
/// One of the channels'.
const SEND_AND_RECV: &str = "a thread; two unbounded channels, Sender::send and Receiver::recv";
/// Bytes through one of ours.
const ECHO: &str = "Pool::apply with a ByteBuf";
/// Memory through one of ours.
const HAND_OVER: &str = "Pool::apply with a SharedBuffer<u8>";
/// Several of them at a time.
const ECHOES: &str = "Pool::apply_async with a ByteBuf and JobHandle::get, the oldest first";
/// Items through one of ours.
const MAP: &str = "Pool::map";
/// Items through one of Python's.
const PYTHON_MAP: &str = "Pool.map";
/// Bytes through two of ipc-channel's.
const BYTES_CHANNELS: &str = "two bytes channels, IpcBytesSender::send and IpcBytesReceiver::recv";
/// One of iceoryx2's.
const BUSY_PING_PONG: &str =
    "publish and subscribe on two services, Publisher::loan_uninit and Subscriber::receive without rest";
/// One of Python's.
const PYTHON_APPLY: &str = "Pool.apply";
/// Several of Python's.
const PYTHON_APPLY_ASYNC: &str = "Pool.apply_async and AsyncResult.get, the oldest first";
/// The first of Python's.
const PYTHON_FIRST: &str = "Pool and Pool.apply, its module imported before";

/// A case of this group.
const fn case(
    name: &'static str,
    question: &'static str,
    (unit, better): (&'static str, Better),
    options: &'static [(&'static str, u64)],
    entrants: &'static [Entrant],
    checksum: fn(u64) -> u64,
) -> Case {
    Case { group: "pool", name, question, unit, better, options, entrants, checksum, cap: Duration::from_secs(60) }
}

/// The sum of the results of the jobs `0..jobs`.
fn sum(jobs: u64) -> u64 {
    (1..=jobs).fold(0, u64::wrapping_add)
}

/// How many results were right: where each is looked at by itself.
fn right(jobs: u64) -> u64 {
    jobs
}

/// The cases.
pub(crate) static CASES: &[Case] = &[
    case(
        "tiny_oneway",
        "How many tiny jobs (x + 1 on a u64), each submitted by itself, go through a pool in a second?",
        ("jobs/s", Better::Higher),
        &[("workers", 2), ("window", 1024)],
        &[
            Entrant::new(&OURS, 2_000_000, 500_000, OLDEST_HANDLE_FIRST),
            Entrant::new(&OURS_STRICT, 60_000, 30_000, OLDEST_HANDLE_FIRST),
            Entrant::new(&BILLIARD, 40_000, 20_000, FED_BY_A_GENERATOR).with_lead(50.0),
            Entrant::new(&MULTIPROCESSING, 40_000, 20_000, FED_BY_A_GENERATOR),
            Entrant::new(&PROCSPAWN, 30_000, 15_000, "Pool::spawn and JoinHandle::join, the oldest handle first")
                .with_lead(100.0),
            Entrant::new(&CROSSBEAM_CHANNEL, 10_000_000, 3_000_000, TWO_CHANNELS).with_aim(1.0 / 0.3),
        ],
        sum,
    ),
    case(
        "sleeps",
        "How many times does anybody (the caller, a worker, who stands between them) go to sleep for a thousand of them?",
        ("sleeps/1,000 jobs", Better::Lower),
        &[("workers", 2), ("window", 1024)],
        &[
            Entrant::new(&OURS, 2_000_000, 500_000, OLDEST_HANDLE_FIRST),
            Entrant::new(&OURS_STRICT, 60_000, 30_000, OLDEST_HANDLE_FIRST),
            Entrant::new(&BILLIARD, 40_000, 20_000, FED_BY_A_GENERATOR),
            Entrant::new(&MULTIPROCESSING, 40_000, 20_000, FED_BY_A_GENERATOR),
            Entrant::new(&PROCSPAWN, 30_000, 15_000, "Pool::spawn and JoinHandle::join, the oldest handle first"),
            Entrant::new(&CROSSBEAM_CHANNEL, 10_000_000, 3_000_000, TWO_CHANNELS),
        ],
        sum,
    ),
    case(
        "workers_256",
        "How long does a tiny job take of a pool with 256 workers, beside one with fewer?",
        ("ns", Better::Lower),
        &[("workers", 256), ("window", 1024)],
        &[
            Entrant::new(&OURS, 1_000_000, 300_000, OLDEST_HANDLE_FIRST),
            Entrant::new(&OURS_2, 1_000_000, 300_000, "the same with 2 workers"),
            Entrant::new(&OURS_16, 1_000_000, 300_000, "the same with 16"),
            Entrant::new(&OURS_64, 1_000_000, 300_000, "the same with 64"),
            Entrant::new(&CROSSBEAM_CHANNEL, 3_000_000, 1_000_000, TWO_CHANNELS),
        ],
        sum,
    ),
    case(
        "latency_p50",
        "How long does a caller wait for a tiny job, one after the other, if nothing else is in flight?",
        ("ns", Better::Lower),
        &[("workers", 1)],
        &[
            Entrant::new(&OURS, 500_000, 100_000, APPLY),
            Entrant::new(&CROSSBEAM_CHANNEL, 500_000, 100_000, SEND_AND_RECV).with_aim(2.0),
            Entrant::new(&ICEORYX2, 500_000, 100_000, BUSY_PING_PONG).with_aim(1.0),
            Entrant::new(&MULTIPROCESSING, 5_000, 1_500, PYTHON_APPLY),
            Entrant::new(&BILLIARD, 5_000, 1_500, PYTHON_APPLY),
        ],
        right,
    ),
    case(
        "latency_p99",
        "Within which time are 99 of a hundred of them done?",
        ("ns", Better::Lower),
        &[("workers", 1)],
        &[
            Entrant::new(&OURS, 500_000, 100_000, APPLY),
            Entrant::new(&CROSSBEAM_CHANNEL, 500_000, 100_000, SEND_AND_RECV),
            Entrant::new(&ICEORYX2, 500_000, 100_000, BUSY_PING_PONG),
            Entrant::new(&MULTIPROCESSING, 5_000, 1_500, PYTHON_APPLY),
            Entrant::new(&BILLIARD, 5_000, 1_500, PYTHON_APPLY),
        ],
        right,
    ),
    case(
        "latency_rested",
        "How long does a caller wait for a tiny job after a rest, so that the worker is asleep?",
        ("µs", Better::Lower),
        &[("workers", 1), ("rest-ms", 10)],
        &[
            Entrant::new(&OURS, 100, 50, APPLY),
            Entrant::new(&FUTEX, 100, 50, "two processes, a futex word each way, without spinning").with_aim(1.3),
        ],
        right,
    ),
    case(
        "tiny_map",
        "How many tiny items (x + 1 on a u64) does a map over all of them do in a second, in chunks of the usual size?",
        ("items/s", Better::Higher),
        &[("workers", 2)],
        &[
            Entrant::new(&OURS, 1_000_000, 300_000, MAP),
            Entrant::new(&MULTIPROCESSING, 1_000_000, 300_000, PYTHON_MAP).with_lead(5.0),
            Entrant::new(&BILLIARD, 1_000_000, 300_000, PYTHON_MAP),
        ],
        sum,
    ),
    case(
        "tiny_map_struct",
        "And how many that are a string of eight bytes and a u32?",
        ("items/s", Better::Higher),
        &[("workers", 2)],
        &[
            Entrant::new(&OURS, 1_000_000, 300_000, MAP),
            Entrant::new(&MULTIPROCESSING, 1_000_000, 300_000, PYTHON_MAP).with_lead(5.0),
            Entrant::new(&BILLIARD, 1_000_000, 300_000, PYTHON_MAP),
        ],
        sum,
    ),
    case(
        "echo_64b",
        "How long do 64 bytes take to a worker and back?",
        ("µs", Better::Lower),
        &[("workers", 1), ("bytes", 64)],
        &[
            Entrant::new(&OURS, 40_000, 10_000, ECHO),
            Entrant::new(&OURS_STRICT, 10_000, 2_500, ECHO),
            Entrant::new(&IPC_CHANNEL, 10_000, 2_500, BYTES_CHANNELS),
            Entrant::new(&MULTIPROCESSING, 10_000, 2_500, PYTHON_APPLY),
        ],
        right,
    ),
    case(
        "echo_4kib",
        "How long does 4 KiB take to a worker and back?",
        ("µs", Better::Lower),
        &[("workers", 1), ("bytes", 4 << 10)],
        &[
            Entrant::new(&OURS, 20_000, 5_000, ECHO),
            Entrant::new(&OURS_STRICT, 5_000, 1_250, ECHO),
            Entrant::new(&IPC_CHANNEL, 5_000, 1_250, BYTES_CHANNELS),
            Entrant::new(&MULTIPROCESSING, 5_000, 1_250, PYTHON_APPLY),
        ],
        right,
    ),
    case(
        "echo_64kib",
        "How long does 64 KiB take to a worker and back?",
        ("µs", Better::Lower),
        &[("workers", 1), ("bytes", 64 << 10)],
        &[
            Entrant::new(&OURS, 5_000, 1_000, ECHO),
            Entrant::new(&OURS_STRICT, 1_250, 250, ECHO),
            Entrant::new(&IPC_CHANNEL, 1_250, 250, BYTES_CHANNELS),
            Entrant::new(&MULTIPROCESSING, 1_250, 250, PYTHON_APPLY),
        ],
        right,
    ),
    case(
        "echo_1mib",
        "How long does 1 MiB take to a worker and back?",
        ("µs", Better::Lower),
        &[("workers", 1), ("bytes", 1 << 20)],
        &[
            Entrant::new(&OURS, 2_000, 500, ECHO),
            Entrant::new(&OURS_STRICT, 500, 125, ECHO),
            Entrant::new(&IPC_CHANNEL, 500, 125, BYTES_CHANNELS).with_lead(2.0),
            Entrant::new(&MULTIPROCESSING, 500, 125, PYTHON_APPLY),
        ],
        right,
    ),
    case(
        "echo_16mib",
        "How long does 16 MiB take to a worker and back?",
        ("µs", Better::Lower),
        &[("workers", 1), ("bytes", 16 << 20)],
        &[
            Entrant::new(&OURS, 60, 10, ECHO),
            Entrant::new(&OURS_STRICT, 15, 2, ECHO),
            Entrant::new(&IPC_CHANNEL, 15, 2, BYTES_CHANNELS),
            Entrant::new(&MULTIPROCESSING, 15, 2, PYTHON_APPLY),
        ],
        right,
    ),
    case(
        "echo_256mib",
        "How long does 256 MiB take to a worker and back?",
        ("µs", Better::Lower),
        &[("workers", 1), ("bytes", 256 << 20)],
        &[
            Entrant::new(&OURS, 4, 1, ECHO),
            Entrant::new(&OURS_STRICT, 1, 1, ECHO),
            Entrant::new(&IPC_CHANNEL, 1, 1, BYTES_CHANNELS),
            Entrant::new(&MULTIPROCESSING, 1, 1, PYTHON_APPLY),
        ],
        right,
    ),
    case(
        "shared_buffer_64kib",
        "How long does a SharedBuffer of 64 KiB take to a worker and back?",
        ("µs", Better::Lower),
        &[("workers", 1), ("bytes", 64 << 10)],
        &[Entrant::new(&OURS, 2_000, 500, HAND_OVER), Entrant::new(&OURS_STRICT, 2_000, 500, HAND_OVER)],
        right,
    ),
    case(
        "shared_buffer_256mib",
        "And one of 256 MiB?",
        ("µs", Better::Lower),
        &[("workers", 1), ("bytes", 256 << 20)],
        &[Entrant::new(&OURS, 2_000, 500, HAND_OVER), Entrant::new(&OURS_STRICT, 2_000, 500, HAND_OVER)],
        right,
    ),
    case(
        "echo_64b_in_flight",
        "How many times in a second do 64 bytes go to one of two workers and back, four at a time?",
        ("echoes/s", Better::Higher),
        &[("workers", 2), ("bytes", 64), ("window", 4)],
        &[
            Entrant::new(&OURS, 40_000, 10_000, ECHOES),
            Entrant::new(&OURS_STRICT, 10_000, 2_500, ECHOES),
            Entrant::new(&MULTIPROCESSING, 10_000, 2_500, PYTHON_APPLY_ASYNC),
        ],
        right,
    ),
    case(
        "echo_4kib_in_flight",
        "How many times in a second do 4 KiB go to one of two workers and back, four at a time?",
        ("echoes/s", Better::Higher),
        &[("workers", 2), ("bytes", 4 << 10), ("window", 4)],
        &[
            Entrant::new(&OURS, 20_000, 5_000, ECHOES),
            Entrant::new(&OURS_STRICT, 5_000, 1_250, ECHOES),
            Entrant::new(&MULTIPROCESSING, 5_000, 1_250, PYTHON_APPLY_ASYNC),
        ],
        right,
    ),
    case(
        "echo_64kib_in_flight",
        "How many times in a second do 64 KiB go to one of two workers and back, four at a time?",
        ("echoes/s", Better::Higher),
        &[("workers", 2), ("bytes", 64 << 10), ("window", 4)],
        &[
            Entrant::new(&OURS, 5_000, 1_000, ECHOES),
            Entrant::new(&OURS_STRICT, 1_250, 250, ECHOES),
            Entrant::new(&MULTIPROCESSING, 1_250, 250, PYTHON_APPLY_ASYNC),
        ],
        right,
    ),
    case(
        "echo_1mib_in_flight",
        "How many times in a second do 1 MiB go to one of two workers and back, four at a time?",
        ("echoes/s", Better::Higher),
        &[("workers", 2), ("bytes", 1 << 20), ("window", 4)],
        &[
            Entrant::new(&OURS, 2_000, 500, ECHOES),
            Entrant::new(&OURS_STRICT, 500, 125, ECHOES),
            Entrant::new(&MULTIPROCESSING, 500, 125, PYTHON_APPLY_ASYNC),
        ],
        right,
    ),
    case(
        "echo_16mib_in_flight",
        "How many times in a second do 16 MiB go to one of two workers and back, four at a time?",
        ("echoes/s", Better::Higher),
        &[("workers", 2), ("bytes", 16 << 20), ("window", 4)],
        &[
            Entrant::new(&OURS, 60, 10, ECHOES),
            Entrant::new(&OURS_STRICT, 15, 4, ECHOES),
            Entrant::new(&MULTIPROCESSING, 15, 4, PYTHON_APPLY_ASYNC),
        ],
        right,
    ),
    case(
        "echo_256mib_in_flight",
        "How many times in a second do 256 MiB go to one of two workers and back, four at a time?",
        ("echoes/s", Better::Higher),
        &[("workers", 2), ("bytes", 256 << 20), ("window", 4)],
        &[
            Entrant::new(&OURS, 8, 4, ECHOES),
            Entrant::new(&OURS_STRICT, 4, 4, ECHOES),
            Entrant::new(&MULTIPROCESSING, 4, 4, PYTHON_APPLY_ASYNC),
        ],
        right,
    ),
    case(
        "start_to_first_result",
        "How long does it take from nothing to the first result of a pool, in a process that has done nothing before?",
        ("ms", Better::Lower),
        &[("workers", 2)],
        &[
            Entrant::new(&OURS, 1, 1, "PoolBuilder::build and Pool::apply; the guardian's start is in it"),
            Entrant::new(&PROCSPAWN, 1, 1, "Pool::new, Pool::spawn and JoinHandle::join").with_aim(1.0),
            Entrant::new(&MULTIPROCESSING_FORK, 1, 1, PYTHON_FIRST),
            Entrant::new(&MULTIPROCESSING_FORKSERVER, 1, 1, PYTHON_FIRST),
            Entrant::new(&MULTIPROCESSING_SPAWN, 1, 1, PYTHON_FIRST),
            Entrant::new(
                &CONCURRENT_FUTURES,
                1,
                1,
                "ProcessPoolExecutor.submit and Future.result, by this Python's usual start method",
            ),
        ],
        sum,
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_of_the_tiny_jobs() {
        assert_eq!((CASES[0].checksum)(4), 1 + 2 + 3 + 4);
    }

    #[test]
    fn the_best_and_the_rest_are_of_the_same_round_trips() {
        let named = |name: &str| CASES.iter().find(|case| case.name == name).unwrap();
        let (middle, tail) = (named("latency_p50"), named("latency_p99"));
        assert_eq!(middle.options, tail.options);
        let counts = |case: &Case| -> Vec<_> {
            case.entrants.iter().map(|entrant| (entrant.subject.name, entrant.count, entrant.quick_count)).collect()
        };
        assert_eq!(counts(middle), counts(tail));
        assert!(tail.entrants.iter().all(|entrant| entrant.aim.is_none()), "a tail is the neighbours' too");
    }
}
