//! Plain tests that start processes, ten at a time: one line at the top of the file is all that they need.

use billiard::{Context, Pool};
use billiard_test_support::Watchdog;

billiard::init_for_tests!();

fn add((a, b): (u64, u64)) -> u64 {
    a + b
}

fn one(number: u64) {
    let _watchdog = Watchdog::start("ten tests in parallel", 60);
    let pool = Pool::builder().workers(2).build().unwrap();
    let handles: Vec<_> = (0..50).map(|n| pool.apply_async(add, (n, number)).unwrap()).collect();
    let mut child = Context::spawn().process(add, (number, 1)).start().unwrap();
    for (n, handle) in (0..).zip(handles) {
        assert_eq!(handle.get().unwrap(), n + number);
    }
    assert_eq!(child.take_result().unwrap(), number + 1);
    pool.join().unwrap();
}

macro_rules! tests {
    ($($name:ident $number:literal)*) => {
        $(
            #[test]
            fn $name() {
                one($number);
            }
        )*
    };
}

tests! {
    first 1  second 2  third 3  fourth 4  fifth 5  sixth 6  seventh 7  eighth 8  ninth 9  tenth 10
}
