//! What a pool takes it gives back. Alone in its program, since it counts what the program has.

use billiard::Pool;
use billiard_test_support::{Census, Watchdog, eventually};

billiard::init_for_tests!();

fn double(n: u64) -> u64 {
    n * 2
}

fn forever(_: ()) {
    loop {
        std::thread::park();
    }
}

fn use_a_pool(round: u64) {
    let pool = Pool::builder().workers(2).build().unwrap();
    match round % 4 {
        0 => drop(pool), // before its workers are up
        1 => assert_eq!(pool.apply(double, round).unwrap(), 2 * round),
        2 => {
            assert_eq!(pool.apply(double, round).unwrap(), 2 * round);
            pool.join().unwrap();
        }
        _ => {
            let endless = pool.apply_async(forever, ()).unwrap();
            assert_eq!(pool.apply(double, round).unwrap(), 2 * round);
            drop(pool);
            assert!(endless.get().is_err());
        }
    }
}

#[test]
fn a_thousand_pools_leave_what_the_first_left() {
    let _watchdog = Watchdog::start("a_thousand_pools_leave_what_the_first_left", 110);
    use_a_pool(1);
    let mut first = Census::take();
    assert!(eventually(10, || {
        first = Census::take();
        first.descendants == 1 // the helper process
    }));
    (0..1000).for_each(use_a_pool);
    assert!(eventually(10, || Census::take() == first), "first {first:?}, now {:?}", Census::take());
}
