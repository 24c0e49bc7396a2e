//! Every system call of this crate, each behind a fault point.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd},
};

use billiard_wire::{attachments, fault};
use rustix::{
    event::{PollFd, Timespec},
    io::Errno,
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
    },
};

use crate::Error;

fn checked<T>(call: &'static str, result: Result<T, Errno>) -> Result<T, Error> {
    result.map_err(|errno| Error::Io { call, source: errno.into() })
}

fn faulty(name: &'static str) -> Result<(), Errno> {
    fault::errno(name).map_err(Errno::from_raw_os_error)
}

/// A pair of connected stream sockets, both close-on-exec, and neither in the place of a standard stream.
pub(crate) fn socketpair() -> Result<(OwnedFd, OwnedFd), Error> {
    let call = || {
        faulty("sys.connection.socketpair")?;
        let (left, right) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        Ok((above_streams(left)?, above_streams(right)?))
    };
    checked("socketpair", call())
}

/// In a process that has closed its standard streams, new descriptors get their numbers.
fn above_streams(fd: OwnedFd) -> Result<OwnedFd, Errno> {
    if fd.as_raw_fd() > 2 { Ok(fd) } else { rustix::io::fcntl_dupfd_cloexec(&fd, 3) }
}

/// Whether the descriptor is a Unix stream socket.
pub(crate) fn is_unix_stream(fd: BorrowedFd<'_>) -> bool {
    rustix::net::sockopt::socket_domain(fd) == Ok(AddressFamily::UNIX)
        && rustix::net::sockopt::socket_type(fd) == Ok(SocketType::STREAM)
}

/// What a receiving call did.
pub(crate) enum Transfer {
    Bytes(usize),
    /// Bytes came, and descriptors that came with them were lost: this process may open no more.
    BytesWithout(usize),
    WouldBlock,
    /// The other end was closed, and had not read all that was sent to it.
    Reset,
}

/// One `sendmsg`: how many bytes went out, or `None` when there is no room. Never raises SIGPIPE, never waits when
/// `dont_wait`.
pub(crate) fn send(
    socket: BorrowedFd<'_>,
    parts: &[IoSlice<'_>],
    fds: &[BorrowedFd<'_>],
    dont_wait: bool,
) -> Result<Option<usize>, Error> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(attachments::MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        let fits = control.push(SendAncillaryMessage::ScmRights(fds));
        assert!(fits, "the list of attachments is limited to what one message carries");
    }
    let mut flags = SendFlags::NOSIGNAL;
    flags.set(SendFlags::DONTWAIT, dont_wait);
    loop {
        let result =
            faulty("sys.connection.sendmsg").and_then(|()| rustix::net::sendmsg(socket, parts, &mut control, flags));
        return match result {
            Ok(sent) => Ok(Some(sent)),
            Err(Errno::INTR) => continue,
            Err(Errno::AGAIN) => Ok(None),
            Err(Errno::PIPE | Errno::CONNRESET) => Err(Error::Disconnected),
            Err(errno) => checked("sendmsg", Err(errno)),
        };
    }
}

/// One `recvmsg`: descriptors are close-on-exec and added to `fds`; never waits when `dont_wait`.
pub(crate) fn recv(
    socket: BorrowedFd<'_>,
    into: &mut [u8],
    fds: &mut Vec<OwnedFd>,
    dont_wait: bool,
) -> Result<Transfer, Error> {
    let mut flags = RecvFlags::CMSG_CLOEXEC;
    flags.set(RecvFlags::DONTWAIT, dont_wait);
    loop {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(attachments::MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let result = faulty("sys.connection.recvmsg")
            .and_then(|()| rustix::net::recvmsg(socket, &mut [IoSliceMut::new(into)], &mut control, flags));
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        return match result {
            Ok(message) if message.flags.contains(ReturnFlags::CTRUNC) => Ok(Transfer::BytesWithout(message.bytes)),
            Ok(message) => Ok(Transfer::Bytes(message.bytes)),
            Err(Errno::INTR) => continue,
            Err(Errno::AGAIN) => Ok(Transfer::WouldBlock),
            Err(Errno::CONNRESET) => Ok(Transfer::Reset),
            Err(errno) => checked("recvmsg", Err(errno)),
        };
    }
}

/// Ends the connection in both directions, for whoever has either end.
pub(crate) fn shutdown(socket: BorrowedFd<'_>) -> Result<(), Error> {
    checked("shutdown", rustix::net::shutdown(socket, rustix::net::Shutdown::Both))
}

/// One `ppoll`: how many are ready. A signal counts as none.
pub(crate) fn poll(fds: &mut [PollFd<'_>], timeout: Option<&Timespec>) -> Result<usize, Error> {
    match faulty("sys.connection.ppoll").and_then(|()| rustix::event::poll(fds, timeout)) {
        Err(Errno::INTR) => Ok(0),
        result => checked("ppoll", result),
    }
}

/// Puts the end of a dead connection in the place of `socket`: the number stays valid and whoever
/// polls it from now on sees the end, while the connection itself is let go.
pub(crate) fn bury(socket: &OwnedFd) -> io::Result<()> {
    let (dead, _) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // `dup3` wants to own the number that it fills; ownership stays where it is.
    // SAFETY: the number is that of an open descriptor, which `socket` keeps open; the copy is never dropped.
    let mut place =
        std::mem::ManuallyDrop::new(unsafe { <OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(socket.as_raw_fd()) });
    Ok(rustix::io::dup3(&dead, &mut place, rustix::io::DupFlags::CLOEXEC)?)
}
