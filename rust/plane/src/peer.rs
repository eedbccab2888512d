//! A peer, as far as packets go: sessions, staged packets, endpoint, counters and stamps.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, MutexGuard, RwLock};

use crate::drops::{Drops, Unreported};
use crate::lock::{lock, read, write};
use crate::session::Session;
use crate::udp::{Endpoint, STALE, Source};

/// Segments that wait for a session; beyond it the oldest are dropped (kernel: MAX_STAGED_PACKETS).
pub const MAX_STAGED: usize = 128;

/// Those of all peers of a plane together. Beyond it each peer keeps its newest packet, so that its session can
/// begin: a scan of the routed networks, or a sender on this host, reaches every peer.
pub const MAX_STAGED_TOGETHER: usize = 16_384;

/// Event kinds, as protocol/plane.py describes them. The first three, UNREPORTED and SOURCE_MOVED
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

/// A frame that waits for a session, and how many segments it holds.
pub struct Staged {
    pub frame: Box<[u8]>,
    pub segments: usize,
}

/// Sessions and staged packets: what install, wipe and sending must see as one.
#[derive(Default)]
pub struct Sessions {
    pub previous: Option<Arc<Session>>,
    pub current: Option<Arc<Session>>,
    pub next: Option<Arc<Session>>,
    staged: VecDeque<Staged>,
    staged_segments: usize,
    /// What is staged for all peers of the plane.
    staged_together: Arc<AtomicUsize>,
    removed: bool,
}

impl Drop for Sessions {
    fn drop(&mut self) {
        self.purge();
    }
}

impl Sessions {
    /// Keeps a frame for later; an empty one is a keepalive. A peer that was removed keeps nothing:
    /// who looked it up before that may still hold it.
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
            self.stage(&[], 1); // a keepalive begins a session all the same
        }
    }

    pub fn unstage(&mut self) -> Option<Staged> {
        let staged = self.staged.pop_front()?;
        self.staged_segments -= staged.segments;
        self.staged_together.fetch_sub(staged.segments, Relaxed);
        Some(staged)
    }

    /// Puts back what `unstage` took.
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

    /// The peer is none any more: nothing is staged, now or later.
    pub fn remove(&mut self) {
        self.purge();
        self.removed = true;
    }

    /// A session that we asked for is in use at once (kernel: add_new_keypair). Returns those
    /// that are no more.
    pub fn begin(&mut self, session: Arc<Session>) -> Vec<Arc<Session>> {
        let mut gone = Vec::from_iter(self.previous.take());
        let current = self.current.replace(session);
        match self.next.take() {
            // Ours overtook theirs: theirs becomes the previous one.
            Some(next) => {
                self.previous = Some(next);
                gone.extend(current);
            }
            None => self.previous = current,
        }
        gone
    }

    /// A session that we answered waits for its first message. Returns those that are no more.
    pub fn answer(&mut self, session: Arc<Session>) -> Vec<Arc<Session>> {
        let gone = [self.previous.take(), self.next.replace(session)];
        gone.into_iter().flatten().collect()
    }

    /// That message came: next becomes current. Returns the previous one, which is no more.
    pub fn confirm(&mut self) -> Option<Arc<Session>> {
        let gone = self.previous.take();
        self.previous = self.current.take();
        self.current = self.next.take();
        gone
    }

    /// Empties all three slots.
    pub fn take(&mut self) -> Vec<Arc<Session>> {
        let all = [self.previous.take(), self.current.take(), self.next.take()];
        all.into_iter().flatten().collect()
    }
}

/// When things last happened, in ns of CLOCK_BOOTTIME; protocol/plane.py says what each means.
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
    /// Straight to the address of the peer itself.
    Direct(Endpoint),
}

#[derive(Default)]
pub struct Peer {
    pub id: u32,
    way: RwLock<Option<Way>>,
    /// The source before this one: datagrams that were on their way still come there.
    earlier: Mutex<Option<Source>>,
    sessions: Mutex<Sessions>,
    /// The local index of `Sessions::next`, or 0: so that the first message of a session that we
    /// answered is noticed without taking the lock for every packet.
    pub next_index: AtomicU32,
    stamps: Stamps,
    armed: AtomicU16,
    received_bytes: AtomicU64,
    sent_bytes: AtomicU64,
    /// Until then the way to the peer takes no UDP_SEGMENT (its MTU is below our segments).
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

    /// Returns the one before. What is known of a source stays known, for the same remote address.
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

    /// Nothing sticks until the peer is heard again. With `stale` it is remembered what stuck, to
    /// be judged anew; without, the source itself is suspected.
    pub fn forget_source(&self, stale: bool) {
        if let Some(Way::Direct(held)) = &mut *write(&self.way) {
            let mut earlier = lock(&self.earlier);
            let source = held.source.take().or(*earlier).filter(|_| stale);
            *earlier = source.map(|source| Source { hold: source.hold | STALE, ..source });
        }
    }

    /// Which of the source sticks from now on, if the endpoint is still that one.
    pub fn hold_source(&self, endpoint: &Endpoint, hold: u8) {
        if let Some(Way::Direct(held)) = &mut *write(&self.way)
            && held.is(endpoint)
        {
            held.source = held.source.map(|source| Source { hold, ..source });
        }
    }

    /// Sending has found less to stick than the endpoint held. What is nothing is asked anew.
    #[cold]
    pub fn loosen_source(&self, endpoint: &Endpoint) {
        match endpoint.sticks() {
            0 if self.is_at(endpoint) => self.forget_source(false),
            hold => self.hold_source(endpoint, hold),
        }
    }

    /// Clears the bit of SOURCE_MOVED. First: whatever comes behind it posts again.
    pub fn take_source(&self) -> Option<Endpoint> {
        self.armed.fetch_and(!(1 << SOURCE_MOVED), SeqCst);
        self.endpoint().filter(|endpoint| endpoint.source.is_some())
    }

    /// Something authenticated left: true if it is the first data that waits for an answer, to be
    /// reported as DATA_SENT.
    pub fn count_sent(&self, bytes: usize, data: bool, now: u64) -> bool {
        self.sent_bytes.fetch_add(bytes as u64, Relaxed);
        self.stamps.sent.store(now, Relaxed);
        clear(&self.stamps.data_received);
        data && set_first(&self.stamps.data_sent, now) && self.arm(DATA_SENT)
    }

    /// Something authenticated came: true if it is the first data that waits for an answer, to be
    /// reported as DATA_RECEIVED.
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

    /// A packet wants a handshake: true if that is to be reported. Like `clear_wanted` under the
    /// lock of the sessions, so that nobody wants for a session that has been replaced.
    pub fn want_handshake(&self, now: u64) -> bool {
        self.stamps.wanted.store(now, Relaxed);
        self.arm(HANDSHAKE_WANTED)
    }

    /// Reads or changes the peer's drops; nothing else may be locked in there.
    pub fn record<R>(&self, action: impl FnOnce(&mut Drops) -> R) -> R {
        action(lock(&self.drops).get_or_insert_default())
    }

    /// Reads the drops of a peer that has any.
    pub fn read_drops(&self, action: impl FnOnce(&Drops)) {
        if let Some(drops) = &*lock(&self.drops) {
            action(drops);
        }
    }

    /// Clears the bit of UNREPORTED. First: whatever comes behind it posts again.
    pub fn take_unreported(&self) -> Unreported {
        self.armed.fetch_and(!(1 << UNREPORTED), SeqCst);
        self.record(Drops::take_unreported)
    }

    /// Sets the bit of an event kind; false if it was set.
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
        // The bit first: whoever sets the stamp after it finds the bit clear and posts.
        self.armed.fetch_and(!(1 << kind), SeqCst);
        if stamp.compare_exchange(seen, 0, SeqCst, SeqCst).is_ok() {
            return true;
        }
        // It moved. If the mover found the bit clear it has posted, which is as good as armed.
        self.armed.fetch_or(1 << kind, SeqCst);
        false
    }

    /// The stamps in the order of protocol/plane.py.
    pub fn stamps(&self) -> [u64; 6] {
        let Stamps { data_sent, data_received, last_data_received, wanted, sent, received } =
            &self.stamps;
        [data_sent, data_received, last_data_received, wanted, sent, received]
            .map(|stamp| stamp.load(Relaxed))
    }

    /// Bytes received and sent.
    pub fn transfer(&self) -> (u64, u64) {
        (self.received_bytes.load(Relaxed), self.sent_bytes.load(Relaxed))
    }
}

/// Stores only where that changes something: the two directions share these cache lines.
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
        let [plane, other] = [(); 2].map(|()| Plane::new().unwrap());
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

            // Another plane has as much of its own.
            for _ in 0..MAX_STAGED {
                elsewhere.stage(&[0; 100], 1);
            }
            assert_eq!(unstage_all(&mut elsewhere).len(), MAX_STAGED);

            // Nothing is left: the newest packet of each peer, or a keepalive for a super-packet.
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

            // And all of it comes back.
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
