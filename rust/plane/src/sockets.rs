//! The sockets of a device, and the addresses at either end of them.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};

use rustix::fd::{BorrowedFd, OwnedFd, RawFd};
use rustix::io::Errno;

use crate::portable;
use crate::system::NO_FD;
#[cfg(target_os = "linux")]
use crate::udp;

/// The address that a peer's datagrams go to, and the source for them.
#[derive(Clone, Debug)]
pub struct Endpoint {
    pub remote: SocketAddr,
    pub source: Option<Source>,
}

/// The local address that a peer's datagram reached, the interface by which it came, and which of
/// the two stick to datagrams sent to the peer.
#[derive(Clone, Copy, Debug)]
pub struct Source {
    pub local: IpAddr,
    pub interface: u32,
    /// ADDRESS, INTERFACE and STALE; the other bits are only for Python (`tunnel.routes.Hold`).
    pub hold: u8,
}

/// The address sticks. Only it does until Python has asked for the kernel's routes.
pub const ADDRESS: u8 = 1;
pub const INTERFACE: u8 = 2;
/// Python has asked, but the mark or the sockets have changed since.
pub const STALE: u8 = 128;

impl Source {
    pub fn new(local: impl Into<IpAddr>, interface: u32) -> Self {
        Source { local: local.into(), interface, hold: ADDRESS }
    }

    pub fn is(&self, other: &Source) -> bool {
        self.interface == other.interface && self.local == other.local
    }
}

impl Endpoint {
    pub fn is(&self, other: &Endpoint) -> bool {
        let same = match (&self.source, &other.source) {
            (Some(ours), Some(theirs)) => ours.is(theirs),
            (None, None) => true,
            _ => false,
        };
        same && self.remote == other.remote
    }

    /// Returns which of ADDRESS and INTERFACE stick.
    pub fn sticks(&self) -> u8 {
        self.source.map_or(0, |source| source.hold & (ADDRESS | INTERFACE))
    }

    /// Returns the address and the interface that stick; None and 0 leave the choice to the kernel.
    #[cfg(target_os = "linux")]
    pub fn stuck(&self) -> (Option<IpAddr>, u32) {
        let sticks = self.sticks();
        let local = self.source.filter(|_| sticks & ADDRESS != 0).map(|source| source.local);
        let interface = self.source.filter(|_| sticks & INTERFACE != 0);
        (local, interface.map_or(0, |source| source.interface))
    }
}

/// The result of one receive call: a datagram, or several of one size from one source.
pub struct Received {
    pub length: usize,
    /// Bytes per datagram; the last one may be shorter.
    pub segment: usize,
    pub source: Endpoint,
    pub tos: u8,
}

/// The device's sockets, one per family; a host may lack either.
#[derive(Default)]
pub struct Sockets {
    pub v4: Option<UdpSocket>,
    pub v6: Option<UdpSocket>,
    /// The kernel supports UDP_SEGMENT (Linux 4.18) and its use is allowed. A kernel without it
    /// would ignore the request and send everything as one datagram.
    pub segmentation: bool,
    /// They are used as on any other system: see `portable`.
    pub portable: bool,
}

impl Sockets {
    pub fn new(v4: Option<UdpSocket>, v6: Option<UdpSocket>, portable: bool) -> io::Result<Self> {
        #[cfg(target_os = "linux")]
        if !portable {
            let segmentation = v4.iter().chain(&v6).all(udp::knows_segmentation);
            return Ok(Sockets { v4, v6, segmentation, portable });
        }
        let sockets = Sockets { v4, v6, segmentation: false, portable };
        sockets.each().try_for_each(|socket| socket.set_nonblocking(true))?;
        Ok(sockets)
    }

    pub fn each(&self) -> impl Iterator<Item = &UdpSocket> {
        self.v4.iter().chain(&self.v6)
    }

    /// Sends `data` as datagrams of `segment` bytes; the last one may be shorter. An error means
    /// loss.
    pub fn send(&self, to: &mut Endpoint, message: &mut Outgoing<'_>) -> io::Result<()> {
        let socket = match to.remote {
            SocketAddr::V4(_) => &self.v4,
            SocketAddr::V6(_) => &self.v6,
        };
        let Some(socket) = socket else {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        };
        #[cfg(target_os = "linux")]
        if !self.portable {
            return udp::send_all(socket, to, message, self.segmentation);
        }
        portable::send_all(socket, to.remote, message)
    }

    /// Receives what is available on one of them, without waiting.
    pub fn receive(&self, socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<Received> {
        #[cfg(target_os = "linux")]
        if !self.portable {
            return udp::receive(socket, buffer);
        }
        portable::receive(socket, buffer)
    }
}

/// The input of `Sockets::send`, and what it found out.
pub struct Outgoing<'a> {
    pub data: &'a [u8],
    pub segment: usize,
    pub tos: u8,
    /// Wait for room in the socket's buffer (back-pressure). Only for the outbound thread.
    pub wait: bool,
    pub path_refuses: bool,
}

impl<'a> Outgoing<'a> {
    /// A handshake message or a cookie reply: one datagram, dropped if there is no room.
    pub fn message(data: &'a [u8], tos: u8) -> Self {
        let segment = data.len();
        Outgoing { data, segment, tos, wait: false, path_refuses: false }
    }
}

/// Makes a close-on-exec duplicate, so that a number that Python closes and reuses gets no packets.
pub fn duplicate(fd: RawFd) -> io::Result<OwnedFd> {
    if fd == NO_FD {
        return Err(Errno::BADF.into());
    }
    // SAFETY: the borrow lasts for this call; a number that is not open only yields EBADF.
    unsafe { BorrowedFd::borrow_raw(fd) }.try_clone_to_owned()
}
