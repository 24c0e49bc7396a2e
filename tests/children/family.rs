//! A program that never stops starting children, and waits to be killed: `child-family METHOD`. A child of the helper process leaves
//! two processes of its own: one in its group, one that has left group and session and is nobody's child. Those of `fork` leave nobody.

use std::{collections::VecDeque, thread};

use billiard_context::{Context, Process, StartMethod};
use billiard_test_support::{end_after, misdeeds};

/// How many children there are at a time.
const CHILDREN: usize = 4;

fn has_descendants(_: ()) {
    misdeeds::leave_somebody(false);
    misdeeds::leave_somebody(true);
    waits(());
}

fn waits(_: ()) {
    loop {
        thread::park();
    }
}

fn main() {
    billiard_context::init();
    end_after("child-family", 60);
    let method = std::env::args().nth(1).and_then(|name| name.parse().ok()).expect("a start method");
    let function = if method == StartMethod::Fork { waits } else { has_descendants };
    let context = Context::with_method(method);
    let mut children = VecDeque::<Process>::new();
    // Two are on their way at any time.
    let mut next = context.process(function, ()).begin().expect("a start");
    loop {
        let after = context.process(function, ()).begin().expect("a start");
        children.push_back(std::mem::replace(&mut next, after).wait().expect("a child"));
        if children.len() > CHILDREN {
            children.pop_front();
        }
    }
}
