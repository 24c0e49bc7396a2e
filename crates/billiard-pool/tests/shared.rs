//! What a pool promises, with workers that share a job table.

use billiard_pool::{Isolation, JobError, Pool};
use billiard_shm::SharedBuffer;
use billiard_test_support::Watchdog;

mod conformance;

billiard_pool::init_for_tests!();

const ISOLATION: Isolation = Isolation::Shared;

fn brighten(mut image: SharedBuffer<u8>) -> SharedBuffer<u8> {
    image.as_mut_slice()[7] += 1;
    image
}

fn drops_and_dies(image: SharedBuffer<u8>) {
    drop(image);
    std::process::abort();
}

fn after(_: ()) -> u64 {
    9
}

#[test]
fn a_shared_buffer_moves_to_a_job_and_back() {
    let _watchdog = Watchdog::start("a_shared_buffer_moves_to_a_job_and_back", 60);
    let pool = Pool::builder().workers(1).build().unwrap();
    let mut image = SharedBuffer::<u8>::zeroed(64 << 20).unwrap();
    image.as_mut_slice()[(64 << 20) - 1] = 3;
    for turn in 1..=20 {
        image = pool.apply(brighten, image).unwrap();
        assert_eq!((image.as_slice()[7], image.as_slice()[(64 << 20) - 1]), (turn, 3));
    }
    assert!(matches!(pool.apply(drops_and_dies, image), Err(JobError::WorkerLost(_))));
    assert_eq!(pool.apply(after, ()).unwrap(), 9);
}
