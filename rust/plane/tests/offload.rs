//! Compares splitting and merging with a slow, simple reference, byte for byte, for all kinds of
//! packets.
//!
//! The reference shares no code with the product. It builds each packet from its fields, and a
//! checksum by adding 16-bit words one by one.

use std::ops::Range;

use plane::ip;
use plane::offload::{Coalescer, Segments};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

const VNET: usize = 10;
const NEEDS_CSUM: u8 = 1;
const DATA_VALID: u8 = 2;
const TCPV4: u8 = 1;
const TCPV6: u8 = 4;
const UDP_L4: u8 = 5;
const ECN: u8 = 0x80;
const LONGEST: usize = 65_535;

const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;
const CWR: u8 = 0x80;
const DF: u16 = 0x4000;

const TCP: u8 = 6;
const UDP: u8 = 17;
const FRAGMENT: u8 = 44;

/// Computes the one's-complement sum of RFC 1071, big-endian.
fn plain_sum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0u16;
    for part in parts {
        for word in part.chunks(2) {
            let word = u16::from_be_bytes([word[0], *word.get(1).unwrap_or(&0)]);
            let (added, carry) = sum.overflowing_add(word);
            sum = added + u16::from(carry);
        }
    }
    sum
}

fn put16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

fn get16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// The fields of a packet.
#[derive(Clone, Debug)]
struct Packet {
    v6: bool,
    tos: u8,
    ttl: u8,
    id: u16,
    fragment: u16,
    /// The field that announces IPv6 extension headers, and these or IPv4 options.
    extra: (Option<u8>, Vec<u8>),
    /// The last destination, if `extra` has a source route.
    destination: u8,
    protocol: u8,
    port: u16,
    sequence: u32,
    acknowledgment: u32,
    reserved: u8,
    flags: u8,
    window: u16,
    urgent: u16,
    options: Vec<u8>,
    payload: Vec<u8>,
    checksum: bool,
    /// The error in the UDP length field.
    excess: u16,
}

impl Packet {
    fn new(v6: bool, protocol: u8) -> Packet {
        Packet {
            v6,
            tos: 0,
            ttl: 64,
            id: 0,
            fragment: DF,
            extra: (None, Vec::new()),
            destination: 2,
            protocol,
            port: 443,
            sequence: 0,
            acknowledgment: 1,
            reserved: 0,
            flags: ACK,
            window: 5000,
            urgent: 0,
            options: Vec::new(),
            payload: Vec::new(),
            checksum: true,
            excess: 0,
        }
    }

    /// Returns where the transport header and the payload start.
    fn offsets(&self) -> (usize, usize) {
        let transport = if self.v6 { 40 } else { 20 } + self.extra.1.len();
        let header = match self.protocol {
            TCP => 20 + self.options.len(),
            _ => 8,
        };
        (transport, transport + header)
    }

    fn checksum_at(&self) -> usize {
        if self.protocol == TCP { 16 } else { 6 }
    }

    fn address(&self, last: u8) -> Vec<u8> {
        if self.v6 {
            [&[0xfd, 9], &[0xf0; 13][..], &[last]].concat()
        } else {
            vec![10, 0xf0, 0xff, last]
        }
    }

    fn pseudo_header(&self, length: usize) -> Vec<u8> {
        let rest = [&(length as u32).to_be_bytes()[..], &[0, 0, 0, self.protocol]].concat();
        [self.address(1), self.address(self.destination), rest].concat()
    }

    fn bytes(&self) -> Vec<u8> {
        let port = self.port.to_be_bytes();
        let (transport, payload) = self.offsets();
        let length = payload - transport + self.payload.len();
        let mut segment = [[0x30, 0x39], port].concat();
        if self.protocol == TCP {
            segment.extend(self.sequence.to_be_bytes());
            segment.extend(self.acknowledgment.to_be_bytes());
            segment.extend([((20 + self.options.len()) * 4) as u8 | self.reserved, self.flags]);
            segment.extend(self.window.to_be_bytes());
            segment.extend([0, 0]);
            segment.extend(self.urgent.to_be_bytes());
            segment.extend(&self.options);
        } else {
            segment.extend((length as u16 + self.excess).to_be_bytes());
            segment.extend([0, 0]);
        }
        segment.extend(&self.payload);
        if self.checksum {
            let checksum = match !plain_sum(&[&self.pseudo_header(length), &segment]) {
                0 if self.protocol == UDP => 0xffff,
                checksum => checksum,
            };
            put16(&mut segment, self.checksum_at(), checksum);
        }
        let first_hop = if self.destination == 2 { 2 } else { 77 };
        let (source, destination) = (self.address(1), self.address(first_hop));
        let next = self.extra.0.unwrap_or(self.protocol);
        let header = if self.v6 {
            let length = ((self.extra.1.len() + length) as u16).to_be_bytes();
            let start = [0x60 | self.tos >> 4, self.tos << 4, 0, 0];
            let rest = [length[0], length[1], next, self.ttl];
            [&start, &rest[..], &source, &destination, &self.extra.1].concat()
        } else {
            let mut header = vec![0x40 | (5 + self.extra.1.len() / 4) as u8, self.tos];
            header.extend(((transport + length) as u16).to_be_bytes());
            header.extend(self.id.to_be_bytes());
            header.extend(self.fragment.to_be_bytes());
            header.extend([self.ttl, self.protocol, 0, 0]);
            header.extend([source, destination, self.extra.1.clone()].concat());
            let checksum = !plain_sum(&[&header]);
            put16(&mut header, 10, checksum);
            header
        };
        [header, segment].concat()
    }

    /// Changes the payload so that the checksum of `segment`, its first, becomes zero.
    fn zero_checksum(&mut self, segment: &[u8]) {
        let checksum = get16(segment, self.offsets().0 + self.checksum_at());
        if self.payload.len() > 1 && segment.len() > self.offsets().1 + 1 {
            let word = plain_sum(&[&self.payload[..2], &checksum.to_be_bytes()]);
            put16(&mut self.payload, 0, word);
        }
    }

    /// Makes the frame that the kernel gives to a device that computes checksums, and splits if
    /// `size` is not 0.
    fn frame(&self, size: usize) -> Vec<u8> {
        let (transport, payload) = self.offsets();
        let mut packet = self.bytes();
        let length = packet.len() - transport;
        let partial = plain_sum(&[&self.pseudo_header(length)]);
        put16(&mut packet, transport + self.checksum_at(), partial);
        let kind = match (size, self.protocol, self.v6) {
            (0, ..) => 0,
            (_, UDP, _) => UDP_L4,
            (_, _, false) => TCPV4,
            (_, _, true) => TCPV6,
        };
        let ecn = if kind != 0 && self.protocol == TCP && self.flags & CWR != 0 { ECN } else { 0 };
        let mut frame = vec![NEEDS_CSUM, kind | ecn];
        for field in [payload, size, transport, self.checksum_at()] {
            frame.extend((field as u16).to_ne_bytes());
        }
        [frame, packet].concat()
    }

    /// Makes the packets that the kernel would send without a device that splits.
    fn segments(&self, size: usize) -> Vec<Vec<u8>> {
        let parts: Vec<_> = self.payload.chunks(size).collect();
        let segment = |(number, part): (usize, &&[u8])| {
            let mut segment = self.clone();
            segment.payload = part.to_vec();
            segment.id = self.id.wrapping_add(number as u16);
            segment.sequence = self.sequence.wrapping_add((number * size) as u32);
            if number > 0 {
                segment.flags &= !CWR;
            }
            if number + 1 < parts.len() {
                segment.flags &= !(FIN | PSH);
            }
            segment.bytes()
        };
        parts.iter().enumerate().map(segment).collect()
    }
}

/// Splits a frame as the kernel does when it is written to a TUN device. Checks its header.
fn split(frame: &[u8]) -> Vec<Vec<u8>> {
    let field = |at: usize| usize::from(u16::from_ne_bytes([frame[at], frame[at + 1]]));
    let packet = &frame[VNET..];
    let v6 = packet[0] >> 4 == 6;
    let transport = if v6 { 40 } else { 20 };
    let protocol = if v6 { packet[6] } else { packet[9] };
    let checksum_at = transport + if protocol == TCP { 16 } else { 6 };
    let addresses = if v6 { 8..40 } else { 12..20 };
    let pseudo_sum = |length: usize| {
        let tail = [0, protocol, (length >> 8) as u8, length as u8];
        plain_sum(&[&packet[addresses.clone()], &tail])
    };
    if frame[1] == 0 {
        if frame[0] != 0 {
            let segment = &packet[transport..];
            let sum = plain_sum(&[segment, &pseudo_sum(segment.len()).to_be_bytes()]);
            assert_eq!((frame[0], sum), (DATA_VALID, 0xffff), "a wrong checksum was accepted");
        }
        return vec![packet.to_vec()];
    }
    let (kind, header) = match (protocol, v6) {
        (UDP, _) => (UDP_L4, transport + 8),
        (_, false) => (TCPV4, transport + usize::from(packet[32] >> 4) * 4),
        (_, true) => (TCPV6, transport + usize::from(packet[52] >> 4) * 4),
    };
    assert_eq!(frame[..2], [NEEDS_CSUM, kind]);
    assert!(v6 || packet[0] == 0x45 && get16(packet, 6) & !DF == 0, "fragments are merged");
    assert_eq!([2, 6, 8].map(field), [header, transport, checksum_at - transport]);
    assert_eq!(get16(packet, checksum_at), pseudo_sum(packet.len() - transport));
    assert!(packet.len() <= LONGEST);
    let length = get16(packet, if v6 { 4 } else { 2 });
    assert_eq!(usize::from(length), packet.len() - if v6 { 40 } else { 0 });
    assert!(v6 || plain_sum(&[&packet[..20]]) == 0xffff);
    assert!(
        protocol == TCP || usize::from(get16(packet, transport + 4)) == packet.len() - transport
    );
    let parts: Vec<_> = packet[header..].chunks(field(4)).collect();
    let mut segments = Vec::new();
    for (number, part) in parts.iter().enumerate() {
        let mut segment = [&packet[..header], part].concat();
        let length = segment.len();
        if v6 {
            put16(&mut segment, 4, (length - 40) as u16);
        } else {
            put16(&mut segment, 2, length as u16);
            put16(&mut segment, 4, get16(packet, 4).wrapping_add(number as u16));
            put16(&mut segment, 10, 0);
            let checksum = !plain_sum(&[&segment[..20]]);
            put16(&mut segment, 10, checksum);
        }
        if protocol == TCP {
            let at = transport + 4..transport + 8;
            let sequence = u32::from_be_bytes(packet[at.clone()].try_into().unwrap());
            let sequence = sequence.wrapping_add((number * field(4)) as u32);
            segment[at].copy_from_slice(&sequence.to_be_bytes());
            if number + 1 < parts.len() {
                segment[transport + 13] &= !(FIN | PSH);
            }
        } else {
            put16(&mut segment, transport + 4, (length - transport) as u16);
        }
        put16(&mut segment, checksum_at, 0);
        let pseudo = pseudo_sum(length - transport).to_be_bytes();
        let checksum = match !plain_sum(&[&segment[transport..], &pseudo]) {
            0 if protocol == UDP => 0xffff,
            checksum => checksum,
        };
        put16(&mut segment, checksum_at, checksum);
        segments.push(segment);
    }
    segments
}

fn payload(length: usize, seed: u8) -> Vec<u8> {
    match seed {
        0 => vec![0; length],
        255 => vec![0xff; length],
        _ => (0..length).map(|at| (at as u8).wrapping_mul(seed) ^ (at >> 8) as u8).collect(),
    }
}

fn tcp_options() -> impl Strategy<Value = Vec<u8>> {
    let timestamps =
        any::<u64>().prop_map(|stamps| [&[1, 1, 8, 10][..], &stamps.to_be_bytes()].concat());
    let others = (0..11usize, any::<u8>()).prop_map(|(words, byte)| vec![byte; words * 4]);
    prop_oneof![Just(Vec::new()), timestamps, others]
}

/// IPv4 options or IPv6 extension headers, and the last destination.
fn extras(v6: bool, protocol: u8) -> impl Strategy<Value = ((Option<u8>, Vec<u8>), u8)> {
    let none = ((None, Vec::new()), 2);
    if v6 {
        let address = Packet::new(true, protocol).address(3);
        let header = |length, rest: &[u8]| [&[protocol, length], rest].concat();
        select(vec![
            none,
            ((Some(0), header(0, &[1, 4, 0, 0, 0, 0])), 2),
            ((Some(60), header(2, &[1, 20].repeat(11))), 2),
            ((Some(43), header(2, &[&[2, 1, 0, 0, 0, 0], &address[..]].concat())), 3),
        ])
    } else {
        let address = Packet::new(false, protocol).address(3);
        let source_route = [&[1, 131, 7, 4][..], &address].concat();
        select(vec![
            none,
            ((None, vec![1; 4]), 2),
            ((None, vec![1; 40]), 2),
            ((None, source_route), 3),
        ])
    }
}

/// Super-packets of all kinds, with the size of their segments.
fn super_packets(lengths: Range<usize>) -> impl Strategy<Value = (Packet, usize)> {
    let kinds = (any::<bool>(), select(vec![TCP, UDP]));
    let kinds =
        kinds.prop_flat_map(|(v6, protocol)| (Just(v6), Just(protocol), extras(v6, protocol)));
    let size = prop_oneof![1..100usize, 100..1400usize, Just(1368), 1400..70_000usize];
    let ip = (any::<u8>(), any::<u8>(), any::<u16>(), select(vec![DF, 0]));
    let tcp = (any::<u32>(), any::<u32>(), 0..16u8, any::<u8>(), any::<u16>(), any::<u16>());
    (kinds, ip, tcp, tcp_options(), lengths, size, any::<u8>()).prop_map(
        |((v6, protocol, (extra, destination)), ip, tcp, options, length, size, seed)| {
            let mut packet = Packet::new(v6, protocol);
            (packet.extra, packet.destination) = (extra, destination);
            (packet.tos, packet.ttl, packet.id, packet.fragment) = ip;
            (packet.sequence, packet.acknowledgment, packet.reserved, packet.flags) =
                (tcp.0, tcp.1, tcp.2, tcp.3);
            (packet.window, packet.urgent) = (tcp.4, tcp.5);
            packet.options = options;
            packet.payload =
                payload(length.min(LONGEST - packet.offsets().1).min(size * 200), seed);
            if seed % 4 == 0 {
                packet.zero_checksum(&packet.segments(size)[0]);
            }
            (packet, size.min(LONGEST))
        },
    )
}

fn product_split(frame: &mut [u8]) -> Vec<Vec<u8>> {
    let segments = Segments::new(frame).expect("a good frame");
    let write = |number| {
        let mut out = vec![0xee; segments.length(number)];
        segments.write(number, &mut out);
        out
    };
    (0..segments.count()).map(write).collect()
}

/// How a packet differs from the previous one of its flow.
#[derive(Clone, Debug)]
enum Twist {
    Nothing,
    Flags(u8),
    Options(Vec<u8>),
    Tos(u8),
    Ttl,
    Gap(u32),
    Acknowledgment,
    Window,
    Urgent,
    Reserved(u8),
    Port,
    Fragment(u16),
    Id(u16),
    Extra,
    NoChecksum,
    Excess,
    ZeroChecksum(bool),
    Protocol(u8),
    /// A bit of the finished packet, except in the fields that give its length.
    Corrupt(usize),
}

fn twists() -> impl Strategy<Value = Twist> {
    prop_oneof![
        8 => Just(Twist::Nothing),
        2 => any::<u8>().prop_map(Twist::Flags),
        2 => select(vec![ACK | PSH, ACK | FIN, ACK | CWR, ACK | 0x40, ACK | 0x20, 0, PSH])
            .prop_map(Twist::Flags),
        1 => tcp_options().prop_map(Twist::Options),
        1 => any::<u8>().prop_map(Twist::Tos),
        1 => Just(Twist::Ttl),
        1 => select(vec![1, u32::MAX, 1000]).prop_map(Twist::Gap),
        1 => Just(Twist::Acknowledgment),
        1 => Just(Twist::Window),
        1 => Just(Twist::Urgent),
        1 => (0..16u8).prop_map(Twist::Reserved),
        1 => Just(Twist::Port),
        1 => select(vec![0, 0x2000, 0x8000, 0x6000, 1, 0x1fff]).prop_map(Twist::Fragment),
        1 => any::<u16>().prop_map(Twist::Id),
        1 => Just(Twist::Extra),
        1 => Just(Twist::NoChecksum),
        1 => Just(Twist::Excess),
        2 => any::<bool>().prop_map(Twist::ZeroChecksum),
        1 => select(vec![0, 1, 4, 41, 47, 58, 132, 255, TCP, UDP, FRAGMENT])
            .prop_map(Twist::Protocol),
        2 => any::<usize>().prop_map(Twist::Corrupt),
    ]
}

/// Consecutive packets of a flow: flow, number, size, seed of the payload, which packet differs and
/// how, and whether the later ones differ, too.
type Run = (usize, usize, usize, u8, usize, Twist, bool);

/// Few flows of mostly one size, so that many packets merge and twists affect those that could.
fn runs() -> impl Strategy<Value = Vec<Run>> {
    let size = prop_oneof![Just(1368), 1..20usize, 20..1500usize, 1500..16_000usize];
    (0..8usize, 0..8usize, size).prop_flat_map(|(flow, other, size)| {
        let flow = select(vec![flow, flow, flow, other]);
        let size = prop_oneof![6 => Just(size), 1 => 0..size + 1, 1 => size..size + 100];
        vec((flow, 1..6usize, size, any::<u8>(), 0..5usize, twists(), any::<bool>()), 1..12)
    })
}

fn flows() -> Vec<Packet> {
    let mut flows = Vec::new();
    for (v6, protocol, fragment, options) in [
        (false, TCP, DF, 0),
        (false, TCP, DF, 12),
        (true, TCP, 0, 0),
        (true, TCP, 0, 12),
        (false, UDP, DF, 0),
        (false, UDP, 0, 0),
        (true, UDP, 0, 0),
        (false, TCP, 0, 0),
    ] {
        let mut packet = Packet::new(v6, protocol);
        packet.fragment = fragment;
        packet.options = vec![1; options];
        packet.port = 1000 + flows.len() as u16;
        packet.id = 65_530;
        packet.sequence = u32::MAX - 5000;
        flows.push(packet);
    }
    flows
}

/// Makes the packets of all runs, some with padding.
fn packets(runs: &[Run]) -> Vec<Vec<u8>> {
    let mut flows = flows();
    let mut packets = Vec::new();
    for (flow, count, size, seed, which, twist, stays) in runs {
        let flow = &mut flows[*flow];
        for number in 0..*count {
            let mut packet = flow.clone();
            packet.payload = payload(*size, *seed);
            let mut corrupt = None;
            if number == which % count {
                match twist.clone() {
                    Twist::Nothing => {}
                    Twist::Flags(flags) => packet.flags = flags,
                    Twist::Options(options) => packet.options = options,
                    Twist::Tos(tos) => packet.tos = tos,
                    Twist::Ttl => packet.ttl -= 1,
                    Twist::Gap(gap) => packet.sequence = packet.sequence.wrapping_add(gap),
                    Twist::Acknowledgment => packet.acknowledgment += 1,
                    Twist::Window => packet.window += 1,
                    Twist::Urgent => packet.urgent += 1,
                    Twist::Reserved(bits) => packet.reserved = bits,
                    Twist::Port => packet.port += 1000,
                    Twist::Fragment(fragment) => packet.fragment = fragment,
                    Twist::Id(id) => packet.id = id,
                    Twist::Extra if packet.v6 => {
                        packet.extra = (Some(0), vec![packet.protocol, 0, 1, 4, 0, 0, 0, 0]);
                    }
                    Twist::Extra => packet.extra = (None, vec![1; 4]),
                    Twist::NoChecksum => packet.checksum = false,
                    Twist::Excess => packet.excess = 1,
                    // Sent as 0xffff, or as zero, which means none although it would be correct.
                    Twist::ZeroChecksum(sent) => {
                        packet.zero_checksum(&packet.bytes());
                        packet.checksum = sent;
                    }
                    Twist::Protocol(protocol) if packet.v6 && protocol == FRAGMENT => {
                        packet.extra = (Some(FRAGMENT), vec![packet.protocol, 0, 0, 1, 0, 0, 0, 7]);
                    }
                    Twist::Protocol(protocol) => packet.protocol = protocol,
                    Twist::Corrupt(bit) => corrupt = Some(bit),
                }
            }
            let next = packet.sequence.wrapping_add(packet.payload.len() as u32);
            if *stays {
                (flow.flags, flow.options, flow.tos) = (ACK, packet.options.clone(), packet.tos);
                (flow.ttl, flow.port, flow.window) = (packet.ttl, packet.port, packet.window);
                (flow.acknowledgment, flow.fragment) = (packet.acknowledgment, packet.fragment);
                flow.extra = packet.extra.clone();
            }
            (flow.sequence, flow.id) = (next, packet.id.wrapping_add(1));
            let mut bytes = packet.bytes();
            if let Some(bit) = corrupt {
                // Not version, header length and total length, which give a packet's length.
                let free: Vec<_> =
                    if packet.v6 { vec![1..4, 6..bytes.len()] } else { vec![1..2, 4..bytes.len()] };
                let at: Vec<_> = free.into_iter().flatten().collect();
                bytes[at[bit / 8 % at.len()]] ^= 1 << (bit % 8);
            }
            packets.push(bytes);
        }
    }
    packets
}

fn coalesce(packets: &[Vec<u8>], merge: (bool, bool), flush_every: usize) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    let mut write = |frame: &mut [u8]| frames.push(frame.to_vec());
    let mut coalescer = Coalescer::new(merge);
    for (number, packet) in packets.iter().enumerate() {
        let padded = [&packet[..], &[0; 15][..number % 16]].concat();
        let length = ip::parse(&padded).expect("a packet that says its length").length;
        coalescer.add(&padded[..length], &mut write);
        if (number + 1) % flush_every == 0 {
            coalescer.flush(&mut write);
        }
    }
    coalescer.flush(&mut write);
    frames
}

/// Clears the identification if fragmentation is not allowed: it has no meaning (RFC 6864, 4.1).
fn without_idle_identification(mut packet: Vec<u8>) -> Vec<u8> {
    if packet[0] == 0x45 && get16(&packet, 6) == DF && plain_sum(&[&packet[..20]]) == 0xffff {
        packet[4..6].fill(0);
        packet[10..12].fill(0);
    }
    packet
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        cases: 400,
        ..ProptestConfig::default()
    })]

    #[test]
    fn c100_segments_are_those_that_the_sender_would_have_made(
        (packet, size) in prop_oneof![
            8 => super_packets(1..5000),
            1 => super_packets(5000..LONGEST + 1),
        ]
    ) {
        let (is, was) = (product_split(&mut packet.frame(size)), packet.segments(size));
        let differs = is.iter().zip(&was).position(|(is, was)| is != was);
        prop_assert!(is == was, "{} segments of {}, from {:?} on", is.len(), was.len(), differs);
    }

    #[test]
    fn a_packet_that_is_not_segmented_gets_its_checksum(
        (packet, _) in prop_oneof![
            8 => super_packets(1..3000),
            1 => super_packets(3000..LONGEST + 1),
        ]
    ) {
        let mut frame = packet.frame(0);
        for _ in 0..2 { // a staged frame is read again
            prop_assert_eq!(product_split(&mut frame), vec![packet.bytes()]);
        }
    }

    #[test]
    fn c060_c100_what_was_merged_splits_into_what_came_in_the_same_order(
        runs in runs(),
        merge in select(vec![(true, true), (true, true), (true, false), (false, false)]),
        flush_every in 1..65usize,
    ) {
        let packets = packets(&runs);
        let frames = coalesce(&packets, merge, flush_every);
        let split: Vec<_> = frames.iter().flat_map(|frame| split(frame)).collect();
        prop_assert_eq!(split.len(), packets.len());
        for (number, (is, was)) in split.into_iter().zip(packets).enumerate() {
            let (is, was) = (without_idle_identification(is), without_idle_identification(was));
            let differs = is.iter().zip(&was).position(|(is, was)| is != was);
            prop_assert!(is == was, "packet {}, from byte {:?} on", number, differs);
        }
    }

    /// Splits frames as the kernel does, and as `Tun::write` does if the kernel refuses them.
    #[test]
    fn c100_a_refused_frame_falls_into_the_same_packets(runs in runs()) {
        for mut frame in coalesce(&packets(&runs), (true, true), 64) {
            let reference = split(&frame);
            if frame[1] != 0 {
                prop_assert_eq!(product_split(&mut frame), reference);
            }
        }
    }

    /// Checks that packets do merge: without any merging the other tests would pass, too.
    #[test]
    fn a_flow_without_a_twist_is_one_frame(
        flow in 0..8usize, count in 1..45usize, size in 1..1400usize, last in 1..1400usize,
        seed in any::<u8>(),
    ) {
        let last = (flow, 1, last.min(size), seed, 0, Twist::Nothing, false);
        let packets = packets(&[(flow, count, size, seed, 0, Twist::Nothing, false), last]);
        prop_assert_eq!(coalesce(&packets, (true, true), 64).len(), 1);
    }

    #[test]
    fn sums_are_those_of_one_word_after_the_other(
        data in vec(any::<u8>(), 0..3000), start in 0..65usize, protocol in any::<u8>(),
        length in any::<u16>(),
    ) {
        let data = &data[start.min(data.len())..];
        prop_assert_eq!(ip::fold(ip::sum(data)).to_be(), plain_sum(&[data]));
        for (version, addresses) in [(0x45, 12..20), (0x60, 8..40)] {
            if data.len() >= 40 {
                let packet = [&[version], &data[1..]].concat();
                let rest = [&[0, protocol], &length.to_be_bytes()[..]].concat();
                prop_assert_eq!(
                    ip::fold(ip::pseudo_sum(&packet, protocol, length.into())).to_be(),
                    plain_sum(&[&packet[addresses], &rest])
                );
            }
        }
    }
}

/// Tries each length at each alignment, with all-one bytes and with zeros.
#[test]
fn sums_of_all_lengths_and_alignments() {
    let counting: Vec<u8> = (0..3100u32).map(|at| (at * 7 + (at >> 8)) as u8).collect();
    for data in [vec![0xff; 3100], vec![0; 3100], counting] {
        for start in 0..65 {
            let lengths = if start == 0 { 0..3001 } else { 0..140 };
            for length in lengths.chain(2990..3001) {
                let part = &data[start..][..length];
                assert_eq!(ip::fold(ip::sum(part)).to_be(), plain_sum(&[part]), "{start} {length}");
            }
        }
    }
    let longest = vec![0xff; LONGEST];
    assert_eq!(ip::fold(ip::sum(&longest)).to_be(), plain_sum(&[&longest]));
}
