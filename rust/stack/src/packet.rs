//! The parts of IP, TCP, UDP and ICMP headers that the stack itself reads and writes.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use plane::ip::{self, be16, put_be16};
use plane::offload::VNET_HEADER;

pub const ICMP: u8 = 1;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const ICMPV6: u8 = 58;

pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const ACK: u8 = 0x10;

const NEEDS_CSUM: u8 = 1;
const DATA_VALID: u8 = 2;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;

const OPTION_MSS: u8 = 2;
const OPTION_SCALE: u8 = 3;
const OPTION_SACK: u8 = 5;

/// The length of an IP header without options.
pub fn ip_header(address: &IpAddr) -> usize {
    if address.is_ipv4() { 20 } else { 40 }
}

/// A connection, or the flow of a datagram, from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tuple {
    pub local: SocketAddr,
    pub remote: SocketAddr,
}

/// An inner packet: whole, not a fragment, without extension headers.
pub struct Packet {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub protocol: u8,
    /// Where the transport header is.
    pub transport: Range<usize>,
}

impl Packet {
    /// Parses a packet and checks its IP header. None if it is malformed, a fragment, or of a
    /// protocol that is not served.
    pub fn parse(packet: &[u8]) -> Option<Packet> {
        let inner = ip::parse(packet)?;
        let (start, protocol) = if inner.source.len() == 4 {
            let header = usize::from(packet[0] & 15) * 4;
            let whole = be16(packet, 6) & 0x3fff == 0;
            let fits = header >= 20 && header <= inner.length;
            if !whole || !fits || ip::fold(ip::sum(&packet[..header])) != 0xffff {
                return None;
            }
            (header, packet[9])
        } else {
            (40, packet[6])
        };
        let v4 = inner.source.len() == 4;
        let shortest = match protocol {
            TCP => 20,
            UDP => 8,
            ICMP if v4 => 8,
            ICMPV6 if !v4 => 8,
            _ => return None,
        };
        (inner.length - start >= shortest).then_some(Packet {
            source: ip::address(inner.source)?,
            destination: ip::address(inner.destination)?,
            protocol,
            transport: start..inner.length,
        })
    }

    /// Returns whether the checksum of a TCP segment or a UDP datagram is right.
    pub fn is_intact(&self, packet: &[u8]) -> bool {
        let segment = &packet[self.transport.clone()];
        let without = self.protocol == UDP && be16(segment, 6) == 0 && self.source.is_ipv4();
        let pseudo = ip::pseudo_sum(packet, self.protocol, segment.len());
        without || ip::fold(ip::sum(segment) + pseudo) == 0xffff
    }

    /// Returns the flow of a TCP segment or a UDP datagram that came in.
    pub fn tuple(&self, packet: &[u8]) -> Tuple {
        let segment = &packet[self.transport.clone()];
        Tuple {
            local: SocketAddr::new(self.destination, be16(segment, 2)),
            remote: SocketAddr::new(self.source, be16(segment, 0)),
        }
    }
}

/// Returns whether a frame's checksums were verified when its packets were merged.
pub fn is_verified(vnet: &[u8]) -> bool {
    vnet[0] & (NEEDS_CSUM | DATA_VALID) != 0
}

/// Returns whether a packet may come from there.
pub fn is_unicast(address: &IpAddr) -> bool {
    let broadcast = matches!(address, IpAddr::V4(v4) if v4.octets()[0] >= 224);
    !(address.is_unspecified() || address.is_multicast() || address.is_loopback() || broadcast)
}

/// The header of a TCP segment.
#[derive(Clone, Copy)]
pub struct Tcp {
    pub seq: u32,
    pub ack: u32,
    /// The length of the header.
    pub header: usize,
    pub flags: u8,
    pub window: u16,
}

impl Tcp {
    /// Parses the header of a segment of at least 20 bytes.
    pub fn parse(segment: &[u8]) -> Option<Tcp> {
        let be32 = |at: usize| u32::from_be_bytes([0, 1, 2, 3].map(|byte| segment[at + byte]));
        let header = usize::from(segment[12] >> 4) * 4;
        (20..=segment.len()).contains(&header).then(|| Tcp {
            seq: be32(4),
            ack: be32(8),
            header,
            flags: segment[13] & 0x3f,
            window: be16(segment, 14),
        })
    }

    /// Returns the place of an option's value.
    fn option(&self, segment: &[u8], kind: u8) -> Option<Range<usize>> {
        let mut at = 20;
        while at + 1 < self.header {
            let length = match segment[at] {
                0 => return None,
                1 => {
                    at += 1;
                    continue;
                }
                _ => usize::from(segment[at + 1]),
            };
            if length < 2 || at + length > self.header {
                return None;
            }
            if segment[at] == kind {
                return Some(at + 2..at + length);
            }
            at += length;
        }
        None
    }

    /// Returns the maximum segment size that the segment announces.
    pub fn mss(&self, segment: &[u8]) -> Option<u16> {
        let place = self.option(segment, OPTION_MSS)?;
        (place.len() == 2).then(|| be16(segment, place.start))
    }

    /// Replaces the maximum segment size, if the segment announces one.
    pub fn set_mss(&self, segment: &mut [u8], mss: usize) {
        if let Some(place) = self.option(segment, OPTION_MSS)
            && place.len() == 2
        {
            put_be16(segment, place.start, mss.min(u16::MAX.into()) as u16);
        }
    }

    /// Returns the shift count of later windows (RFC 7323, 2.3).
    pub fn scale(&self, segment: &[u8]) -> u32 {
        let place = self.option(segment, OPTION_SCALE);
        place
            .filter(|place| place.len() == 1)
            .map_or(0, |place| segment[place.start].min(14).into())
    }

    /// Returns the blocks that were received out of order (RFC 2018).
    pub fn sacked(&self, segment: &[u8]) -> impl Iterator<Item = (u32, u32)> {
        let place = self.option(segment, OPTION_SACK).unwrap_or_default();
        let (blocks, _) = segment[place].as_chunks::<8>();
        blocks.iter().map(|block| {
            let [start, end] = [0, 4].map(|at| [0, 1, 2, 3].map(|byte| block[at + byte]));
            (u32::from_be_bytes(start), u32::from_be_bytes(end))
        })
    }
}

/// Completes a frame with a TCP segment or a UDP datagram, as the kernel leaves it to a network
/// card: the checksum field holds the pseudo-header's sum. A segment with more than `mss` bytes of
/// payload becomes a super-packet.
pub fn complete(frame: &mut [u8], mss: usize) {
    let (vnet, packet) = frame.split_at_mut(VNET_HEADER);
    let v4 = packet[0] >> 4 == 4;
    let (start, protocol) = if v4 { (20, packet[9]) } else { (40, packet[6]) };
    let offset = match protocol {
        TCP => 16,
        UDP => 6,
        _ => return,
    };
    let length = packet.len() - start;
    let pseudo = ip::fold(ip::pseudo_sum(packet, protocol, length));
    let segment = &mut packet[start..];
    segment[offset..offset + 2].copy_from_slice(&pseudo.to_ne_bytes());
    vnet[0] = NEEDS_CSUM;
    let mut put = |at: usize, value: usize| {
        vnet[at..at + 2].copy_from_slice(&(value as u16).to_ne_bytes());
    };
    put(6, start);
    put(8, offset);
    let header = if protocol == TCP { usize::from(segment[12] >> 4) * 4 } else { 8 };
    if protocol == TCP && length - header > mss {
        put(2, start + header);
        put(4, mss);
        vnet[1] = if v4 { GSO_TCPV4 } else { GSO_TCPV6 };
    }
}

/// Writes an IP header for a payload, and returns the frame with room for it.
fn frame(source: IpAddr, destination: IpAddr, protocol: u8, payload: usize) -> Vec<u8> {
    let header = ip_header(&source);
    let mut frame = vec![0; VNET_HEADER + header + payload];
    let packet = &mut frame[VNET_HEADER..];
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            packet[0] = 0x45;
            put_be16(packet, 2, (header + payload) as u16);
            packet[6] = 0x40; // it must not be fragmented
            packet[8] = 64;
            packet[9] = protocol;
            packet[12..16].copy_from_slice(&source.octets());
            packet[16..20].copy_from_slice(&destination.octets());
            ip::put_ipv4_checksum(&mut packet[..20]);
        }
        (source, destination) => {
            let octets = |address| match address {
                IpAddr::V6(v6) => v6.octets(),
                IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            };
            packet[0] = 0x60;
            put_be16(packet, 4, payload as u16);
            packet[6] = protocol;
            packet[7] = 64;
            packet[8..24].copy_from_slice(&octets(source));
            packet[24..40].copy_from_slice(&octets(destination));
        }
    }
    frame
}

/// Makes the frame of a UDP datagram that fits into the MTU.
pub fn datagram(flow: &Tuple, payload: &[u8]) -> Vec<u8> {
    let mut frame = frame(flow.local.ip(), flow.remote.ip(), UDP, 8 + payload.len());
    let segment = &mut frame[VNET_HEADER + ip_header(&flow.local.ip())..];
    put_be16(segment, 0, flow.local.port());
    put_be16(segment, 2, flow.remote.port());
    put_be16(segment, 4, (8 + payload.len()) as u16);
    segment[8..].copy_from_slice(payload);
    complete(&mut frame, usize::MAX);
    frame
}

/// Makes a packet as the other side would send it: an acknowledgement without payload.
pub fn acknowledgement(flow: &Tuple, seq: u32, ack: u32, window: u16) -> Vec<u8> {
    let mut frame = frame(flow.remote.ip(), flow.local.ip(), TCP, 20);
    let mut packet = frame.split_off(VNET_HEADER);
    let segment = &mut packet[ip_header(&flow.local.ip())..];
    put_be16(segment, 0, flow.remote.port());
    put_be16(segment, 2, flow.local.port());
    segment[4..8].copy_from_slice(&seq.to_be_bytes());
    segment[8..12].copy_from_slice(&ack.to_be_bytes());
    segment[12] = 5 << 4;
    segment[13] = ACK;
    put_be16(segment, 14, window);
    packet
}

/// What an ICMP error says about a packet that was sent from here.
pub struct Unreachable {
    pub protocol: u8,
    pub flow: Tuple,
    /// The sequence number of a TCP segment.
    pub seq: u32,
    pub reason: Reason,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    Port,
    Host,
    Network,
    /// The packet is larger than this MTU of a hop.
    TooBig(usize),
}

impl Unreachable {
    /// Parses an ICMP or ICMPv6 message. None if it is not an error, or about none of our flows.
    pub fn parse(packet: &[u8], parsed: &Packet) -> Option<Unreachable> {
        let message = &packet[parsed.transport.clone()];
        let (kind, code) = (message[0], message[1]);
        let intact = |pseudo| ip::fold(ip::sum(message) + pseudo) == 0xffff;
        let reason = if parsed.protocol == ICMP && intact(0) {
            match (kind, code) {
                (3, 0 | 5 | 6 | 9 | 11) => Reason::Network,
                (3, 2 | 3) => Reason::Port,
                (3, 4) => Reason::TooBig(be16(message, 6).into()),
                (3, _) => Reason::Host,
                _ => return None,
            }
        } else if parsed.protocol == ICMPV6 && intact(ip::pseudo_sum(packet, ICMPV6, message.len()))
        {
            match (kind, code) {
                (1, 0) => Reason::Network,
                (1, 4) => Reason::Port,
                (1, _) => Reason::Host,
                (2, _) if be16(message, 4) == 0 => Reason::TooBig(be16(message, 6).into()),
                _ => return None,
            }
        } else {
            return None;
        };
        // The beginning of the packet that was sent; its length is larger than what is here.
        let quoted = &message[8..];
        let (header, protocol, addresses) = match quoted.first()? >> 4 {
            4 if quoted.len() >= 20 => (usize::from(quoted[0] & 15) * 4, quoted[9], 12..20),
            6 if quoted.len() >= 40 => (40, quoted[6], 8..40),
            _ => return None,
        };
        let ports = quoted.get(header..header + 8)?;
        let (source, destination) = quoted[addresses.clone()].split_at(addresses.len() / 2);
        let flow = Tuple {
            local: SocketAddr::new(ip::address(source)?, be16(ports, 0)),
            remote: SocketAddr::new(ip::address(destination)?, be16(ports, 2)),
        };
        let seq = u32::from_be_bytes([ports[4], ports[5], ports[6], ports[7]]);
        Some(Unreachable { protocol, flow, seq, reason })
    }
}
