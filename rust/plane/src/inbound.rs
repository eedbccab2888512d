//! The way in, from top to bottom: one receive, gate, table, open, roam, source check, merge, link.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use rustix::fd::{AsFd, BorrowedFd};

use crate::gate::{LONGEST_OTHER, OTHERS_LIMIT, Verdict, is_data, u32_at};
use crate::ip;
use crate::link::{Link, wait};
use crate::lock::{lock, read, write};
use crate::offload::{Coalescer, MAX_PACKET};
use crate::outbound::Outbound;
use crate::peer::{DATA_RECEIVED, Peer, SESSION_CONFIRMED};
use crate::session::Session;
use crate::shared::{Shared, now};
use crate::sockets::{Endpoint, Outgoing, Received, Sockets};
use crate::table::Entry;

/// Receive calls on one socket before the other one and `stop` are checked.
const FAIR: usize = 64;

/// Receives from the sockets until `stop` becomes readable.
pub fn run(shared: &Arc<Shared>, sockets: &Sockets, stop: BorrowedFd<'_>) {
    let Some(link) = read(&shared.link).clone() else {
        return;
    };
    let mut buffer = vec![0; MAX_PACKET];
    let mut inbound = Inbound::new(shared.clone(), link);
    loop {
        for socket in sockets.each() {
            for _ in 0..FAIR {
                // Errors are about other datagrams (ICMP) and must not end the loop.
                let Ok(received) = sockets.receive(socket, &mut buffer) else {
                    break;
                };
                inbound.carry(&mut buffer, &received, now());
            }
        }
        let fds = [sockets.v4.as_ref(), sockets.v6.as_ref()];
        let [v4, v6] = fds.map(|fd| fd.map(AsFd::as_fd));
        if let [_, _, true] = wait([v4, v6, Some(stop)]) {
            return;
        }
    }
}

struct Inbound {
    shared: Arc<Shared>,
    link: Arc<dyn Link>,
    coalescer: Coalescer,
    /// For the staged packets that the first message of a session releases.
    outbound: Outbound,
}

impl Inbound {
    fn new(shared: Arc<Shared>, link: Arc<dyn Link>) -> Self {
        let coalescer = Coalescer::new(shared.merges(&*link, now()));
        let outbound = Outbound::new(shared.clone(), false);
        Inbound { shared, link, coalescer, outbound }
    }

    /// Handles the result of one receive call: datagrams of one size from one source.
    fn carry(&mut self, buffer: &mut [u8], received: &Received, now: u64) {
        let mut known: Option<(u32, Entry)> = None;
        for datagram in buffer[..received.length].chunks_mut(received.segment.max(1)) {
            if !is_data(datagram) {
                self.look_at(datagram, &received.source, now);
                continue;
            }
            let index = u32_at(datagram, 4);
            if known.as_ref().is_none_or(|(held, _)| *held != index) {
                let entry = read(&self.shared.table).lookup(index).cloned();
                known = entry.map(|entry| (index, entry));
            }
            if let Some((_, Entry { peer, session: Some(session) })) = &known {
                self.open(peer, session, datagram, received, now);
            }
        }
        let link = &self.link;
        self.coalescer.flush(&mut |frame| link.write(frame));
        self.coalescer.merge = self.shared.merges(&**link, now);
    }

    /// Opens a data message. Once tag and counter are checked, it is known to be the peer's.
    fn open(
        &mut self,
        peer: &Arc<Peer>,
        session: &Arc<Session>,
        datagram: &mut [u8],
        received: &Received,
        now: u64,
    ) {
        let length = datagram.len();
        let Some(packet) = session.open_in_place(datagram, now) else {
            return;
        };
        #[cfg(test)]
        crate::panics::plant("open", packet);
        if !peer.is_at(&received.source) {
            self.shared.move_endpoint(peer, &received.source);
        }
        let data = !packet.is_empty();
        let deliver = self.accepts(peer, packet, now);
        // A packet with a source that is not the peer's only proves that the peer is alive.
        let counted = if data && deliver.is_none() { 0 } else { length };
        if peer.count_received(counted, data, now) {
            self.shared.post(DATA_RECEIVED, peer.id);
        }
        // Only now, as the packets that a confirmed session sends need their own answer.
        if peer.next_index.load(Relaxed) == session.local_index {
            self.confirm(peer, session, now);
        }
        if session.rekey_due(now, false) {
            self.shared.want_rekey(peer, session, now);
        }
        if let Some(inner) = deliver {
            let packet = &mut packet[..inner];
            ip::decapsulate_ecn(packet, received.tos);
            #[cfg(test)]
            crate::panics::plant("merge", packet);
            let link = &self.link;
            self.coalescer.add(packet, &mut |frame| link.write(frame));
        }
    }

    /// Returns the length of a packet without padding if its source belongs to this peer, by the
    /// longest match in the whole device, not only in the peer's own list.
    fn accepts(&self, peer: &Arc<Peer>, packet: &[u8], now: u64) -> Option<usize> {
        let inner = ip::parse(packet)?;
        let owner = read(&self.shared.allowed).lookup(inner.source).map(Arc::as_ptr);
        if owner == Some(Arc::as_ptr(peer)) {
            return Some(inner.length);
        }
        let source = ip::address(inner.source)?;
        self.shared.record(peer, |drops, watched| drops.rejected.add(source, now, watched));
        None
    }

    /// Puts a session as responder into use after its first message (§5.4.5, kernel:
    /// wg_noise_received_with_keypair).
    fn confirm(&mut self, peer: &Arc<Peer>, session: &Arc<Session>, now: u64) {
        let mut sessions = peer.sessions();
        if !sessions.next.as_ref().is_some_and(|next| Arc::ptr_eq(next, session)) {
            return;
        }
        let oldest = sessions.confirm();
        peer.next_index.store(0, Relaxed);
        if let Some(oldest) = oldest {
            write(&self.shared.table).remove(oldest.local_index);
        }
        peer.clear_wanted();
        self.shared.post(SESSION_CONFIRMED, peer.id);
        self.outbound.send_staged(peer, &mut sessions, now);
    }

    /// Passes a datagram that is not data to the gate, and from there to Python's queue.
    fn look_at(&mut self, datagram: &[u8], source: &Endpoint, now: u64) {
        let shared = &self.shared;
        let waiting = lock(&shared.messages).len();
        #[cfg(test)]
        crate::panics::plant("gate", datagram);
        let verdict = lock(&shared.gate).check(datagram, &source.remote, now, waiting);
        match verdict {
            Verdict::Queue if shared.expects(datagram) => {
                lock(&shared.messages).push_back((datagram.into(), source.clone()));
                shared.wake();
            }
            Verdict::Reply(reply) => {
                if let Some(sockets) = &*read(&shared.sockets) {
                    let mut endpoint = source.clone();
                    let _ = sockets.send(&mut endpoint, &mut Outgoing::message(&reply, 0));
                }
            }
            Verdict::Other => {
                if let Some(others) = &mut *lock(&shared.others)
                    && others.len() < OTHERS_LIMIT
                    && datagram.len() <= LONGEST_OTHER
                {
                    others.push_back((datagram.into(), source.clone()));
                    shared.wake();
                }
            }
            Verdict::Drop | Verdict::Data | Verdict::Queue => {}
        }
    }
}
