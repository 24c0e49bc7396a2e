//! Starts children while eight threads hold, most of the time, what a copy of this process would find held for ever: the
//! allocator, the environment, standard output, a log. `child-busy METHOD COUNT`; says how the starts ended on standard error.

use std::{
    fs::File,
    io::Write,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use billiard_context::{Context, Error, StartMethod};
use billiard_test_support::{Census, Watchdog, eventually};

/// A log as programs have it.
static LOG: Mutex<Option<File>> = Mutex::new(None);

fn log(text: &str) {
    let mut log = LOG.lock().unwrap_or_else(PoisonError::into_inner);
    let log = log.get_or_insert_with(|| File::create("/dev/null").expect("a log"));
    writeln!(log, "{text}").expect("it can be written");
}

/// Does for a moment what the busy threads do, and so sticks where one of their locks was copied.
fn uses_it_all(n: u64) -> u64 {
    let numbers: Vec<u64> = (0..10_000).map(|i| i ^ n).collect();
    println!("{}", "a long line, so that standard output writes it now ".repeat(50));
    log(&format!("{:?}", std::env::vars().count()));
    // SAFETY: this process has one thread.
    unsafe { std::env::set_var("BILLIARD_BUSY", n.to_string()) };
    numbers.iter().map(|i| i ^ n).sum::<u64>() + n
}

fn busy(number: u64, over: &AtomicBool) {
    let mut round = number;
    while !over.load(Ordering::Relaxed) {
        round = round.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        match number % 4 {
            0 => {
                let lens = (0..20).map(|i| 1 << ((round >> i) % 18));
                std::hint::black_box(lens.map(|len| vec![number as u8; len]).collect::<Vec<_>>());
            }
            // SAFETY: the standard library's lock is taken, and nothing in this program reads the environment without it.
            1 if number == 1 => unsafe { std::env::set_var("BILLIARD_BUSY", round.to_string()) },
            1 => drop(std::hint::black_box(std::env::vars_os().collect::<Vec<_>>())),
            2 => println!("{round}"),
            _ => log(&round.to_string()),
        }
    }
}

fn main() {
    billiard_context::init();
    let mut arguments = std::env::args().skip(1);
    let method: StartMethod = arguments.next().and_then(|name| name.parse().ok()).expect("a start method");
    let count: u64 = arguments.next().and_then(|count| count.parse().ok()).expect("how many children to start");
    let _watchdog = Watchdog::start("child-busy", 100 + count / 5);
    let over = AtomicBool::new(false);
    let (mut values, mut refused) = (0, 0);
    thread::scope(|scope| {
        let over = &over;
        (0..8).for_each(|number| drop(scope.spawn(move || busy(number, over))));
        let context = Context::with_method(method);
        for n in 0..count {
            match context.process(uses_it_all, n).start() {
                Ok(mut child) => {
                    let status = child.join_timeout(Duration::from_secs(60)).expect("it can be joined");
                    assert!(status.is_some_and(|status| status.success()), "child {n} sticks or fails");
                    assert_eq!(child.take_result().expect("a value"), (0..10_000).sum::<u64>() + n);
                    values += 1;
                }
                // This thread, the watchdog, and the busy ones.
                Err(Error::Threads { threads }) if method == StartMethod::Fork && threads == 10 => refused += 1,
                Err(other) => panic!("child {n}: {other:?}"),
            }
        }
        over.store(true, Ordering::Relaxed);
    });
    assert!(eventually(20, || Census::take().descendants <= 1), "beside the helper process: {:?}", Census::take());
    eprintln!("{values} values, {refused} refused");
}
