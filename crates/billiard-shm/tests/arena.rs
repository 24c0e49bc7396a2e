//! The arena: one process allocates, all use.

use std::{alloc::Layout, sync::atomic::AtomicU64};

use billiard_context::Context;
use billiard_shm::{Arena, ArenaError, Kind, MAX_ALIGN, Segment, SegmentError, View, prim::Ordering};
use billiard_test_support::Watchdog;
use billiard_wire::codec;

billiard_context::init_for_tests!();

fn layout(size: usize, align: usize) -> Layout {
    Layout::from_size_align(size, align).unwrap()
}

#[test]
fn blocks_are_zeroed_aligned_and_apart() {
    let arena = Arena::new(8 * MAX_ALIGN).unwrap();
    let mut blocks = Vec::new();
    for shift in 0..=MAX_ALIGN.ilog2() {
        let block = arena.alloc(layout(100, 1 << shift)).unwrap();
        assert_eq!((block.offset() % (1 << shift), block.len()), (0, 100));
        block.write(0, &[shift as u8; 100]).unwrap();
        blocks.push(block);
    }
    for (shift, block) in blocks.iter().enumerate() {
        let mut bytes = [0; 100];
        block.read(0, &mut bytes).unwrap();
        assert_eq!(bytes, [shift as u8; 100]);
    }
    drop(blocks);
    assert_eq!(arena.free(), 8 * MAX_ALIGN);
    let again = arena.alloc(layout(8 * MAX_ALIGN, 8)).unwrap();
    let mut bytes = [1; 5000];
    again.read(0, &mut bytes).unwrap();
    assert_eq!(bytes, [0; 5000], "what was used before is zeroed again");
}

#[test]
fn what_cannot_be_had_is_refused() {
    let arena = Arena::new(1000).unwrap();
    assert!(matches!(arena.alloc(layout(0, 1)), Err(ArenaError::ZeroLength)));
    assert!(matches!(arena.alloc(layout(1, 2 * MAX_ALIGN)), Err(ArenaError::BadAlign(_))));
    let first = arena.alloc(layout(500, 1)).unwrap();
    let _second = arena.alloc(layout(100, 1)).unwrap();
    drop(first);
    let full = arena.alloc(layout(600, 1)).unwrap_err();
    assert!(matches!(full, ArenaError::Full { asked: 600, longest: 504, free: 896 }), "{full:?}");
    let block = arena.alloc(layout(16, 8)).unwrap();
    assert!(matches!(block.write(16, b"x"), Err(SegmentError::OutOfBounds { .. })));
    assert!(matches!(block.read(usize::MAX, &mut [0; 2]), Err(SegmentError::OutOfBounds { .. })));
    assert!(matches!(block.place::<AtomicU64>(9), Err(SegmentError::OutOfBounds { .. })));
    assert!(matches!(block.place::<AtomicU64>(4), Err(SegmentError::Misaligned { .. })));
    assert!(matches!(Arena::new(0), Err(ArenaError::Segment(SegmentError::ZeroLength))));
}

fn add((view, amount): (View, u64)) -> u64 {
    view.place::<AtomicU64>(8).unwrap().fetch_add(amount, Ordering::Relaxed) + amount
}

#[test]
fn views_work_in_other_processes() {
    let _watchdog = Watchdog::start("views_work_in_other_processes", 60);
    let arena = Arena::new(1 << 16).unwrap();
    let _other = arena.alloc(layout(1000, 8)).unwrap();
    let block = arena.alloc(layout(16, 64)).unwrap();
    for context in [Context::forkserver(), Context::spawn()] {
        let mut child = context.process(add, (block.view(), 21)).start().unwrap();
        child.take_result().unwrap();
    }
    assert_eq!(block.place::<AtomicU64>(8).unwrap().load(Ordering::Relaxed), 42);
    let view = block.view();
    drop((block, arena));
    assert_eq!(add((view, 1)), 43, "a view keeps the memory");
}

#[test]
fn views_beside_the_arena_are_refused() {
    let decode = |segment: &Segment, offset: u64, len: u64| {
        let message = codec::encode(&(segment, offset, len)).unwrap();
        let fds: Vec<_> = message.attachments().fds().map(|fd| fd.try_clone_to_owned().unwrap()).collect();
        codec::decode::<View>(message.body(), &mut fds.into())
    };
    let arena = Segment::create(Kind::new("arena", 1), 100).unwrap();
    assert!(decode(&arena, 96, 4).is_ok());
    for (offset, len) in [(96, 5), (u64::MAX, 2), (0, u64::MAX), (100, 0)] {
        assert!(decode(&arena, offset, len).is_err(), "{offset} {len}");
    }
    assert!(decode(&Segment::create(Kind::new("arenas", 1), 100).unwrap(), 0, 1).is_err());
}
