//! Splits and merges inner packets, in frames with the virtio header of a TUN device.
//!
//! Outbound, the kernel passes super-packets of up to 64 KiB. They are split into segments of the
//! tunnel's MTU (TSO, USO) and get the checksums that a network card would compute. Inbound,
//! consecutive segments of a flow are merged, so that the kernel takes them as one frame.

use crate::ip;

/// The 10 bytes of `struct virtio_net_hdr`, in native byte order, in front of every frame.
pub const VNET_HEADER: usize = 10;
const NEEDS_CSUM: u8 = 1;
const DATA_VALID: u8 = 2;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
const GSO_ECN: u8 = 0x80;

const TCP: u8 = 6;
const UDP: u8 = 17;
const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;
const CWR: u8 = 0x80;
const DONT_FRAGMENT: u8 = 0x40;

/// The largest IP packet, and so the largest frame without its virtio header.
pub const MAX_PACKET: usize = 65_535;

/// Returns whether a frame has several segments.
pub fn is_merged(frame: &[u8]) -> bool {
    frame[1] != GSO_NONE
}

/// A packet from the TUN device, and how it is split into segments.
pub struct Segments<'a> {
    packet: &'a [u8],
    /// Where the transport header starts, and where the payload starts.
    transport: usize,
    header: usize,
    /// Payload bytes per segment; 0 for a packet that is not split.
    size: usize,
    protocol: u8,
}

impl<'a> Segments<'a> {
    /// Parses a frame and completes the checksum of a packet that is not split. None if malformed.
    pub fn new(frame: &'a mut [u8]) -> Option<Self> {
        let (vnet, packet) = frame.split_at_mut_checked(VNET_HEADER)?;
        let native16 = |at: usize| usize::from(u16::from_ne_bytes([vnet[at], vnet[at + 1]]));
        let (flags, gso, size) = (vnet[0], vnet[1] & !GSO_ECN, native16(4));
        let (transport, offset) = (native16(6), native16(8));
        let length = ip::parse(packet)?.length;
        let packet = &mut packet[..length];
        if gso == GSO_NONE {
            if flags & NEEDS_CSUM != 0 {
                complete_checksum(packet, transport, offset)?;
                vnet[0] = 0; // the frame may be staged and read again
            }
            return Some(Segments { packet, transport: 0, header: length, size: 0, protocol: 0 });
        }
        let ip_header = if packet[0] >> 4 == 4 { usize::from(packet[0] & 15) * 4 } else { 40 };
        let (protocol, shortest) = match gso {
            GSO_TCPV4 | GSO_TCPV6 => (TCP, 20),
            GSO_UDP_L4 => (UDP, 8),
            _ => return None,
        };
        if size == 0 || ip_header < 20 || transport < ip_header || transport + shortest > length {
            return None;
        }
        let header = match protocol {
            TCP => transport + usize::from(packet[transport + 12] >> 4) * 4,
            _ => transport + 8,
        };
        if header < transport + shortest || header >= length {
            return None;
        }
        if flags & NEEDS_CSUM == 0 {
            // It may come from another virtual machine, but `write` needs the pseudo-header's sum.
            let at = transport + if protocol == TCP { 16 } else { 6 };
            let pseudo = ip::fold(ip::pseudo_sum(packet, protocol, length - transport));
            packet[at..at + 2].copy_from_slice(&pseudo.to_ne_bytes());
        }
        Some(Segments { packet, transport, header, size, protocol })
    }

    /// Returns the packet as it was read. Each segment has its addresses and its ECN.
    pub fn packet(&self) -> &'a [u8] {
        self.packet
    }

    pub fn count(&self) -> usize {
        if self.size == 0 { 1 } else { (self.packet.len() - self.header).div_ceil(self.size) }
    }

    /// Returns the length of a segment.
    pub fn length(&self, number: usize) -> usize {
        if self.size == 0 {
            return self.packet.len();
        }
        let done = number * self.size;
        self.header + (self.packet.len() - self.header - done).min(self.size)
    }

    /// Writes a segment to `out`, whose length must be that of `length`.
    pub fn write(&self, number: usize, out: &mut [u8]) {
        let done = number * self.size;
        let payload = &self.packet[self.header + done..][..out.len() - self.header];
        out[..self.header].copy_from_slice(&self.packet[..self.header]);
        out[self.header..].copy_from_slice(payload);
        if self.size == 0 {
            return;
        }
        set_ip_length(out, number as u16);
        let transport = out.len() - self.transport;
        let segment = &mut out[self.transport..];
        let checksum_at = if self.protocol == TCP {
            let sequence = u32::from_be_bytes([segment[4], segment[5], segment[6], segment[7]]);
            segment[4..8].copy_from_slice(&sequence.wrapping_add(done as u32).to_be_bytes());
            if number > 0 {
                segment[13] &= !CWR;
            }
            if number + 1 < self.count() {
                segment[13] &= !(FIN | PSH);
            }
            16
        } else {
            ip::put_be16(segment, 4, transport as u16);
            6
        };
        // The field holds the pseudo-header's sum, with the last destination of a source route.
        // Only the length in it must change.
        let whole = !((self.packet.len() - self.transport) as u16);
        let lengths = u64::from(whole.to_be()) + u64::from((transport as u16).to_be());
        let checksum = match !ip::fold(ip::sum(segment) + lengths) {
            0 if self.protocol == UDP => 0xffff,
            checksum => checksum,
        };
        segment[checksum_at..checksum_at + 2].copy_from_slice(&checksum.to_ne_bytes());
    }
}

/// Sets an IP header's length to that of `packet`, and for IPv4 increases its identification.
fn set_ip_length(packet: &mut [u8], identification: u16) {
    let length = packet.len() as u16;
    if packet[0] >> 4 == 4 {
        let header = usize::from(packet[0] & 15) * 4;
        ip::put_be16(packet, 2, length);
        let id = ip::be16(packet, 4).wrapping_add(identification);
        ip::put_be16(packet, 4, id);
        ip::put_ipv4_checksum(&mut packet[..header]);
    } else {
        ip::put_be16(packet, 4, length - 40);
    }
}

/// Completes a checksum (NEEDS_CSUM). The field holds the pseudo-header's sum; the rest is added.
fn complete_checksum(packet: &mut [u8], start: usize, offset: usize) -> Option<()> {
    if start + offset + 2 > packet.len() {
        return None;
    }
    let checksum = match !ip::fold(ip::sum(&packet[start..])) {
        0 if offset == 6 => 0xffff, // UDP: zero would mean "none"
        checksum => checksum,
    };
    packet[start + offset..][..2].copy_from_slice(&checksum.to_ne_bytes());
    Some(())
}

/// The flow of a packet that may merge with the next one.
#[derive(Clone, Copy)]
struct Flow {
    transport: usize,
    header: usize,
    payload: usize,
    protocol: u8,
}

impl Flow {
    /// Returns None for packets that must reach the kernel unchanged: fragments, IPv4 options,
    /// extension headers, flags with a meaning, empty payloads, and wrong checksums, which merging
    /// would hide.
    fn of(packet: &[u8], (tcp, udp): (bool, bool)) -> Option<Flow> {
        let (transport, protocol) = if packet[0] == 0x45 && ip::be16(packet, 6) & 0xbfff == 0 {
            (20, packet[9])
        } else if packet[0] >> 4 == 6 {
            (40, packet[6])
        } else {
            return None;
        };
        let segment = &packet[transport..];
        let header = match protocol {
            TCP if tcp && segment.len() > 20 && segment[13] & !PSH == ACK => {
                let header = usize::from(segment[12] >> 4) * 4;
                (header >= 20).then_some(header)?
            }
            UDP if udp
                && segment.len() > 8
                && usize::from(ip::be16(segment, 4)) == segment.len()
                && ip::be16(segment, 6) != 0 =>
            {
                8
            }
            _ => return None,
        };
        let payload = segment.len().checked_sub(header).filter(|payload| *payload > 0)?;
        let valid_header = transport == 40 || ip::fold(ip::sum(&packet[..20])) == 0xffff;
        let total = ip::sum(segment) + ip::pseudo_sum(packet, protocol, segment.len());
        let flow = Flow { transport, header: transport + header, payload, protocol };
        (valid_header && ip::fold(total) == 0xffff).then_some(flow)
    }
}

/// Merges packets of a flow into frames for a TUN device. The order of all packets is kept.
pub struct Coalescer {
    frame: Box<[u8]>,
    used: usize,
    /// The flow of the first packet in `frame`; None while the frame is empty.
    flow: Option<Flow>,
    count: usize,
    next_sequence: u32,
    /// The last packet was short or had PSH: the frame takes no more.
    closed: bool,
    /// Whether to merge TCP packets, and UDP packets.
    pub merge: (bool, bool),
}

impl Coalescer {
    pub fn new(merge: (bool, bool)) -> Self {
        let frame = vec![0; VNET_HEADER + MAX_PACKET].into_boxed_slice();
        let (used, flow, count, next_sequence, closed) = (VNET_HEADER, None, 0, 0, false);
        Coalescer { frame, used, flow, count, next_sequence, closed, merge }
    }

    /// Adds a packet that `ip::parse` accepted. Writes the frame if this packet ends it.
    pub fn add(&mut self, packet: &[u8], write: &mut impl FnMut(&mut [u8])) {
        let Some(flow) = Flow::of(packet, self.merge) else {
            self.flush(write);
            self.frame[..VNET_HEADER].fill(0);
            self.frame[VNET_HEADER..][..packet.len()].copy_from_slice(packet);
            write(&mut self.frame[..VNET_HEADER + packet.len()]);
            return;
        };
        if !self.continues(packet, flow) {
            self.flush(write);
            self.frame[VNET_HEADER..][..packet.len()].copy_from_slice(packet);
            self.used = VNET_HEADER + packet.len();
            self.flow = Some(flow);
        } else {
            let payload = &packet[flow.header..];
            self.frame[self.used..][..payload.len()].copy_from_slice(payload);
            self.used += payload.len();
        }
        let first = self.flow.unwrap_or(flow);
        self.count += 1;
        self.closed = flow.payload < first.payload;
        if flow.protocol == TCP {
            let tcp = &packet[flow.transport..];
            let sequence = u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]);
            self.next_sequence = sequence.wrapping_add(flow.payload as u32);
            if tcp[13] & PSH != 0 {
                self.frame[VNET_HEADER + flow.transport + 13] |= PSH;
                self.closed = true;
            }
        }
    }

    fn continues(&self, packet: &[u8], flow: Flow) -> bool {
        let Some(first) = self.flow else { return false };
        let held = &self.frame[VNET_HEADER..self.used];
        if self.closed
            || (flow.transport, flow.header, flow.protocol)
                != (first.transport, first.header, first.protocol)
            || flow.payload > first.payload
            || held.len() + flow.payload > MAX_PACKET
        {
            return false;
        }
        // The headers must be equal except for lengths, identification, checksums and sequence. If
        // fragmentation is allowed, the identification must count up, as it does after a split.
        let ip_equal = if flow.transport == 20 {
            let number = ip::be16(packet, 4).wrapping_sub(ip::be16(held, 4));
            held[..2] == packet[..2]
                && (held[6] & DONT_FRAGMENT != 0 || usize::from(number) == self.count)
                && held[6..10] == packet[6..10]
                && held[12..20] == packet[12..20]
        } else {
            held[..4] == packet[..4] && held[6..40] == packet[6..40]
        };
        let (ours, theirs) = (&held[flow.transport..], &packet[flow.transport..]);
        ip_equal
            && ours[..4] == theirs[..4]
            && (flow.protocol == UDP
                || theirs[4..8] == self.next_sequence.to_be_bytes()
                    && ours[8..13] == theirs[8..13]
                    && ours[14..16] == theirs[14..16]
                    && ours[18..flow.header - flow.transport]
                        == theirs[18..flow.header - flow.transport])
    }

    /// Writes the frame that is held, if any.
    pub fn flush(&mut self, write: &mut impl FnMut(&mut [u8])) {
        let Some(flow) = self.flow.take() else { return };
        let frame = &mut self.frame[..self.used];
        let (vnet, packet) = frame.split_at_mut(VNET_HEADER);
        vnet.fill(0);
        if self.count == 1 {
            vnet[0] = DATA_VALID; // verified by `Flow::of`
        } else {
            let offset = if flow.protocol == TCP { 16 } else { 6 };
            vnet[0] = NEEDS_CSUM;
            vnet[1] = match (flow.protocol, flow.transport) {
                (UDP, _) => GSO_UDP_L4,
                (_, 20) => GSO_TCPV4,
                _ => GSO_TCPV6,
            };
            for (at, value) in
                [(2, flow.header), (4, flow.payload), (6, flow.transport), (8, offset)]
            {
                vnet[at..at + 2].copy_from_slice(&(value as u16).to_ne_bytes());
            }
            set_ip_length(packet, 0);
            let length = packet.len() - flow.transport;
            if flow.protocol == UDP {
                ip::put_be16(packet, flow.transport + 4, length as u16);
            }
            let pseudo = ip::fold(ip::pseudo_sum(packet, flow.protocol, length));
            packet[flow.transport + offset..][..2].copy_from_slice(&pseudo.to_ne_bytes());
        }
        write(frame);
        self.used = VNET_HEADER;
        self.count = 0;
        self.closed = false;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;
    use crate::ip::tests::{ipv4, ipv6};

    fn tcp(v6: bool, sequence: u32, flags: u8, options: usize, payload: &[u8]) -> Vec<u8> {
        let mut segment = vec![0; 20 + options];
        segment[..4].copy_from_slice(&[0x30, 0x39, 0x01, 0xbb]);
        segment[4..8].copy_from_slice(&sequence.to_be_bytes());
        segment[12] = (((20 + options) / 4) << 4) as u8;
        segment[13] = flags;
        segment[20..].fill(1);
        segment.extend_from_slice(payload);
        transport(v6, TCP, segment, 16)
    }

    fn udp(v6: bool, payload: &[u8]) -> Vec<u8> {
        let mut segment = vec![0x30, 0x39, 0x01, 0xbb, 0, 0, 0, 0];
        segment.extend_from_slice(payload);
        let length = segment.len() as u16;
        ip::put_be16(&mut segment, 4, length);
        transport(v6, UDP, segment, 6)
    }

    fn transport(v6: bool, protocol: u8, segment: Vec<u8>, checksum_at: usize) -> Vec<u8> {
        let mut packet = if v6 { ipv6(protocol, &segment) } else { ipv4(protocol, &segment) };
        let start = packet.len() - segment.len();
        let total = ip::sum(&packet[start..]) + ip::pseudo_sum(&packet, protocol, segment.len());
        let checksum = !ip::fold(total);
        packet[start + checksum_at..][..2].copy_from_slice(&checksum.to_ne_bytes());
        packet
    }

    fn coalesce(packets: &[Vec<u8>], merge: (bool, bool)) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        let mut write = |frame: &mut [u8]| frames.push(frame.to_vec());
        let mut coalescer = Coalescer::new(merge);
        for packet in packets {
            coalescer.add(packet, &mut write);
        }
        coalescer.flush(&mut write);
        frames
    }

    fn split(frame: &mut [u8]) -> Vec<Vec<u8>> {
        let segments = Segments::new(frame).expect("a good frame");
        (0..segments.count())
            .map(|number| {
                let mut out = vec![0; segments.length(number)];
                segments.write(number, &mut out);
                out
            })
            .collect()
    }

    fn payload(length: usize, seed: u8) -> Vec<u8> {
        (0..length).map(|i| (i as u8).wrapping_mul(31).wrapping_add(seed)).collect()
    }

    /// Makes packets of a flow with the identifications that a split gives them.
    fn flow(v6: bool, sizes: &[usize], last_flags: u8, options: usize) -> Vec<Vec<u8>> {
        let mut sequence = u32::MAX - 2000; // wraps on the way
        let mut packets = Vec::new();
        for (number, &size) in sizes.iter().enumerate() {
            let flags = if number + 1 == sizes.len() { last_flags } else { ACK };
            let mut packet = tcp(v6, sequence, flags, options, &payload(size, number as u8));
            if !v6 {
                ip::put_be16(&mut packet, 4, number as u16);
                ip::put_ipv4_checksum(&mut packet[..20]);
            }
            packets.push(packet);
            sequence = sequence.wrapping_add(size as u32);
        }
        packets
    }

    #[test]
    fn c100_a_coalesced_flow_splits_into_the_same_packets() {
        for v6 in [false, true] {
            for options in [0, 12] {
                for sizes in [&[1368; 45][..], &[1368, 1368, 7], &[1, 1, 1], &[5, 3]] {
                    for last in [ACK, ACK | PSH] {
                        let packets = flow(v6, sizes, last, options);
                        let mut frames = coalesce(&packets, (true, true));
                        assert_eq!(frames.len(), 1);
                        assert_eq!(coalesce(&packets, (false, true)).len(), sizes.len());
                        let mut complete = frames[0].clone();
                        assert_eq!(split(&mut frames[0]), packets);
                        // Claims that the checksum is complete, whatever it is.
                        complete[0] = 0;
                        let at = VNET_HEADER + if v6 { 40 } else { 20 } + 16;
                        complete[at..at + 2].fill(7);
                        assert_eq!(split(&mut complete), packets);
                    }
                }
            }
        }
    }

    #[test]
    fn udp_merges_only_where_the_device_segments_it() {
        for v6 in [false, true] {
            let mut packets: Vec<_> = (0..20).map(|n| udp(v6, &payload(1200, n))).collect();
            packets.push(udp(v6, &payload(3, 99)));
            for (number, packet) in packets.iter_mut().enumerate().filter(|_| !v6) {
                ip::put_be16(packet, 4, number as u16);
                ip::put_ipv4_checksum(&mut packet[..20]);
            }
            let mut frames = coalesce(&packets, (true, true));
            assert_eq!(frames.len(), 1);
            assert_eq!(split(&mut frames[0]), packets);
            assert_eq!(coalesce(&packets, (true, false)).len(), 21);
        }
    }

    #[test]
    fn c060_c100_what_differs_does_not_merge_and_order_is_kept() {
        let base = flow(false, &[100, 100], ACK, 0);
        let mut other_port = base[1].clone();
        other_port[20] ^= 1;
        let mut other_ttl = base[1].clone();
        other_ttl[8] = 63;
        ip::put_ipv4_checksum(&mut other_ttl[..20]);
        let mut corrupt = base[1].clone();
        *corrupt.last_mut().unwrap() ^= 1;
        let gap = tcp(false, 1, ACK, 0, &payload(100, 1));
        let fin = flow(false, &[100, 100], ACK | FIN, 0).pop().unwrap();
        for second in [other_port, other_ttl, corrupt, gap, fin] {
            let frames = coalesce(&[base[0].clone(), second.clone()], (true, true));
            assert_eq!(frames.len(), 2);
            assert_eq!(frames[0][VNET_HEADER..], base[0]);
            assert_eq!(frames[1][VNET_HEADER..], second);
        }
        let pushed = flow(false, &[100], ACK | PSH, 0).remove(0);
        assert_eq!(coalesce(&[pushed, base[1].clone()], (true, true)).len(), 2);
        let mut fragile = flow(false, &[100, 100], ACK, 0);
        for (packet, id) in fragile.iter_mut().zip([7, 9]) {
            packet[6] = 0; // may be fragmented
            ip::put_be16(packet, 4, id);
            ip::put_ipv4_checksum(&mut packet[..20]);
        }
        assert_eq!(coalesce(&fragile, (true, true)).len(), 2);
        let growing = flow(false, &[100, 101], ACK, 0);
        assert_eq!(coalesce(&growing, (true, true)).len(), 2);
    }

    #[test]
    fn frames_never_pass_64_kib() {
        let packets = flow(false, &[1400; 60], ACK, 0);
        let mut frames = coalesce(&packets, (true, true));
        assert_eq!(frames.len(), 2);
        let packets_again: Vec<_> = frames.iter_mut().flat_map(|frame| split(frame)).collect();
        for (again, packet) in packets_again.iter().zip(&packets) {
            assert_eq!(again[20..], packet[20..]);
        }
    }

    #[test]
    fn a_partial_checksum_is_completed() {
        for (packet, start, offset) in
            [(tcp(false, 5, ACK, 0, &payload(33, 1)), 20, 16), (udp(true, &payload(33, 1)), 40, 6)]
        {
            let mut frame = vec![0; VNET_HEADER];
            frame[0] = NEEDS_CSUM;
            frame[6..8].copy_from_slice(&(start as u16).to_ne_bytes());
            frame[8..10].copy_from_slice(&(offset as u16).to_ne_bytes());
            frame.extend_from_slice(&packet);
            let protocol = if offset == 16 { TCP } else { UDP };
            let pseudo = ip::fold(ip::pseudo_sum(&packet, protocol, packet.len() - start));
            frame[VNET_HEADER + start + offset..][..2].copy_from_slice(&pseudo.to_ne_bytes());
            assert_eq!(split(&mut frame), vec![packet]);
        }
    }

    /// Tries any bytes: there is never a panic, nor a segment longer than `length` says.
    #[test]
    fn c085_random_frames_are_survived() {
        let mut seed = 88172645463325252u64;
        let mut random = move || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed as usize
        };
        for round in 0..20_000 {
            let mut frame: Vec<u8> = (0..random() % 200).map(|_| random() as u8).collect();
            if frame.len() > 60 {
                frame[1] = [0, 1, 4, 5, 3][round % 5];
                for at in [5, 7, 9] {
                    frame[at] = 0;
                }
                frame[VNET_HEADER] = [0x45, 0x60, 0x41, 0x4f][round / 5 % 4];
                let length = (frame.len() - VNET_HEADER) as u16;
                ip::put_be16(&mut frame, VNET_HEADER + 2, length);
                ip::put_be16(&mut frame, VNET_HEADER + 4, length.saturating_sub(40));
            }
            if let Some(segments) = Segments::new(&mut frame) {
                for number in 0..segments.count() {
                    segments.write(number, &mut vec![0; segments.length(number)]);
                }
            }
        }
    }

    /// Frames with almost valid headers, of any length, cut anywhere.
    fn frames() -> impl Strategy<Value = Vec<u8>> {
        let long = 65_400usize..=MAX_PACKET;
        let length = prop_oneof![4 => 40usize..130, 1 => 0usize..40, 1 => 0usize..4000, 1 => long];
        let gso = select(vec![0u8, 1, 4, 5, 0x81, 0x84, 3, 0xff]);
        let at = prop_oneof![3 => select(vec![0u16, 8, 20, 40, 48, 60]), 1 => any::<u16>()];
        let size = prop_oneof![500u16..1500, any::<u16>()];
        let first = select(vec![0x45u8, 0x46, 0x4f, 0x41, 0x60, 0x6f, 0x00]);
        let claims = prop_oneof![3 => Just(None), 1 => any::<u16>().prop_map(Some)];
        let vnet = (0u8..4, gso, size, at.clone(), at);
        (length, vnet, first, claims, any::<[u8; 100]>()).prop_map(
            |(length, (flags, gso, size, start, offset), first, claims, noise)| {
                let size = if length > 5000 { size.max(500) } else { size };
                let mut packet = vec![0; length];
                for (byte, noise) in packet.iter_mut().zip(noise) {
                    *byte = noise;
                }
                if length >= 40 {
                    packet[0] = first;
                    let claimed = |less| claims.unwrap_or((length - less) as u16);
                    match first >> 4 {
                        4 => ip::put_be16(&mut packet, 2, claimed(0)),
                        _ => ip::put_be16(&mut packet, 4, claimed(40)),
                    }
                    packet[if first >> 4 == 4 { 9 } else { 6 }] = [TCP, UDP, 44, 58][length % 4];
                }
                let mut frame = vec![0; VNET_HEADER];
                (frame[0], frame[1]) = (flags, gso);
                for (at, value) in [(4, size), (6, start), (8, offset)] {
                    frame[at..at + 2].copy_from_slice(&value.to_ne_bytes());
                }
                frame.extend(packet);
                frame
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1500))]

        #[test]
        fn segments_of_any_frame_are_no_longer_than_the_first_and_carry_all(
            mut frame in frames(),
            cut in prop_oneof![Just(usize::MAX), 0usize..120],
        ) {
            let length = frame.len().min(cut);
            let Some(segments) = Segments::new(&mut frame[..length]) else { return Ok(()) };
            let mut carried = 0;
            for number in 0..segments.count() {
                let length = segments.length(number);
                prop_assert!(length <= segments.length(0) && length <= MAX_PACKET);
                carried += length - segments.header;
                segments.write(number, &mut vec![0; length]);
            }
            prop_assert_eq!(carried, segments.packet.len() - segments.header);
        }

    }

    proptest! {
        /// Passes anything that a peer may send to `ip` and to the coalescer.
        #[test]
        fn packets_of_any_length_are_taken(
            frames in prop::collection::vec(frames(), 1..5),
            merge in any::<(bool, bool)>(),
            tos in 0u8..4,
        ) {
            let mut coalescer = Coalescer::new(merge);
            let mut written = 0;
            let mut write = |frame: &mut [u8]| {
                assert!(frame.len() <= VNET_HEADER + MAX_PACKET);
                written += frame.len();
            };
            for frame in frames {
                let mut packet = frame[VNET_HEADER..].to_vec();
                if let Some(reply) = ip::unreachable(&packet) {
                    prop_assert!(reply.len() <= 1280);
                }
                let Some(length) = ip::parse(&packet).map(|inner| inner.length) else { continue };
                let packet = &mut packet[..length];
                ip::udp_payload(packet);
                ip::decapsulate_ecn(packet, tos);
                coalescer.add(packet, &mut write);
                // Again, as if it were the next packet of the flow.
                coalescer.add(packet, &mut write);
            }
            coalescer.flush(&mut write);
            prop_assert!(coalescer.used == VNET_HEADER && coalescer.count == 0);
        }

        /// Tries flows of any segment size, up to the longest frame and beyond.
        #[test]
        fn merged_frames_of_any_size_stay_within_a_packet(
            size in prop_oneof![1usize..3000, 1usize..65_000],
            count in 1usize..60,
            v6 in any::<bool>(),
            is_udp in any::<bool>(),
        ) {
            let count = count.min(200_000 / size + 2);
            let packets: Vec<_> = match is_udp {
                true => (0..count).map(|n| udp(v6, &payload(size, n as u8))).collect(),
                false => flow(v6, &vec![size; count], ACK, 0),
            };
            let carried: usize = coalesce(&packets, (true, true))
                .iter_mut()
                .map(|frame| {
                    assert!(frame.len() <= VNET_HEADER + MAX_PACKET);
                    split(frame).iter().map(Vec::len).sum::<usize>()
                })
                .sum();
            prop_assert_eq!(carried, packets.iter().map(Vec::len).sum::<usize>());
        }
    }
}
