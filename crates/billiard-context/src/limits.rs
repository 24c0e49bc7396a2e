//! What a process is given and allowed: streams, descriptors, resource limits, priority.

use std::{
    fmt,
    fs::File,
    io::{PipeReader, PipeWriter},
    os::fd::OwnedFd,
};

use billiard_wire::Fd;
use serde::{Deserialize, Serialize};

/// Where a standard stream of a child leads.
///
/// Anything that owns a descriptor becomes one: `Stdio::from(File::create("log")?)`.
#[derive(Debug, Default)]
#[non_exhaustive]
pub enum Stdio {
    /// Where its starter's leads at the start. The default of standard output and error.
    #[default]
    Inherit,
    /// To `/dev/null`. The default of standard input.
    Null,
    /// To this program, by a pipe: [`take_stdin`](crate::Process::take_stdin) and its siblings give the other end.
    Pipe,
    /// To this file, pipe or socket.
    To(OwnedFd),
}

impl From<OwnedFd> for Stdio {
    fn from(fd: OwnedFd) -> Self {
        Self::To(fd)
    }
}

impl From<File> for Stdio {
    fn from(file: File) -> Self {
        Self::To(file.into())
    }
}

impl From<PipeReader> for Stdio {
    fn from(pipe: PipeReader) -> Self {
        Self::To(pipe.into())
    }
}

impl From<PipeWriter> for Stdio {
    fn from(pipe: PipeWriter) -> Self {
        Self::To(pipe.into())
    }
}

/// What the kernel limits for a process: [setrlimit(2)](https://man7.org/linux/man-pages/man2/setrlimit.2.html).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Resource {
    /// Address space, in bytes: allocations beyond it fail. Stacks of threads and mapped files count too.
    AddressSpace,
    /// Processor time, in seconds: SIGXCPU at the limit, then one each second, and SIGKILL at the hard limit.
    CpuTime,
    /// Open files: their numbers stay below it.
    OpenFiles,
    /// The size of a core file, in bytes; 0 for none.
    CoreFile,
    /// The size of a file that it writes, in bytes: SIGXFSZ beyond it. A value of more than 2 KiB that its function returns is written to a
    /// memory file, and fails to be encoded beyond the limit.
    FileSize,
    /// The main thread's stack, in bytes.
    Stack,
    /// Memory that may be locked, in bytes.
    LockedMemory,
    /// Processes and threads of its user, on the whole machine.
    Processes,
}

impl Resource {
    pub(crate) fn as_rustix(self) -> rustix::process::Resource {
        use rustix::process::Resource as R;
        match self {
            Self::AddressSpace => R::As,
            Self::CpuTime => R::Cpu,
            Self::OpenFiles => R::Nofile,
            Self::CoreFile => R::Core,
            Self::FileSize => R::Fsize,
            Self::Stack => R::Stack,
            Self::LockedMemory => R::Memlock,
            Self::Processes => R::Nproc,
        }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AddressSpace => "address space",
            Self::CpuTime => "processor time",
            Self::OpenFiles => "open files",
            Self::CoreFile => "size of a core file",
            Self::FileSize => "size of a file",
            Self::Stack => "stack",
            Self::LockedMemory => "locked memory",
            Self::Processes => "processes",
        })
    }
}

/// What becomes a child's own before its function is called, beside its [surroundings](crate::protocol::Surroundings).
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Attributes {
    /// Added to its starter's.
    pub(crate) niceness: Option<i32>,
    pub(crate) cpus: Option<Vec<u32>>,
    pub(crate) no_new_privileges: bool,
    /// By the number that each shall have.
    pub(crate) descriptors: Vec<(i32, Fd)>,
}

impl Attributes {
    /// The numbers that descriptors are wanted under.
    pub(crate) fn numbers(&self) -> Vec<i32> {
        self.descriptors.iter().map(|&(number, _)| number).collect()
    }
}
