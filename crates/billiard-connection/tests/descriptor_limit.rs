//! A process that may open no more descriptors. Alone in its program, since the limit is the whole program's.

use std::fs::File;

use billiard_connection::{Connection, Error, Fd};
use billiard_test_support::Watchdog;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

#[test]
fn a_message_whose_descriptors_are_lost_is_an_error_and_the_connection_goes_on() {
    let _watchdog = Watchdog::start("a_message_whose_descriptors_are_lost_is_an_error_and_the_connection_goes_on", 60);
    let (left, right) = Connection::pair().unwrap();
    let files: Vec<Fd<File>> = (0..5).map(|_| File::open("/dev/null").unwrap().into()).collect();
    left.send(&("lost", &files)).unwrap();
    left.send_bytes(b"after it").unwrap();

    let before = getrlimit(Resource::Nofile);
    let first_free = std::os::fd::AsRawFd::as_raw_fd(&File::open("/dev/null").unwrap()) as u64;
    setrlimit(Resource::Nofile, Rlimit { current: Some(first_free + 2), ..before }).unwrap();
    let lost = right.recv::<(String, Vec<Fd<File>>)>();
    let next = right.recv_bytes();
    let room = File::open("/dev/null").map(drop);
    setrlimit(Resource::Nofile, before).unwrap();

    assert!(matches!(lost, Err(Error::DescriptorsLost)), "{lost:?}");
    assert_eq!(next.unwrap(), b"after it");
    room.expect("those that did come were closed");
}
