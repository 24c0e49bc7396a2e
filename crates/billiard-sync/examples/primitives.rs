//! Only shared state and processes, no pool: four processes count together, under a lock, under every start method.
//!
//! ```sh
//! cargo run --example primitives
//! ```

use billiard_context::{Context, Process};
use billiard_sync::{Barrier, Lock, Value};

type Shared = (Value<u64>, Lock, Barrier);

fn count((total, lock, barrier): Shared) {
    barrier.wait().expect("all four started");
    for _ in 0..10_000 {
        let _held = lock.lock().expect("no holder died");
        total.set(total.get() + 1);
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    billiard_context::init();
    let shared: Shared = (Value::new(0)?, Lock::new()?, Barrier::new(4)?);

    for context in [Context::fork(), Context::spawn(), Context::forkserver()] {
        shared.0.set(0);
        let children: Vec<Process> = (0..4)
            .map(|i| context.process(count, shared.clone()).name(format!("counter-{i}")).start())
            .collect::<Result<_, _>>()?;
        for mut child in children {
            assert!(child.join()?.success());
        }
        assert_eq!(shared.0.get(), 40_000);
        println!("{:?}: four processes counted to {}", context.start_method(), shared.0.get());
    }
    Ok(())
}
