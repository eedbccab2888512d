//! The way out: TUN, allowed IPs, session, split and seal, one send. Read from top to bottom.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crate::ip;
use crate::lock::{lock, read};
use crate::offload::{MAX_PACKET, Segments, VNET_HEADER};
use crate::peer::{DATA_SENT, Peer, Sessions, TUN_LOST};
use crate::session::{HEADER, OVERHEAD, Session};
use crate::shared::{Shared, now};
use crate::tun::{Frame, Tun, wait};
use crate::udp::Outgoing;

/// A UDP_SEGMENT call must fit into one IP packet, IPv6's header included.
const MAX_BATCH: usize = 65_487;
/// Kernels before 6.9 take no more segments a call.
const MAX_SEGMENTS: usize = 64;

/// How long a path that refused UDP_SEGMENT is spared it.
const UNSEGMENTED: u64 = 10_000_000_000;

/// Frames before the batch must leave and `stop` gets its turn: frames that are staged or refused
/// would else hold back, for as long as they flood, what was sealed before them.
const FAIR: usize = 64;

/// ICMP errors, one every 10 ms on average, in bursts of 50 at the most.
const ICMP_COST: u64 = 10_000_000;
const ICMP_BURST: u64 = 50 * ICMP_COST;

/// Carries the frames of a TUN device until it is lost or `stop` becomes readable.
pub fn run(shared: &Arc<Shared>, tun: &Tun, stop: BorrowedFd<'_>) {
    let mut outbound = Outbound::new(shared.clone(), true);
    let mut frame = vec![0; VNET_HEADER + MAX_PACKET];
    loop {
        for _ in 0..FAIR {
            match tun.read(&mut frame) {
                Frame::Length(length) => outbound.carry(&mut frame[..length], now()),
                Frame::Skipped => {}
                Frame::Nothing => break,
                Frame::Lost => return shared.post(TUN_LOST, 0),
            }
        }
        outbound.flush(now());
        outbound.congested = false;
        if let [_, true] = wait([Some(tun.as_fd()), Some(stop)]) {
            return;
        }
    }
}

/// Sealed messages for one peer, side by side, that leave in one call.
struct Batch {
    peer: Option<Arc<Peer>>,
    buffer: Box<[u8]>,
    used: usize,
    /// The length of each message but the last, which may be shorter and closes the batch.
    stride: usize,
    count: usize,
    tos: u8,
    data: bool,
}

impl Batch {
    /// Whether a message of that length may follow those that are there.
    fn takes(&self, peer: &Arc<Peer>, length: usize, tos: u8) -> bool {
        self.peer.as_ref().is_some_and(|held| Arc::ptr_eq(held, peer))
            && self.tos == tos
            && self.used == self.count * self.stride
            && length <= self.stride
            && self.used + length <= MAX_BATCH
            && self.count < MAX_SEGMENTS
    }
}

/// Takes frames, seals them and sends them; one for each thread that does so.
pub struct Outbound {
    shared: Arc<Shared>,
    batch: Batch,
    /// Wait for room in the socket's buffer, for as long as the socket allows: back-pressure.
    /// After one wait in vain the rest of the round goes without: one slow link must not hold up
    /// every peer.
    wait: bool,
    congested: bool,
    icmp_paid_until: u64,
}

impl Outbound {
    pub fn new(shared: Arc<Shared>, wait: bool) -> Self {
        let buffer =
            vec![0; MAX_BATCH.max(OVERHEAD + MAX_PACKET.next_multiple_of(16))].into_boxed_slice();
        let batch = Batch { peer: None, buffer, used: 0, stride: 0, count: 0, tos: 0, data: false };
        Outbound { shared, batch, wait, congested: false, icmp_paid_until: 0 }
    }

    /// Routes a frame from the TUN device to its peer. What is not IP is dropped.
    pub fn carry(&mut self, frame: &mut [u8], now: u64) {
        let Some(packet) = frame.get(VNET_HEADER..) else {
            return;
        };
        let Some(inner) = ip::parse(packet) else {
            return;
        };
        let peer = read(&self.shared.allowed).lookup(inner.destination).cloned();
        match peer {
            Some(peer) if peer.has_endpoint() => return self.send_frame(&peer, frame, now),
            Some(_) => {}
            None => {
                if let Some(destination) = ip::address(inner.destination) {
                    lock(&self.shared.no_peer).add(destination, now, false);
                }
            }
        }
        self.refuse(&frame[VNET_HEADER..], now);
    }

    /// Seals a frame into the batch, or stages it where the peer has no session to send with.
    fn send_frame(&mut self, peer: &Arc<Peer>, frame: &mut [u8], now: u64) {
        let Some(segments) = Segments::new(frame) else {
            return;
        };
        let count = segments.count();
        let mut sessions = peer.sessions();
        let current = sessions.current.as_ref();
        if current.is_some_and(|session| loops(session, segments.packet())) {
            return;
        }
        // What is staged leaves first.
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

    /// Sends what is staged in the order in which it came, or wants a handshake for it.
    ///
    /// It leaves before the lock is let go: what other threads seal next must not overtake it.
    pub fn send_staged(&mut self, peer: &Arc<Peer>, sessions: &mut Sessions, now: u64) {
        while let Some(mut staged) = sessions.unstage() {
            let Some((session, counter)) = claim(sessions, staged.segments, now) else {
                sessions.restage(staged);
                self.shared.want_handshake(peer, now);
                break;
            };
            match Segments::new(&mut staged.frame) {
                Some(segments) => self.seal(peer, &session, counter, &segments, now),
                None => session.seal_in_place(counter, self.message(peer, 0, 0, now)),
            }
        }
        self.flush(now);
        if sessions.current.as_ref().is_some_and(|session| session.rekey_due(now, true)) {
            self.shared.want_handshake(peer, now);
        }
    }

    /// Stages a keepalive where nothing else waits, and sends what is staged.
    pub fn send_keepalive(&mut self, peer: &Arc<Peer>, sessions: &mut Sessions, now: u64) {
        if sessions.nothing_staged() {
            sessions.stage(&[], 1);
        }
        self.send_staged(peer, sessions, now);
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
            segments.write(number, &mut message[HEADER..HEADER + length]);
            session.seal_in_place(counter + number as u64, message);
        }
        self.batch.data = true;
    }

    /// Room in the batch for a message with `length` bytes of packet, its padding zeroed.
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
        let sockets = read(&self.shared.sockets).clone(); // not to be held while sending waits
        if let (Some(peer), Some(sockets)) = (peer, sockets)
            && let Some(mut endpoint) = peer.endpoint()
        {
            let sticks = endpoint.sticks();
            let spared = peer.unsegmented_until.load(Relaxed) > now;
            let mut outgoing = Outgoing {
                endpoint: &mut endpoint,
                data: &buffer[..*used],
                segment: *stride,
                tos: *tos,
                wait: self.wait && !self.congested,
                path_refuses: spared,
            };
            let sent = sockets.send(&mut outgoing);
            let full = |error: &io::Error| error.kind() == io::ErrorKind::WouldBlock;
            self.congested |= sent.as_ref().is_err_and(full);
            if outgoing.path_refuses && !spared {
                peer.unsegmented_until.store(now + UNSEGMENTED, Relaxed);
            }
            if endpoint.sticks() != sticks {
                peer.loosen_source(&endpoint);
            }
            if let Err(error) = &sent {
                self.shared.send_failed(peer, error, now);
            }
            // A keepalive that fails counts for nothing, as does data.
            if sent.is_ok() && peer.count_sent(*used, *data, now) {
                self.shared.post(DATA_SENT, peer.id);
            }
        }
        self.batch.peer = None;
        self.batch.used = 0;
        self.batch.count = 0;
        self.batch.data = false;
    }

    /// Tells the sender of a packet that nobody is there (kernel: wg_xmit), within the rate.
    fn refuse(&mut self, packet: &[u8], now: u64) {
        let paid_until = self.icmp_paid_until.max(now.saturating_sub(ICMP_BURST)) + ICMP_COST;
        if paid_until > now {
            return;
        }
        if let (Some(tun), Some(reply)) = (&*read(&self.shared.tun), ip::unreachable(packet)) {
            self.icmp_paid_until = paid_until;
            tun.write(&mut [&[0; VNET_HEADER][..], &reply].concat());
        }
    }
}

/// Length with padding: to 16 bytes, but not beyond the MTU (kernel: calculate_skb_padding).
fn padded(length: usize, mtu: usize) -> usize {
    let last = if mtu > 0 && length > mtu { length % mtu } else { length };
    let up = last.next_multiple_of(16);
    length - last + if mtu > 0 { up.min(mtu.max(last)) } else { up }
}

/// Whether the session would carry a message of its own: the way to the peer's endpoint leads into
/// the tunnel to that peer. Each message would come back, longer and in the end in pieces, for as
/// long as the session lasts.
fn loops(session: &Session, packet: &[u8]) -> bool {
    ip::udp_payload(packet).is_some_and(|message| session.made(message))
}

/// The session to send with, and the first of `count` counters; None: a handshake is wanted.
fn claim(sessions: &Sessions, count: usize, now: u64) -> Option<(Arc<Session>, u64)> {
    let session = sessions.current.as_ref().filter(|session| session.can_send(now))?;
    Some((session.clone(), session.claim(count as u64)?))
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
