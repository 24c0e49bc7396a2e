//! The crate ipc-channel: bytes to another process and back, over its channels for bytes. Large ones go through shared memory.

use std::{
    env,
    error::Error,
    process::{Child, Command, ExitCode},
    time::{Duration, Instant},
};

use billiard_peers::{
    frame::{self, Answer, Request, Subject},
    timing, version_of,
};
use ipc_channel::ipc::{self, IpcBytesReceiver, IpcBytesSender, IpcOneShotServer, IpcSender};

/// What the other process is told to be.
const ECHO: &str = "echo";

/// What goes to the other process, and what comes from it.
type Ends = (IpcBytesSender, IpcBytesReceiver);

fn main() -> ExitCode {
    let mut arguments = env::args().skip(1);
    if arguments.next().as_deref() == Some(ECHO) {
        let name = arguments.next().expect("where to connect to");
        return match give_back(name) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        };
    }
    frame::answer(&[Subject { name: "ipc-channel", version: version_of("ipc-channel"), run }])
}

/// The cases that it has.
fn run(request: &Request) -> Result<Answer, Box<dyn Error>> {
    match request.case.as_str() {
        case if case.starts_with("pool/echo_") && !case.ends_with("_in_flight") => {
            let (mut child, ends) = other_process()?;
            let answer = timing::median_time(request, round_trip(request.option("bytes")?, &ends));
            drop(ends); // it ends when nobody can send
            child.wait()?;
            answer
        }
        _ => Err(frame::unknown_case()),
    }
}

/// Starts it.
fn other_process() -> Result<(Child, Ends), Box<dyn Error>> {
    let (server, name) = IpcOneShotServer::<Ends>::new()?;
    let child = Command::new(env::current_exe()?).args([ECHO, &name]).spawn()?;
    let (_, ends) = server.accept()?;
    Ok((child, ends))
}

/// Sends back what comes, in the other process.
fn give_back(name: String) -> Result<(), Box<dyn Error>> {
    let (to_this, inbox) = ipc::bytes_channel()?;
    let (outbox, from_this) = ipc::bytes_channel()?;
    let ends: Ends = (to_this, from_this);
    IpcSender::connect(name)?.send(ends)?;
    while let Ok(bytes) = inbox.recv() {
        outbox.send(&bytes)?;
    }
    Ok(())
}

/// So many bytes there and back; adds one if they came back whole.
fn round_trip(len: usize, (outbox, inbox): &Ends) -> impl FnMut() -> Result<(Duration, u64), Box<dyn Error>> {
    let mut bytes = vec![7; len];
    move || {
        let begun = Instant::now();
        outbox.send(&bytes)?;
        bytes = inbox.recv().map_err(|error| format!("{error:?}"))?;
        let elapsed = begun.elapsed();
        Ok((elapsed, u64::from(bytes.len() == len && bytes.iter().all(|&byte| byte == 7))))
    }
}
