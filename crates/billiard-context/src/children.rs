//! The children of this process that have not ended.

use std::{
    collections::HashMap,
    fmt,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use billiard_wire::generation::Generation;

use crate::{Error, Signal, TARGET, exit::signal_bit, guardian::Guardian, oom, sys};

/// Who a child is to its starter.
pub(crate) struct Identity {
    pub(crate) name: String,
    pub(crate) daemon: bool,
    pub(crate) pid: u32,
    pub(crate) pidfd: OwnedFd,
    pub(crate) term_signal: Signal,
    /// Who reaps it; none for a child of this process itself.
    pub(crate) guardian: Option<Weak<Guardian>>,
    pub(crate) generation: Generation,
    /// The signals that it was sent from here, a bit for each.
    sent: AtomicU64,
    /// Nobody has its handle any more.
    detached: AtomicBool,
    /// Its place in the list.
    number: u64,
}

/// By number. A child leaves it with its handle; a detached one, when the list is next looked at after its end.
static CHILDREN: Mutex<Option<HashMap<u64, Arc<Identity>>>> = Mutex::new(None);

fn children() -> MutexGuard<'static, Option<HashMap<u64, Arc<Identity>>>> {
    let mut children = CHILDREN.lock().unwrap_or_else(PoisonError::into_inner);
    children.get_or_insert_default().retain(|_, child| {
        if !child.generation.is_current() {
            return false; // those that a fork has copied are not this process's
        }
        let gone = child.detached.load(Ordering::Relaxed) && !child.is_alive();
        if gone && child.own() {
            sys::end_group_and_reap(child.pidfd.as_fd(), child.pid);
        } else if gone {
            child.end_group_of_the_abandoned();
        }
        !gone
    });
    children
}

impl Identity {
    pub(crate) fn new(
        name: String,
        daemon: bool,
        pid: u32,
        pidfd: OwnedFd,
        term_signal: Signal,
        guardian: Option<&Arc<Guardian>>,
    ) -> Arc<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        oom::watch(); // from before its end
        tracing::debug!(target: TARGET, name, pid, daemon, "a process was started");
        let this = Arc::new(Self {
            name,
            daemon,
            pid,
            pidfd,
            term_signal,
            guardian: guardian.map(Arc::downgrade),
            generation: Generation::current(),
            sent: AtomicU64::new(0),
            detached: AtomicBool::new(false),
            number: COUNT.fetch_add(1, Ordering::Relaxed),
        });
        children().get_or_insert_default().insert(this.number, this.clone());
        this
    }

    pub(crate) fn is_alive(&self) -> bool {
        !sys::is_readable(self.pidfd.as_fd())
    }

    fn own(&self) -> bool {
        self.guardian.is_none()
    }

    /// Ends what is left of its group where the guardian that would have done so is dead.
    fn end_group_of_the_abandoned(&self) {
        let guardian = self.guardian.as_ref().and_then(Weak::upgrade);
        if guardian.is_some_and(|guardian| guardian.is_dead()) {
            // The child itself dies by its parent-death signal, unless it has changed its user.
            sys::signal_group_of(self.pidfd.as_fd(), self.pid, Signal::KILL);
            let _ = sys::signal(self.pidfd.as_fd(), Signal::KILL);
        }
    }

    /// Sends it a signal; one that has ended is no error.
    pub(crate) fn signal(&self, signal: Signal) -> Result<(), Error> {
        self.generation.check_current()?;
        if self.is_alive() {
            self.note_sent(signal);
            sys::signal(self.pidfd.as_fd(), signal)?;
        }
        Ok(())
    }

    /// Asks it to end, and lets it go on so that it hears it.
    pub(crate) fn terminate(&self) -> Result<(), Error> {
        self.signal(self.term_signal)?;
        self.signal(Signal::CONT)
    }

    pub(crate) fn note_sent(&self, signal: Signal) {
        self.sent.fetch_or(signal_bit(signal.as_raw()), Ordering::Relaxed);
    }

    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    pub(crate) fn detach(&self) {
        self.detached.store(true, Ordering::Relaxed);
    }

    /// Its handle is dropped.
    pub(crate) fn forget(&self) {
        // In a copy of the process the list may be locked for ever.
        if self.generation.is_current() && !self.detached.load(Ordering::Relaxed) {
            children().get_or_insert_default().remove(&self.number);
        }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("name", &self.name).field("pid", &self.pid).finish_non_exhaustive()
    }
}

/// A guardian was found dead: nobody else ends what its children have started.
pub(crate) fn end_groups_of_the_abandoned() {
    children().get_or_insert_default().values().for_each(|child| child.end_group_of_the_abandoned());
}

/// A child of this process, whoever has its [`Process`](crate::Process).
#[derive(Clone, Debug)]
pub struct ActiveChild(Arc<Identity>);

/// The children of this process that have not ended, detached ones included:
/// [`multiprocessing.active_children`](https://docs.python.org/3/library/multiprocessing.html#multiprocessing.active_children). In the order in
/// which they were started.
#[must_use]
pub fn active_children() -> Vec<ActiveChild> {
    let all: Vec<_> = children().get_or_insert_default().values().cloned().collect();
    let mut alive: Vec<_> = all.into_iter().filter(|child| child.is_alive()).collect();
    alive.sort_by_key(|child| child.number);
    alive.into_iter().map(ActiveChild).collect()
}

impl ActiveChild {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Its pid.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.0.pid
    }

    /// Whether it was started as daemonic.
    #[must_use]
    pub fn is_daemon(&self) -> bool {
        self.0.daemon
    }

    /// Whether it has not ended yet.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.0.is_alive()
    }

    /// As [`Process::terminate`](crate::Process::terminate).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn terminate(&self) -> Result<(), Error> {
        self.0.terminate()
    }

    /// As [`Process::send_signal`](crate::Process::send_signal).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn send_signal(&self, signal: Signal) -> Result<(), Error> {
        self.0.signal(signal)
    }
}

impl AsFd for ActiveChild {
    /// The sentinel: readable once it has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.pidfd.as_fd()
    }
}
