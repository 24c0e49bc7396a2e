//! A program whose workers spin for ever: it says so, and waits to be killed. Each worker has children of its own: one
//! in its process group, one that has left it.

use std::{io::Write, process::Command};

use billiard::Pool;

fn spin(_: ()) {
    let _ = Command::new("sleep").arg("1000").spawn();
    let _ = Command::new("setsid").args(["-f", "sleep", "1000"]).status();
    loop {
        std::hint::spin_loop();
    }
}

fn main() {
    billiard::init();
    let pool = Pool::builder().workers(2).build().expect("a pool");
    let _jobs: Vec<_> = (0..4).map(|_| pool.apply_async(spin, ()).expect("accepted")).collect();
    println!("spinning");
    std::io::stdout().flush().expect("somebody listens");
    loop {
        std::thread::park();
    }
}
