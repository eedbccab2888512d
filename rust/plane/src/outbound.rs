//! The way out, from top to bottom: link, allowed IPs, session, split and seal, one send.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use rustix::fd::BorrowedFd;
use rustix::io::Errno;

use crate::ip;
use crate::link::{Frame, Link, wait};
use crate::lock::{lock, read};
use crate::offload::{MAX_PACKET, Segments, VNET_HEADER};
use crate::peer::{DATA_SENT, Peer, Sessions, TUN_LOST};
use crate::session::{HEADER, OVERHEAD, Session};
use crate::shared::{Shared, now};
use crate::sockets::Outgoing;

/// A UDP_SEGMENT call must fit into one IP packet, including an IPv6 header.
const MAX_BATCH: usize = 65_487;
/// The largest payload of a UDP datagram over IPv4 and over IPv6, as lengths have 16 bits. IPv4's
/// length includes its header.
const MAX_DATAGRAM: [usize; 2] = [65_507, 65_527];
/// Room for any message, with any padding.
const BUFFER: usize = MAX_PACKET + 15 + OVERHEAD;
/// The most segments per call before Linux 6.9.
const MAX_SEGMENTS: usize = 64;

/// How long UDP_SEGMENT is not used on a path that refused it.
const UNSEGMENTED: u64 = 10_000_000_000;

/// Frames after which the batch must be sent and `stop` is checked. Otherwise a flood of frames
/// that are staged or refused would hold back the messages sealed before them.
const FAIR: usize = 64;

/// ICMP errors are sent every 10 ms on average, in bursts of at most 50.
const ICMP_COST: u64 = 10_000_000;
const ICMP_BURST: u64 = 50 * ICMP_COST;

/// Carries a link's frames until the link is lost or `stop` becomes readable.
pub fn run(shared: &Arc<Shared>, link: &dyn Link, stop: BorrowedFd<'_>) {
    let mut outbound = Outbound::new(shared.clone(), true);
    let mut frame = vec![0; VNET_HEADER + MAX_PACKET];
    loop {
        for _ in 0..FAIR {
            match link.read(&mut frame) {
                Frame::Length(length) => outbound.carry(&mut frame[..length], now()),
                Frame::Skipped => {}
                Frame::Nothing => break,
                Frame::Lost => return shared.post(TUN_LOST, 0),
            }
        }
        outbound.flush(now());
        outbound.congested = false;
        if let [_, true] = wait([Some(link.as_fd()), Some(stop)]) {
            return;
        }
    }
}

/// Sealed messages for one peer, side by side, for one send call.
struct Batch {
    peer: Option<Arc<Peer>>,
    buffer: Box<[u8]>,
    used: usize,
    /// The length of each message except the last, which may be shorter and then ends the batch.
    stride: usize,
    count: usize,
    tos: u8,
    data: bool,
}

impl Batch {
    /// Returns whether a message of that length may be added.
    fn takes(&self, peer: &Arc<Peer>, length: usize, tos: u8) -> bool {
        self.peer.as_ref().is_some_and(|held| Arc::ptr_eq(held, peer))
            && self.tos == tos
            && self.used == self.count * self.stride
            && length <= self.stride
            && self.used + length <= MAX_BATCH
            && self.count < MAX_SEGMENTS
    }
}

/// Seals frames and sends them. Each thread that does so has its own.
pub struct Outbound {
    shared: Arc<Shared>,
    batch: Batch,
    /// Wait for room in the socket's buffer, as long as the socket allows (back-pressure). After a
    /// wait that timed out, the rest of the round does not wait: one slow link must not delay all
    /// peers.
    wait: bool,
    congested: bool,
    icmp_paid_until: u64,
}

impl Outbound {
    pub fn new(shared: Arc<Shared>, wait: bool) -> Self {
        let buffer = vec![0; BUFFER].into_boxed_slice();
        let batch = Batch { peer: None, buffer, used: 0, stride: 0, count: 0, tos: 0, data: false };
        Outbound { shared, batch, wait, congested: false, icmp_paid_until: 0 }
    }

    /// Routes a frame from the link to its peer. Frames that are not IP are dropped.
    pub fn carry(&mut self, frame: &mut [u8], now: u64) {
        let Some(packet) = frame.get(VNET_HEADER..) else {
            return;
        };
        let Some(inner) = ip::parse(packet) else {
            return;
        };
        #[cfg(test)]
        crate::panics::plant("carry", packet);
        let peer = read(&self.shared.allowed).lookup(inner.destination).cloned();
        match peer {
            Some(peer) if peer.is_reachable() => return self.send_frame(&peer, frame, now),
            Some(_) => {}
            None => {
                if let Some(destination) = ip::address(inner.destination) {
                    lock(&self.shared.no_peer).add(destination, now, false);
                }
            }
        }
        self.refuse(&frame[VNET_HEADER..], now);
    }

    /// Seals a frame into the batch, or stages it if the peer has no session to send with.
    fn send_frame(&mut self, peer: &Arc<Peer>, frame: &mut [u8], now: u64) {
        let Some(segments) = Segments::new(frame) else {
            return;
        };
        if !self.fits(peer, &segments, now) {
            return;
        }
        let count = segments.count();
        let mut sessions = peer.sessions();
        let current = sessions.current.as_ref();
        if current.is_some_and(|session| loops(session, segments.packet())) {
            return;
        }
        // Staged packets leave first.
        let claimed = if sessions.nothing_staged() { claim(&sessions, count, now) } else { None };
        let Some((session, counter)) = claimed else {
            sessions.stage(frame, count);
            return self.send_staged(peer, &mut sessions, now);
        };
        drop(sessions);
        self.seal(peer, &session, counter, &segments, now);
        if session.rekey_due(now, true) {
            self.shared.want_rekey(peer, &session, now);
        }
    }

    /// Sends the staged packets in their order, or wants a handshake for them.
    ///
    /// They leave before the lock is released, so that no other thread can overtake them.
    pub fn send_staged(&mut self, peer: &Arc<Peer>, sessions: &mut Sessions, now: u64) {
        while let Some(mut staged) = sessions.unstage() {
            let Some((session, counter)) = claim(sessions, staged.segments, now) else {
                sessions.restage(staged);
                self.shared.want_handshake(peer, now);
                break;
            };
            match Segments::new(&mut staged.frame) {
                // The MTU or the endpoint's family may have changed since.
                Some(segments) if !self.fits(peer, &segments, now) => {}
                Some(segments) => self.seal(peer, &session, counter, &segments, now),
                None => session.seal_in_place(counter, self.message(peer, 0, 0, now)),
            }
        }
        self.flush(now);
        if sessions.current.as_ref().is_some_and(|session| session.rekey_due(now, true)) {
            self.shared.want_handshake(peer, now);
        }
    }

    /// Stages a keepalive if nothing else waits, and sends what is staged.
    pub fn send_keepalive(&mut self, peer: &Arc<Peer>, sessions: &mut Sessions, now: u64) {
        if sessions.nothing_staged() {
            sessions.stage(&[], 1);
        }
        self.send_staged(peer, sessions, now);
    }

    /// Returns whether the first message, the longest, fits into a datagram to the peer. If not, it
    /// is counted with the error that the kernel would give.
    fn fits(&self, peer: &Peer, segments: &Segments<'_>, now: u64) -> bool {
        let message = padded(segments.length(0), self.shared.mtu.load(Relaxed)) + OVERHEAD;
        let [v4, v6] = MAX_DATAGRAM;
        let fits = message <= v4 || message <= v6 && peer.is_at_ipv6();
        if !fits {
            self.shared.send_failed(peer, &Errno::MSGSIZE.into(), now);
        }
        fits
    }

    fn seal(
        &mut self,
        peer: &Arc<Peer>,
        session: &Session,
        counter: u64,
        segments: &Segments<'_>,
        now: u64,
    ) {
        let tos = ip::encapsulate_ecn(segments.packet());
        for number in 0..segments.count() {
            let length = segments.length(number);
            let message = self.message(peer, length, tos, now);
            #[cfg(test)]
            crate::panics::plant("seal", segments.packet());
            segments.write(number, &mut message[HEADER..HEADER + length]);
            session.seal_in_place(counter + number as u64, message);
        }
        self.batch.data = true;
    }

    /// Reserves room in the batch for a message with `length` bytes of packet; zeroes its padding.
    fn message(&mut self, peer: &Arc<Peer>, length: usize, tos: u8, now: u64) -> &mut [u8] {
        let message = padded(length, self.shared.mtu.load(Relaxed)) + OVERHEAD;
        if !self.batch.takes(peer, message, tos) {
            self.flush(now);
            self.batch.peer = Some(peer.clone());
            self.batch.stride = message;
            self.batch.tos = tos;
        }
        self.batch.count += 1;
        self.batch.used += message;
        let message = &mut self.batch.buffer[self.batch.used - message..self.batch.used];
        message[HEADER + length..].fill(0);
        message
    }

    /// Sends the batch.
    pub fn flush(&mut self, now: u64) {
        let Batch { peer, buffer, used, stride, tos, data, .. } = &mut self.batch;
        if let Some(peer) = peer {
            let spared = peer.unsegmented_until.load(Relaxed) > now;
            let mut outgoing = Outgoing {
                data: &buffer[..*used],
                segment: *stride,
                tos: *tos,
                wait: self.wait && !self.congested,
                path_refuses: spared,
            };
            let sent = self.shared.send(peer, &mut outgoing, now);
            let full = |error: &io::Error| error.kind() == io::ErrorKind::WouldBlock;
            self.congested |= sent.as_ref().is_err_and(full);
            if outgoing.path_refuses && !spared {
                peer.unsegmented_until.store(now + UNSEGMENTED, Relaxed);
            }
            // Failed sends are not counted, neither data nor keepalives.
            if sent.is_ok() && peer.count_sent(*used, *data, now) {
                self.shared.post(DATA_SENT, peer.id);
            }
        }
        self.reset();
    }

    /// Empties the batch after it was sent, or after a panic.
    pub fn reset(&mut self) {
        self.batch.peer = None;
        self.batch.used = 0;
        self.batch.count = 0;
        self.batch.data = false;
    }

    /// Answers a packet without a peer by an ICMP error (kernel: wg_xmit), within the rate limit.
    fn refuse(&mut self, packet: &[u8], now: u64) {
        let paid_until = self.icmp_paid_until.max(now.saturating_sub(ICMP_BURST)) + ICMP_COST;
        if paid_until > now {
            return;
        }
        if let (Some(link), Some(reply)) = (&*read(&self.shared.link), ip::unreachable(packet)) {
            self.icmp_paid_until = paid_until;
            link.write(&mut [&[0; VNET_HEADER][..], &reply].concat());
        }
    }
}

/// Returns the padded length: a multiple of 16, at most the MTU (kernel: calculate_skb_padding).
fn padded(length: usize, mtu: usize) -> usize {
    let last = if mtu > 0 && length > mtu { length % mtu } else { length };
    let up = last.next_multiple_of(16);
    length - last + if mtu > 0 { up.min(mtu.max(last)) } else { up }
}

/// Returns whether the packet is a message of this very session, because the route to the peer's
/// endpoint leads into the tunnel to that peer. Such a message would come back again and again,
/// longer each time and finally fragmented, for the life of the session.
fn loops(session: &Session, packet: &[u8]) -> bool {
    ip::udp_payload(packet).is_some_and(|message| session.made(message))
}

/// Returns the session to send with and the first of `count` counters. None: it needs a handshake.
fn claim(sessions: &Sessions, count: usize, now: u64) -> Option<(Arc<Session>, u64)> {
    let session = sessions.current.as_ref().filter(|session| session.can_send(now))?;
    Some((session.clone(), session.claim(count as u64)?))
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;
    use crate::secret::AeadKey;
    use crate::sockets::Endpoint;

    #[test]
    fn c097_padding_is_to_16_and_not_beyond_the_mtu() {
        for (length, mtu, result) in [
            (28, 1420, 32),
            (41, 1420, 48),
            (128, 1420, 128),
            (1419, 1420, 1420),
            (1420, 1420, 1420),
            (1297, 1299, 1299),
            (0, 1420, 0),
            (41, 0, 48),
            (1421, 1420, 1436),
            (3000, 1420, 3000),
            (3001, 1420, 3016),
        ] {
            assert_eq!(padded(length, mtu), result, "{length} of {mtu}");
        }
    }

    fn peer_at(endpoint: &str) -> Arc<Peer> {
        let remote: SocketAddr = endpoint.parse().unwrap();
        let peer = Arc::new(Peer::new(1, &Arc::default()));
        peer.set_endpoint(Some(Endpoint { remote, source: None }));
        peer
    }

    fn session() -> Arc<Session> {
        let key = || AeadKey::new(&[7; 32]);
        Arc::new(Session::new(key(), key(), 1, 9, true, 0, [u64::MAX; 3]))
    }

    /// Makes a packet of that length.
    fn packet(v6: bool, length: usize) -> Vec<u8> {
        let mut packet = vec![0; length];
        packet[0] = if v6 { 0x60 } else { 0x45 };
        let (at, value) = if v6 { (4, length - 40) } else { (2, length) };
        ip::put_be16(&mut packet, at, value as u16);
        packet
    }

    fn outbound_to(peer: &Arc<Peer>, mtu: usize) -> Outbound {
        let shared = Arc::new(Shared::new(false).unwrap());
        shared.mtu.store(mtu, Relaxed);
        for address in [&[0; 4][..], &[0; 16]] {
            assert!(crate::lock::write(&shared.allowed).insert(address, 0, peer.clone()));
        }
        Outbound::new(shared, false)
    }

    /// Returns the bytes in the batch, and the number of packets refused as too long.
    fn held(outbound: &Outbound, peer: &Peer) -> (usize, u64) {
        (outbound.batch.used, peer.record(|drops| drops.send_error.count))
    }

    #[test]
    fn what_cannot_be_a_datagram_is_dropped_before_it_is_sealed_and_counted() {
        for (endpoint, limit) in [("127.0.0.1:9", 65_507), ("[::1]:9", 65_527)] {
            for v6 in [false, true] {
                let peer = peer_at(endpoint);
                let mut outbound = outbound_to(&peer, 65_535);
                let longest = (limit - OVERHEAD) / 16 * 16;
                let frame = |length| [vec![0; VNET_HEADER], packet(v6, length)].concat();
                // Without a session it is not even staged.
                outbound.carry(&mut frame(longest + 1), 0);
                assert!(peer.sessions().nothing_staged());
                peer.sessions().begin(session());
                let sent = || peer.sessions().current.as_ref().unwrap().claim(0).unwrap();
                outbound.carry(&mut frame(longest + 1), 0);
                assert_eq!((held(&outbound, &peer), sent()), ((0, 2), 0), "{endpoint}");
                outbound.carry(&mut frame(longest), 0);
                assert_eq!((held(&outbound, &peer), sent()), ((longest + OVERHEAD, 2), 1));
            }
        }
    }

    /// 65,507 bytes to a peer without a session, with an MTU that takes them; then a smaller one.
    #[test]
    fn what_waits_is_measured_again_when_it_leaves() {
        let peer = peer_at("127.0.0.1:9");
        let mut outbound = outbound_to(&peer, 65_475);
        outbound.carry(&mut [vec![0; VNET_HEADER], packet(false, 65_475)].concat(), 0);
        outbound.carry(&mut [vec![0; VNET_HEADER], packet(false, 100)].concat(), 0);
        outbound.shared.mtu.store(1420, Relaxed);
        let mut sessions = peer.sessions();
        sessions.begin(session());
        outbound.send_staged(&peer, &mut sessions, 0);
        assert!(sessions.nothing_staged());
        assert_eq!(held(&outbound, &peer), (0, 1));
        assert_eq!(sessions.current.as_ref().unwrap().claim(0), Some(2));
    }

    /// Frames that the kernel, or a program that writes to the interface, may send.
    fn frames() -> impl Strategy<Value = Vec<u8>> {
        let short = 20usize..2000;
        let long = 65_400usize..=MAX_PACKET;
        let length = prop_oneof![short, long, 20..=MAX_PACKET];
        let gso = select(vec![0u8, 0, 1, 4, 5, 0x81, 0x84, 0x85, 3, 0xff]);
        let size = prop_oneof![900u16..1500, 60_000..=u16::MAX, select(vec![0u16, 1, 0xffff])];
        let at = prop_oneof![select(vec![20u16, 28, 40, 48, 60]), any::<u16>()];
        let vnet = (0u8..4, gso, size, at.clone(), at);
        (length, any::<bool>(), vnet, any::<[u8; 60]>(), 0u8..16).prop_map(
            |(length, v6, (flags, gso, size, start, offset), noise, words)| {
                // Few segments, as each costs as much as a message.
                let size = if length > 5000 && size < 900 { 0 } else { size };
                let length = length.max(if v6 { 40 } else { 20 });
                let mut frame = vec![0; VNET_HEADER];
                (frame[0], frame[1]) = (flags, gso);
                for (at, value) in [(4, size), (6, start), (8, offset)] {
                    frame[at..at + 2].copy_from_slice(&value.to_ne_bytes());
                }
                let mut one = packet(v6, length);
                for (byte, noise) in one[if v6 { 40 } else { 20 }..].iter_mut().zip(noise) {
                    *byte = noise;
                }
                if !v6 && length >= 60 && words > 10 {
                    one[0] = 0x40 | words; // options
                }
                frame.extend(one);
                frame
            },
        )
    }

    fn mtus() -> impl Strategy<Value = usize> {
        prop_oneof![1280usize..1500, 0..=MAX_PACKET + 1, select(vec![0, 1, 15, 16, 68, 65_535])]
    }

    proptest! {
        #[test]
        fn padding_is_less_than_16_and_fits(length in 0..=MAX_PACKET, mtu in mtus()) {
            let padded = padded(length, mtu);
            prop_assert!((length..length + 16).contains(&padded));
            prop_assert!(padded + OVERHEAD <= BUFFER);
            let last = if mtu > 0 { length % mtu } else { length };
            prop_assert!(mtu == 0 || last == 0 || padded - (length - last) <= mtu);
        }

        /// Seals frames alone or after others, into a batch of any MTU.
        #[test]
        fn a_message_of_any_length_has_room(
            lengths in prop::collection::vec(prop_oneof![0..=MAX_PACKET, 65_500..=MAX_PACKET], 1..4),
            mtu in mtus(),
        ) {
            let peer = peer_at("127.0.0.1:9");
            let mut outbound = outbound_to(&peer, mtu);
            for length in lengths {
                let message = outbound.message(&peer, length, 0, 0);
                prop_assert_eq!(message.len(), padded(length, mtu) + OVERHEAD);
            }
        }

        #[test]
        fn any_frame_is_dropped_or_leaves_as_datagrams(
            mut frame in frames(),
            mtu in mtus(),
            later in mtus(),
            staged in any::<bool>(),
            endpoint in select(vec!["127.0.0.1:9", "[::1]:9"]),
        ) {
            let peer = peer_at(endpoint);
            let mut outbound = outbound_to(&peer, mtu);
            if !staged {
                peer.sessions().begin(session());
            }
            outbound.carry(&mut frame, 0);
            if staged {
                outbound.shared.mtu.store(later, Relaxed);
                let mut sessions = peer.sessions();
                sessions.begin(session());
                outbound.send_staged(&peer, &mut sessions, 0);
            }
            let limit = if peer.is_at_ipv6() { 65_527 } else { 65_507 };
            let longest = outbound.batch.stride.max(outbound.batch.used);
            prop_assert!(longest <= limit, "{longest}");
            outbound.flush(0);
        }
    }

    /// The kernel accepts exactly the lengths assumed here. Others accept less.
    #[test]
    #[cfg(target_os = "linux")]
    fn the_longest_datagrams_are_the_kernels() {
        use crate::sockets::Sockets;
        use std::net::UdpSocket;
        for (host, limit) in [("127.0.0.1", 65_507), ("::1", 65_527)] {
            let theirs = UdpSocket::bind((host, 0)).unwrap();
            let remote = theirs.local_addr().unwrap();
            let ours = Some(UdpSocket::bind((host, 0)).unwrap());
            let (v4, v6) = if remote.is_ipv4() { (ours, None) } else { (None, ours) };
            let sockets = Sockets::new(v4, v6, false).unwrap();
            let mut endpoint = Endpoint { remote, source: None };
            let mut send =
                |length| sockets.send(&mut endpoint, &mut Outgoing::message(&vec![0; length], 0));
            assert!(send(limit).is_ok());
            let refused = send(limit + 1).unwrap_err().raw_os_error();
            assert_eq!(refused, Some(Errno::MSGSIZE.raw_os_error()));
        }
    }
}
