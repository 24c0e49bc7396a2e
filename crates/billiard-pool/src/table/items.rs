//! Chunks: the word that says which item of a job runs, and items behind one another in bytes.

use billiard_shm::prim::Ordering;

use super::control::{Claim, Control};

/// In the word: the pool has ended the item, and the worker is to end too.
const DOOMED: u64 = 1 << 31;

/// The word for an item of the job with that number: generation 32, doomed 1, index 31 bits.
fn word(job: u64, item: usize) -> u64 {
    job << 32 | item as u64
}

impl Control<'_> {
    /// The job is to begin with that item. The pool alone, before it offers the job.
    pub(crate) fn begin_items(&self, slot: usize, job: u64, item: usize) {
        // Relaxed: the Release in `offer` is behind it.
        self.slots[slot].item.store(word(job, item), Ordering::Relaxed);
    }

    /// The item that runs; none where nobody of ours has written it.
    #[inline]
    pub(crate) fn item(&self, slot: usize, job: u64) -> Option<usize> {
        // Acquire: pairs with the Release in `advance`: the outcomes before it are whole.
        let found = self.slots[slot].item.load(Ordering::Acquire) & !DOOMED;
        (found >> 32 == job & u64::from(u32::MAX)).then_some(found as u32 as usize)
    }

    /// The worker has laid down the outcome of that item, and goes on to the next; whether items can be doomed, which is so where they have a limit. False when the item is its own no more: then it ends.
    #[inline]
    #[must_use]
    pub(crate) fn advance(&self, claim: Claim, item: usize, has_limit: bool) -> bool {
        let (from, to) = (word(claim.generation, item), word(claim.generation, item + 1));
        // Release, in both: pairs with the Acquire in `item`.
        if !has_limit {
            // Nobody dooms it: what costs most of a tiny item is this swap.
            self.slots[claim.slot].item.store(to, Ordering::Release);
            return true;
        }
        self.slots[claim.slot].item.compare_exchange(from, to, Ordering::Release, Ordering::Relaxed).is_ok()
    }

    /// Ends that item, unless it is finished.
    #[must_use]
    pub(crate) fn doom_item(&self, slot: usize, job: u64, item: usize) -> bool {
        let from = word(job, item);
        self.slots[slot].item.compare_exchange(from, from | DOOMED, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

/// In the head of an item: it has failed, and its bytes say why.
const FAILED: u32 = 1 << 31;
/// What stands in front of each item: how many bytes it has.
pub(crate) const HEAD: usize = size_of::<u32>();
/// Items begin at multiples of this, so that they are copied by words.
const ALIGN: usize = size_of::<u64>();

/// How long an item of so many bytes is altogether.
#[inline]
pub(crate) fn len_of(bytes: usize) -> usize {
    (HEAD + bytes).next_multiple_of(ALIGN)
}

/// Room for the head of an item behind others; the item goes behind it. Where it begins.
#[inline]
pub(crate) fn begin(items: &mut Vec<u8>) -> usize {
    items.extend_from_slice(&[0; HEAD]);
    items.len() - HEAD
}

/// Completes the item that begins there: its head, and what is missing up to the next. Its length is less than 2³¹.
#[inline]
pub(crate) fn seal(items: &mut Vec<u8>, begin: usize, is_failure: bool) {
    let len = items.len() - begin - HEAD;
    items.extend_from_slice(&[0; ALIGN]); // one store, where a length that varies is a call
    items.truncate(begin + len_of(len));
    if let Some(head) = items[begin..].first_chunk_mut::<HEAD>() {
        *head = (len as u32 | if is_failure { FAILED } else { 0 }).to_le_bytes();
    }
}

/// Puts an item behind others.
#[cfg(test)]
pub(crate) fn push(items: &mut Vec<u8>, is_failure: bool, bytes: &[u8]) {
    let begin = begin(items);
    items.extend_from_slice(bytes);
    seal(items, begin, is_failure);
}

/// The first item, whether it has failed, and what is behind it; none where the bytes make no sense.
#[inline]
pub(crate) fn split(items: &[u8]) -> Option<(bool, &[u8], &[u8])> {
    let about = u32::from_le_bytes(*items.first_chunk::<HEAD>()?);
    let len = (about & !FAILED) as usize;
    let rest = items.get(len_of(len)..)?;
    Some((about & FAILED != 0, &items[HEAD..HEAD + len], rest))
}

/// What is left behind so many items; none where there are not so many.
pub(crate) fn skip(items: &[u8], count: usize) -> Option<&[u8]> {
    (0..count).try_fold(items, |rest, _| split(rest).map(|(_, _, rest)| rest))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::table::control::Words;

    #[test]
    fn an_item_is_either_finished_or_doomed() {
        let words = Words::new(1, 1);
        let (control, claim) = (words.control(), Claim { slot: 0, generation: 1 << 32 | 7 });
        assert_eq!(control.item(0, 7), None, "another's");
        control.begin_items(0, claim.generation, 3);
        assert!(!control.doom_item(0, 7 + 1, 3) && !control.doom_item(0, 7, 2));
        assert!(control.advance(claim, 3, true) && !control.advance(claim, 3, true));
        assert!(!control.doom_item(0, 7, 3), "it is finished");
        assert_eq!(control.item(0, 7), Some(4));
        assert!(control.doom_item(0, 7, 4) && !control.doom_item(0, 7, 4));
        assert!(!control.advance(claim, 4, true), "it is doomed");
        assert_eq!(control.item(0, 7), Some(4));
        control.begin_items(0, claim.generation, 0);
        assert!(control.advance(claim, 0, false));
        assert_eq!(control.item(0, 7), Some(1));
    }

    #[test]
    fn items_come_back() {
        let mut items = Vec::new();
        push(&mut items, false, b"one");
        push(&mut items, true, b"");
        push(&mut items, false, b"three");
        let (failed, item, rest) = split(&items).unwrap();
        assert_eq!((failed, item), (false, &b"one"[..]));
        assert_eq!(split(rest), Some((true, &b""[..], &items[2 * ALIGN..])));
        assert_eq!(split(skip(&items, 2).unwrap()), Some((false, &b"three"[..], &b""[..])));
        assert_eq!(skip(&items, 3), Some(&b""[..]));
        assert!(items.len() == 4 * ALIGN && len_of(3) == ALIGN && len_of(5) == 2 * ALIGN && len_of(0) == ALIGN);
        assert_eq!((skip(&items, 4), split(&items[..6]), split(&items[..3])), (None, None, None));
    }
}
