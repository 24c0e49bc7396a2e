//! A chunk in a worker: one item after the other, each with an outcome of its own.

use billiard_connection::Connection;
use billiard_context::task::Outcome;
use billiard_wire::{attachments::Received, codec, fault};

use super::{failure, run, send};
use crate::{
    apart,
    table::{About, Claim, Desk, Ticket, items},
};

/// What is to be done.
#[derive(Debug)]
pub(super) struct Chunk<'a> {
    pub(super) claim: Claim,
    pub(super) job: u64,
    pub(super) about: About,
    /// All items, one behind the other.
    pub(super) argument: &'a [u8],
}

/// What is used for one item after the other.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    result: Vec<u8>,
    laid: Vec<u8>,
}

/// Runs the items that have not been run, until one has an outcome that has to go over the socket: with that the chunk is done for this time. False when the chunk is this
/// worker's no more, or there is no pool.
#[must_use]
pub(super) fn work(pool: &Connection, desk: &mut Desk, buffers: &mut Buffers, chunk: &Chunk<'_>) -> bool {
    let &Chunk { claim, job, about, argument } = chunk;
    let Some(mut item) = desk.item(claim).filter(|&item| item < about.items) else { return false };
    let Some(mut rest) = items::skip(argument, item) else { return false };
    let span = desk.room_for_items(claim);
    let room = span.map_or(0, |span| span.len());
    let (mut used, mut mailed) = (0, 0);
    // All of it may come to count, if this worker dies.
    if !desk.lay_down_items(claim, job, span, room, 0) {
        return false;
    }
    while item < about.items && mailed == 0 {
        let Some((_, argument, behind)) = items::split(rest) else { return false };
        rest = behind;
        fault::point("worker.item");
        let outcome = run(about.task, argument, Received::default(), std::mem::take(&mut buffers.result));
        fault::point("worker.item.run");
        match lay(outcome, &mut buffers.laid, room - used) {
            Ok(result) => {
                buffers.result = result;
                if span.is_none_or(|span| !desk.append(span, used, &buffers.laid)) {
                    return false;
                }
                used += buffers.laid.len();
            }
            Err(outcome) => {
                if send(pool, Ticket { slot: claim.slot, job }.number(), outcome, apart::LEAST).is_err() {
                    return false;
                }
                fault::point("worker.item.sent");
                mailed = item + 1;
                if !desk.lay_down_items(claim, job, span, used, mailed) {
                    return false;
                }
            }
        }
        if about.has_limit {
            desk.accept(claim); // of the next one; before the step to it
        }
        fault::point("worker.item.laid_down");
        if !desk.advance(claim, item) {
            return false;
        }
        fault::point("worker.item.finished");
        item += 1;
    }
    mailed > 0 || desk.lay_down_items(claim, job, span, used, 0)
}

/// The outcome as it is laid down, if there is that much room for it, and the buffer that its value was in; otherwise the outcome itself.
fn lay(outcome: Outcome, laid: &mut Vec<u8>, room: usize) -> Result<Vec<u8>, Outcome> {
    laid.clear();
    let fits = |bytes: &[u8]| bytes.len() <= room.saturating_sub(items::HEAD);
    match outcome {
        Outcome::Returned(bytes, attachments) if attachments.is_empty() && fits(&bytes) && room >= items::HEAD => {
            items::push(laid, false, &bytes);
            Ok(bytes)
        }
        Outcome::Returned(..) => Err(outcome),
        failed => {
            let failure = failure(failed);
            let encoded = codec::encode(&failure).ok().map(|encoded| encoded.into_parts().0);
            match encoded.filter(|bytes| fits(bytes) && room >= items::HEAD) {
                Some(bytes) => {
                    items::push(laid, true, &bytes);
                    Ok(bytes)
                }
                None => Err(failure.into()),
            }
        }
    }
}
