//! What the book does in a given order of events.

use std::{sync::atomic::Ordering, time::Duration};

use billiard_context::task::Task;

use super::*;
use crate::table::{
    control::{Claim, Words},
    memory::Shape,
};

const MS: Nanos = 1_000_000;

/// A tiny job, one millisecond after the beginning of time.
fn submit(book: &mut Book, control: &Control<'_>, inputs: &Inputs, limit: Option<Duration>) -> Result<Ticket, Refused> {
    let (call, argument, attachments) = (Call::One(Task::from_words([1, 2])), vec![1], Attachments::default());
    let mut new = NewJob { call, argument, attachments, placed: None, limit, cell: Cell::empty(), supervised: false };
    book.submit(control, inputs, &mut new, MS, &mut Vec::new())
}

#[test]
fn what_is_cancelled_behind_a_job_that_waits_takes_no_room() {
    const SLOTS: usize = 4;
    let (words, inputs) = (Words::new(SLOTS, 1), Inputs::create(Shape { slots: SLOTS as u32, seats: 1 }).unwrap());
    let (control, mut book) = (words.control(), Book::new(SLOTS, 1));
    let first = [None, Some(Duration::from_secs(1))].map(|limit| submit(&mut book, &control, &inputs, limit).unwrap());
    for _ in 0..10 * cells(SLOTS) {
        let unwanted = submit(&mut book, &control, &inputs, Some(Duration::from_secs(2))).expect("there is room");
        let stopped = book.stop(&control, unwanted, JobError::Cancelled, false);
        assert!(matches!(stopped, Stopped::Before(_)));
    }
    assert!(book.next_deadline().is_some());
    let last =
        [submit(&mut book, &control, &inputs, None).unwrap(), submit(&mut book, &control, &inputs, None).unwrap()];
    assert_eq!(submit(&mut book, &control, &inputs, None), Err(Refused::Full), "as many as there are slots");
    // They are claimed in the order in which they came.
    for ticket in first.into_iter().chain(last) {
        let claim = std::iter::from_fn(|| control.front()).find_map(|head| {
            let claim = control.take(head, 0);
            control.pass(head);
            claim
        });
        assert_eq!(claim, Some(Claim { slot: ticket.slot, generation: ticket.job }));
    }
    assert_eq!(control.front().and_then(|head| control.take(head, 0)), None);
}

#[test]
fn a_limit_runs_from_the_claim_whoever_says_what_later() {
    let (words, inputs) = (Words::new(3, 1), Inputs::create(Shape { slots: 3, seats: 1 }).unwrap());
    let (control, mut book) = (words.control(), Book::new(3, 1));
    book.seat(WorkerId(1), Outputs::create(Shape { slots: 3, seats: 1 }).unwrap()).unwrap();
    let limits = [Some(Duration::from_millis(20)), None, Some(Duration::from_millis(5))];
    let [long, _, short] = limits.map(|limit| submit(&mut book, &control, &inputs, limit).unwrap());
    let overdue = |book: &mut Book, now| {
        let (mut ended, mut doomed) = (Vec::new(), Vec::new());
        book.overdue(&control, now, &mut ended, &mut doomed);
        (ended.len(), doomed)
    };
    assert_eq!(book.next_deadline(), Some(6 * MS), "the shortest, though it is not the first");
    assert_eq!(overdue(&mut book, 100 * MS), (0, vec![]), "nobody has begun");
    assert_eq!(book.next_deadline(), Some(105 * MS));
    // All three begin now; the worker says when for the first.
    for _ in 0..3 {
        let head = control.front().unwrap();
        assert!(control.take(head, 0).is_some());
        control.pass(head);
    }
    control.slots[long.slot].accepted.store(103 * MS, Ordering::Relaxed);
    assert_eq!(overdue(&mut book, 105 * MS), (0, vec![]));
    assert_eq!(book.next_deadline(), Some(110 * MS), "seen to have begun at 105");
    control.slots[short.slot].accepted.store(104 * MS, Ordering::Relaxed);
    control.slots[long.slot].accepted.store(200 * MS, Ordering::Relaxed);
    assert_eq!(overdue(&mut book, 110 * MS), (1, vec![WorkerId(1)]));
    assert_eq!(book.next_deadline(), Some(123 * MS), "what is said later puts nothing off");
    assert_eq!(overdue(&mut book, 122 * MS), (0, vec![]));
    assert_eq!(overdue(&mut book, 123 * MS), (1, vec![WorkerId(1)]));
    assert_eq!(book.next_deadline(), None);
}

#[test]
fn a_limit_is_kept_however_many_jobs_come_behind() {
    let (words, inputs) = (Words::new(2, 1), Inputs::create(Shape { slots: 2, seats: 1 }).unwrap());
    let (control, mut book) = (words.control(), Book::new(2, 1));
    book.seat(WorkerId(1), Outputs::create(Shape { slots: 2, seats: 1 }).unwrap()).unwrap();
    let take = || {
        let head = control.front().unwrap();
        let claim = control.take(head, 0).unwrap();
        control.pass(head);
        claim
    };
    submit(&mut book, &control, &inputs, Some(Duration::from_millis(9))).unwrap();
    take();
    for _ in 0..5 * cells(2) {
        let ticket = submit(&mut book, &control, &inputs, None).unwrap();
        assert!(control.publish(take(), 0));
        assert!(book.collect(&control, ticket).is_some());
    }
    let (mut ended, mut doomed) = (Vec::new(), Vec::new());
    book.overdue(&control, 10 * MS, &mut ended, &mut doomed);
    assert_eq!(book.next_deadline(), Some(19 * MS), "seen to have begun at 10");
    book.overdue(&control, 19 * MS, &mut ended, &mut doomed);
    assert_eq!(doomed, [WorkerId(1)]);
}

#[test]
fn whoever_collects_wakes_the_callers_that_sleep() {
    type Collect = fn(&mut Book, &Control<'_>, Ticket, &mut Vec<Ended>);
    let collectors: [Collect; 3] = [
        |book, control, _, ended| {
            let lost = WorkerLost::new(1, billiard_context::ExitStatus::unknown());
            assert!(book.audit(control, WorkerId(1), &lost, ended), "it had a job");
        },
        |book, control, _, ended| book.end_all(control, || JobError::Terminated, ended),
        |book, control, ticket, ended| {
            let value = Ok((vec![7].into(), Received::default()));
            assert!(book.arrived(control, WorkerId(1), ticket.number(), value, ended).is_none());
        },
    ];
    for (collect, output) in collectors.into_iter().zip([Output::Value(vec![7]), Output::Value(vec![7]), Output::Mail])
    {
        let (words, shape) = (Words::new(1, 1), Shape { slots: 1, seats: 1 });
        let (control, inputs, outputs) =
            (words.control(), Inputs::create(shape).unwrap(), Outputs::create(shape).unwrap());
        let mut book = Book::new(1, 1);
        book.seat(WorkerId(1), outputs.clone()).unwrap();
        let ticket = submit(&mut book, &control, &inputs, None).unwrap();
        control.watch(ticket.slot, watch::CALLER);
        let claim = control.take(control.front().unwrap(), 0).unwrap();
        assert!(outputs.write(ticket.slot, ticket.job, &output, None) && control.publish(claim, 0));
        let mut ended = Vec::new(); // and dies before it has announced it
        collect(&mut book, &control, ticket, &mut ended);
        assert!(matches!(&ended[..], [Ended { outcome: Ok((bytes, _)), .. }] if bytes[..] == [7]), "{ended:?}");
        assert_eq!(control.slots[ticket.slot].turn.load(Ordering::Relaxed), 1);
    }
}

#[test]
fn what_is_not_sent_any_more_is_dropped_by_whom_no_lock_holds() {
    let (words, inputs) = (Words::new(1, 1), Inputs::create(Shape { slots: 1, seats: 1 }).unwrap());
    let (control, mut book) = (words.control(), Book::new(1, 1));
    let (call, argument, attachments) =
        (Call::One(Task::from_words([1, 2])), vec![1; MAX_ARGUMENT + 1], Attachments::default());
    let mut new =
        NewJob { call, argument, attachments, placed: None, limit: None, cell: Cell::empty(), supervised: false };
    let ticket = book.submit(&control, &inputs, &mut new, MS, &mut Vec::new()).unwrap();
    match book.stop(&control, ticket, JobError::Cancelled, false) {
        Stopped::Before(ended) => assert!(ended.rest.is_some()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_limit_holds_for_a_job_that_is_claimed_again_after_it_was_done() {
    let (words, inputs) = (Words::new(1, 1), Inputs::create(Shape { slots: 1, seats: 1 }).unwrap());
    let (control, mut book) = (words.control(), Book::new(1, 1));
    book.seat(WorkerId(1), Outputs::create(Shape { slots: 1, seats: 1 }).unwrap()).unwrap();
    let ticket = submit(&mut book, &control, &inputs, Some(Duration::from_millis(5))).unwrap();
    let claim = control.take(control.front().unwrap(), 0).unwrap();
    let claimed = control.word(ticket.slot);
    let (mut ended, mut doomed) = (Vec::new(), Vec::new());
    book.overdue(&control, 6 * MS, &mut ended, &mut doomed);
    assert!(control.publish(claim, 0));
    book.overdue(&control, 11 * MS, &mut ended, &mut doomed);
    assert!(ended.is_empty() && doomed.is_empty(), "it is done");
    // Its worker has gone wild.
    control.slots[ticket.slot].word.store(claimed.bits(), Ordering::Relaxed);
    book.inspect(&control, 12 * MS, &mut ended, &mut doomed);
    book.overdue(&control, 12 * MS, &mut ended, &mut doomed);
    assert_eq!((ended.len(), doomed), (1, vec![WorkerId(1)]));
}

#[test]
fn a_short_limit_that_is_over_makes_nobody_look_more_often() {
    let (words, inputs) = (Words::new(3, 1), Inputs::create(Shape { slots: 3, seats: 1 }).unwrap());
    let (control, mut book) = (words.control(), Book::new(3, 1));
    let limits = [1000, 2, 2].map(|ms| Some(Duration::from_millis(ms)));
    let [_, begun, cancelled] = limits.map(|limit| submit(&mut book, &control, &inputs, limit).unwrap());
    let look = |book: &mut Book, now| book.overdue(&control, now, &mut Vec::new(), &mut Vec::new());
    look(&mut book, 3 * MS);
    assert_eq!(book.next_deadline(), Some(5 * MS));
    assert!(control.take(1, 0).is_some());
    book.note_begun(&control, begun, 4 * MS);
    assert!(matches!(book.stop(&control, cancelled, JobError::Cancelled, false), Stopped::Before(_)));
    assert!(matches!(book.stop(&control, begun, JobError::Terminated, true), Stopped::Before(_)));
    look(&mut book, 5 * MS);
    assert_eq!(book.next_deadline(), Some(1005 * MS));
}
