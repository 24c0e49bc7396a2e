//! Segments: what is made is what is attached to, and everything else is refused by name.

use std::{
    fs::File,
    io::Write,
    os::fd::{AsFd, OwnedFd},
    sync::atomic::{AtomicU64, Ordering},
};

use billiard_connection::Connection;
use billiard_context::Context;
use billiard_shm::{Kind, MAX_ALIGN, Place, Segment, SegmentError, futex::Futex};
use billiard_test_support::Watchdog;
use billiard_wire::codec;
use rustix::fs::{MemfdFlags, SealFlags};

billiard_context::init_for_tests!();

const KIND: Kind = Kind::new("test", 1);

fn descriptor(segment: &Segment) -> OwnedFd {
    segment.as_fd().try_clone_to_owned().unwrap()
}

/// A memory file with these bytes and seals.
fn file(bytes: &[u8], seals: SealFlags) -> OwnedFd {
    let fd = rustix::fs::memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    let mut file = File::from(fd);
    file.write_all(bytes).unwrap();
    rustix::fs::fcntl_add_seals(&file, seals).unwrap();
    file.into()
}

/// The bytes of a good segment, header included.
fn good() -> Vec<u8> {
    let segment = Segment::create(KIND, 100).unwrap();
    let mut bytes = vec![0; 164];
    assert_eq!(rustix::io::pread(&segment, &mut bytes, 0).unwrap(), 164);
    bytes
}

const SEALED: SealFlags = SealFlags::SHRINK;

#[test]
fn a_segment_is_zeroed_and_shared() {
    let segment = Segment::create(KIND, 100).unwrap();
    assert_eq!((segment.len(), segment.is_empty(), segment.align()), (100, false, 64));
    let mut bytes = [1; 100];
    segment.read(0, &mut bytes).unwrap();
    assert_eq!(bytes, [0; 100]);
    let other = Segment::attach(descriptor(&segment), KIND).unwrap();
    assert!(other.is_same_as(&segment) && !other.is_same_as(&Segment::create(KIND, 100).unwrap()));
    segment.write(97, b"end").unwrap();
    other.read(90, &mut bytes[..10]).unwrap();
    assert_eq!(&bytes[..10], b"\0\0\0\0\0\0\0end");
}

#[test]
fn what_is_asked_for_is_checked() {
    assert!(matches!(Segment::create(KIND, 0), Err(SegmentError::ZeroLength)));
    assert!(matches!(Segment::create(KIND, usize::MAX), Err(SegmentError::TooLarge(usize::MAX))));
    assert!(matches!(Segment::create(KIND, isize::MAX as usize), Err(SegmentError::TooLarge(_))));
    for align in [0, 3, 2 * MAX_ALIGN] {
        assert!(matches!(Segment::options().align(align).create(KIND, 1), Err(SegmentError::BadAlign(_))));
    }
    let segment = Segment::create(KIND, 100).unwrap();
    for (offset, len) in [(100, 1), (96, 5), (usize::MAX, 1), (1, 100)] {
        let mut bytes = vec![0; len];
        assert!(matches!(segment.read(offset, &mut bytes), Err(SegmentError::OutOfBounds { .. })));
        assert!(matches!(segment.write(offset, &bytes), Err(SegmentError::OutOfBounds { .. })));
    }
    assert!(matches!(segment.place::<AtomicU64>(96), Err(SegmentError::OutOfBounds { .. })));
    assert!(matches!(segment.place::<AtomicU64>(4), Err(SegmentError::Misaligned { offset: 4, align: 8 })));
    assert_eq!(segment.places::<AtomicU64>(8, 11).unwrap().len(), 11);
    assert!(matches!(segment.places::<AtomicU64>(8, 12), Err(SegmentError::OutOfBounds { .. })));
    assert!(matches!(segment.places::<AtomicU64>(4, 1), Err(SegmentError::Misaligned { offset: 4, align: 8 })));
    assert!(matches!(segment.places::<AtomicU64>(0, usize::MAX), Err(SegmentError::TooLarge(_))));
    segment.write(100, b"").unwrap();
}

#[test]
fn every_alignment_holds_in_every_mapping() {
    for shift in 0..=MAX_ALIGN.ilog2() {
        let segment = Segment::options().align(1 << shift).create(KIND, 5000).unwrap();
        let other = Segment::attach(descriptor(&segment), KIND).unwrap();
        for one in [&segment, &other] {
            assert!(one.address(0, 5000, 1 << shift).is_ok() && one.align() >= 1 << shift);
        }
        segment.write(4999, b"!").unwrap();
        let mut byte = [0];
        other.read(4999, &mut byte).unwrap();
        assert_eq!(byte, *b"!");
    }
}

/// How many pages its file has.
fn pages(segment: &Segment) -> usize {
    rustix::fs::fstat(segment).unwrap().st_blocks as usize * 512 / rustix::param::page_size()
}

#[test]
fn what_is_populated_is_there_and_what_an_alignment_leaves_out_is_not() {
    let page = rustix::param::page_size();
    for align in [64, page, MAX_ALIGN] {
        // The page of the header is the first one of the segment's own where the alignment is less.
        let header = usize::from(align >= page);
        let lazy = Segment::options().align(align).create(KIND, 3 * page).unwrap();
        assert_eq!(pages(&lazy), 1, "{align}: the header's");
        let populated = Segment::options().align(align).populate(true).create(KIND, 3 * page).unwrap();
        let own = 3 + usize::from(header == 0); // which begin in the middle of a page, then
        assert_eq!(pages(&populated), header + own, "{align}");
        let attached = Segment::options().populate(true).attach(descriptor(&lazy)).unwrap();
        assert_eq!(pages(&lazy), header + own, "{align}");
        attached.write(3 * page - 1, b"!").unwrap();
        let mut bytes = [0; 2];
        lazy.read(3 * page - 2, &mut bytes).unwrap();
        assert_eq!(&bytes, b"\0!");
        let readable = Segment::options().align(align).read_only_for_others(true).create(KIND, 3 * page).unwrap();
        assert!(!Segment::options().populate(true).attach(descriptor(&readable)).unwrap().is_writable());
        assert_eq!(pages(&readable), header + own, "{align}");
    }
}

#[test]
fn what_is_no_segment_is_refused() {
    let attach = |fd| Segment::attach(fd, KIND).unwrap_err();
    let good = good();
    assert!(Segment::attach(file(&good, SEALED), KIND).is_ok());

    let (socket, _) = std::os::unix::net::UnixStream::pair().unwrap();
    assert!(matches!(attach(socket.into()), SegmentError::NotMemory));
    assert!(matches!(attach(File::open("/dev/null").unwrap().into()), SegmentError::NotMemory));
    assert!(matches!(attach(File::open("/proc/self/exe").unwrap().into()), SegmentError::NotSealed));
    assert!(matches!(attach(file(&good, SealFlags::GROW)), SegmentError::NotSealed));
    assert!(matches!(attach(file(&[], SEALED)), SegmentError::Truncated { needs: 64, has: 0 }));
    assert!(matches!(attach(file(&good[..63], SEALED)), SegmentError::Truncated { needs: 64, has: 63 }));
    assert!(matches!(attach(file(&good[..163], SEALED)), SegmentError::Truncated { needs: 164, has: 163 }));
    assert!(matches!(attach(file(&[0; 164], SEALED)), SegmentError::Unfinished));
    assert!(matches!(attach(file(&[7; 164], SEALED)), SegmentError::Foreign));

    let segment = Segment::create(KIND.of::<u32>(), 100).unwrap();
    let attach_as = |kind| Segment::attach(descriptor(&segment), kind).unwrap_err();
    assert!(matches!(attach_as(Kind::new("other", 1)), SegmentError::WrongKind { .. }));
    assert!(matches!(attach_as(Kind::new("test", 2)), SegmentError::WrongKind { .. }));
    assert!(matches!(attach_as(KIND.of::<f32>()), SegmentError::WrongType { .. }));
    let text = attach_as(Kind::new("test", 2)).to_string();
    assert_eq!(text, "the segment holds test version 1, not test version 2");
}

#[test]
fn nobody_can_cut_a_segment_short() {
    let segment = Segment::create(KIND, 100).unwrap();
    for len in [0, 50, 1 << 20] {
        assert_eq!(rustix::fs::ftruncate(&segment, len), Err(rustix::io::Errno::PERM));
    }
    // Nor take the right to write from those who come later.
    let sealing = rustix::fs::fcntl_add_seals(&segment, SealFlags::FUTURE_WRITE);
    assert_eq!(sealing, Err(rustix::io::Errno::PERM));
}

#[test]
fn others_can_only_read_what_was_made_so() {
    let segment = Segment::options().read_only_for_others(true).create(KIND, 100).unwrap();
    segment.write(0, b"mine").unwrap();
    let other = Segment::attach(descriptor(&segment), KIND).unwrap();
    assert!(segment.is_writable() && !other.is_writable());
    assert!(matches!(other.write(0, b"yours"), Err(SegmentError::ReadOnly)));
    assert!(matches!(other.place::<AtomicU64>(0), Err(SegmentError::ReadOnly)));
    assert!(matches!(other.places::<AtomicU64>(0, 1), Err(SegmentError::ReadOnly)));
    segment.write(4, b" still").unwrap();
    let mut bytes = [0; 10];
    other.read(0, &mut bytes).unwrap();
    assert_eq!(&bytes, b"mine still");
    assert!(rustix::io::pwrite(&other, b"no", 0).is_err());
}

#[test]
fn words_outlive_every_other_handle() {
    let segment = Segment::create(KIND, 64).unwrap();
    let counter: Place<[AtomicU64; 2]> = segment.place(8).unwrap();
    drop(segment);
    counter[1].store(5, Ordering::Relaxed);
    let mut bytes = [0; 8];
    counter.segment().read(16, &mut bytes).unwrap();
    assert_eq!(u64::from_ne_bytes(bytes), 5);
}

#[test]
fn a_segment_travels_only_in_messages() {
    let segment = Segment::create(KIND, 100).unwrap();
    let message = codec::encode(&(&segment, 7)).unwrap();
    assert_eq!(message.attachments().len(), 1);
    let (here, there) = Connection::pair().unwrap();
    here.send(&segment).unwrap();
    let other: Segment = there.recv().unwrap();
    assert!(other.is_same_as(&segment));
    // What comes in its place is refused, and the reason told.
    here.send(&billiard_wire::Fd::new(File::open("/dev/null").unwrap())).unwrap();
    let error = there.recv::<Segment>().unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("not that of a memory file"), "{source}");
}

fn answer((segment, word): (Segment, u32)) {
    segment.check(KIND).unwrap();
    let futex = segment.place::<Futex>(0).unwrap();
    futex.value().store(word, Ordering::Release);
    futex.wake_all();
}

#[test]
fn another_process_wakes_a_waiter() {
    let _watchdog = Watchdog::start("another_process_wakes_a_waiter", 60);
    for context in [Context::forkserver(), Context::spawn()] {
        let segment = Segment::options().populate(true).dont_dump(true).create(KIND, 64).unwrap();
        let futex = segment.place::<Futex>(0).unwrap();
        let mut child = context.process(answer, (segment, 42)).start().unwrap();
        while futex.load(Ordering::Acquire) == 0 {
            let _ = futex.wait(0, None);
        }
        assert_eq!(futex.load(Ordering::Acquire), 42);
        assert!(child.join().unwrap().success());
    }
}

#[test]
fn what_stands_in_front_is_mended() {
    let segment = Segment::create(KIND, 100).unwrap();
    segment.write(0, b"kept").unwrap();
    rustix::io::pwrite(segment.as_fd(), &[0; 48], 0).unwrap();
    assert!(matches!(Segment::attach(descriptor(&segment), KIND), Err(SegmentError::Unfinished)));
    segment.mend().unwrap();
    let mut bytes = [0; 4];
    Segment::attach(descriptor(&segment), KIND).unwrap().read(0, &mut bytes).unwrap();
    assert_eq!(&bytes, b"kept");
    let read_only = Segment::options().read_only_for_others(true).create(KIND, 100).unwrap();
    let other = Segment::attach(descriptor(&read_only), KIND).unwrap();
    assert!(matches!(other.mend(), Err(SegmentError::ReadOnly)));
}

#[test]
fn bytes_of_every_length_come_out_as_they_went_in() {
    let segment = Segment::create(KIND, 5000).unwrap();
    for len in [0, 1, 7, 8, 9, 100, 511, 512, 513, 3000] {
        for offset in [0, 1, 8, 1003] {
            let bytes: Vec<u8> = (0..len).map(|n| (n * 7 + offset) as u8).collect();
            segment.write(0, &[9; 5000]).unwrap();
            segment.write(offset, &bytes).unwrap();
            let mut all = vec![0; 5000];
            segment.read(0, &mut all).unwrap();
            assert!(all[offset..offset + len] == bytes, "{len} bytes at {offset}");
            assert!(all[..offset].iter().chain(&all[offset + len..]).all(|&byte| byte == 9), "{len} bytes at {offset}");
            let mut behind = vec![1, 2];
            segment.read_behind(offset, len, &mut behind).unwrap();
            assert!(behind[..2] == [1, 2] && behind[2..] == bytes);
        }
    }
    let mut none = Vec::new();
    for (offset, len) in [(0, 5001), (5000, 1), (1, usize::MAX), (usize::MAX, 1)] {
        assert!(matches!(segment.read_behind(offset, len, &mut none), Err(SegmentError::OutOfBounds { .. })));
    }
    assert_eq!(none.capacity(), 0);
}
