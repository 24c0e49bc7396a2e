//! What jobs carry there and back.

use std::fs::File;

use billiard_pool::{ByteBuf, Fd, JobError};
use billiard_test_support::Watchdog;

use super::pool;

/// How many a message has room for.
const MAX_DESCRIPTORS: usize = 253;

fn give_back(bytes: ByteBuf) -> ByteBuf {
    bytes
}

fn panics_at_length(len: usize) {
    panic!("{}", "x".repeat(len));
}

/// Around each size at which another way is taken: there is a record, then a heap, then the socket.
#[test]
fn bytes_of_every_size_come_back() {
    const HEAP: usize = 4 << 20;
    let _watchdog = Watchdog::start("bytes_of_every_size_come_back", 100);
    let pool = pool(2);
    let sizes = [
        0..3,
        220..226,
        236..242,
        510..514,
        4000..4002,
        65_534..65_538,
        HEAP - 6..HEAP + 2,
        5_000_000..5_000_001,
        64_000_000..64_000_001,
    ];
    let bytes = |len: usize| ByteBuf::from((0..len).map(|at| (at * 31 + len) as u8).collect::<Vec<_>>());
    for len in sizes.into_iter().flatten() {
        assert!(pool.apply(give_back, bytes(len)).unwrap() == bytes(len), "{len} bytes");
    }
    // More at once than there is room for: the rest goes another way. And they stay whole, however late they are taken.
    for len in [1000, 100_000, HEAP - 4] {
        let count = (12 * HEAP / len).min(2000);
        let handles: Vec<_> = (0..count).map(|_| pool.apply_async(give_back, bytes(len)).unwrap()).collect();
        assert!(handles.into_iter().rev().all(|handle| handle.get().unwrap() == bytes(len)), "{len} bytes");
    }
    let panicked = pool.apply(panics_at_length, 10_000).unwrap_err();
    assert!(matches!(&panicked, JobError::Panicked(panic) if panic.message().len() == 10_000), "{panicked}");
}

fn give_all_back(all: (ByteBuf, Vec<Fd>)) -> (ByteBuf, Vec<Fd>) {
    all
}

/// As many as a message has room for, beside bytes that would be in memory of their own without them.
#[test]
fn many_descriptors_come_back_beside_many_bytes() {
    let _watchdog = Watchdog::start("many_descriptors_come_back_beside_many_bytes", 60);
    let pool = pool(1);
    for count in [1, MAX_DESCRIPTORS] {
        let open = |_| Fd::new(File::open("/dev/null").unwrap().into());
        let sent = (ByteBuf::from(vec![7; 100_000]), (0..count).map(open).collect());
        let (bytes, descriptors) = pool.apply(give_all_back, sent).unwrap();
        assert!(bytes == vec![7; 100_000] && descriptors.len() == count);
    }
}
