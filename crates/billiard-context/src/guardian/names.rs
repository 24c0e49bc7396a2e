//! The guardians are told of the names that the program has in the file system, and remove what it leaves. What is told is no more than a hint: whose a name
//! is, the lock of its file says.

use std::{
    os::unix::ffi::OsStrExt,
    sync::{Arc, Mutex, Weak},
    time::{Duration, Instant},
};

use billiard_connection::FrameWriter;
use billiard_wire::{
    attachments::Attachments,
    names::{self, Name, NameEvent},
};

use super::client::{Guardian, lock};
use crate::protocol::{self, FileName, Request};

/// Those that are told.
static TOLD: Mutex<Vec<Weak<Guardian>>> = Mutex::new(Vec::new());

/// How long the giver of a name waits for a guardian that does not read. It goes on without: the name stays for the next who sweeps.
const PATIENCE: Duration = Duration::from_secs(1);

/// Tells a new guardian of the names that are there, and of all that come.
pub(super) fn introduce(guardian: &Arc<Guardian>) {
    {
        let mut told = lock(&TOLD);
        told.retain(|guardian| guardian.strong_count() > 0);
        told.push(Arc::downgrade(guardian));
    }
    names::observe(|event| {
        let told: Vec<_> = lock(&TOLD).iter().filter_map(Weak::upgrade).collect();
        for guardian in told {
            match event {
                NameEvent::Giving(name) => tell(&guardian, name, true),
                NameEvent::Done(name) => tell(&guardian, name, false),
                _ => {}
            }
        }
    });
    for name in names::current() {
        tell(guardian, &name, true);
    }
}

fn tell(guardian: &Guardian, Name { path, device, inode }: &Name, given: bool) {
    if !guardian.is_usable() {
        return; // the guardian of the process that this one was forked from
    }
    let name = FileName { path: path.as_os_str().as_bytes().to_vec(), device: *device, inode: *inode };
    let request = Request::Name { name, given };
    if let Ok(message) = protocol::encode(&request, &mut Attachments::default()) {
        let mut frame = FrameWriter::typed(&message, Vec::new(), Attachments::default());
        let _ = guardian.request(&mut frame, Instant::now() + PATIENCE);
    }
}
