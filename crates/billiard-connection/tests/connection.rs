//! Messages between two ends in one process.

use std::{
    fs::File,
    io::{Read, Seek, Write},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    os::unix::net::UnixStream,
    thread,
    time::Duration,
};

use billiard_connection::{Connection, Error, Fd, FrameReader, FrameWriter, Mode, wait};
use billiard_test_support::Watchdog;
use proptest::prelude::*;

/// A connection whose other end is a bare socket, to send what no `Connection` would.
fn raw_peer() -> (Connection, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    (Connection::try_from(OwnedFd::from(ours)).unwrap(), theirs)
}

#[test]
fn messages_keep_their_order_and_boundaries() {
    let _watchdog = Watchdog::start("messages_keep_their_order_and_boundaries", 60);
    let (left, right) = Connection::pair().unwrap();
    left.send_bytes(b"").unwrap();
    left.send(&(1u8, "two")).unwrap();
    left.send_bytes(b"three").unwrap();
    assert_eq!(right.recv_bytes().unwrap(), b"");
    assert_eq!(right.recv::<(u8, String)>().unwrap(), (1, "two".to_owned()));
    assert_eq!(right.recv_bytes().unwrap(), b"three");
    right.send_bytes(b"back").unwrap();
    assert_eq!(left.recv_bytes().unwrap(), b"back");
}

#[test]
fn a_message_larger_than_any_buffer_goes_through() {
    let _watchdog = Watchdog::start("a_message_larger_than_any_buffer_goes_through", 60);
    let (left, right) = Connection::pair().unwrap();
    let sent: Vec<u8> = (0..20_000_000u32).map(|n| (n * 7) as u8).collect();
    let received = thread::scope(|scope| {
        scope.spawn(|| left.send_bytes(&sent).unwrap());
        right.recv_bytes().unwrap()
    });
    assert!(received == sent);
}

#[test]
fn the_end_between_messages_is_eof_and_inside_one_is_truncated() {
    let _watchdog = Watchdog::start("the_end_between_messages_is_eof_and_inside_one_is_truncated", 60);
    let (end, peer) = raw_peer();
    drop(peer);
    assert!(matches!(end.recv_bytes(), Err(Error::Eof)));
    assert!(matches!(end.recv_bytes(), Err(Error::Eof)), "and again");
    assert!(matches!(end.send_bytes(b"x"), Err(Error::Disconnected)));

    for part in [&b"\0"[..], b"\0\0\0\x05", b"\0\0\0\x05four", b"\xff\xff\xff\xff\0\0"] {
        let (end, mut peer) = raw_peer();
        peer.write_all(part).unwrap();
        drop(peer);
        assert!(matches!(end.recv_bytes(), Err(Error::Truncated)), "{part:?}");
        assert!(matches!(end.recv_bytes(), Err(Error::Poisoned)), "{part:?}");
    }
}

#[test]
fn a_reader_knows_whether_its_peer_had_read_everything() {
    let _watchdog = Watchdog::start("a_reader_knows_whether_its_peer_had_read_everything", 60);
    for (read, unread) in [(7, false), (6, true), (0, true)] {
        let (end, mut peer) = raw_peer();
        end.send_bytes(b"abc").unwrap();
        peer.write_all(b"\0\0\0\x01x").unwrap();
        peer.read_exact(&mut vec![0; read]).unwrap();
        drop(peer);
        let mut reader = FrameReader::new();
        assert_eq!(reader.read(&end, Mode::Wait).unwrap().unwrap().into_bytes().unwrap(), b"x", "what it sent counts");
        assert!(matches!(reader.read(&end, Mode::Wait), Err(Error::Eof)));
        assert_eq!(reader.peer_left_unread(), unread, "{read} bytes read");
    }
}

#[test]
fn a_message_can_be_sent_again_unless_its_descriptors_are_gone() {
    let _watchdog = Watchdog::start("a_message_can_be_sent_again_unless_its_descriptors_are_gone", 60);
    let mut writer = FrameWriter::bytes(b"again".to_vec());
    for _ in 0..2 {
        let (left, right) = Connection::pair().unwrap();
        assert!(!writer.is_whole());
        assert!(writer.write(&left, Mode::DontWait).unwrap() && writer.is_whole());
        assert_eq!(right.recv_bytes().unwrap(), b"again");
        assert!(writer.rewind());
    }
    let (body, attachments) = billiard_wire::codec::encode(&Fd::new(tempfile("x"))).unwrap().into_parts();
    let mut writer = FrameWriter::typed(&[], body, attachments);
    assert!(writer.rewind(), "nothing has gone out");
    let (left, _right) = Connection::pair().unwrap();
    assert!(writer.write(&left, Mode::DontWait).unwrap());
    assert!(!writer.rewind());
}

#[test]
fn a_header_that_no_peer_writes_poisons() {
    let _watchdog = Watchdog::start("a_header_that_no_peer_writes_poisons", 60);
    let (end, mut peer) = raw_peer();
    peer.write_all(&(-5i32).to_be_bytes()).unwrap();
    assert!(matches!(end.recv_bytes(), Err(Error::BadHeader(_))));
    assert!(matches!(end.recv_bytes(), Err(Error::Poisoned)));
}

#[test]
fn a_claimed_length_allocates_nothing_and_can_be_limited() {
    let _watchdog = Watchdog::start("a_claimed_length_allocates_nothing_and_can_be_limited", 60);
    let (end, mut peer) = raw_peer();
    peer.write_all(&[0xff, 0xff, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]).unwrap();
    peer.write_all(b"not that much").unwrap();
    drop(peer);
    assert!(matches!(end.recv_bytes(), Err(Error::Truncated))); // and this process has not died of it

    let (end, mut peer) = raw_peer();
    peer.write_all(b"\0\0\0\x05hello").unwrap();
    let error = FrameReader::with_limit(4).read(&end, Mode::Wait).unwrap_err();
    assert!(matches!(error, Error::TooLong { len: 5, limit: 4 }));
    assert!(FrameReader::with_limit(5).read(raw_with(b"\0\0\0\x05hello"), Mode::Wait).unwrap().is_some());
}

fn raw_with(bytes: &[u8]) -> Connection {
    let (end, mut peer) = raw_peer();
    peer.write_all(bytes).unwrap();
    end
}

#[test]
fn a_value_of_another_type_is_an_error_and_the_connection_goes_on() {
    let _watchdog = Watchdog::start("a_value_of_another_type_is_an_error_and_the_connection_goes_on", 60);
    let (left, right) = Connection::pair().unwrap();
    left.send("text").unwrap();
    left.send(&7u8).unwrap();
    let error = right.recv::<u8>().unwrap_err();
    assert!(matches!(&error, Error::Decode(why) if why.type_name() == "u8"), "{error}");
    assert_eq!(right.recv::<u8>().unwrap(), 7);
}

#[test]
fn a_value_that_cannot_be_encoded_sends_nothing() {
    let _watchdog = Watchdog::start("a_value_that_cannot_be_encoded_sends_nothing", 60);
    struct Stubborn;
    impl serde::Serialize for Stubborn {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("no"))
        }
    }
    let (left, right) = Connection::pair().unwrap();
    assert!(matches!(left.send(&("x", Stubborn)), Err(Error::Encode(_))));
    assert!(!right.poll(Some(Duration::ZERO)).unwrap());
    left.send(&1u8).unwrap();
    assert_eq!(right.recv::<u8>().unwrap(), 1);
}

#[test]
fn descriptors_ride_along() {
    let _watchdog = Watchdog::start("descriptors_ride_along", 60);
    let (left, right) = Connection::pair().unwrap();
    let mut file = Fd::new(tempfile("through a message"));
    left.send(&vec![Some(("a file", &file)), None]).unwrap();
    let mut received: Vec<Option<(String, Fd<File>)>> = right.recv().unwrap();
    assert_eq!(received.len(), 2);
    let (name, mut theirs) = received.remove(0).unwrap();
    assert_eq!(name, "a file");
    file.rewind().unwrap();
    assert_eq!(text(&mut theirs), "through a message");

    left.send_fd(&*file).unwrap();
    file.rewind().unwrap();
    assert_eq!(text(&mut File::from(right.recv_fd().unwrap())), "through a message");
}

fn tempfile(text: &str) -> File {
    let path = std::env::temp_dir().join(format!("billiard-test-{}-{:?}", std::process::id(), thread::current().id()));
    let mut file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    std::fs::remove_file(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn text(file: &mut File) -> String {
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn descriptors_where_none_are_expected_are_closed() {
    let _watchdog = Watchdog::start("descriptors_where_none_are_expected_are_closed", 60);
    let (left, right) = Connection::pair().unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    left.send(&Fd::new(theirs)).unwrap();
    assert!(matches!(right.recv_bytes(), Err(Error::UnexpectedDescriptors(1))));
    assert_eq!((&ours).read(&mut [0]).unwrap(), 0, "nobody holds the other end");
    assert!(matches!({ left.send_bytes(b"x").and_then(|()| right.recv_fd().map(drop)) }, Err(Error::NoDescriptor)));
    assert!(matches!(right.recv_bytes(), Err(Error::Poisoned)));
}

#[test]
fn a_connection_that_is_sent_has_one_owner() {
    let _watchdog = Watchdog::start("a_connection_that_is_sent_has_one_owner", 60);
    let (left, right) = Connection::pair().unwrap();
    let (mine, yours) = Connection::pair().unwrap();
    left.send(&("take it", &yours)).unwrap();
    assert!(matches!(yours.send_bytes(b"x"), Err(Error::HandedOver)));
    assert!(matches!(yours.recv_bytes(), Err(Error::HandedOver)));
    let error = left.send(&yours).unwrap_err();
    assert!(format!("{:?}", std::error::Error::source(&error)).contains("handed over before"), "{error:?}");

    let (_, theirs): (String, Connection) = right.recv().unwrap();
    drop(theirs);
    assert!(matches!(mine.recv_bytes(), Err(Error::Eof)), "the sender's copy does not keep it open");
    assert_eq!(wait(&[&yours], Some(Duration::ZERO)).unwrap(), [0], "its number is that of a dead connection");
}

#[test]
fn a_connection_that_is_in_use_or_out_of_step_cannot_be_sent() {
    let _watchdog = Watchdog::start("a_connection_that_is_in_use_or_out_of_step_cannot_be_sent", 60);
    let (carrier, _other) = Connection::pair().unwrap();
    let (busy, peer) = Connection::pair().unwrap();
    thread::scope(|scope| {
        scope.spawn(|| busy.send_bytes(&vec![7; 5_000_000]).unwrap());
        assert!(peer.poll(None).unwrap(), "the message has begun, and cannot end before it is read");
        assert!(matches!(carrier.send(&busy), Err(Error::Encode(_))));
        assert_eq!(peer.recv_bytes().unwrap(), vec![7; 5_000_000]);
    });
    let (end, mut peer) = raw_peer();
    peer.write_all(&(-5i32).to_be_bytes()).unwrap();
    assert!(end.recv_bytes().is_err());
    assert!(matches!(carrier.send(&end), Err(Error::Encode(_))), "poisoned");
}

#[test]
fn a_connection_in_a_message_that_fails_stays() {
    let _watchdog = Watchdog::start("a_connection_in_a_message_that_fails_stays", 60);
    let (left, right) = Connection::pair().unwrap();
    let (mine, yours) = Connection::pair().unwrap();
    drop(right);
    assert!(matches!(left.send(&yours), Err(Error::Disconnected)));
    assert!(left.send(&(&yours, &yours)).is_err(), "twice in one message");
    mine.send_bytes(b"still here").unwrap();
    assert_eq!(yours.recv_bytes().unwrap(), b"still here");
}

#[test]
fn ten_thousand_descriptors_leave_the_count_where_it_was() {
    let _watchdog = Watchdog::start("ten_thousand_descriptors_leave_the_count_where_it_was", 120);
    let (left, right) = Connection::pair().unwrap();
    let path = std::env::temp_dir().join(format!("billiard-count-{}", std::process::id()));
    let file = Fd::new(File::create(&path).unwrap());
    // Other tests of this program run beside this one: count the descriptors of this file alone.
    let count = || {
        let open = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
        open.filter(|entry| std::fs::read_link(entry.path()).is_ok_and(|target| target == path)).count()
    };
    for _ in 0..10_000 {
        left.send(&file).unwrap();
        drop(right.recv::<Fd<File>>().unwrap());
    }
    assert_eq!(count(), 1);
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn threads_share_an_end_without_mixing_messages() {
    let _watchdog = Watchdog::start("threads_share_an_end_without_mixing_messages", 60);
    let (left, right) = Connection::pair().unwrap();
    let mut received = thread::scope(|scope| {
        for sender in 0..4u32 {
            let left = &left;
            scope.spawn(move || (0..500u32).for_each(|n| left.send(&(sender, n, vec![0u8; n as usize])).unwrap()));
        }
        let receivers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| (0..1000).map(|_| right.recv::<(u32, u32, Vec<u8>)>().unwrap()).collect::<Vec<_>>())
            })
            .collect();
        receivers.into_iter().flat_map(|receiver| receiver.join().unwrap()).collect::<Vec<_>>()
    });
    assert!(received.iter().all(|(_, n, bytes)| bytes.len() == *n as usize));
    received.sort_unstable();
    let keys: Vec<_> = received.iter().map(|&(sender, n, _)| (sender, n)).collect();
    assert_eq!(keys, (0..4).flat_map(|sender| (0..500).map(move |n| (sender, n))).collect::<Vec<_>>());
}

#[test]
fn wait_names_all_that_are_ready_and_keeps_time() {
    let _watchdog = Watchdog::start("wait_names_all_that_are_ready_and_keeps_time", 60);
    let pairs: Vec<_> = (0..3).map(|_| Connection::pair().unwrap()).collect();
    let ends: Vec<_> = pairs.iter().map(|(_, right)| right).collect();
    let begin = std::time::Instant::now();
    assert!(wait(&ends, Some(Duration::from_millis(20))).unwrap().is_empty());
    assert!(begin.elapsed() >= Duration::from_millis(20));
    pairs[2].0.send_bytes(b"x").unwrap();
    pairs[0].0.send_bytes(b"x").unwrap();
    assert_eq!(wait(&ends, None).unwrap(), [0, 2]);
    assert_eq!(wait(&ends, Some(Duration::MAX)).unwrap(), [0, 2]);
    assert!(wait::<Connection>(&[], None).unwrap().is_empty());
}

#[test]
fn every_descriptor_is_close_on_exec() {
    let _watchdog = Watchdog::start("every_descriptor_is_close_on_exec", 60);
    let (left, right) = Connection::pair().unwrap();
    left.send(&Fd::new(File::open("/dev/null").unwrap())).unwrap();
    let file: Fd<File> = right.recv().unwrap();
    left.send_fd(&*file).unwrap();
    for fd in [left.as_fd(), right.as_fd(), file.as_fd(), right.recv_fd().unwrap().as_fd()] {
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).unwrap();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap().trim().to_owned();
        assert!(u32::from_str_radix(&flags, 8).unwrap() & 0o2_000_000 != 0, "{info}");
    }
}

#[derive(Clone, Debug)]
enum Sent {
    Bytes(Vec<u8>),
    Typed(String, usize),
}

fn messages() -> impl Strategy<Value = Vec<Sent>> {
    let one = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..300).prop_map(Sent::Bytes),
        (any::<String>(), 0..5usize).prop_map(|(text, files)| Sent::Typed(text, files)),
    ];
    proptest::collection::vec(one, 0..20)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is sent, in whatever pieces it comes, arrives once and in order.
    #[test]
    fn any_sequence_in_any_pieces_arrives(messages in messages(), pieces in proptest::collection::vec(1..9usize, 1..20)) {
        let _watchdog = Watchdog::start("any_sequence_in_any_pieces_arrives", 120);
        // The frames without descriptors are cut into pieces by a relay of single writes.
        let (end, mut peer) = raw_peer();
        let mut bytes = Vec::new();
        for message in &messages {
            if let Sent::Bytes(payload) = message {
                bytes.extend((payload.len() as i32).to_be_bytes());
                bytes.extend(payload);
            }
        }
        let mut reader = FrameReader::new();
        let mut arrived = Vec::new();
        let mut rest = &bytes[..];
        for piece in pieces.iter().cycle() {
            let (now, later) = rest.split_at((*piece).min(rest.len()));
            peer.write_all(now).unwrap();
            while let Some(frame) = reader.read(&end, Mode::DontWait).unwrap() {
                arrived.push(frame.into_bytes().unwrap());
            }
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        let plain: Vec<_> = messages.iter().filter_map(|m| match m { Sent::Bytes(b) => Some(b.clone()), _ => None }).collect();
        prop_assert_eq!(arrived, plain);

        // All of them, descriptors included, through a writer that is resumed while the reader drains.
        let (left, right) = Connection::pair().unwrap();
        let null = File::open("/dev/null").unwrap();
        let mut reader = FrameReader::new();
        for message in messages {
            // More than a socket takes at a time, now and then, so that the writer has to stop in the middle.
            let padding = if pieces.len().is_multiple_of(3) { 400_000 } else { 0 };
            let mut writer = match &message {
                Sent::Bytes(payload) => FrameWriter::bytes(payload.clone()),
                Sent::Typed(text, files) => {
                    let files: Vec<Fd<File>> = (0..*files).map(|_| null.try_clone().unwrap().into()).collect();
                    let value = (text, files, vec![1u8; padding]);
                    let (body, attachments) = billiard_wire::codec::encode(&value).unwrap().into_parts();
                    FrameWriter::typed(&[], body, attachments)
                }
            };
            prop_assert!(!writer.is_begun());
            let mut frame = None;
            while !writer.write(&left, Mode::DontWait).unwrap() {
                frame = reader.read(&right, Mode::DontWait).unwrap();
                prop_assert!(frame.is_none());
            }
            let frame = frame.or_else(|| reader.read(&right, Mode::DontWait).unwrap()).unwrap();
            match message {
                Sent::Bytes(payload) => prop_assert_eq!(frame.into_bytes().unwrap(), payload),
                Sent::Typed(text, files) => {
                    let (theirs, came, rest): (String, Vec<Fd<File>>, Vec<u8>) = frame.decode().unwrap();
                    prop_assert_eq!((theirs, came.len(), rest.len()), (text, files, padding));
                }
            }
        }
    }
}

#[test]
fn a_reader_with_turns_stops_and_says_so() {
    let _watchdog = Watchdog::start("a_reader_with_turns_stops_and_says_so", 60);
    let (left, right) = Connection::pair().unwrap();
    let payload = vec![5; 4_000_000];
    let mut reader = FrameReader::new().in_turns_of(1000);
    let (mut turns, mut waits) = (0, 0);
    let frame = thread::scope(|scope| {
        scope.spawn(|| left.send_bytes(&payload).unwrap());
        loop {
            match reader.read(&right, Mode::DontWait).unwrap() {
                Some(frame) => break frame,
                None if reader.has_more() => turns += 1,
                None => waits += 1,
            }
        }
    });
    assert!(turns > 4, "{turns} turns, {waits} waits");
    assert!(frame.into_bytes().unwrap() == payload);
    assert!(reader.read(&right, Mode::DontWait).unwrap().is_none() && !reader.has_more());
}

#[test]
fn shutting_down_ends_it_for_all_copies() {
    let _watchdog = Watchdog::start("shutting_down_ends_it_for_all_copies", 60);
    let (left, right) = Connection::pair().unwrap();
    let _copy = left.as_fd().try_clone_to_owned().unwrap();
    left.send_bytes(b"last").unwrap();
    left.shutdown().unwrap();
    assert_eq!(right.recv_bytes().unwrap(), b"last");
    assert!(matches!(right.recv_bytes(), Err(Error::Eof)));
    assert!(matches!(right.send_bytes(b"x"), Err(Error::Disconnected)));
}

#[test]
fn a_writer_that_would_wait_goes_on_where_it_stopped() {
    let _watchdog = Watchdog::start("a_writer_that_would_wait_goes_on_where_it_stopped", 60);
    let (left, right) = Connection::pair().unwrap();
    let payload: Vec<u8> = (0..5_000_000u32).map(|n| n as u8).collect();
    let mut writer = FrameWriter::bytes(payload.clone());
    let mut reader = FrameReader::new();
    let mut stops = 0;
    while !writer.write(&left, Mode::DontWait).unwrap() {
        stops += 1;
        assert!(writer.is_begun());
        assert!(reader.read(&right, Mode::DontWait).unwrap().is_none());
        assert!(!reader.is_at_boundary());
    }
    assert!(stops > 5, "{stops} stops");
    assert!(reader.read(&right, Mode::DontWait).unwrap().unwrap().into_bytes().unwrap() == payload);
    assert!(reader.is_at_boundary());
}
