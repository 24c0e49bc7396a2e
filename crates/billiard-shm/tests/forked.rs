//! What handles do in copies of their process: one that was forked by hand, and one that goes on where its caller is.

use std::{alloc::Layout, sync::atomic::AtomicU64};

use billiard_shm::{
    Arena, ArenaError, BufferError, Kind, NamedError, NamedMemory, Segment, SegmentError, SharedBuffer,
    participants::Registry, prim::Ordering,
};
use billiard_test_support::Watchdog;
use billiard_wire::{codec, generation::Heritage};

/// Runs `check` in a copy of this process, which then ends; whether it returned true.
fn in_a_copy(check: impl FnOnce() -> bool) -> bool {
    // SAFETY: the child runs loads, stores and system calls, and the C library's allocator, which works after a fork; and ends by
    // `_exit`.
    match unsafe { libc::fork() } {
        0 => {
            let good = std::panic::catch_unwind(std::panic::AssertUnwindSafe(check)).unwrap_or(false);
            // SAFETY: always.
            unsafe { libc::_exit(i32::from(!good)) }
        }
        child => {
            let mut status = 0;
            // SAFETY: the place is valid, and the child this function's own.
            assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
            status == 0
        }
    }
}

const KIND: Kind = Kind::new("test", 1);

#[test]
fn a_copy_made_by_hand_is_refused_everywhere() {
    let _watchdog = Watchdog::start("a_copy_made_by_hand_is_refused_everywhere", 60);
    let segment = Segment::create(KIND, 100).unwrap();
    let mut buffer = SharedBuffer::from_slice(&[1u32, 2, 3]).unwrap();
    let arena = Arena::new(1000).unwrap();
    let block = arena.alloc(Layout::new::<u64>()).unwrap();
    let mut named = NamedMemory::create(100).unwrap();
    let registry = Registry::with_capacity(4).unwrap();
    let me = registry.member().unwrap();
    let refused = in_a_copy(|| {
        let segment_refuses = matches!(segment.read(0, &mut [0]), Err(SegmentError::Forked(_)))
            && matches!(segment.place::<AtomicU64>(0), Err(SegmentError::Forked(_)))
            && codec::encode(&segment).is_err();
        let buffer_refuses = matches!(buffer.try_as_slice(), Err(BufferError::Segment(SegmentError::Forked(_))))
            && buffer.try_as_mut_slice().is_err()
            && codec::encode(&buffer).is_err();
        let arena_refuses =
            matches!(arena.alloc(Layout::new::<u64>()), Err(ArenaError::Forked(_))) && block.write(0, b"x").is_err();
        let named_refuses = matches!(named.write(0, b"x"), Err(NamedError::Forked(_))) && named.unlink().is_err();
        let registry_refuses = registry.member().is_err() && registry.is_alive(me).is_err();
        // What is dropped in the copy takes nothing from the original.
        drop((segment, buffer, block, arena, named, registry.clone()));
        segment_refuses && buffer_refuses && arena_refuses && named_refuses && registry_refuses
    });
    assert!(refused);
}

#[test]
fn what_a_copy_drops_stays() {
    let _watchdog = Watchdog::start("what_a_copy_drops_stays", 60);
    let mut handles = Some((
        SharedBuffer::from_slice(&[1u32, 2, 3]).unwrap(),
        NamedMemory::create(100).unwrap(),
        Registry::with_capacity(4).unwrap(),
    ));
    let lent = SharedBuffer::from_slice(&[4u32]).unwrap();
    let message = codec::encode(&lent).unwrap();
    let me = handles.as_ref().unwrap().2.member().unwrap();
    let mut message = Some(message);
    assert!(in_a_copy(|| {
        drop(handles.take());
        drop(message.take()); // and does not take the buffer out of the message
        lent.try_as_slice().is_err()
    }));
    let (buffer, named, registry) = handles.unwrap();
    assert_eq!(*buffer.as_slice(), [1, 2, 3]);
    assert!(NamedMemory::open(named.name()).is_ok());
    assert!(registry.is_alive(me).unwrap());
    let message = message.unwrap();
    let mut fds = message.attachments().fds().map(|fd| fd.try_clone_to_owned().unwrap()).collect::<Vec<_>>().into();
    assert_eq!(*codec::decode::<SharedBuffer<u32>>(message.body(), &mut fds).unwrap().as_slice(), [4]);
}

/// Whether there is memory at the address.
fn is_mapped(address: *const u8) -> bool {
    let page = rustix::param::page_size();
    let mut resident = 0_u8;
    // SAFETY: it reads nothing at the address; and there is room for the one byte that it says of one page.
    let found = unsafe { libc::mincore(address.map_addr(|address| address & !(page - 1)) as *mut _, 1, &mut resident) };
    found == 0 // else ENOMEM
}

#[test]
fn the_memory_of_a_buffer_is_not_in_a_copy() {
    let _watchdog = Watchdog::start("the_memory_of_a_buffer_is_not_in_a_copy", 60);
    let segment = Segment::create(KIND, 100).unwrap();
    let made = SharedBuffer::from_slice(&[1_u8]).unwrap();
    let came_back = SharedBuffer::from_slice(&[2_u8]).unwrap();
    drop(codec::encode(&came_back).unwrap());
    let sent = SharedBuffer::from_slice(&[3_u8]).unwrap();
    let message = codec::encode(&sent).unwrap();
    let mut fds = message.attachments().fds().map(|fd| fd.try_clone_to_owned().unwrap()).collect::<Vec<_>>().into();
    let received: SharedBuffer<u8> = codec::decode(message.body(), &mut fds).unwrap();
    let shared = segment.address(0, 100, 1).unwrap().as_ptr().cast_const();
    let places = [&made, &came_back, &received].map(|buffer| buffer.as_slice().as_ptr());
    assert!(is_mapped(shared) && places.into_iter().all(is_mapped));
    assert!(in_a_copy(|| is_mapped(shared) && !places.into_iter().any(is_mapped)));
}

#[test]
fn a_copy_that_goes_on_shares_what_may_be_shared() {
    let _watchdog = Watchdog::start("a_copy_that_goes_on_shares_what_may_be_shared", 60);
    let segment = Segment::create(KIND, 100).unwrap();
    // SAFETY: the copy asks before it uses a place.
    let left_out = unsafe { Segment::options().dont_fork() }.create(KIND, 100).unwrap();
    let buffer = SharedBuffer::from_slice(&[1u32, 2, 3]).unwrap();
    let frozen = SharedBuffer::from_slice(&[4u32, 5]).unwrap().freeze().unwrap();
    let lent = buffer.as_slice();
    let registry = Registry::with_capacity(4).unwrap();
    let me = registry.member().unwrap();
    let word = segment.place::<AtomicU64>(0).unwrap();
    let heritage = Heritage::note();
    assert!(in_a_copy(|| {
        heritage.accept();
        word.fetch_add(1, Ordering::Relaxed);
        let shared = segment.read(0, &mut [0]).is_ok() && frozen[1] == 5 && codec::encode(&segment).is_ok();
        let own = buffer.try_as_slice().is_err() && left_out.read(0, &mut [0]).is_err();
        let guard = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| lent[0])).is_err();
        // It is another participant than the one that it was copied from, who lives.
        let child = registry.member().unwrap();
        let lives = child != me && registry.is_alive(child).unwrap() && registry.is_alive(me).unwrap();
        shared && own && guard && lives
    }));
    assert_eq!(word.load(Ordering::Relaxed), 1);
    assert_eq!(*lent, [1, 2, 3]);
    let child = registry.member_at(1).unwrap();
    assert!(registry.is_alive(me).unwrap() && !registry.is_alive(child).unwrap());
}
