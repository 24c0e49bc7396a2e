//! The words that the pool and all workers write, and every step on them. The tables of states, and what is found after a death or a stop between any two
//! steps: `docs/design/job-table.md`. Nothing here trusts what it reads: any word may hold anything, and the worst is that nothing is found.

use billiard_shm::{
    futex::{Deadline, Futex},
    prim::{AtomicU32, AtomicU64, Ordering, fence, full_fence, spin_loop},
};
use billiard_wire::fault;

use super::word::{GENERATION_BITS, Phase, Word};

/// How many seats there can be.
pub(crate) const MAX_SEATS: usize = if cfg!(loom) { 64 } else { 1024 };
/// How many slots there can be.
pub(crate) const MAX_SLOTS: usize = 1 << SLOT_BITS;
pub(crate) const SLOT_BITS: u32 = 16;

/// How many cells the ring of a table with so many slots has.
pub(crate) fn cells(slots: usize) -> usize {
    (2 * slots).next_power_of_two()
}

/// Bits of [`Slot::watch`]: who is to be woken when the job is done.
pub(crate) mod watch {
    /// Callers that sleep on [`Slot::turn`](super::Slot::turn).
    pub(crate) const CALLER: u32 = 1;
    /// The supervisor.
    pub(crate) const SUPERVISOR: u32 = 2;
}

/// How many times longer a worker looks where a large argument is being copied: some 200 µs, in which several MiB are.
const LONGER: u32 = 8;

/// A seat's word: its worker sleeps.
const SLEEPING: u32 = 1;
/// A seat's word: its worker is to end when it has nothing to do. Stays.
const LEAVE: u32 = 1 << 31;

/// One job's words, on a cache line of their own.
///
/// # Peers
///
/// `word`: claim and publish by a worker, all else by the pool. `accepted`: zeroed by the pool, then by who has claimed. `watch`: by the
/// pool. `turn`: by whoever wakes. `item`: set by the pool, advanced by who has claimed, doomed by the pool. All zeros is a free slot.
#[repr(C, align(64))]
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) word: AtomicU64,
    /// When it was claimed, in nanoseconds of CLOCK_MONOTONIC; 0: just now.
    pub(crate) accepted: AtomicU64,
    pub(crate) watch: AtomicU32,
    /// What callers sleep on.
    pub(crate) turn: Futex,
    /// Of a chunk: the item that runs.
    pub(crate) item: AtomicU64,
}

/// A worker's word, on a cache line of its own. Written by the worker, and by whoever wakes it.
#[repr(C, align(64))]
#[derive(Debug)]
pub(crate) struct Seat {
    word: Futex,
}

/// A word on a cache line of its own.
#[repr(C, align(64))]
#[derive(Debug)]
pub(crate) struct Line(AtomicU64);

/// What is there once.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Head {
    /// Where the next cell goes. Written by the pool.
    tail: Line,
    /// The first cell that may be of a job that waits. Advanced by anybody.
    head: Line,
    /// Seats of workers that sleep.
    idle: [AtomicU64; MAX_SEATS / 64],
    /// Seats of workers that look for work.
    searching: [AtomicU64; MAX_SEATS / 64],
    /// 1: the supervisor sleeps, and is to be rung. Raised by it, taken down by who rings.
    asleep: AtomicU32,
    /// Raised by those who wait for a free slot, taken down by who publishes.
    room: Futex,
    /// How many arguments are being copied that will be offered in a moment. Written by the pool.
    coming: AtomicU32,
}

/// For as long as this is there, something is about to be offered.
#[derive(Debug)]
pub(crate) struct Coming<'c>(&'c AtomicU32);

impl Drop for Coming<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The words of a table on the heap: for tests.
#[cfg(test)]
#[derive(Debug)]
pub(crate) struct Words {
    head: Head,
    slots: Vec<Slot>,
    cells: Vec<AtomicU64>,
    seats: Vec<Seat>,
}

#[cfg(test)]
impl Words {
    pub(crate) fn new(slots: usize, seats: usize) -> Self {
        let zero = || AtomicU64::new(0);
        let slot =
            |_| Slot { word: zero(), accepted: zero(), watch: AtomicU32::new(0), turn: Futex::new(0), item: zero() };
        Self {
            head: Head {
                tail: Line(zero()),
                head: Line(zero()),
                idle: std::array::from_fn(|_| zero()),
                searching: std::array::from_fn(|_| zero()),
                asleep: AtomicU32::new(0),
                room: Futex::new(0),
                coming: AtomicU32::new(0),
            },
            slots: (0..slots).map(slot).collect(),
            cells: (0..cells(slots)).map(|_| zero()).collect(),
            seats: (0..seats).map(|_| Seat { word: Futex::new(0) }).collect(),
        }
    }

    pub(crate) fn control(&self) -> Control<'_> {
        Control { head: &self.head, slots: &self.slots, cells: &self.cells, seats: &self.seats }
    }
}

#[cfg(not(loom))]
mod layout {
    use billiard_shm::Words;

    use super::{Head, Line, Seat, Slot};

    // SAFETY: atomics, `repr(C)`; nobody looks at the padding; aligned to 64 bytes.
    unsafe impl Words for Slot {}
    // SAFETY: as above.
    unsafe impl Words for Seat {}
    // SAFETY: as above.
    unsafe impl Words for Line {}
    // SAFETY: as above.
    unsafe impl Words for Head {}
}

/// All of them, wherever they are. As many cells as twice the slots, rounded up to a power of two.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Control<'a> {
    pub(crate) head: &'a Head,
    pub(crate) slots: &'a [Slot],
    pub(crate) cells: &'a [AtomicU64],
    pub(crate) seats: &'a [Seat],
}

/// A job that a worker has claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) slot: usize,
    /// As much of the job's number as the words have.
    pub(crate) generation: u64,
}

/// What a worker that has nothing to do finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Job(Claim),
    /// It is to end.
    Leave,
}

fn bit(seat: usize) -> (usize, u64) {
    (seat / 64, 1 << (seat % 64))
}

impl Control<'_> {
    // ---- the ring

    /// Whether there may be a job in the ring.
    #[inline]
    fn has_work(&self) -> bool {
        // Acquire: pairs with the Release in `hint`.
        let tail = self.head.tail.0.load(Ordering::Acquire);
        self.head.head.0.load(Ordering::Relaxed) < tail
    }

    /// The cell at that position: generation and slot. Both may be anything.
    #[inline]
    fn cell(&self, position: u64) -> Claim {
        // Relaxed: `tail` was read before.
        let cell = self.cells[position as usize & (self.cells.len() - 1)].load(Ordering::Relaxed);
        let slot = (cell & (MAX_SLOTS as u64 - 1)) as usize;
        Claim { slot, generation: cell >> SLOT_BITS & ((1 << GENERATION_BITS) - 1) }
    }

    #[inline]
    pub(super) fn pass(&self, position: u64) {
        // Release: whoever finds it passed finds the claim before it.
        let _ = self.head.head.0.compare_exchange(position, position + 1, Ordering::Release, Ordering::Relaxed);
    }

    /// Puts a job that is to wait, and who watches it, into a free slot and into the ring, at `position`, which is the tail. The pool alone, one at a time.
    pub(crate) fn offer(&self, slot: usize, job: u64, watch: u32, position: u64) {
        let words = &self.slots[slot];
        words.accepted.store(0, Ordering::Relaxed);
        words.watch.store(watch, Ordering::Relaxed);
        // Release: pairs with the Acquire in `claim`: the input record is whole, and who publishes finds who watches.
        words.word.store(Word::ready(job).bits(), Ordering::Release);
        self.hint(slot, job, position);
    }

    /// Puts a job that waits into the ring, at `position`, which is the tail. The pool alone, one at a time.
    pub(crate) fn hint(&self, slot: usize, job: u64, position: u64) {
        let cell = (job & ((1 << GENERATION_BITS) - 1)) << SLOT_BITS | slot as u64;
        self.cells[position as usize & (self.cells.len() - 1)].store(cell, Ordering::Relaxed);
        // Release: pairs with the Acquire loads of the tail: the cell and the slot are there.
        self.head.tail.0.store(position + 1, Ordering::Release);
    }

    /// Where the ring begins, after passing what nobody waits in. `tail` is where it ends, and it began at `floor` or later: no more than all cells before.
    /// The pool alone, which knows both; words that say otherwise are mended.
    pub(crate) fn begin(&self, floor: u64, tail: u64) -> u64 {
        if self.head.tail.0.load(Ordering::Relaxed) != tail {
            // Release: pairs with the Acquire loads of the tail.
            self.head.tail.0.store(tail, Ordering::Release);
        }
        let mut begin = floor;
        // Who writes nonsense all the time keeps nobody here.
        for _ in 0..=self.cells.len() {
            let head = self.head.head.0.load(Ordering::Acquire);
            if head < begin || head > tail {
                let _ = self.head.head.0.compare_exchange(head, begin, Ordering::Release, Ordering::Relaxed);
                continue;
            }
            begin = head;
            if head == tail {
                break;
            }
            let cell = self.cell(head);
            match self.slots.get(cell.slot) {
                Some(slot) if slot.word.load(Ordering::Relaxed) == Word::ready(cell.generation).bits() => break,
                _ => self.pass(head),
            }
        }
        begin
    }

    /// The first cell, if there is one.
    #[inline]
    pub(super) fn front(&self) -> Option<u64> {
        // Acquire: pairs with the Release in `pass`.
        let head = self.head.head.0.load(Ordering::Acquire);
        let tail = self.head.tail.0.load(Ordering::Acquire); // pairs with the Release in `hint`
        (head < tail).then_some(head)
    }

    /// Claims the job whose cell is at that position for the worker in that seat, if it waits.
    #[inline]
    pub(super) fn take(&self, position: u64, seat: usize) -> Option<Claim> {
        let claim = self.cell(position);
        fault::point("table.claim");
        let ready = Word::ready(claim.generation).bits();
        let mine = Word::new(claim.generation, Phase::Claimed, seat as u16).bits();
        let word = &self.slots.get(claim.slot)?.word;
        // Acquire: pairs with the Release in `offer`.
        let claimed = word.load(Ordering::Relaxed) == ready
            && word.compare_exchange(ready, mine, Ordering::Acquire, Ordering::Relaxed).is_ok();
        claimed.then_some(claim)
    }

    /// Takes the next job that waits, for the worker in that seat.
    fn claim(&self, seat: usize) -> Option<Claim> {
        loop {
            let head = self.front()?;
            let claimed = self.take(head, seat);
            fault::point("table.claimed");
            self.pass(head);
            if claimed.is_some() {
                return claimed;
            }
        }
    }

    // ---- the slot word

    /// The word of a slot.
    #[inline]
    pub(crate) fn word(&self, slot: usize) -> Word {
        // Acquire: pairs with the Release in `publish`.
        Word::from_bits(self.slots[slot].word.load(Ordering::Acquire))
    }

    fn swap(&self, slot: usize, from: Word, to: Word, success: Ordering) -> bool {
        self.slots[slot].word.compare_exchange(from.bits(), to.bits(), success, Ordering::Relaxed).is_ok()
    }

    /// Whether a job is still that of the worker in that seat.
    pub(super) fn is_claimed(&self, claim: Claim, seat: usize) -> bool {
        // Relaxed: behind a fence.
        let word = self.slots[claim.slot].word.load(Ordering::Relaxed);
        word == Word::new(claim.generation, Phase::Claimed, seat as u16).bits()
    }

    /// Whether a result of the worker in that seat has not been collected.
    pub(super) fn is_done(&self, claim: Claim, seat: usize) -> bool {
        // Acquire: pairs with the Release in `free`: who has collected it has read it.
        self.word(claim.slot) == Word::new(claim.generation, Phase::Done, seat as u16)
    }

    /// The worker's result is laid down. False when the job is no longer its own: then it takes no other, and ends.
    #[must_use]
    pub(crate) fn publish(&self, claim: Claim, seat: usize) -> bool {
        let claimed = Word::new(claim.generation, Phase::Claimed, seat as u16);
        let done = Word::new(claim.generation, Phase::Done, seat as u16);
        // Release: pairs with the Acquire in `word`: the output record is whole.
        self.swap(claim.slot, claimed, done, Ordering::Release)
    }

    /// Wakes whom a job that was published, or has ended otherwise, is watched by; whether the supervisor is to be rung.
    #[must_use]
    pub(crate) fn announce(&self, slot: usize) -> bool {
        // Pairs with the fence in `watch`: either this sees the watcher, or the watcher the word.
        full_fence();
        let watchers = self.slots[slot].watch.load(Ordering::Relaxed);
        if watchers & watch::CALLER != 0 {
            self.turn(slot);
        }
        if self.head.room.load(Ordering::Relaxed) != 0 {
            self.give_room();
        }
        watchers & watch::SUPERVISOR != 0 && self.ring()
    }

    fn turn(&self, slot: usize) {
        self.slots[slot].turn.value().fetch_add(1, Ordering::Release);
        self.slots[slot].turn.wake(u32::MAX >> 1);
    }

    /// Wakes the callers that sleep on a job which has ended otherwise: its word says so by now. The pool alone.
    pub(crate) fn wake_callers(&self, slot: usize) {
        fence(Ordering::SeqCst); // pairs with the one in `watch`
        if self.slots[slot].watch.load(Ordering::Relaxed) & watch::CALLER != 0 {
            self.turn(slot);
        }
    }

    /// Ends a job before anybody has it: its slot is free.
    #[must_use]
    pub(crate) fn cancel(&self, slot: usize, job: u64) -> bool {
        self.swap(slot, Word::ready(job), Word::new(job, Phase::Free, 0), Ordering::Relaxed)
    }

    /// Ends a job that the worker in that seat has.
    #[must_use]
    pub(crate) fn doom(&self, slot: usize, job: u64, seat: u16) -> bool {
        let claimed = Word::new(job, Phase::Claimed, seat);
        self.swap(slot, claimed, Word::new(job, Phase::Doomed, seat), Ordering::Relaxed)
    }

    /// Nothing is there any more.
    pub(crate) fn free(&self, slot: usize, job: u64) {
        self.slots[slot].word.store(Word::new(job, Phase::Free, 0).bits(), Ordering::Release);
    }

    // ---- who waits for a result

    /// Notes who is to be woken; the caller looks at the word again afterwards. The pool alone.
    pub(crate) fn watch(&self, slot: usize, who: u32) {
        self.slots[slot].watch.fetch_or(who, Ordering::Relaxed);
        fence(Ordering::SeqCst); // pairs with the one in `announce`
    }

    /// Sleeps while a job `is_pending`, as its word says, until somebody wakes those who wait for it.
    pub(crate) fn wait(&self, slot: usize, is_pending: impl Fn() -> bool, deadline: Option<Deadline>) {
        let turn = &self.slots[slot].turn;
        let before = turn.load(Ordering::Acquire);
        self.watch(slot, watch::CALLER);
        if is_pending() {
            turn.wait(before, deadline);
        }
    }

    /// The supervisor is about to sleep; it looks once more afterwards.
    pub(crate) fn supervisor_sleeps(&self) {
        self.head.asleep.store(1, Ordering::Relaxed);
        fence(Ordering::SeqCst); // pairs with the one in `announce`
    }

    /// The supervisor is awake.
    pub(crate) fn supervisor_wakes(&self) {
        self.head.asleep.store(0, Ordering::Relaxed);
    }

    /// Whether the supervisor sleeps, and it is the caller's part to ring.
    pub(crate) fn ring(&self) -> bool {
        self.head.asleep.load(Ordering::Relaxed) != 0 && self.head.asleep.swap(0, Ordering::Relaxed) != 0
    }

    /// Raises the flag of those who wait for a free slot; they look once more afterwards.
    pub(crate) fn want_room(&self) {
        self.head.room.value().store(1, Ordering::Relaxed);
        fence(Ordering::SeqCst); // pairs with the one in `announce`
    }

    /// Sleeps until somebody gives room.
    pub(crate) fn wait_room(&self, deadline: Option<Deadline>) {
        self.head.room.wait(1, deadline);
    }

    /// Wakes those who wait for room.
    pub(crate) fn give_room(&self) {
        if self.head.room.value().swap(0, Ordering::Relaxed) != 0 {
            self.head.room.wake(u32::MAX >> 1);
        }
    }

    // ---- who is awake

    fn any(bits: &[AtomicU64]) -> bool {
        bits.iter().any(|bits| bits.load(Ordering::Relaxed) != 0)
    }

    /// The words that have a seat's bit.
    fn used<'b>(&self, bits: &'b [AtomicU64]) -> &'b [AtomicU64] {
        &bits[..self.seats.len().div_ceil(64)]
    }

    /// After an offer: sees to it that somebody will look. Whether a sleeper was left asleep since somebody else is searching.
    #[inline]
    pub(crate) fn rouse(&self) -> bool {
        full_fence(); // pairs with the one in `sleep`
        if !Self::any(self.used(&self.head.idle)) {
            return false;
        }
        if Self::any(self.used(&self.head.searching)) {
            return true;
        }
        self.wake_one();
        false
    }

    /// Something is being copied that will be offered: a worker that sleeps wakes up meanwhile, and waits for it a while. Until what is returned is dropped.
    pub(crate) fn coming(&self) -> Coming<'_> {
        self.head.coming.fetch_add(1, Ordering::Relaxed);
        let _ = self.rouse();
        Coming(&self.head.coming)
    }

    /// Wakes one that sleeps, by its idle bit.
    fn wake_one(&self) {
        // As often as there are seats: who writes nonsense all the time keeps nobody here.
        for _ in 0..self.seats.len() {
            let sleeper = self.used(&self.head.idle).iter().enumerate().find_map(|(index, bits)| {
                let now = bits.load(Ordering::Relaxed);
                (now != 0).then(|| (index, bits, now.trailing_zeros() as usize))
            });
            let Some((index, bits, at)) = sleeper else { return };
            let mask = 1 << at;
            if bits.fetch_and(!mask, Ordering::Relaxed) & mask == 0 {
                continue; // somebody else wakes that one
            }
            if self.wake(index * 64 + at) {
                return;
            }
            // Another who has an offer may have trusted in the searching bit that `wake` raised for a moment: this looks for a sleeper in its place. Pairs with the
            // fences in `rouse` and `sleep`: who was asleep for that other is so here.
            fence(Ordering::SeqCst);
        }
    }

    /// Wakes the worker in that seat; false when it does not sleep.
    fn wake(&self, seat: usize) -> bool {
        let Some(words) = self.seats.get(seat) else { return false };
        let (index, mask) = bit(seat);
        // Until it looks for itself, so that nobody wakes another for the same job.
        self.head.searching[index].fetch_or(mask, Ordering::Relaxed);
        match words.word.value().compare_exchange(SLEEPING, 0, Ordering::Release, Ordering::Relaxed) {
            Ok(_) => {
                words.word.wake(1);
                true
            }
            Err(_) => {
                self.head.searching[index].fetch_and(!mask, Ordering::Relaxed);
                false
            }
        }
    }

    /// Wakes a worker that sleeps, whatever the bits say: somebody may have been stopped, or have died, in whom others trusted. The pool alone, while jobs wait.
    pub(crate) fn rouse_any(&self) {
        let sleeps = |seat: &usize| self.seats[*seat].word.load(Ordering::Relaxed) == SLEEPING;
        let mut sleepers = (0..self.seats.len()).filter(sleeps).peekable();
        if sleepers.peek().is_some() {
            // Who raised these may be stopped, or dead, or have died in raising another's. Of those who run, one too many may be woken.
            self.used(&self.head.searching).iter().for_each(|bits| bits.store(0, Ordering::Relaxed));
        }
        if sleepers.any(|seat| self.wake(seat)) {
            fault::point("table.woken_late");
        }
    }

    /// The worker in that seat is to end when it has nothing to do.
    pub(crate) fn dismiss(&self, seat: usize) {
        self.seats[seat].word.value().fetch_or(LEAVE, Ordering::Release);
        self.seats[seat].word.wake(1);
    }

    /// Whether no seat has anything raised.
    #[cfg(test)]
    pub(crate) fn has_clear_seats(&self) -> bool {
        let is_clear = |seat: &Seat| seat.word.load(Ordering::Relaxed) == 0;
        self.seats.iter().all(is_clear) && !Self::any(&self.head.idle) && !Self::any(&self.head.searching)
    }

    /// Nobody is in that seat any more.
    pub(crate) fn clear_seat(&self, seat: usize) {
        let (index, mask) = bit(seat);
        self.head.idle[index].fetch_and(!mask, Ordering::Relaxed);
        self.head.searching[index].fetch_and(!mask, Ordering::Relaxed);
        self.seats[seat].word.value().store(0, Ordering::Relaxed);
    }

    // ---- the worker

    /// The next job for the worker in that seat, or that it is to end. It looks for a while, `spins` times, before it sleeps; at most `searchers` look at a time.
    pub(crate) fn next(&self, seat: usize, spins: u32, searchers: u32) -> Found {
        let (index, mask) = bit(seat);
        let mut searching = false;
        loop {
            if let Some(claim) = self.claim(seat) {
                if searching {
                    self.end_search(index, mask);
                }
                return Found::Job(claim);
            }
            if self.is_dismissed(seat) {
                self.end_search(index, mask);
                return Found::Leave;
            }
            let others: u32 =
                self.used(&self.head.searching).iter().map(|bits| bits.load(Ordering::Relaxed).count_ones()).sum();
            if searching || others < searchers {
                if !searching {
                    self.head.searching[index].fetch_or(mask, Ordering::Relaxed);
                    searching = true;
                }
                if self.look(spins) {
                    continue;
                }
            }
            self.head.searching[index].fetch_and(!mask, Ordering::Relaxed);
            self.sleep(seat, index, mask);
            searching = true; // by whoever has woken it
            self.head.searching[index].fetch_or(mask, Ordering::Relaxed);
        }
    }

    /// Looks at the ring that often, and some more where something is coming; whether there is something.
    fn look(&self, spins: u32) -> bool {
        for turn in 0..spins * LONGER {
            if self.has_work() {
                return true;
            }
            if turn >= spins && self.head.coming.load(Ordering::Relaxed) == 0 {
                return false;
            }
            spin_loop();
        }
        self.has_work()
    }

    /// A searcher has found work; or ends. If it leaves jobs that nobody looks for, it wakes another.
    fn end_search(&self, index: usize, mask: u64) {
        self.head.searching[index].fetch_and(!mask, Ordering::Relaxed);
        fault::point("table.found");
        // Pairs with the one in `rouse`: who offers either finds the bit taken down, or its offer is found here.
        fence(Ordering::SeqCst);
        if self.has_work() {
            let _ = self.rouse();
        }
    }

    fn sleep(&self, seat: usize, index: usize, mask: u64) {
        if !self.lie_down(seat) {
            return; // it is to end
        }
        fault::point("table.sleep");
        while self.sleeps(seat) {
            self.seats[seat].word.wait(SLEEPING, None);
        }
        self.head.idle[index].fetch_and(!mask, Ordering::Relaxed);
    }

    /// From now on that worker is to be woken, unless there is work; false when it is to end.
    pub(super) fn lie_down(&self, seat: usize) -> bool {
        let (index, mask) = bit(seat);
        let word = self.seats[seat].word.value();
        if word.compare_exchange(0, SLEEPING, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            return false;
        }
        self.head.idle[index].fetch_or(mask, Ordering::Relaxed);
        // Pairs with the one in `rouse`: either the offer is seen here, or the bits there.
        fence(Ordering::SeqCst);
        if self.has_work() {
            // Who is waking it already finds it awake, and wakes another.
            let _ = word.compare_exchange(SLEEPING, 0, Ordering::Relaxed, Ordering::Relaxed);
        }
        true
    }

    /// Whether it has not been woken.
    #[inline]
    pub(super) fn sleeps(&self, seat: usize) -> bool {
        // Acquire: pairs with the Release of who wakes it.
        self.seats[seat].word.load(Ordering::Acquire) == SLEEPING
    }

    /// Whether the worker in that seat is to end when it has nothing to do.
    #[inline]
    pub(super) fn is_dismissed(&self, seat: usize) -> bool {
        self.seats[seat].word.load(Ordering::Acquire) & LEAVE != 0
    }
}

#[cfg(all(test, loom))]
mod models;
