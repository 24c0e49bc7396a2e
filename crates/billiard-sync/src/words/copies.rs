//! A value of more than eight bytes: two copies and an index. `docs/design/locks.md`, "Value".

use billiard_shm::prim::{AtomicU64, Ordering, fence, spin_loop};
use billiard_wire::fault;

/// Two copies of a value, and which of them it is.
///
/// # Peers
///
/// Whoever has the value's lock writes the copy that is not the value, then `index`. One that dies before the latter
/// leaves the old value. Readers write nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Copies<'a> {
    index: &'a AtomicU64,
    halves: [&'a [AtomicU64]; 2],
}

impl<'a> Copies<'a> {
    /// Over `words`, the first half of which is one copy.
    pub(crate) fn new(index: &'a AtomicU64, words: &'a [AtomicU64]) -> Self {
        let (even, odd) = words.split_at(words.len() / 2);
        Self { index, halves: [even, odd] }
    }

    /// Copies the value out, whole.
    pub(crate) fn read(self, into: &mut [u64]) {
        // PAIR copies.index: Acquire, of the Release store in `write`: the copy that it names is whole.
        let mut index = self.index.load(Ordering::Acquire);
        loop {
            for (to, from) in into.iter_mut().zip(self.half(index)) {
                *to = from.load(Ordering::Relaxed);
            }
            // PAIR copies.overwritten: of the fence in `write`. Who has seen a word of a later value sees a later index.
            fence(Ordering::Acquire);
            let now = self.index.load(Ordering::Acquire);
            if now == index {
                return;
            }
            index = now;
            spin_loop();
        }
    }

    /// Replaces the value. The caller has its lock.
    pub(crate) fn write(self, from: &[u64]) {
        let index = self.index.load(Ordering::Relaxed); // the lock's last owner wrote it
        // PAIR copies.overwritten: Release, after the index and before the first word.
        fence(Ordering::Release);
        let next = index.wrapping_add(1);
        for (to, from) in self.half(next).iter().zip(from) {
            fault::point("value.word");
            to.store(*from, Ordering::Relaxed);
        }
        fault::point("value.written");
        // PAIR copies.index: Release.
        self.index.store(next, Ordering::Release);
        fault::point("value.named");
    }

    fn half(&self, index: u64) -> &'a [AtomicU64] {
        self.halves[(index & 1) as usize]
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_other_copy_is_written() {
        let (index, words) = (AtomicU64::new(u64::MAX), [const { AtomicU64::new(0) }; 6]);
        let copies = Copies::new(&index, &words);
        let read = || {
            let mut into = [9; 3];
            copies.read(&mut into);
            into
        };
        copies.write(&[1, 2, 3]);
        assert_eq!((index.load(Ordering::Relaxed), read()), (0, [1, 2, 3]));
        words[4].store(9, Ordering::Relaxed); // a writer that dies in the middle
        assert_eq!(read(), [1, 2, 3]);
        copies.write(&[4, 5, 6]);
        assert_eq!(read(), [4, 5, 6]);
        let words = words.map(|word| word.into_inner());
        assert_eq!(words, [1, 2, 3, 4, 5, 6]);
    }
}

#[cfg(all(test, loom))]
mod models {
    use loom::{sync::Arc, thread};

    use super::*;

    #[test]
    fn no_reader_sees_half_a_value() {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(|| {
            let shared = Arc::new((AtomicU64::new(0), (0..4).map(|_| AtomicU64::new(0)).collect::<Vec<_>>()));
            let writer = {
                let shared = shared.clone();
                thread::spawn(move || {
                    for value in 1..4 {
                        Copies::new(&shared.0, &shared.1).write(&[value, value]); // the third overwrites the first
                    }
                })
            };
            let reader = {
                let shared = shared.clone();
                thread::spawn(move || {
                    let mut value = [8, 9];
                    Copies::new(&shared.0, &shared.1).read(&mut value);
                    assert_eq!(value[0], value[1]);
                })
            };
            reader.join().unwrap();
            writer.join().unwrap();
            let mut value = [8, 9];
            Copies::new(&shared.0, &shared.1).read(&mut value);
            assert_eq!(value, [3, 3]);
        });
    }
}
