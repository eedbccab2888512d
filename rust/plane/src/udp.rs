//! Sends and receives datagrams on Linux, many per call if the kernel allows it.
//!
//! `unsafe` is for socket calls with ancillary data, as no safe crate supports UDP_SEGMENT.

use std::io;
use std::mem::{size_of, zeroed};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::os::fd::AsRawFd;

use crate::sockets::{ADDRESS, Endpoint, Outgoing, Received, Source};

/// Sends `data` as datagrams of `segment` bytes, in one call if `segmentation` allows it.
///
/// If the kernel refuses to segment, the datagrams are sent one by one, and `path_refuses` is set.
/// If it refuses the sticky source, first its interface is dropped, then its address.
pub fn send_all(
    socket: &UdpSocket,
    to: &mut Endpoint,
    message: &mut Outgoing<'_>,
    segmentation: bool,
) -> io::Result<()> {
    let many = message.data.len() > message.segment;
    if many && segmentation && !message.path_refuses {
        let sent = send_sticky(socket, to, message, message.data, Some(message.segment as u16));
        // The path MTU is below the segment, or the device lacks checksum offload.
        let refusals = [libc::EMSGSIZE, libc::EINVAL, libc::EIO, libc::EOPNOTSUPP];
        match sent.as_ref().err().and_then(io::Error::raw_os_error) {
            Some(code) if refusals.contains(&code) => message.path_refuses = true,
            _ => return sent,
        }
    }
    let mut result = Ok(());
    for datagram in message.data.chunks(message.segment.max(1)) {
        result = result.and(send_sticky(socket, to, message, datagram, None));
    }
    result
}

fn send_sticky(
    socket: &UdpSocket,
    to: &mut Endpoint,
    message: &Outgoing<'_>,
    data: &[u8],
    segment: Option<u16>,
) -> io::Result<()> {
    let flags = if message.wait { 0 } else { libc::MSG_DONTWAIT };
    let held = to.source;
    let mut sent = send(socket, to, data, segment, message.tos, flags);
    for hold in [ADDRESS, 0] {
        let code = sent.as_ref().err().and_then(io::Error::raw_os_error);
        if !code.is_some_and(|code| GONE.contains(&code)) || hold >= to.sticks() {
            continue;
        }
        to.source = held.map(|source| Source { hold, ..source });
        sent = send(socket, to, data, segment, message.tos, flags);
    }
    if sent.is_err() {
        to.source = held; // the source was not the cause
    }
    sent
}

/// The kernel's errors for a source that it does not have, or that has no route.
const GONE: [i32; 6] = [
    libc::EINVAL,
    libc::EADDRNOTAVAIL,
    libc::ENETUNREACH,
    libc::EHOSTUNREACH,
    libc::EACCES,
    libc::ENODEV,
];

pub fn knows_segmentation(socket: &UdpSocket) -> bool {
    let (mut value, mut length) = (0i32, size_of::<i32>() as libc::socklen_t);
    // SAFETY: value and length are live, and the length matches the value.
    let result = unsafe {
        let value = (&raw mut value).cast();
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_UDP, libc::UDP_SEGMENT, value, &mut length)
    };
    result == 0
}

/// Room for three control messages: packet info, TOS, segment size.
#[repr(C, align(8))]
struct Control([u8; 128]);

fn send(
    socket: &UdpSocket,
    endpoint: &Endpoint,
    data: &[u8],
    segment: Option<u16>,
    tos: u8,
    flags: i32,
) -> io::Result<()> {
    let mut control = Control([0; 128]);
    let mut used = 0;
    // SAFETY: all-zero bytes are a valid value of these plain C structures.
    let mut name: libc::sockaddr_storage = unsafe { zeroed() };
    // SAFETY: as above.
    let mut header: libc::msghdr = unsafe { zeroed() };
    let name_length;
    let (local, interface) = endpoint.stuck();
    match endpoint.remote {
        SocketAddr::V4(remote) => {
            name_length = size_of::<libc::sockaddr_in>();
            let plain = libc::sockaddr_in {
                sin_family: libc::AF_INET as u16,
                sin_port: remote.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from(*remote.ip()).to_be() },
                sin_zero: [0; 8],
            };
            // SAFETY: sockaddr_storage is larger than sockaddr_in and aligned for it.
            unsafe { (&raw mut name).cast::<libc::sockaddr_in>().write(plain) };
            if local.is_some() || interface != 0 {
                let local = match local {
                    Some(IpAddr::V4(local)) => local,
                    _ => Ipv4Addr::UNSPECIFIED,
                };
                let info = libc::in_pktinfo {
                    ipi_ifindex: interface as _,
                    ipi_spec_dst: libc::in_addr { s_addr: u32::from(local).to_be() },
                    ipi_addr: libc::in_addr { s_addr: 0 },
                };
                put_control(&mut control, &mut used, libc::IPPROTO_IP, libc::IP_PKTINFO, info);
            }
            put_control(&mut control, &mut used, libc::IPPROTO_IP, libc::IP_TOS, i32::from(tos));
        }
        SocketAddr::V6(remote) => {
            name_length = size_of::<libc::sockaddr_in6>();
            let plain = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as u16,
                sin6_port: remote.port().to_be(),
                sin6_flowinfo: 0,
                sin6_addr: libc::in6_addr { s6_addr: remote.ip().octets() },
                sin6_scope_id: remote.scope_id(),
            };
            // SAFETY: sockaddr_storage is larger than sockaddr_in6 and aligned for it.
            unsafe { (&raw mut name).cast::<libc::sockaddr_in6>().write(plain) };
            if local.is_some() || interface != 0 {
                let local = match local {
                    Some(IpAddr::V6(local)) => local,
                    _ => Ipv6Addr::UNSPECIFIED,
                };
                let info = libc::in6_pktinfo {
                    ipi6_addr: libc::in6_addr { s6_addr: local.octets() },
                    ipi6_ifindex: interface as _,
                };
                let kind = libc::IPV6_PKTINFO;
                put_control(&mut control, &mut used, libc::IPPROTO_IPV6, kind, info);
            }
            let kind = libc::IPV6_TCLASS;
            put_control(&mut control, &mut used, libc::IPPROTO_IPV6, kind, i32::from(tos));
        }
    }
    if let Some(segment) = segment {
        put_control(&mut control, &mut used, libc::SOL_UDP, libc::UDP_SEGMENT, segment);
    }
    let mut part = libc::iovec { iov_base: data.as_ptr().cast_mut().cast(), iov_len: data.len() };
    header.msg_name = (&raw mut name).cast();
    header.msg_namelen = name_length as u32;
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    header.msg_control = control.0.as_mut_ptr().cast();
    header.msg_controllen = used as _; // musl: u32, not usize
    loop {
        // SAFETY: the header points to live, sized buffers, which sendmsg only reads.
        if unsafe { libc::sendmsg(socket.as_raw_fd(), &header, flags) } >= 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

fn put_control<T>(control: &mut Control, used: &mut usize, level: i32, kind: i32, value: T) {
    // SAFETY: CMSG_SPACE and CMSG_LEN only compute.
    let (space, length) =
        unsafe { (libc::CMSG_SPACE(size_of::<T>() as u32), libc::CMSG_LEN(size_of::<T>() as u32)) };
    let (space, length) = (space as usize, length as usize);
    let slot = &mut control.0[*used..*used + space];
    let header = slot.as_mut_ptr().cast::<libc::cmsghdr>();
    // SAFETY: the slot is CMSG_SPACE bytes, 8-aligned as every slot is a multiple of 8, and
    // CMSG_DATA lies CMSG_LEN - size_of::<T>() into it.
    unsafe {
        (*header).cmsg_level = level;
        (*header).cmsg_type = kind;
        (*header).cmsg_len = length as _;
        libc::CMSG_DATA(header).cast::<T>().write_unaligned(value);
    }
    *used += space;
}

/// Receives what is available, without waiting.
pub fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<Received> {
    let mut control = Control([0; 128]);
    // SAFETY: all-zero bytes are a valid value of these plain C structures.
    let mut name: libc::sockaddr_storage = unsafe { zeroed() };
    // SAFETY: as above.
    let mut header: libc::msghdr = unsafe { zeroed() };
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    header.msg_name = (&raw mut name).cast();
    header.msg_namelen = size_of::<libc::sockaddr_storage>() as u32;
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    header.msg_control = control.0.as_mut_ptr().cast();
    header.msg_controllen = control.0.len() as _;
    // SAFETY: the header points to live, sized buffers, exclusively borrowed for the call.
    let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &mut header, libc::MSG_DONTWAIT) };
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    let remote = address(&name).ok_or(io::ErrorKind::InvalidData)?;
    let mut received =
        Received { length, segment: length, source: Endpoint { remote, source: None }, tos: 0 };
    // SAFETY: recvmsg filled header and control; the macros stay within msg_controllen.
    let mut message = unsafe { libc::CMSG_FIRSTHDR(&header) };
    while !message.is_null() {
        // SAFETY: the kernel wrote a whole control message here; each arm reads, unaligned, the
        // type for its level and kind.
        unsafe {
            let data = libc::CMSG_DATA(message);
            match ((*message).cmsg_level, (*message).cmsg_type) {
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    let info = data.cast::<libc::in_pktinfo>().read_unaligned();
                    let local = Ipv4Addr::from(u32::from_be(info.ipi_spec_dst.s_addr));
                    received.source.source = Some(Source::new(local, info.ipi_ifindex as u32));
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    let info = data.cast::<libc::in6_pktinfo>().read_unaligned();
                    let local = Ipv6Addr::from(info.ipi6_addr.s6_addr);
                    let interface = info.ipi6_ifindex as u32;
                    received.source.source = Some(Source::new(local, interface));
                }
                (libc::IPPROTO_IP, libc::IP_TOS) => received.tos = data.read(),
                (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                    received.tos = data.cast::<i32>().read_unaligned() as u8;
                }
                (libc::SOL_UDP, libc::UDP_GRO) => {
                    let segment = data.cast::<i32>().read_unaligned();
                    received.segment = usize::try_from(segment).unwrap_or(length).max(1);
                }
                _ => {}
            }
            message = libc::CMSG_NXTHDR(&header, message);
        }
    }
    Ok(received)
}

fn address(name: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match i32::from(name.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says which structure the kernel wrote.
            let plain = unsafe { (&raw const *name).cast::<libc::sockaddr_in>().read() };
            let ip = Ipv4Addr::from(u32::from_be(plain.sin_addr.s_addr));
            Some(SocketAddrV4::new(ip, u16::from_be(plain.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let plain = unsafe { (&raw const *name).cast::<libc::sockaddr_in6>().read() };
            let ip = Ipv6Addr::from(plain.sin6_addr.s6_addr);
            let port = u16::from_be(plain.sin6_port);
            Some(SocketAddrV6::new(ip, port, 0, plain.sin6_scope_id).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sockets::{INTERFACE, Sockets};

    fn pair(host: &str) -> (Sockets, UdpSocket, Endpoint) {
        let ours = UdpSocket::bind((host, 0)).unwrap();
        let theirs = UdpSocket::bind((host, 0)).unwrap();
        let endpoint = Endpoint { remote: theirs.local_addr().unwrap(), source: None };
        let (v4, v6) =
            if endpoint.remote.is_ipv4() { (Some(ours), None) } else { (None, Some(ours)) };
        (Sockets::new(v4, v6, false).unwrap(), theirs, endpoint)
    }

    #[test]
    fn c078_c100_segments_arrive_one_by_one_and_a_lost_source_is_dropped() {
        for (host, gone) in [("127.0.0.1", "203.0.113.7"), ("::1", "2001:db8::7")] {
            for (path_refuses, segmentation) in [(false, true), (true, true), (false, false)] {
                let (mut sockets, theirs, mut endpoint) = pair(host);
                assert!(std::mem::replace(&mut sockets.segmentation, segmentation));
                let gone = Source::new(gone.parse::<IpAddr>().unwrap(), 1);
                endpoint.source = Some(gone);
                let data: Vec<u8> = (0..250).collect();
                let mut outgoing =
                    Outgoing { data: &data, segment: 100, tos: 2, wait: true, path_refuses };
                sockets.send(&mut endpoint, &mut outgoing).unwrap();
                assert_eq!(endpoint.sticks(), 0);
                for part in data.chunks(100) {
                    let mut buffer = [0; 2000];
                    let received = receive(&theirs, &mut buffer).unwrap();
                    assert_eq!(&buffer[..received.length], part);
                    assert_eq!(received.segment, part.len());
                }
            }
        }
    }

    /// Sending to port 0 fails (EINVAL). The source is not the cause, and stays.
    #[test]
    fn a_source_that_is_not_to_blame_stays_and_a_refusal_is_of_the_path() {
        let (sockets, _, mut endpoint) = pair("127.0.0.1");
        let source = Source::new(Ipv4Addr::LOCALHOST, 1);
        endpoint.remote.set_port(0);
        endpoint.source = Some(Source { hold: ADDRESS | INTERFACE, ..source });
        let mut outgoing = Outgoing::message(&[0; 200], 0);
        outgoing.segment = 100;
        assert!(sockets.send(&mut endpoint, &mut outgoing).is_err());
        assert!(outgoing.path_refuses && sockets.segmentation);
        assert_eq!(endpoint.sticks(), ADDRESS | INTERFACE);
    }

    /// A refused source is dropped, first its interface. The datagram is sent all the same.
    #[test]
    fn c078_a_lost_interface_is_dropped_before_the_address() {
        let no_interface = 0x7fff_fff0;
        for (host, here, gone) in
            [("127.0.0.1", "127.0.0.1", "203.0.113.7"), ("::1", "::1", "2001:db8::7")]
        {
            for (local, interface, hold, left) in [
                (here, 1, ADDRESS | INTERFACE, ADDRESS | INTERFACE),
                (here, 1, INTERFACE, INTERFACE),
                (here, no_interface, ADDRESS | INTERFACE, ADDRESS),
                (here, no_interface, INTERFACE, ADDRESS),
                (here, no_interface, ADDRESS, ADDRESS),
                (here, no_interface, 4, 0),
                (gone, no_interface, ADDRESS | INTERFACE, 0),
            ] {
                let (sockets, theirs, mut endpoint) = pair(host);
                let source = Source::new(local.parse::<IpAddr>().unwrap(), interface);
                endpoint.source = Some(Source { hold, ..source });
                sockets.send(&mut endpoint, &mut Outgoing::message(b"whole", 0)).unwrap();
                assert_eq!(endpoint.sticks(), left, "{local} {interface} {hold}");
                assert_eq!(theirs.recv(&mut [0; 9]).unwrap(), 5);
            }
        }
    }

    #[test]
    fn c079_a_missing_family_is_an_error_not_a_panic() {
        let sockets = Sockets::default();
        let remote = "192.0.2.1:1".parse().unwrap();
        let mut endpoint = Endpoint { remote, source: None };
        assert!(sockets.send(&mut endpoint, &mut Outgoing::message(b"x", 0)).is_err());
    }
}
