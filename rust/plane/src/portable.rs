//! What the plane needs of an operating system, with nothing that only one of them has.
//!
//! A datagram is a call, and has no ancillary data: no sticky source, no ECN, no DSCP. Other systems
//! have only this. On Linux it is used if `Plane::new` is asked for it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::sockets::{Endpoint, Outgoing, Received};

/// Whether this system has no other plane.
pub const ONLY: bool = cfg!(not(target_os = "linux"));

/// How long sending waits for room before the datagram is lost, as `linux/udp.py` has it.
const PATIENCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };

/// Sends `data` as datagrams of `segment` bytes.
pub fn send_all(socket: &UdpSocket, to: SocketAddr, message: &mut Outgoing<'_>) -> io::Result<()> {
    let mut result = Ok(());
    for datagram in message.data.chunks(message.segment.max(1)) {
        result = result.and(send(socket, to, datagram, message.wait));
    }
    result
}

fn send(socket: &UdpSocket, to: SocketAddr, datagram: &[u8], wait: bool) -> io::Result<()> {
    let sent = socket.send_to(datagram, to);
    match sent.as_ref().map_err(io::Error::kind) {
        Err(io::ErrorKind::WouldBlock) if wait => {
            let _ = poll(&mut [PollFd::new(socket, PollFlags::OUT)], Some(&PATIENCE));
            socket.send_to(datagram, to).map(drop)
        }
        _ => sent.map(drop),
    }
}

/// Receives a datagram.
pub fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<Received> {
    let (length, remote) = socket.recv_from(buffer)?;
    let source = Endpoint { remote, source: None };
    Ok(Received { length, segment: length, source, tos: 0 })
}

/// Returns the ns of a clock that never goes back. Of macOS's, it is the one that counts suspend.
#[cfg(not(any(target_os = "linux", windows)))]
pub fn now() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Returns the ns since its first call, plus one. Windows counts suspend.
#[cfg(windows)]
pub fn now() -> u64 {
    static START: std::sync::LazyLock<std::time::Instant> =
        std::sync::LazyLock::new(std::time::Instant::now);
    START.elapsed().as_nanos() as u64 + 1
}

/// There is none: Python's loop has timers.
#[cfg(not(target_os = "linux"))]
pub enum Timer {}

#[cfg(not(target_os = "linux"))]
impl Timer {
    pub fn set(&self, _deadline: u64) -> io::Result<()> {
        match *self {}
    }

    pub fn clear(&self) {
        match *self {}
    }
}

#[cfg(not(target_os = "linux"))]
impl rustix::fd::AsFd for Timer {
    fn as_fd(&self) -> rustix::fd::BorrowedFd<'_> {
        match *self {}
    }
}

/// A socket that sends to itself and receives from nobody else. It wakes who waits for it.
pub struct Loopback(pub UdpSocket);

impl Loopback {
    pub fn new() -> io::Result<Loopback> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.connect(socket.local_addr()?)?;
        socket.set_nonblocking(true)?;
        Ok(Loopback(socket))
    }

    /// Makes it readable. An error means that its buffer is full, so it is readable already.
    pub fn set(&self) {
        let _ = self.0.send(&[0]);
    }

    /// Makes it unreadable.
    pub fn clear(&self) {
        while self.0.recv(&mut [0]).is_ok() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sockets::Sockets;

    #[test]
    fn segments_are_datagrams_and_nothing_sticks() {
        for host in ["127.0.0.1", "::1"] {
            let [ours, theirs] = [(); 2].map(|()| UdpSocket::bind((host, 0)).unwrap());
            let (from, remote) = (ours.local_addr().unwrap(), theirs.local_addr().unwrap());
            let (v4, v6) = if from.is_ipv4() { (Some(ours), None) } else { (None, Some(ours)) };
            let sockets = Sockets::new(v4, v6, true).unwrap();
            let data: Vec<u8> = (0..250).collect();
            let mut message = Outgoing::message(&data, 2);
            message.segment = 100;
            sockets.send(&mut Endpoint { remote, source: None }, &mut message).unwrap();
            let mut buffer = [0; 2000];
            for part in data.chunks(100) {
                let received = receive(&theirs, &mut buffer).unwrap();
                assert_eq!(&buffer[..received.length], part);
                assert_eq!((received.segment, received.tos), (part.len(), 0));
                assert!(received.source.is(&Endpoint { remote: from, source: None }));
            }
            let socket = sockets.each().next().unwrap();
            let nothing = sockets.receive(socket, &mut buffer).map(|_| ()).unwrap_err();
            assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        }
    }

    /// More than any buffer holds is signalled, and one wake-up takes it all.
    #[test]
    fn a_loopback_is_readable_until_it_is_cleared_and_only_its_owner_sets_it() {
        let loopback = Loopback::new().unwrap();
        let readable = || loopback.0.peek(&mut [0]).is_ok();
        let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
        stranger.send_to(b"x", loopback.0.local_addr().unwrap()).unwrap();
        assert!(!readable());
        for count in [1, 2, 9000] {
            (0..count).for_each(|_| loopback.set());
            assert!(readable(), "{count}");
            loopback.clear();
            assert!(!readable(), "{count}");
        }
    }

    #[test]
    fn the_clock_goes_on() {
        let before = crate::system::now();
        std::thread::sleep(std::time::Duration::from_millis(2));
        assert!(crate::system::now() - before >= 2_000_000 && before > 0);
    }
}
