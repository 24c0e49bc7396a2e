//! What the kernel and the C library take for a process, with nothing around it.

use std::{
    env,
    error::Error,
    ffi::CString,
    fs::File,
    io::{Read as _, Write as _},
    os::{fd::AsRawFd as _, unix::ffi::OsStringExt as _},
    time::Instant,
};

use billiard_benches::{
    ballast::Ballast,
    forked::Forked,
    frame::{self, Answer, Request},
    timing,
};
use nix::{
    spawn::{PosixSpawnAttr, PosixSpawnFileActions},
    sys::wait::{WaitStatus, waitpid},
};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::{CHILD_ENDS, CHILD_SPEAKS, Start, WORD, expect_word};

/// `fork`, `_exit` and `waitpid` of this small process, whatever the size of the parent that the case asks for.
pub(crate) fn fork_small(request: &Request) -> Result<Answer, Box<dyn Error>> {
    match request.case.as_str() {
        "context/forkserver_start"
        | "context/forkserver_start_1gib"
        | "context/forkserver_start_join"
        | "context/forkserver_start_join_1gib" => timing::median_time(request, fork_to_wait),
        _ => Err(frame::unknown_case()),
    }
}

/// `fork` of this small process until the child's byte has come through a pipe.
pub(crate) fn fork_byte(request: &Request) -> Result<Answer, Box<dyn Error>> {
    match request.case.as_str() {
        "context/forkserver_start" | "context/forkserver_start_1gib" => {
            timing::median_time(request, fork_to_first_byte)
        }
        _ => Err(frame::unknown_case()),
    }
}

/// As [`fork_small`], of a process of the size that the case asks for.
pub(crate) fn fork_here(request: &Request) -> Result<Answer, Box<dyn Error>> {
    let _ballast = Ballast::touched(request.option("parent-mib")?)?;
    fork_small(request)
}

/// `posix_spawn` of this same program.
pub(crate) fn posix_spawn(request: &Request) -> Result<Answer, Box<dyn Error>> {
    let start: fn(&CString) -> Start = match request.case.as_str() {
        "context/spawn_start" | "context/spawn_start_1gib" => spawn_to_first_byte,
        "context/spawn_start_join" | "context/spawn_start_join_1gib" => spawn_to_wait,
        _ => return Err(frame::unknown_case()),
    };
    let program = CString::new(env::current_exe()?.into_os_string().into_vec())?;
    let _ballast = Ballast::touched(request.option("parent-mib")?)?;
    timing::median_time(request, || start(&program))
}

/// From the request until the status is here.
fn fork_to_wait() -> Start {
    let begun = Instant::now();
    let child = forked(|| true)?;
    let well = child.ends_well()?;
    Ok((begun.elapsed(), well.into()))
}

/// From the request until a byte from the child is here.
fn fork_to_first_byte() -> Start {
    let (reading, writing) = pipe_with(PipeFlags::CLOEXEC)?;
    let (mut reading, writing) = (File::from(reading), File::from(writing));
    let mut word = [0; WORD.len()];
    let begun = Instant::now();
    let child = forked(|| (&writing).write_all(&WORD).is_ok())?;
    drop(writing); // so that a child which dies without a word ends the reading
    reading.read_exact(&mut word)?;
    let time = begun.elapsed();
    expect_word(&word)?;
    Ok((time, child.ends_well()?.into()))
}

/// Forks this process, which has one thread as long as it is asked for nothing but forks.
fn forked(life: impl FnOnce() -> bool) -> nix::Result<Forked> {
    // SAFETY: as said.
    unsafe { Forked::start(life) }
}

/// From the request until the status is here.
fn spawn_to_wait(program: &CString) -> Start {
    let (actions, attributes) = (PosixSpawnFileActions::init()?, PosixSpawnAttr::init()?);
    let arguments = arguments(program, CHILD_ENDS)?;
    let variables = variables()?;
    let begun = Instant::now();
    let child = nix::spawn::posix_spawn(program.as_c_str(), &actions, &attributes, &arguments, &variables)?;
    let status = waitpid(child, None)?;
    Ok((begun.elapsed(), ended_well(status)))
}

/// From the request until a byte from the child is here.
fn spawn_to_first_byte(program: &CString) -> Start {
    let (reading, writing) = pipe_with(PipeFlags::CLOEXEC)?;
    let mut reading = File::from(reading);
    let (mut actions, attributes) = (PosixSpawnFileActions::init()?, PosixSpawnAttr::init()?);
    actions.add_dup2(writing.as_raw_fd(), 1)?;
    let arguments = arguments(program, CHILD_SPEAKS)?;
    let variables = variables()?;
    let mut word = [0; WORD.len()];
    let begun = Instant::now();
    let child = nix::spawn::posix_spawn(program.as_c_str(), &actions, &attributes, &arguments, &variables)?;
    drop(writing);
    reading.read_exact(&mut word)?;
    let time = begun.elapsed();
    expect_word(&word)?;
    Ok((time, ended_well(waitpid(child, None)?)))
}

/// What an executed child finds as its arguments.
fn arguments(program: &CString, argument: &str) -> Result<[CString; 2], Box<dyn Error>> {
    Ok([program.clone(), CString::new(argument)?])
}

/// The environment, as an executed child gets it.
fn variables() -> Result<Vec<CString>, Box<dyn Error>> {
    let variable = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        CString::new([name.into_vec(), b"=".to_vec(), value.into_vec()].concat())
    };
    Ok(env::vars_os().map(variable).collect::<Result<_, _>>()?)
}

/// 1 for a child that ended with status 0.
fn ended_well(status: WaitStatus) -> u64 {
    u64::from(matches!(status, WaitStatus::Exited(_, 0)))
}
