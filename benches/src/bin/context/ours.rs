//! This project's processes.

use std::{error::Error, time::Instant};

use billiard::{connection::Connection, context::Context};
use billiard_benches::{
    ballast::Ballast,
    frame::{self, Answer, Request},
    timing,
};

use crate::{Start, WORD, expect_word};

/// Each case, from a parent of its size.
pub(crate) fn run(request: &Request) -> Result<Answer, Box<dyn Error>> {
    let (context, start): (_, fn(&Context) -> Start) = match request.case.as_str() {
        "context/forkserver_start" | "context/forkserver_start_1gib" => (Context::forkserver(), to_first_byte),
        "context/forkserver_start_join" | "context/forkserver_start_join_1gib" => (Context::forkserver(), to_joined),
        "context/spawn_start" | "context/spawn_start_1gib" => (Context::spawn(), to_first_byte),
        "context/spawn_start_join" | "context/spawn_start_join_1gib" => (Context::spawn(), to_joined),
        _ => return Err(frame::unknown_case()),
    };
    let _ballast = Ballast::touched(request.option("parent-mib")?)?;
    timing::median_time(request, || start(&context))
}

/// The child of [`to_first_byte`].
fn speak(parent: Connection) {
    parent.send_bytes(&WORD).expect("the parent listens");
}

/// The child of [`to_joined`].
fn nothing((): ()) {}

/// From the request until a byte from the child is here.
fn to_first_byte(context: &Context) -> Start {
    let (ours, theirs) = Connection::pair()?;
    let process = context.process(speak, theirs);
    let begun = Instant::now();
    let mut process = process.start()?;
    let word = ours.recv_bytes()?;
    let time = begun.elapsed();
    expect_word(&word)?;
    Ok((time, process.join()?.success().into()))
}

/// From the request until the status is here.
fn to_joined(context: &Context) -> Start {
    let process = context.process(nothing, ());
    let begun = Instant::now();
    let mut process = process.start()?;
    let status = process.join()?;
    Ok((begun.elapsed(), status.success().into()))
}
