//! Buffers: one owner at any time, whatever happens to the messages that they are in.

use std::{
    error::Error,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
};

use billiard_connection::Connection;
use billiard_context::Context;
use billiard_shm::{BufferError, FrozenBuffer, Kind, Segment, SegmentError, SharedBuffer};
use billiard_test_support::{Census, Watchdog, eventually};
use billiard_wire::{attachments::Received, codec};

billiard_context::init_for_tests!();

fn buffer() -> SharedBuffer<u32> {
    SharedBuffer::from_slice(&[1, 2, 3]).unwrap()
}

fn cause(error: &(dyn Error + 'static)) -> String {
    let mut causes = vec![error.to_string()];
    let mut error = error;
    while let Some(source) = error.source() {
        causes.push(source.to_string());
        error = source;
    }
    causes.join(": ")
}

/// A second copy of what a message carries.
fn duplicates(encoded: &codec::Encoded) -> Received {
    encoded.attachments().fds().map(|fd| fd.try_clone_to_owned().unwrap()).collect::<Vec<OwnedFd>>().into()
}

#[test]
fn a_buffer_is_written_and_read_by_its_owner() {
    let mut buffer = SharedBuffer::<u64>::zeroed(1000).unwrap();
    assert!(buffer.as_slice().iter().all(|&value| value == 0));
    buffer.as_mut_slice()[7] = 250;
    for value in buffer.as_mut_slice() {
        *value += 1;
    }
    assert_eq!((buffer.as_slice()[7], buffer.as_slice()[8], buffer.len(), buffer.is_empty()), (251, 1, 1000, false));
    let shape = SharedBuffer::from_slice(&[[1.5f32; 3]; 4]).unwrap();
    assert_eq!(*shape.as_slice(), [[1.5; 3]; 4]);
}

#[test]
fn what_cannot_be_made_is_refused() {
    let error = |result: Result<SharedBuffer<u32>, BufferError>| match result.unwrap_err() {
        BufferError::Segment(error) => error,
        other => panic!("{other}"),
    };
    assert!(matches!(error(SharedBuffer::zeroed(0)), SegmentError::ZeroLength));
    assert!(matches!(error(SharedBuffer::from_slice(&[])), SegmentError::ZeroLength));
    assert!(matches!(error(SharedBuffer::zeroed(usize::MAX)), SegmentError::TooLarge(_)));
    assert!(matches!(error(SharedBuffer::zeroed(usize::MAX / 4)), SegmentError::TooLarge(_)));
    let nothing = SharedBuffer::<()>::zeroed(5).unwrap_err();
    assert!(matches!(nothing, BufferError::Segment(SegmentError::ZeroLength)));
}

#[test]
fn sending_hands_it_over() {
    let (here, there) = Connection::pair().unwrap();
    let mut mine = buffer();
    here.send(&mine).unwrap();
    let mut yours: SharedBuffer<u32> = there.recv().unwrap();
    yours.as_mut_slice()[0] = 10;
    assert_eq!(*yours.as_slice(), [10, 2, 3]);
    assert!(matches!(mine.try_as_slice(), Err(BufferError::Moved)));
    assert!(matches!(mine.try_as_mut_slice(), Err(BufferError::Moved)));
    assert!(cause(&here.send(&mine).unwrap_err()).contains("handed over"));
    assert!(matches!(mine.freeze().unwrap_err().error, BufferError::Moved));
    there.send(&yours).unwrap();
    assert_eq!(*here.recv::<SharedBuffer<u32>>().unwrap().as_slice(), [10, 2, 3]);
}

#[test]
#[should_panic(expected = "cannot read a shared buffer: the buffer was handed over to another process")]
fn a_slice_of_what_was_sent_panics() {
    let (here, _there) = Connection::pair().unwrap();
    let buffer = buffer();
    here.send(&buffer).unwrap();
    let _ = buffer.as_slice();
}

#[test]
fn what_is_lent_is_not_sent() {
    let buffer = buffer();
    let (one, two) = (buffer.as_slice(), buffer.as_slice());
    let refused = codec::encode(&buffer).unwrap_err();
    assert!(cause(&refused).contains("the buffer is in use"), "{}", cause(&refused));
    drop(one);
    assert!(codec::encode(&buffer).is_err());
    assert_eq!(*two, [1, 2, 3]);
    drop(two);
    assert!(codec::encode(&buffer).is_ok());
    std::mem::forget(buffer.as_slice());
    assert!(codec::encode(&buffer).is_err(), "a leaked guard lends for ever");
}

#[test]
fn what_is_in_a_message_is_not_encoded_again_nor_used() {
    let mut buffer = buffer();
    let message = codec::encode(&buffer).unwrap();
    assert!(cause(&codec::encode(&buffer).unwrap_err()).contains("on its way"));
    assert!(matches!(buffer.try_as_slice(), Err(BufferError::Moving)));
    assert!(matches!(buffer.try_as_mut_slice(), Err(BufferError::Moving)));
    let buffer = buffer.freeze().unwrap_err();
    assert!(matches!(buffer.error, BufferError::Moving));
    let buffer = buffer.buffer;
    // The same buffer twice in one message: it is refused, and comes back.
    drop(message);
    assert!(codec::encode(&(&buffer, &buffer)).is_err());
    assert_eq!(*buffer.as_slice(), [1, 2, 3]);
}

#[test]
fn a_message_that_is_not_sent_gives_it_back() {
    let mut buffer = buffer();
    drop(codec::encode(&buffer).unwrap());
    buffer.as_mut_slice()[1] = 7;
    let (here, there) = Connection::pair().unwrap();
    drop(there);
    assert!(here.send(&buffer).is_err());
    assert_eq!(*buffer.as_slice(), [1, 7, 3]);
    // Outside a message there is nowhere to put it.
    assert!(postcard::to_stdvec(&buffer).is_err());
    assert_eq!(*buffer.as_slice(), [1, 7, 3]);
    assert_eq!(buffer.freeze().unwrap()[1], 7);
}

#[test]
fn a_duplicated_message_is_opened_once() {
    let buffer = buffer();
    let message = codec::encode(&buffer).unwrap();
    let (mut one, mut two) = (duplicates(&message), duplicates(&message));
    let opened: SharedBuffer<u32> = codec::decode(message.body(), &mut one).unwrap();
    let refused = codec::decode::<SharedBuffer<u32>>(message.body(), &mut two).unwrap_err();
    assert!(cause(&refused).contains("received before"), "{}", cause(&refused));
    // And though the sender believes that the message was not sent: the buffer has its owner.
    drop(message);
    assert!(matches!(buffer.try_as_slice(), Err(BufferError::Moved)));
    assert_eq!(*opened.as_slice(), [1, 2, 3]);
}

#[test]
fn a_message_that_was_taken_back_cannot_be_opened() {
    let buffer = buffer();
    let message = codec::encode(&buffer).unwrap();
    let (body, mut fds) = (message.body().to_vec(), duplicates(&message));
    drop(message);
    assert_eq!(*buffer.as_slice(), [1, 2, 3]);
    assert!(cause(&codec::decode::<SharedBuffer<u32>>(&body, &mut fds).unwrap_err()).contains("received before"));
    // Not even later, when it is in another message.
    let again = codec::encode(&buffer).unwrap();
    assert!(codec::decode::<SharedBuffer<u32>>(&body, &mut duplicates(&again)).is_err());
    drop(again);
    assert_eq!(*buffer.as_slice(), [1, 2, 3]);
}

#[test]
fn what_is_no_buffer_of_that_type_is_refused() {
    let buffer = buffer();
    let message = codec::encode(&buffer).unwrap();
    let as_floats = codec::decode::<SharedBuffer<f32>>(message.body(), &mut duplicates(&message)).unwrap_err();
    assert!(cause(&as_floats).contains("another type than `f32`"), "{}", cause(&as_floats));
    assert!(codec::decode::<SharedBuffer<u64>>(message.body(), &mut duplicates(&message)).is_err());
    let nonce_only = codec::encode(&(0u32, 5u64)).unwrap();
    assert!(codec::decode::<SharedBuffer<u32>>(nonce_only.body(), &mut Received::default()).is_err());
    let segment = Segment::create(Kind::new("other", 1), 12).unwrap();
    let fd = segment.as_fd().try_clone_to_owned().unwrap();
    let wrong = codec::decode::<SharedBuffer<u32>>(nonce_only.body(), &mut vec![fd].into()).unwrap_err();
    assert!(cause(&wrong).contains("holds other version 1 in memory that is for everybody"), "{}", cause(&wrong));
    let frozen = codec::decode::<FrozenBuffer<u32>>(&[0], &mut duplicates(&message)).unwrap_err();
    assert!(cause(&frozen).contains("was not frozen"), "{}", cause(&frozen));
    // Nor can its memory be had without its protocol.
    let fd = message.attachments().fds().next().unwrap().try_clone_to_owned().unwrap();
    assert!(matches!(Segment::options().attach(fd), Err(SegmentError::Owned(_))));
    drop(message);
    assert_eq!(*buffer.as_slice(), [1, 2, 3]);
}

#[test]
fn frozen_is_frozen_for_all() {
    let frozen = buffer().freeze().unwrap();
    let message = codec::encode(&frozen).unwrap();
    let fd = message.attachments().fds().next().unwrap().try_clone_to_owned().unwrap();
    assert!(rustix::io::pwrite(&fd, b"no", 64).is_err());
    let copy: FrozenBuffer<u32> = codec::decode(message.body(), &mut duplicates(&message)).unwrap();
    let again: FrozenBuffer<u32> = codec::decode(message.body(), &mut duplicates(&message)).unwrap();
    assert_eq!((copy[2], again.as_slice(), frozen.clone().len()), (3, &[1, 2, 3][..], 3));
    assert!(codec::decode::<FrozenBuffer<i32>>(message.body(), &mut duplicates(&message)).is_err());
}

#[test]
fn what_another_can_write_is_not_frozen() {
    let buffer = buffer();
    let message = codec::encode(&buffer).unwrap();
    // Somebody who has kept the memory, against the protocol.
    let opened: SharedBuffer<u32> = codec::decode(message.body(), &mut duplicates(&message)).unwrap();
    let copy = message.attachments().fds().next().unwrap().try_clone_to_owned().unwrap();
    let len = 4096;
    let (read_write, shared) =
        (rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::WRITE, rustix::mm::MapFlags::SHARED);
    // SAFETY: a new mapping, at a place of the kernel's choice, that nobody uses.
    let kept = unsafe { rustix::mm::mmap(std::ptr::null_mut(), len, read_write, shared, &copy, 0) }.unwrap();
    let refused = opened.freeze().unwrap_err();
    assert!(matches!(refused.error, BufferError::StillWritable), "{}", refused.error);
    assert_eq!(*refused.buffer.as_slice(), [1, 2, 3]);
    // SAFETY: the mapping is this function's own.
    unsafe { rustix::mm::munmap(kept, len) }.unwrap();
    assert_eq!(refused.buffer.freeze().unwrap()[0], 1);
}

fn brighten(mut image: SharedBuffer<u8>) -> SharedBuffer<u8> {
    for pixel in image.as_mut_slice() {
        *pixel = pixel.saturating_add(10);
    }
    image
}

#[test]
fn a_buffer_travels_to_a_child_and_back() {
    let _watchdog = Watchdog::start("a_buffer_travels_to_a_child_and_back", 120);
    for context in [Context::forkserver(), Context::spawn()] {
        let mut image = SharedBuffer::<u8>::zeroed(16 << 20).unwrap();
        image.as_mut_slice()[7] = 250;
        let mut child = context.process(brighten, image).start().unwrap();
        let image = child.take_result().unwrap();
        assert_eq!((image.as_slice()[7], image.as_slice()[8]), (255, 10));
    }
}

fn sum(table: FrozenBuffer<u32>) -> u32 {
    table.iter().sum()
}

#[test]
fn a_frozen_buffer_is_read_by_many() {
    let _watchdog = Watchdog::start("a_frozen_buffer_is_read_by_many", 120);
    let table = SharedBuffer::from_slice(&(0..1000).collect::<Vec<u32>>()).unwrap().freeze().unwrap();
    let children: Vec<_> = (0..3).map(|_| Context::forkserver().process(sum, table.clone()).start().unwrap()).collect();
    for mut child in children {
        assert_eq!(child.take_result().unwrap(), 499_500);
    }
}

fn receive_and_stay((channel, open): (Connection, bool)) {
    let buffer: Option<SharedBuffer<u8>> = open.then(|| channel.recv().unwrap());
    channel.send_bytes(b"here").unwrap();
    loop {
        std::thread::park();
        let _ = &buffer;
    }
}

/// Shared memory that is in use on this machine, in pages.
fn descriptors() -> usize {
    Census::take().descriptors
}

#[test]
fn a_receiver_that_is_killed_takes_it_along_and_nothing_else() {
    let _watchdog = Watchdog::start("a_receiver_that_is_killed_takes_it_along_and_nothing_else", 120);
    for open in [false, true] {
        let (here, there) = Connection::pair().unwrap();
        let buffer = SharedBuffer::<u8>::zeroed(1 << 20).unwrap();
        here.send(&buffer).unwrap();
        let mut child = Context::forkserver().process(receive_and_stay, (there, open)).start().unwrap();
        if open {
            assert_eq!(here.recv_bytes().unwrap(), b"here");
        }
        child.kill().unwrap();
        child.join().unwrap();
        assert!(matches!(buffer.try_as_slice(), Err(BufferError::Moved)));
        assert!(here.recv_bytes().is_err() || !open);
    }
}

#[test]
fn threads_that_read_and_send_at_once_agree() {
    let _watchdog = Watchdog::start("threads_that_read_and_send_at_once_agree", 120);
    let buffer = Arc::new(buffer());
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let buffer = buffer.clone();
            std::thread::spawn(move || {
                (0..2000).for_each(|_| match buffer.try_as_slice() {
                    Ok(values) => assert_eq!(*values, [1, 2, 3]),
                    Err(BufferError::Moving) => {}
                    Err(other) => panic!("{other}"),
                });
            })
        })
        .collect();
    let encoded = (0..2000).filter(|_| codec::encode(&*buffer).is_ok()).count();
    readers.into_iter().for_each(|reader| reader.join().unwrap());
    assert!(encoded > 0 && codec::encode(&*buffer).is_ok());
}

#[test]
fn no_descriptor_is_left() {
    let before = descriptors();
    for _ in 0..50 {
        let (here, there) = Connection::pair().unwrap();
        here.send(&buffer()).unwrap();
        let frozen = there.recv::<SharedBuffer<u32>>().unwrap().freeze().unwrap();
        here.send(&frozen).unwrap();
        drop(codec::encode(&buffer()).unwrap());
    }
    // Other tests have theirs; but not fifty more that stay.
    assert!(eventually(30, || descriptors() < before + 50));
}
