//! The plane's part of a peer: sessions, staged packets, endpoint, counters and stamps.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, MutexGuard, RwLock};

use crate::drops::{Drops, Unreported};
use crate::lock::{lock, read, write};
use crate::session::Session;
use crate::sockets::{Endpoint, STALE, Source};

/// Segments that may wait for a session. The oldest are dropped first (kernel: MAX_STAGED_PACKETS).
pub const MAX_STAGED: usize = 128;

/// Segments that may wait in a whole plane. Beyond it each peer keeps only its newest packet, so
/// that a session is still made: a scan of the routed networks, or a sender on this host, can reach
/// every peer.
pub const MAX_STAGED_TOGETHER: usize = 16_384;

/// Kinds of events, which protocol/plane.py describes. The first three, UNREPORTED and SOURCE_MOVED
/// are armed.
pub const HANDSHAKE_WANTED: u8 = 0;
pub const DATA_SENT: u8 = 1;
pub const DATA_RECEIVED: u8 = 2;
pub const SESSION_CONFIRMED: u8 = 3;
pub const UNREPORTED: u8 = 4;
pub const TUN_LOST: u8 = 5;
pub const THREAD_LOST: u8 = 6;
pub const PANIC: u8 = 7;
pub const SOURCE_MOVED: u8 = 8;

/// A frame that waits for a session, and its number of segments.
pub struct Staged {
    pub frame: Box<[u8]>,
    pub segments: usize,
}

/// Sessions and staged packets, under one lock for install, wipe and sending.
#[derive(Default)]
pub struct Sessions {
    pub previous: Option<Arc<Session>>,
    pub current: Option<Arc<Session>>,
    pub next: Option<Arc<Session>>,
    staged: VecDeque<Staged>,
    staged_segments: usize,
    /// The number of segments staged for all peers of the plane.
    staged_together: Arc<AtomicUsize>,
    removed: bool,
}

impl Drop for Sessions {
    fn drop(&mut self) {
        self.purge();
    }
}

impl Sessions {
    /// Keeps a frame for later; an empty one is a keepalive. A removed peer, which a thread may
    /// still hold, keeps nothing.
    pub fn stage(&mut self, frame: &[u8], segments: usize) {
        if self.removed {
            return;
        }
        let scarce = self.staged_together.fetch_add(segments, Relaxed) >= MAX_STAGED_TOGETHER;
        self.staged.push_back(Staged { frame: frame.into(), segments });
        self.staged_segments += segments;
        let most = if scarce { 1 } else { MAX_STAGED };
        while self.staged_segments > most && self.staged.len() > 1 {
            self.unstage();
        }
        if scarce && segments > 1 {
            self.unstage();
            self.stage(&[], 1); // a keepalive also starts a session
        }
    }

    pub fn unstage(&mut self) -> Option<Staged> {
        let staged = self.staged.pop_front()?;
        self.staged_segments -= staged.segments;
        self.staged_together.fetch_sub(staged.segments, Relaxed);
        Some(staged)
    }

    /// Puts back the frame that `unstage` took.
    pub fn restage(&mut self, staged: Staged) {
        self.staged_segments += staged.segments;
        self.staged_together.fetch_add(staged.segments, Relaxed);
        self.staged.push_front(staged);
    }

    pub fn nothing_staged(&self) -> bool {
        self.staged.is_empty()
    }

    pub fn staged_segments(&self) -> usize {
        self.staged_segments
    }

    pub fn purge(&mut self) {
        while self.unstage().is_some() {}
        self.staged = VecDeque::new();
    }

    /// Drops what is staged, as the peer was removed. Nothing is staged later either.
    pub fn remove(&mut self) {
        self.purge();
        self.removed = true;
    }

    /// Puts a session as initiator into use (kernel: add_new_keypair). Returns the sessions that
    /// ended.
    pub fn begin(&mut self, session: Arc<Session>) -> Vec<Arc<Session>> {
        let mut gone = Vec::from_iter(self.previous.take());
        let current = self.current.replace(session);
        match self.next.take() {
            // Both sides initiated, and the peer's session becomes the previous one.
            Some(next) => {
                self.previous = Some(next);
                gone.extend(current);
            }
            None => self.previous = current,
        }
        gone
    }

    /// Lets a session as responder wait for its first message. Returns the sessions that ended.
    pub fn answer(&mut self, session: Arc<Session>) -> Vec<Arc<Session>> {
        let gone = [self.previous.take(), self.next.replace(session)];
        gone.into_iter().flatten().collect()
    }

    /// Makes the next session current after its first message. Returns the previous one, which
    /// ended.
    pub fn confirm(&mut self) -> Option<Arc<Session>> {
        let gone = self.previous.take();
        self.previous = self.current.take();
        self.current = self.next.take();
        gone
    }

    /// Empties all three slots and returns their sessions.
    pub fn take(&mut self) -> Vec<Arc<Session>> {
        let all = [self.previous.take(), self.current.take(), self.next.take()];
        all.into_iter().flatten().collect()
    }
}

/// When things last happened, in ns of CLOCK_BOOTTIME; protocol/plane.py describes each.
#[derive(Default)]
struct Stamps {
    data_sent: AtomicU64,
    data_received: AtomicU64,
    last_data_received: AtomicU64,
    wanted: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
}

/// How datagrams reach a peer.
#[derive(Clone)]
pub enum Way {
    /// Directly to the peer's address.
    Direct(Endpoint),
}

#[derive(Default)]
pub struct Peer {
    pub id: u32,
    way: RwLock<Option<Way>>,
    /// The previous source, where datagrams that were under way may still arrive.
    earlier: Mutex<Option<Source>>,
    sessions: Mutex<Sessions>,
    /// The local index of `Sessions::next`, or 0. It shows the first message of a session as
    /// responder without a lock for every packet.
    pub next_index: AtomicU32,
    stamps: Stamps,
    armed: AtomicU16,
    received_bytes: AtomicU64,
    sent_bytes: AtomicU64,
    /// UDP_SEGMENT is not used for the peer before then, as the path's MTU is below the segments.
    pub unsegmented_until: AtomicU64,
    drops: Mutex<Option<Box<Drops>>>,
}

impl Peer {
    pub fn new(id: u32, staged_together: &Arc<AtomicUsize>) -> Self {
        let peer = Peer { id, ..Peer::default() };
        peer.sessions().staged_together = staged_together.clone();
        peer
    }

    pub fn sessions(&self) -> MutexGuard<'_, Sessions> {
        lock(&self.sessions)
    }

    pub fn way(&self) -> Option<Way> {
        read(&self.way).clone()
    }

    pub fn endpoint(&self) -> Option<Endpoint> {
        self.way().map(|Way::Direct(endpoint)| endpoint)
    }

    pub fn is_reachable(&self) -> bool {
        read(&self.way).is_some()
    }

    pub fn is_at_ipv6(&self) -> bool {
        read(&self.way).as_ref().is_some_and(|Way::Direct(held)| held.remote.is_ipv6())
    }

    /// Sets the endpoint and returns the previous one. For the same remote address, a known source
    /// is kept.
    pub fn set_endpoint(&self, mut endpoint: Option<Endpoint>) -> Option<Endpoint> {
        let mut way = write(&self.way);
        let held = way.take().map(|Way::Direct(held)| held);
        let mut earlier = lock(&self.earlier);
        let remote = |endpoint: &Option<Endpoint>| endpoint.as_ref().map(|one| one.remote);
        let stays = remote(&held) == remote(&endpoint);
        let before = held.as_ref().filter(|_| stays).and_then(|held| held.source);
        *earlier = earlier.filter(|_| stays);
        if let Some(Endpoint { source: Some(source), .. }) = &mut endpoint {
            let known = [before, *earlier];
            if let Some(same) = known.iter().flatten().find(|known| known.is(source)) {
                source.hold = same.hold;
            }
            if before.is_some_and(|before| !before.is(source)) {
                *earlier = before;
            }
        }
        *way = endpoint.map(Way::Direct);
        held
    }

    pub fn is_at(&self, source: &Endpoint) -> bool {
        read(&self.way).as_ref().is_some_and(|Way::Direct(held)| held.is(source))
    }

    /// Lets nothing stick until the peer is heard again. With `stale`, what stuck is remembered, to
    /// be checked again; without it, the source itself may be the problem.
    pub fn forget_source(&self, stale: bool) {
        if let Some(Way::Direct(held)) = &mut *write(&self.way) {
            let mut earlier = lock(&self.earlier);
            let source = held.source.take().or(*earlier).filter(|_| stale);
            *earlier = source.map(|source| Source { hold: source.hold | STALE, ..source });
        }
    }

    /// Sets which parts of the source stick, if this is still the endpoint.
    pub fn hold_source(&self, endpoint: &Endpoint, hold: u8) {
        if let Some(Way::Direct(held)) = &mut *write(&self.way)
            && held.is(endpoint)
        {
            held.source = held.source.map(|source| Source { hold, ..source });
        }
    }

    /// Keeps what is left of the source after a refused send. If none is, Python asks again.
    #[cold]
    pub fn loosen_source(&self, endpoint: &Endpoint) {
        match endpoint.sticks() {
            0 if self.is_at(endpoint) => self.forget_source(false),
            hold => self.hold_source(endpoint, hold),
        }
    }

    /// Clears the bit of SOURCE_MOVED first, so that any later change posts it again.
    pub fn take_source(&self) -> Option<Endpoint> {
        self.armed.fetch_and(!(1 << SOURCE_MOVED), SeqCst);
        self.endpoint().filter(|endpoint| endpoint.source.is_some())
    }

    /// Counts an authenticated message as sent. Returns true if it is the first data without an
    /// answer, which is reported as DATA_SENT.
    pub fn count_sent(&self, bytes: usize, data: bool, now: u64) -> bool {
        self.sent_bytes.fetch_add(bytes as u64, Relaxed);
        self.stamps.sent.store(now, Relaxed);
        clear(&self.stamps.data_received);
        data && set_first(&self.stamps.data_sent, now) && self.arm(DATA_SENT)
    }

    /// Counts an authenticated message as received. Returns true if it is the first data without
    /// an answer, which is reported as DATA_RECEIVED.
    pub fn count_received(&self, bytes: usize, data: bool, now: u64) -> bool {
        self.received_bytes.fetch_add(bytes as u64, Relaxed);
        self.stamps.received.store(now, Relaxed);
        clear(&self.stamps.data_sent);
        if !data {
            return false;
        }
        self.stamps.last_data_received.store(now, Relaxed);
        set_first(&self.stamps.data_received, now) && self.arm(DATA_RECEIVED)
    }

    /// Notes that a packet wants a handshake; true if that must be reported. It is called, like
    /// `clear_wanted`, under the lock of the sessions, so that no replaced session wants one.
    pub fn want_handshake(&self, now: u64) -> bool {
        self.stamps.wanted.store(now, Relaxed);
        self.arm(HANDSHAKE_WANTED)
    }

    /// Reads or changes the peer's drops. `action` must not lock anything.
    pub fn record<R>(&self, action: impl FnOnce(&mut Drops) -> R) -> R {
        action(lock(&self.drops).get_or_insert_default())
    }

    /// Reads the peer's drops, if it has any.
    pub fn read_drops(&self, action: impl FnOnce(&Drops)) {
        if let Some(drops) = &*lock(&self.drops) {
            action(drops);
        }
    }

    /// Clears the bit of UNREPORTED first, so that any later change posts it again.
    pub fn take_unreported(&self) -> Unreported {
        self.armed.fetch_and(!(1 << UNREPORTED), SeqCst);
        self.record(Drops::take_unreported)
    }

    /// Sets the bit of an event kind; false if it was already set.
    pub fn arm(&self, kind: u8) -> bool {
        self.armed.fetch_or(1 << kind, SeqCst) & (1 << kind) == 0
    }

    pub fn clear_wanted(&self) {
        self.stamps.wanted.store(0, SeqCst);
        self.armed.fetch_and(!(1 << HANDSHAKE_WANTED), SeqCst);
    }

    /// Clears stamp and bit of DATA_SENT or DATA_RECEIVED, unless the stamp has moved.
    pub fn disarm(&self, kind: u8, seen: u64) -> bool {
        let stamp = match kind {
            DATA_SENT => &self.stamps.data_sent,
            _ => &self.stamps.data_received,
        };
        // The bit first: a thread that sets the stamp later finds the bit clear and posts.
        self.armed.fetch_and(!(1 << kind), SeqCst);
        if stamp.compare_exchange(seen, 0, SeqCst, SeqCst).is_ok() {
            return true;
        }
        // It moved. If the thread that moved it found the bit clear, it posted: that is armed, too.
        self.armed.fetch_or(1 << kind, SeqCst);
        false
    }

    /// Returns the stamps in the order of protocol/plane.py.
    pub fn stamps(&self) -> [u64; 6] {
        let Stamps { data_sent, data_received, last_data_received, wanted, sent, received } =
            &self.stamps;
        [data_sent, data_received, last_data_received, wanted, sent, received]
            .map(|stamp| stamp.load(Relaxed))
    }

    /// Returns the bytes received and sent.
    pub fn transfer(&self) -> (u64, u64) {
        (self.received_bytes.load(Relaxed), self.sent_bytes.load(Relaxed))
    }
}

/// Clears a stamp; stores only if it changes, as the two directions share these cache lines.
fn clear(stamp: &AtomicU64) {
    if stamp.load(Relaxed) != 0 {
        stamp.store(0, SeqCst);
    }
}

/// Sets a stamp that is 0; true if it was.
fn set_first(stamp: &AtomicU64, now: u64) -> bool {
    stamp.load(Relaxed) == 0 && stamp.compare_exchange(0, now, SeqCst, SeqCst).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plane::Plane;

    fn unstage_all(sessions: &mut Sessions) -> Vec<usize> {
        std::iter::from_fn(|| sessions.unstage()).map(|staged| staged.frame.len()).collect()
    }

    #[test]
    fn peers_of_a_plane_share_what_may_be_staged_and_none_goes_without() {
        let [plane, other] = [(); 2].map(|()| Plane::new(false).unwrap());
        let peer_of = |plane: &Plane| plane.peer(plane.add_peer()).unwrap();
        let full: Vec<_> = (0..MAX_STAGED_TOGETHER / MAX_STAGED).map(|_| peer_of(&plane)).collect();
        let (late, elsewhere) = (peer_of(&plane), peer_of(&other));
        let [mut late, mut elsewhere] = [late.sessions(), elsewhere.sessions()];
        for round in 0..3 {
            for peer in &full {
                for _ in 0..MAX_STAGED {
                    peer.sessions().stage(&[0; 1430], 1);
                }
            }

            // Another plane has its own limit.
            for _ in 0..MAX_STAGED {
                elsewhere.stage(&[0; 100], 1);
            }
            assert_eq!(unstage_all(&mut elsewhere).len(), MAX_STAGED);

            // The limit is reached: only each peer's newest packet, or a keepalive instead of a
            // super-packet.
            late.stage(&[0; 1430], 1);
            late.stage(&[0; 100], 1);
            assert_eq!(unstage_all(&mut late), [100]);
            late.stage(&[0; 1430], 1);
            late.stage(&[0; 64_000], 45);
            let keepalive = late.unstage().unwrap();
            late.restage(keepalive);
            assert_eq!(unstage_all(&mut late), [0]);
            full[0].sessions().stage(&[0; 200], 1);
            assert_eq!(unstage_all(&mut full[0].sessions()), [200]);

            // And all of it is released.
            late.stage(&[0; 64_000], 45);
            late.stage(&[0; 1430], 1);
            assert_eq!(unstage_all(&mut late), [64_000, 1430]);
            for peer in &full {
                match round {
                    0 => peer.sessions().purge(),
                    _ => drop(unstage_all(&mut peer.sessions())),
                }
            }
        }
    }

    #[test]
    fn what_was_staged_for_a_peer_that_is_gone_is_given_back() {
        let together = Arc::default();
        let peers: Vec<_> = (0..60).map(|id| Peer::new(id, &together)).collect();
        for peer in &peers {
            for _ in 0..MAX_STAGED {
                peer.sessions().stage(&[0; 100], 1);
            }
        }
        assert_eq!(together.load(Relaxed), 60 * MAX_STAGED);
        drop(peers);
        assert_eq!(together.load(Relaxed), 0);
        let mut removed = Sessions::default();
        removed.stage(&[0; 100], 1);
        removed.remove();
        removed.stage(&[0; 100], 1);
        assert!(removed.nothing_staged());
    }
}
