//! The TUN device: frames in and out, and the descriptors that threads wait on.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, fcntl_dupfd_cloexec, ioctl_fionbio, read, write};

use crate::offload::VNET_HEADER;

/// A device that Python opened and configured. Frames always carry a virtio header here: for a
/// device without, it is put in front on reading and left out on writing.
pub struct Tun {
    fd: OwnedFd,
    pub vnet_header: bool,
    /// The kernel takes UDP super-packets too (USO, Linux 6.2).
    pub uso: bool,
}

/// What a read brought.
pub enum Frame {
    Length(usize),
    Nothing,
    /// The device is gone.
    Lost,
}

impl Tun {
    pub fn new(fd: OwnedFd, vnet_header: bool, uso: bool) -> io::Result<Self> {
        ioctl_fionbio(&fd, true)?;
        Ok(Tun { fd, vnet_header, uso })
    }

    /// Reads a frame without waiting.
    pub fn read(&self, frame: &mut [u8]) -> Frame {
        let skip = self.skip();
        frame[..skip].fill(0);
        match read(&self.fd, &mut frame[skip..]) {
            Ok(length) if length > 0 => Frame::Length(skip + length),
            // EIO is what a device answers while it is down.
            Err(Errno::AGAIN | Errno::INTR | Errno::IO) => Frame::Nothing,
            Ok(_) | Err(_) => Frame::Lost,
        }
    }

    /// Writes a frame; a device that is down or full loses it, as a network card does.
    pub fn write(&self, frame: &[u8]) {
        let _ = write(&self.fd, &frame[self.skip()..]);
    }

    fn skip(&self) -> usize {
        if self.vnet_header { 0 } else { VNET_HEADER }
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Waits until one of the descriptors is readable or broken; the answer is in their order.
pub fn wait<const N: usize>(fds: [Option<BorrowedFd<'_>>; N]) -> [bool; N] {
    let mut set: Vec<PollFd<'_>> =
        fds.iter().flatten().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
    let _ = poll(&mut set, None); // EINTR reads as: nothing yet
    let mut ready = set.iter().map(|fd| !fd.revents().is_empty());
    fds.map(|fd| fd.is_some() && ready.next().unwrap_or(false))
}

/// A close-on-exec duplicate, so that a number closed and reused by Python never gets a packet.
pub fn duplicate(fd: RawFd) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(Errno::BADF.into());
    }
    // SAFETY: the borrow lasts for this call; a number that is not open only yields EBADF.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    Ok(fcntl_dupfd_cloexec(borrowed, 0)?)
}
