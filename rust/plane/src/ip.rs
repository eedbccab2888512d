//! Inner IP packets: the parts of IPv4 and IPv6 that cryptokey routing, ECN and ICMP errors need.

use std::net::IpAddr;

/// The addresses and the length of a packet whose header is plausible.
pub struct Inner<'a> {
    pub source: &'a [u8],
    pub destination: &'a [u8],
    /// Header and payload; the rest is padding.
    pub length: usize,
}

/// Parses a packet. None if it is not IP, or shorter than it claims (item 58 of the kernel's
/// checks).
pub fn parse(packet: &[u8]) -> Option<Inner<'_>> {
    let (minimum, length, addresses) = match packet.first()? >> 4 {
        4 if packet.len() >= 20 => (20, usize::from(be16(packet, 2)), 12..20),
        6 if packet.len() >= 40 => (40, 40 + usize::from(be16(packet, 4)), 8..40),
        _ => return None,
    };
    if length < minimum || length > packet.len() {
        return None;
    }
    let (source, destination) = packet[addresses.clone()].split_at(addresses.len() / 2);
    Some(Inner { source, destination, length })
}

/// Converts an address of 4 or 16 bytes.
pub fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

pub fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

pub fn put_be16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

/// Returns the two ECN bits of a packet that `parse` accepted.
pub fn ecn(packet: &[u8]) -> u8 {
    match packet[0] >> 4 {
        4 => packet[1] & 3,
        _ => (packet[1] >> 4) & 3,
    }
}

/// Returns the outer TOS for an inner packet: only its ECN, with CE as ECT(0) (RFC 3168, 9.1.1).
pub fn encapsulate_ecn(packet: &[u8]) -> u8 {
    match ecn(packet) {
        3 => 2,
        ecn => ecn,
    }
}

/// Applies the outer ECN to an inner packet (RFC 6040, 4.2): congestion on the path is passed on to
/// a transport that understands it.
pub fn decapsulate_ecn(packet: &mut [u8], outer_tos: u8) {
    let combined = match (outer_tos & 3, ecn(packet)) {
        (3, 1 | 2) => 3,
        (1, 2) => 1,
        _ => return,
    };
    if packet[0] >> 4 == 4 {
        let old = be16(packet, 0);
        packet[1] = (packet[1] & !3) | combined;
        let sum = u32::from(!be16(packet, 10)) + u32::from(!old) + u32::from(be16(packet, 0));
        let sum = (sum & 0xffff) + (sum >> 16);
        put_be16(packet, 10, !((sum & 0xffff) + (sum >> 16)) as u16);
    } else {
        packet[1] = (packet[1] & !0x30) | (combined << 4);
    }
}

/// Adds up 16-bit words for an Internet checksum (RFC 1071), in native byte order and unfolded.
pub fn sum(data: &[u8]) -> u64 {
    let (pairs, rest) = data.as_chunks();
    let mut last = [0; 16];
    last[..rest.len()].copy_from_slice(rest);
    // Two chains of additions with carry.
    let (mut even, mut odd) = (0, 0);
    let mut add = |pair: &[u8; 16]| {
        let [first, second] = [0, 8].map(|at| pair[at..at + 8].try_into().expect("8 bytes"));
        even += u128::from(u64::from_ne_bytes(first));
        odd += u128::from(u64::from_ne_bytes(second));
    };
    pairs.iter().for_each(&mut add);
    add(&last);
    // 2^32 and 2^64 are 1 here. The result is short, so many of them may be added up.
    let total = even + odd;
    (total as u32 as u64) + ((total >> 32) as u32 as u64) + (total >> 64) as u64
}

/// Folds a sum into 16 bits, in native byte order.
pub fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// Adds up the pseudo-header for `length` bytes of `protocol` (RFC 9293, 3.1; RFC 8200, 8.1).
pub fn pseudo_sum(packet: &[u8], protocol: u8, length: usize) -> u64 {
    let addresses = if packet[0] >> 4 == 4 { 12..20 } else { 8..40 };
    sum(&packet[addresses])
        + u64::from(u16::from(protocol).to_be())
        + u64::from((length as u16).to_be())
}

/// Writes the checksum of an IPv4 header.
pub fn put_ipv4_checksum(header: &mut [u8]) {
    header[10..12].fill(0);
    let checksum = !fold(sum(header));
    header[10..12].copy_from_slice(&checksum.to_ne_bytes());
}

const ICMP: u8 = 1;
const UDP: u8 = 17;
const FRAGMENT: u8 = 44;
const ICMPV6: u8 = 58;

/// Returns the payload of a UDP datagram, or of its first fragment, in a packet that `parse`
/// accepted.
pub fn udp_payload(packet: &[u8]) -> Option<&[u8]> {
    let start = match packet[0] >> 4 {
        4 if packet[9] == UDP && be16(packet, 6) & 0x1fff == 0 => usize::from(packet[0] & 15) * 4,
        6 if packet[6] == UDP => 40,
        6 if packet[6] == FRAGMENT
            && packet.len() >= 48
            && packet[40] == UDP
            && be16(packet, 42) & 0xfff8 == 0 =>
        {
            48
        }
        _ => return None,
    };
    packet.get(start + 8..)
}

/// Makes the ICMP "host unreachable" or ICMPv6 "address unreachable" that answers `packet`.
///
/// It comes from the unreachable address, as an address of this host would be a martian on this
/// interface. None if RFC 1122 (3.2.2) or RFC 4443 (2.4) forbid an answer.
pub fn unreachable(packet: &[u8]) -> Option<Vec<u8>> {
    let inner = parse(packet)?;
    let mut reply;
    if inner.source.len() == 4 {
        let header = usize::from(packet[0] & 15) * 4;
        let fragment = be16(packet, 6) & 0x1fff != 0;
        let class_e_or_multicast = inner.source[0] >= 224 || inner.destination[0] >= 224;
        if header < 20 || inner.length < header || fragment || class_e_or_multicast {
            return None;
        }
        if inner.source == [0; 4] || is_icmp_error(packet[9], packet.get(header)) {
            return None;
        }
        let quoted = &packet[..inner.length.min(576 - 28)];
        reply = vec![0; 28 + quoted.len()];
        reply[0] = 0x45;
        reply[1] = packet[1] & 0x1e | 0xc0; // RFC 1812, 4.3.2.5: the packet's TOS, precedence 6
        reply[8] = 64;
        reply[9] = ICMP;
        let length = reply.len() as u16;
        put_be16(&mut reply, 2, length);
        reply[12..16].copy_from_slice(inner.destination);
        reply[16..20].copy_from_slice(inner.source);
        put_ipv4_checksum(&mut reply[..20]);
        reply[20..22].copy_from_slice(&[3, 1]);
        reply[28..].copy_from_slice(quoted);
        let checksum = !fold(sum(&reply[20..]));
        reply[22..24].copy_from_slice(&checksum.to_ne_bytes());
    } else {
        let multicast = inner.source[0] == 0xff || inner.destination[0] == 0xff;
        let (protocol, at) = behind_extensions(packet);
        if multicast || inner.source == [0; 16] || is_icmp_error(protocol, packet.get(at)) {
            return None;
        }
        let quoted = &packet[..inner.length.min(1280 - 48)];
        reply = vec![0; 48 + quoted.len()];
        reply[0] = 0x60;
        put_be16(&mut reply, 4, (8 + quoted.len()) as u16);
        reply[6] = ICMPV6;
        reply[7] = 64;
        reply[8..24].copy_from_slice(inner.destination);
        reply[24..40].copy_from_slice(inner.source);
        reply[40..42].copy_from_slice(&[1, 3]);
        reply[48..].copy_from_slice(quoted);
        let length = reply.len() - 40;
        let checksum = !fold(sum(&reply[40..]) + pseudo_sum(&reply, ICMPV6, length));
        reply[42..44].copy_from_slice(&checksum.to_ne_bytes());
    }
    Some(reply)
}

/// Returns the protocol of an IPv6 packet and where its header begins (RFC 8200, 4; kernel:
/// ipv6_skip_exthdr).
fn behind_extensions(packet: &[u8]) -> (u8, usize) {
    let (mut protocol, mut at) = (packet[6], 40);
    while let (0 | 43 | 44 | 51 | 60, Some(header)) = (protocol, packet.get(at..at + 8)) {
        at += match protocol {
            44 if be16(header, 2) & 0xfff8 != 0 => break, // a later fragment has no header
            44 => 8,
            51 => (usize::from(header[1]) + 2) * 4,
            _ => (usize::from(header[1]) + 1) * 8,
        };
        protocol = header[0];
    }
    (protocol, at)
}

/// Returns whether it is an ICMP error, or may be one because its type is unknown.
fn is_icmp_error(protocol: u8, kind: Option<&u8>) -> bool {
    match (protocol, kind) {
        (ICMP, Some(kind)) => matches!(kind, 3 | 4 | 5 | 11 | 12 | 19..),
        (ICMPV6, Some(kind)) => *kind < 128,
        (ICMP | ICMPV6, None) => true,
        _ => false,
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn ipv4(protocol: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; 20];
        packet[0] = 0x45;
        packet[6] = 0x40;
        packet[8] = 64;
        packet[9] = protocol;
        packet[12..20].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
        packet.extend_from_slice(payload);
        let length = packet.len() as u16;
        put_be16(&mut packet, 2, length);
        put_ipv4_checksum(&mut packet[..20]);
        packet
    }

    pub fn ipv6(protocol: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; 40];
        packet[0] = 0x60;
        put_be16(&mut packet, 4, payload.len() as u16);
        packet[6] = protocol;
        packet[7] = 64;
        packet[8] = 0xfd;
        packet[23] = 1;
        packet[24] = 0xfd;
        packet[39] = 2;
        packet.extend_from_slice(payload);
        packet
    }

    #[test]
    fn c058_c059_lengths_that_lie_are_refused() {
        let good = ipv4(17, &[0; 30]);
        assert_eq!(parse(&good).unwrap().length, 50);
        let padded = [good.clone(), vec![0; 14]].concat();
        assert_eq!(parse(&padded).unwrap().length, 50);
        assert!(parse(&good[..49]).is_none());
        let mut short = good.clone();
        put_be16(&mut short, 2, 19);
        assert!(parse(&short).is_none());
        let mut six = ipv6(17, &[0; 30]);
        assert_eq!(parse(&six).unwrap().length, 70);
        put_be16(&mut six, 4, 0xffff); // must not wrap to a small number
        assert!(parse(&six).is_none());
        for nonsense in [&[][..], &[0x45; 19], &[0x60; 39], &[0x00; 60], &[0x55; 60]] {
            assert!(parse(nonsense).is_none());
        }
    }

    #[test]
    fn udp_is_found_unless_in_a_later_fragment() {
        let datagram = [&[0; 8][..], b"message"].concat();
        let fragment = |more: &[u8; 4]| [&[UDP, 0][..], &more[2..], &[0; 4], &datagram].concat();
        let v4 = |offset: u16| {
            let mut packet = ipv4(UDP, &datagram);
            put_be16(&mut packet, 6, offset);
            packet
        };
        let mut options = [&v4(0)[..20], &[1; 4], &datagram].concat();
        options[0] = 0x46;
        let first = fragment(&1u32.to_be_bytes());
        for packet in [v4(0), v4(0x2000), options, ipv6(UDP, &datagram), ipv6(FRAGMENT, &first)] {
            assert_eq!(udp_payload(&packet), Some(&b"message"[..]));
        }
        let later = fragment(&8u32.to_be_bytes());
        for packet in [v4(1), ipv4(6, &datagram), ipv6(6, &datagram), ipv6(FRAGMENT, &later)] {
            assert_eq!(udp_payload(&packet), None);
        }
        for short in [ipv4(UDP, &[0; 7]), ipv6(UDP, &[]), ipv6(FRAGMENT, &[UDP])] {
            assert_eq!(udp_payload(&short), None);
        }
    }

    #[test]
    fn c099_ecn_follows_rfc_3168_and_rfc_6040() {
        let mut packet = ipv4(17, &[0; 8]);
        for (inner, outer) in [(0, 0), (1, 1), (2, 2), (3, 2), (0xb8, 0), (0xbb, 2)] {
            packet[1] = inner;
            assert_eq!(encapsulate_ecn(&packet), outer);
        }
        for make in [ipv4 as fn(u8, &[u8]) -> Vec<u8>, ipv6] {
            for (outer, inner, result) in
                [(3, 2, 3), (3, 1, 3), (3, 0, 0), (1, 2, 1), (2, 1, 1), (0, 2, 2), (3, 3, 3)]
            {
                let mut packet = make(17, &[0; 8]);
                let four = packet[0] >> 4 == 4;
                let at = if four { inner } else { inner << 4 };
                packet[1] |= at;
                if four {
                    put_ipv4_checksum(&mut packet[..20]);
                }
                decapsulate_ecn(&mut packet, outer);
                assert_eq!(ecn(&packet), result, "outer {outer} inner {inner}");
                if four {
                    assert_eq!(fold(sum(&packet[..20])), 0xffff);
                }
            }
        }
    }

    #[test]
    fn c089_unreachable_answers_and_quotes() {
        let mut packet = ipv4(17, &[7; 900]);
        packet[1] = 0xb9;
        let reply = unreachable(&packet).unwrap();
        assert_eq!(reply[1], 0xd8);
        assert_eq!(&reply[12..20], &[10, 0, 0, 2, 10, 0, 0, 1]);
        assert_eq!(&reply[20..22], &[3, 1]);
        assert_eq!(reply.len(), 576);
        assert_eq!(fold(sum(&reply[..20])), 0xffff);
        assert_eq!(fold(sum(&reply[20..])), 0xffff);
        assert_eq!(&reply[28..], &packet[..548]);
        let reply = unreachable(&ipv6(17, &[7; 900])).unwrap();
        assert_eq!(&reply[40..42], &[1, 3]);
        let total = sum(&reply[40..]) + pseudo_sum(&reply, ICMPV6, reply.len() - 40);
        assert_eq!(fold(total), 0xffff);
    }

    #[test]
    fn c090_no_icmp_about_errors_behind_extension_headers() {
        for (protocol, header) in [
            (0, vec![ICMPV6, 0, 1, 4, 0, 0, 0, 0]),
            (43, [ICMPV6, 2, 4, 0].repeat(6)),
            (44, vec![ICMPV6, 0, 0, 1, 0, 0, 0, 7]),
            (51, [ICMPV6, 1, 0, 0].repeat(3)),
            (60, [vec![44, 0, 1, 4, 0, 0, 0, 0], vec![ICMPV6, 0, 0, 0, 0, 0, 0, 7]].concat()),
        ] {
            for (kind, answered) in [(1, false), (128, true)] {
                let packet = ipv6(protocol, &[&header[..], &[kind, 0, 0, 0]].concat());
                assert_eq!(unreachable(&packet).is_some(), answered, "{protocol} {kind}");
            }
        }
        let later_fragment = ipv6(44, &[ICMPV6, 0, 0, 9, 0, 0, 0, 7, 1, 0, 0, 0]);
        assert!(unreachable(&later_fragment).is_some());
        for length in 0..8 {
            assert!(unreachable(&ipv6(0, &[ICMPV6; 8][..length])).is_some());
        }
    }

    #[test]
    fn c090_no_icmp_about_icmp_errors_fragments_or_multicast() {
        assert!(unreachable(&ipv4(ICMP, &[3, 1, 0, 0])).is_none());
        assert!(unreachable(&ipv4(ICMP, &[8, 0, 0, 0])).is_some());
        assert!(unreachable(&ipv6(ICMPV6, &[1, 3, 0, 0])).is_none());
        assert!(unreachable(&ipv6(ICMPV6, &[128, 0, 0, 0])).is_some());
        assert!(unreachable(&ipv4(ICMP, &[18, 0, 0, 0])).is_some());
        assert!(unreachable(&ipv4(ICMP, &[42, 0, 0, 0])).is_none());
        let mut fragment = ipv4(17, &[0; 8]);
        fragment[7] = 1;
        assert!(unreachable(&fragment).is_none());
        let mut multicast = ipv4(17, &[0; 8]);
        multicast[16] = 224;
        assert!(unreachable(&multicast).is_none());
        assert!(unreachable(b"no packet").is_none());
    }
}
