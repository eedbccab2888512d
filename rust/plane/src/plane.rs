//! The data plane as a whole: its two threads, and the calls that control it.

use std::collections::HashMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, RwLock};
use std::thread::{Builder, JoinHandle};

use rustix::fd::{AsFd, BorrowedFd, RawFd};

use crate::inbound;
use crate::link::Link;
use crate::lock::{lock, read, write};
use crate::outbound::{self, Outbound};
use crate::panics::Failures;
use crate::peer::{PANIC, Peer, Sessions, THREAD_LOST};
use crate::portable;
use crate::secret::scrub_stack;
use crate::session::Session;
use crate::shared::{Shared, now, number};
use crate::sockets::{Endpoint, Outgoing, Sockets};
use crate::system::{Signal, Timer};
use crate::uapi;

/// Handshake messages leave as AF41, as the kernel's do (HANDSHAKE_DSCP).
const HANDSHAKE_TOS: u8 = 0x88;

/// A thread, and what stops it.
struct Worker {
    stop: Arc<Signal>,
    thread: JoinHandle<()>,
}

impl Worker {
    fn spawn(
        name: &str,
        shared: Arc<Shared>,
        run: impl Fn(BorrowedFd<'_>) + Send + 'static,
    ) -> io::Result<Worker> {
        let stop = Arc::new(Signal::new(shared.portable)?);
        let inner = stop.clone();
        let thread = Builder::new().name(name.into()).spawn(move || {
            let mut failures = Failures::default();
            // One bad packet must not end the tunnel for everybody: `run` starts again with fresh
            // local state. Lasting state is in `shared`.
            while catch_unwind(AssertUnwindSafe(|| run(inner.as_fd()))).is_err() {
                shared.post(PANIC, 0);
                if !failures.bearable(now()) {
                    // A device that seems alive but carries nothing is worse than none.
                    shared.post(THREAD_LOST, 0);
                    break;
                }
            }
            scrub_stack(); // the next thread may get the same stack
        })?;
        Ok(Worker { stop, thread })
    }

    fn end(self) {
        self.stop.set();
        let _ = self.thread.join();
    }
}

pub struct Plane {
    shared: Arc<Shared>,
    /// None after `close`, and if Python's loop is the timer.
    timer: RwLock<Option<Timer>>,
    peers: RwLock<HashMap<u32, Arc<Peer>>>,
    next_peer: Mutex<u32>,
    /// For messages that Python's calls send.
    outbound: Mutex<Outbound>,
    outbound_thread: Mutex<Option<Worker>>,
    inbound_thread: Mutex<Option<Worker>>,
}

impl Plane {
    /// Makes a plane that uses what Linux has, or only what every system has. It then merges
    /// nothing, and has no timer. Other systems have no other plane.
    pub fn new(portable: bool) -> io::Result<Plane> {
        let portable = portable || portable::ONLY;
        let shared = Arc::new(Shared::new(portable)?);
        #[cfg(target_os = "linux")]
        let timer = if portable { None } else { Some(Timer::new()?) };
        #[cfg(not(target_os = "linux"))]
        let timer = None;
        Ok(Plane {
            timer: RwLock::new(timer),
            peers: RwLock::default(),
            next_peer: Mutex::new(1),
            outbound: Mutex::new(Outbound::new(shared.clone(), false)),
            outbound_thread: Mutex::default(),
            inbound_thread: Mutex::default(),
            shared,
        })
    }

    pub fn event_fd(&self) -> RawFd {
        self.shared.event_fd()
    }

    pub fn timer_fd(&self) -> RawFd {
        number(&self.timer)
    }

    /// Sets the timer. None stops it; a deadline that has passed fires at once.
    pub fn set_timer(&self, deadline: Option<u64>) -> io::Result<()> {
        let deadline = deadline.map_or(0, |deadline| deadline.max(1));
        read(&self.timer).as_ref().map_or(Ok(()), |timer| timer.set(deadline))
    }

    pub fn clear_timer(&self) {
        read(&self.timer).as_ref().map(Timer::clear);
    }

    pub fn portable(&self) -> bool {
        self.shared.portable
    }

    /// Starts to carry the link's packets; false if there is a link already.
    pub fn attach_link(&self, link: Arc<dyn Link>, mtu: usize) -> io::Result<bool> {
        self.set_mtu(mtu);
        let mut thread = lock(&self.outbound_thread);
        let mut held = write(&self.shared.link);
        if held.is_some() {
            return Ok(false);
        }
        let (shared, carried) = (self.shared.clone(), link.clone());
        *thread = Some(Worker::spawn("wiresnake-out", shared.clone(), move |stop| {
            outbound::run(&shared, &*carried, stop);
        })?);
        *held = Some(link); // only now, so that it can be tried again if there was no thread
        Ok(true)
    }

    pub fn set_mtu(&self, mtu: usize) {
        self.shared.mtu.store(mtu, Relaxed);
    }

    /// Uses these sockets instead of the previous ones. Without any, nothing is sent or received.
    pub fn attach_sockets(&self, sockets: Sockets) -> io::Result<()> {
        let mut thread = lock(&self.inbound_thread);
        *write(&self.shared.sockets) = None;
        if let Some(worker) = thread.take() {
            worker.end();
        }
        if sockets.each().next().is_none() {
            return Ok(());
        }
        let (shared, sockets) = (self.shared.clone(), Arc::new(sockets));
        let received = sockets.clone();
        let mut held = write(&self.shared.sockets);
        *thread = Some(Worker::spawn("wiresnake-in", shared.clone(), move |stop| {
            inbound::run(&shared, &received, stop);
        })?);
        *held = Some(sockets);
        Ok(())
    }

    /// Ends both threads and closes the sockets, the link and the descriptors that Python waits on.
    pub fn close(&self) {
        let _ = self.attach_sockets(Sockets::default());
        *write(&self.shared.link) = None;
        if let Some(worker) = lock(&self.outbound_thread).take() {
            worker.end();
        }
        *write(&self.timer) = None;
        self.shared.close();
    }

    /// Forgets the threads in a forked child, where they do not exist.
    pub fn abandon(&self) {
        std::mem::forget(lock(&self.inbound_thread).take());
        std::mem::forget(lock(&self.outbound_thread).take());
    }

    pub fn set_identity(&self, public: Option<[u8; 32]>) {
        lock(&self.shared.gate).set_identity(public);
        if public.is_none() {
            lock(&self.shared.messages).clear();
        }
    }

    pub fn take_events(&self) -> Vec<(u8, u32)> {
        self.shared.take_events()
    }

    /// Turns the event UNREPORTED on or off.
    pub fn watch(&self, watched: bool) {
        self.shared.watched.store(watched, Relaxed);
    }

    /// Returns whether datagrams are sent many at a time, and TCP and UDP packets are merged.
    pub fn offloads(&self) -> (bool, bool, bool) {
        let segment = read(&self.shared.sockets).as_ref().is_some_and(|both| both.segmentation);
        let merges = read(&self.shared.link)
            .as_ref()
            .map_or((false, false), |link| self.shared.merges(&**link, now()));
        (segment, merges.0, merges.1)
    }

    /// Writes the device's own drops for `state`.
    pub fn describe_drops(&self, now: u64) -> String {
        let merges = read(&self.shared.link).as_ref().map(|link| link.refused_merges());
        let (gate, no_peer) = (lock(&self.shared.gate), lock(&self.shared.no_peer));
        uapi::describe_drops(&gate.invalid_mac1, &no_peer, &merges.unwrap_or_default(), now)
    }

    pub fn take_message(&self) -> Option<(Box<[u8]>, Endpoint)> {
        lock(&self.shared.messages).pop_front()
    }

    /// Keeps datagrams that are not WireGuard's for `take_other`, or stops that. It starts off.
    pub fn keep_others(&self, kept: bool) {
        let mut others = lock(&self.shared.others);
        *others = kept.then(|| others.take().unwrap_or_default());
    }

    pub fn take_other(&self) -> Option<(Box<[u8]>, Endpoint)> {
        lock(&self.shared.others).as_mut()?.pop_front()
    }

    pub fn add_peer(&self) -> u32 {
        let mut next = lock(&self.next_peer);
        let id = *next;
        *next += 1;
        write(&self.peers).insert(id, Arc::new(Peer::new(id, &self.shared.staged)));
        id
    }

    pub fn peer(&self, id: u32) -> Option<Arc<Peer>> {
        read(&self.peers).get(&id).cloned()
    }

    pub fn remove_peer(&self, peer: &Arc<Peer>) {
        write(&self.peers).remove(&peer.id);
        self.wipe(peer);
        peer.sessions().remove();
    }

    pub fn forget_sources(&self) {
        for peer in read(&self.peers).values() {
            peer.forget_source(true);
        }
    }

    /// Routes a prefix to the peer, also if it had an owner; false if it is not a prefix.
    pub fn allow(&self, peer: &Arc<Peer>, prefix: &[u8], length: u8) -> bool {
        write(&self.shared.allowed).insert(prefix, length, peer.clone())
    }

    pub fn disallow(&self, prefix: &[u8], length: u8) {
        write(&self.shared.allowed).remove(prefix, length);
    }

    pub fn reserve(&self, peer: &Arc<Peer>) -> u32 {
        write(&self.shared.table).reserve(peer)
    }

    pub fn release(&self, index: u32) {
        write(&self.shared.table).release(index);
    }

    /// Installs a session (kernel: add_new_keypair).
    pub fn install(&self, peer: &Arc<Peer>, session: Arc<Session>) {
        let mut sessions = peer.sessions();
        write(&self.shared.table).install(peer, &session);
        let initiator = session.initiator;
        let gone = if initiator { sessions.begin(session) } else { sessions.answer(session) };
        peer.next_index.store(sessions.next.as_ref().map_or(0, |next| next.local_index), Relaxed);
        self.forget(gone);
        if initiator {
            peer.clear_wanted();
            self.sending(&mut sessions, |outbound, sessions| {
                outbound.send_staged(peer, sessions, now());
            });
        }
    }

    /// Stops sending in the peer's sessions, which still receive.
    pub fn expire(&self, peer: &Peer) {
        let sessions = peer.sessions();
        for session in [&sessions.current, &sessions.next].into_iter().flatten() {
            session.expire();
        }
    }

    pub fn wipe(&self, peer: &Peer) {
        let mut sessions = peer.sessions();
        peer.next_index.store(0, Relaxed);
        peer.clear_wanted();
        self.forget(sessions.take());
    }

    pub fn purge(&self, peer: &Peer) {
        let mut sessions = peer.sessions();
        sessions.purge();
        peer.clear_wanted();
    }

    /// Sends a handshake message to the peer.
    pub fn send(&self, peer: &Peer, message: &[u8]) {
        let now = now();
        peer.count_sent(0, false, now); // even if it cannot be sent, as the timers must run
        if self.shared.send(peer, &mut Outgoing::message(message, HANDSHAKE_TOS), now).is_ok() {
            peer.count_sent(message.len(), false, now);
        }
    }

    pub fn send_staged(&self, peer: &Arc<Peer>) {
        self.sending(&mut peer.sessions(), |outbound, sessions| {
            outbound.send_staged(peer, sessions, now());
        });
    }

    pub fn send_keepalive(&self, peer: &Arc<Peer>) {
        self.sending(&mut peer.sessions(), |outbound, sessions| {
            outbound.send_keepalive(peer, sessions, now());
        });
    }

    /// Sends. A panic there costs the packets in hand, but it is not an error of the call, which
    /// has done everything else.
    fn sending(&self, sessions: &mut Sessions, send: impl FnOnce(&mut Outbound, &mut Sessions)) {
        let mut outbound = lock(&self.outbound);
        if catch_unwind(AssertUnwindSafe(|| send(&mut outbound, sessions))).is_err() {
            outbound.reset();
            self.shared.post(PANIC, 0);
        }
        scrub_stack();
    }

    fn forget(&self, gone: impl IntoIterator<Item = Arc<Session>>) {
        let mut table = write(&self.shared.table);
        for session in gone {
            table.remove(session.local_index);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::net::UdpSocket;
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::time::Duration;

    use super::*;
    use crate::drops::DropCounter;
    use crate::gate::{LONGEST_OTHER, OTHERS_LIMIT};
    use crate::ip::{self, tests::ipv4};
    use crate::link::Frame;
    use crate::offload::VNET_HEADER;
    use crate::panics::tests::keep_planted;
    use crate::peer::{HANDSHAKE_WANTED, TUN_LOST};
    use crate::secret::AeadKey;

    fn session(local_index: u32, initiator: bool) -> Arc<Session> {
        let key = || AeadKey::new(&[7; 32]);
        Arc::new(Session::new(key(), key(), local_index, 9, initiator, 0, [u64::MAX; 3]))
    }

    #[test]
    fn a_session_that_was_replaced_wants_nothing() {
        let plane = Plane::new(false).unwrap();
        let peer = plane.peer(plane.add_peer()).unwrap();
        let [old, new] = [1, 2].map(|index| session(index, true));
        plane.install(&peer, old.clone());
        plane.shared.want_rekey(&peer, &old, 5);
        assert_eq!((plane.take_events().len(), peer.stamps()[3]), (1, 5));
        plane.install(&peer, new.clone());
        assert_eq!(peer.stamps()[3], 0);
        plane.shared.want_rekey(&peer, &old, 6);
        assert_eq!((plane.take_events().len(), peer.stamps()[3]), (0, 0));
        plane.shared.want_rekey(&peer, &new, 7);
        assert_eq!((plane.take_events().len(), peer.stamps()[3]), (1, 7));
    }

    #[test]
    fn c024_c025_the_slots_are_the_kernels() {
        let indices = |sessions: &Sessions| {
            [&sessions.previous, &sessions.current, &sessions.next]
                .map(|slot| slot.as_ref().map_or(0, |session| session.local_index))
        };
        let gone = |gone: Vec<Arc<Session>>| {
            gone.iter().map(|session| session.local_index).collect::<Vec<_>>()
        };
        let mut sessions = Sessions::default();
        assert!(sessions.begin(session(1, true)).is_empty());
        assert!(sessions.begin(session(2, true)).is_empty());
        assert_eq!(indices(&sessions), [1, 2, 0]);
        assert_eq!(gone(sessions.answer(session(3, false))), [1]);
        assert_eq!(gone(sessions.answer(session(4, false))), [3]);
        assert_eq!(indices(&sessions), [0, 2, 4]);
        assert!(sessions.confirm().is_none());
        assert_eq!(indices(&sessions), [2, 4, 0]);
        sessions.answer(session(5, false));
        assert_eq!(gone(sessions.begin(session(6, true))), [4]);
        assert_eq!(indices(&sessions), [5, 6, 0]);
        assert_eq!(gone(sessions.take()), [5, 6]);
    }

    #[test]
    fn c025_c026_the_table_leads_to_the_sessions_in_use_and_to_no_other() {
        let plane = Plane::new(false).unwrap();
        let peer = plane.peer(plane.add_peer()).unwrap();
        let mut all = Vec::new();
        for initiator in [true, true, false, false, true, true, false, true, false, false] {
            let handshake = plane.reserve(&peer);
            assert!(read(&plane.shared.table).lookup(handshake).unwrap().session.is_none());
            plane.install(&peer, session(handshake, initiator));
            all.push(handshake);
            let sessions = peer.sessions();
            let held: Vec<u32> = [&sessions.previous, &sessions.current, &sessions.next]
                .into_iter()
                .flatten()
                .map(|session| session.local_index)
                .collect();
            assert!(held.contains(&handshake));
            for index in &all {
                let entry = read(&plane.shared.table).lookup(*index).cloned();
                let leads = entry.is_some_and(|entry| entry.session.is_some());
                assert_eq!(leads, held.contains(index));
            }
        }
        plane.wipe(&peer);
        assert!(all.iter().all(|index| read(&plane.shared.table).lookup(*index).is_none()));
    }

    /// The last counter is used; the next packet waits and wants a handshake.
    #[test]
    fn c048_without_a_counter_packets_wait_for_another_session() {
        let plane = Plane::new(false).unwrap();
        let peer = plane.peer(plane.add_peer()).unwrap();
        let last = session(1, true);
        last.claim(u64::MAX - 8128 - 2).unwrap();
        plane.install(&peer, last.clone());
        plane.send_keepalive(&peer);
        assert!(peer.sessions().nothing_staged());
        plane.purge(&peer); // it also clears the wanted rekey, which is due after 2^60
        plane.take_events();
        for _ in 0..3 {
            plane.send_keepalive(&peer);
            assert!(!peer.sessions().nothing_staged());
            assert_eq!(last.claim(1), None);
        }
        assert_eq!(plane.take_events(), [(HANDSHAKE_WANTED, peer.id)]);
        plane.install(&peer, session(2, true));
        assert!(peer.sessions().nothing_staged());
    }

    #[test]
    fn c049_after_2_to_the_60_messages_a_handshake_is_wanted_in_either_role() {
        for initiator in [true, false] {
            let plane = Plane::new(false).unwrap();
            let peer = plane.peer(plane.add_peer()).unwrap();
            let used = session(1, initiator);
            used.claim((1 << 60) - 1).unwrap();
            plane.install(&peer, used);
            if !initiator {
                peer.sessions().confirm();
            }
            plane.send_keepalive(&peer);
            assert!(plane.take_events().is_empty());
            plane.send_keepalive(&peer);
            assert_eq!(plane.take_events(), [(HANDSHAKE_WANTED, peer.id)]);
        }
    }

    #[test]
    fn c014_indices_are_random_and_unique() {
        let plane = Plane::new(false).unwrap();
        let peer = plane.peer(plane.add_peer()).unwrap();
        let mut indices: Vec<u32> = (0..10_000).map(|_| plane.reserve(&peer)).collect();
        let ascending = indices.windows(2).filter(|pair| pair[0] < pair[1]).count();
        assert!((4_500..5_500).contains(&ascending), "{ascending} of 10,000");
        for bit in 0..32 {
            let set = indices.iter().filter(|index| *index >> bit & 1 == 1).count();
            assert!((4_700..5_300).contains(&set), "bit {bit}: {set} of 10,000");
        }
        indices.sort_unstable();
        indices.dedup();
        assert_eq!(indices.len(), 10_000);
        plane.release(indices[0]);
        assert!(read(&plane.shared.table).lookup(indices[0]).is_none());
    }

    /// Both planes, or the only one of this system.
    const PLANES: &[bool] = if portable::ONLY { &[true] } else { &[false, true] };

    /// A plane that carries packets, with the far ends of its link and its socket, and the peer's
    /// half of its session.
    struct Rig {
        plane: Plane,
        peer: Arc<Peer>,
        link: Arc<Memory>,
        written: Receiver<Vec<u8>>,
        wire: UdpSocket,
        theirs: Session,
    }

    impl Rig {
        /// Makes a rig. Its session is installed at once, or by `install`.
        fn new(portable: bool, installed: bool) -> Rig {
            let (link, written) = Memory::new(portable);
            let (plane, peer, wire) = carrying(portable, link.clone());
            let theirs = Arc::into_inner(session(9, false)).unwrap();
            let rig = Rig { plane, peer, link, written, wire, theirs };
            if installed {
                rig.install();
            }
            rig
        }

        fn install(&self) {
            let index = self.plane.reserve(&self.peer);
            self.plane.install(&self.peer, session(index, true));
        }

        fn send(&self, says: &str) {
            self.link.put([vec![0; VNET_HEADER], ipv4(17, says.as_bytes())].concat());
        }

        /// Returns the packet in the plane's next data message.
        fn sent(&self) -> Vec<u8> {
            let mut message = [0; 2000];
            let length = self.wire.recv(&mut message).unwrap();
            let packet = self.theirs.open_in_place(&mut message[..length], now()).unwrap();
            let end = ip::parse(packet).map_or(0, |inner| inner.length);
            packet[..end].get(20..).unwrap_or_default().to_vec()
        }

        fn receive(&self, counter: u64, says: &str) {
            let index = self.peer.sessions().current.as_ref().unwrap().local_index;
            let packet = ipv4(17, says.as_bytes());
            let mut message = [&[0; 16][..], &packet, &[0; 16]].concat();
            self.theirs.seal_in_place(counter, &mut message);
            message[4..8].copy_from_slice(&index.to_le_bytes());
            self.wire.send(&message).unwrap();
        }

        /// Returns the packet in the plane's next frame.
        fn received(&self) -> Vec<u8> {
            let frame = self.written.recv_timeout(Duration::from_secs(5)).unwrap();
            frame[VNET_HEADER + 20..].to_vec()
        }

        fn panics(&self) -> usize {
            self.plane.take_events().iter().filter(|event| **event == (PANIC, 0)).count()
        }
    }

    /// Makes a plane that carries the packets of a link, its peer, and the socket at that one's end.
    fn carrying(portable: bool, link: Arc<dyn Link>) -> (Plane, Arc<Peer>, UdpSocket) {
        keep_planted();
        let plane = Plane::new(portable).unwrap();
        let [wire, ours] = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
        wire.connect(ours.local_addr().unwrap()).unwrap();
        wire.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        assert!(plane.attach_link(link, 1420).unwrap());
        plane.attach_sockets(Sockets::new(Some(ours), None, portable).unwrap()).unwrap();
        let peer = plane.peer(plane.add_peer()).unwrap();
        let remote = wire.local_addr().unwrap();
        peer.set_endpoint(Some(Endpoint { remote, source: None }));
        assert!(plane.allow(&peer, &[0; 4], 0));
        (plane, peer, wire)
    }

    /// A link in memory, like that of a network stack in this process.
    struct Memory {
        frames: Mutex<VecDeque<Vec<u8>>>,
        ready: Signal,
        written: Sender<Vec<u8>>,
    }

    impl Memory {
        fn new(portable: bool) -> (Arc<Memory>, Receiver<Vec<u8>>) {
            let (written, frames) = channel();
            let ready = Signal::new(portable).unwrap();
            (Arc::new(Memory { frames: Mutex::default(), ready, written }), frames)
        }

        fn put(&self, frame: Vec<u8>) {
            lock(&self.frames).push_back(frame);
            self.ready.set();
        }
    }

    impl Link for Memory {
        fn read(&self, frame: &mut [u8]) -> Frame {
            self.ready.clear();
            match lock(&self.frames).pop_front() {
                Some(next) if next.is_empty() => Frame::Lost,
                Some(next) => {
                    frame[..next.len()].copy_from_slice(&next);
                    Frame::Length(next.len())
                }
                None => Frame::Nothing,
            }
        }

        fn write(&self, frame: &mut [u8]) {
            crate::panics::plant("write", frame);
            self.written.send(frame.to_vec()).unwrap();
        }

        fn merges(&self, _: u64) -> (bool, bool) {
            (true, true)
        }

        fn refused_merges(&self) -> DropCounter<i32> {
            DropCounter::default()
        }
    }

    impl AsFd for Memory {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.ready.as_fd()
        }
    }

    #[test]
    fn each_plane_carries_frames_until_its_link_is_lost() {
        for portable in PLANES {
            let rig = Rig::new(*portable, true);
            for (counter, says) in [(0, "one"), (1, "two")] {
                rig.send(says);
                assert_eq!(rig.sent(), says.as_bytes());
                rig.receive(counter, says);
                assert_eq!(rig.received(), says.as_bytes());
            }
            rig.plane.take_events();
            rig.link.put(Vec::new());
            while !rig.plane.take_events().contains(&(TUN_LOST, 0)) {
                std::thread::yield_now();
            }
        }
    }

    /// A burst of messages in one send, and a burst of packets in one write, but not everywhere.
    #[test]
    fn only_linuxs_own_plane_uses_offloads_and_merges() {
        for portable in PLANES {
            let rig = Rig::new(*portable, true);
            assert_eq!(rig.plane.offloads(), (!portable, !portable, !portable));
            assert_eq!(rig.plane.timer_fd() == crate::system::NO_FD, *portable);
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_tun_device_is_a_link() {
        use std::os::unix::net::UnixDatagram;
        for portable in PLANES {
            let (app, tun) = UnixDatagram::pair().unwrap();
            app.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            let tun = crate::tun::Tun::new(tun.into(), true, (true, true)).unwrap();
            let (plane, peer, wire) = carrying(*portable, Arc::new(tun));
            plane.install(&peer, session(plane.reserve(&peer), true));
            app.send(&[vec![0; VNET_HEADER], ipv4(17, b"out")].concat()).unwrap();
            assert_eq!(wire.recv(&mut [0; 2000]).unwrap(), 32 + 32);
        }
    }

    #[test]
    fn what_is_not_wireguards_is_nothing_unless_it_is_asked_for_and_then_bounded() {
        for portable in PLANES {
            let rig = Rig::new(*portable, true);
            let others = || std::iter::from_fn(|| rig.plane.take_other()).collect::<Vec<_>>();
            let send = |counter| {
                rig.wire.send(&[1, 0, 0, 0, 1]).unwrap(); // a WireGuard type with a wrong length
                rig.wire.send(&[9; LONGEST_OTHER + 1]).unwrap();
                for number in 0..OTHERS_LIMIT as u32 + 9 {
                    rig.wire
                        .send(&[&[9; LONGEST_OTHER - 4][..], &number.to_le_bytes()].concat())
                        .unwrap();
                    if number % 16 == 0 {
                        rig.receive(counter + u64::from(number), "go on");
                        assert_eq!(rig.received(), b"go on");
                    }
                }
                rig.receive(counter + 1000, "all came");
                assert_eq!(rig.received(), b"all came");
            };
            send(0);
            assert!(others().is_empty() && lock(&rig.plane.shared.others).is_none());
            rig.plane.keep_others(true);
            for counter in [2000, 4000] {
                send(counter);
                rig.plane.keep_others(true); // a second call changes nothing
                let others = others();
                assert_eq!(others.len(), OTHERS_LIMIT);
                for (number, (datagram, source)) in others.iter().enumerate() {
                    assert_eq!(datagram.len(), LONGEST_OTHER);
                    assert_eq!(datagram[LONGEST_OTHER - 4..], (number as u32).to_le_bytes());
                    assert_eq!(source.remote, rig.wire.local_addr().unwrap());
                }
            }
            send(6000);
            rig.plane.keep_others(false);
            assert!(others().is_empty() && lock(&rig.plane.shared.others).is_none());
        }
    }

    #[test]
    fn c085_a_panic_on_the_way_out_costs_its_batch() {
        for portable in PLANES {
            let rig = Rig::new(*portable, true);
            for (number, place) in ["carry", "seal", "carry"].into_iter().enumerate() {
                rig.send(&format!("before {number}"));
                assert_eq!(rig.sent(), format!("before {number}").as_bytes());
                rig.send(place);
                rig.send("after");
                assert_eq!(rig.sent(), b"after");
            }
            assert_eq!(rig.panics(), 3);
        }
        assert!(
            crate::panics::take().iter().any(|line| line.starts_with("plane/src/outbound.rs:"))
        );
    }

    #[test]
    fn c085_a_panic_on_the_way_in_costs_its_batch() {
        for portable in PLANES {
            let rig = Rig::new(*portable, true);
            rig.receive(0, "before");
            assert_eq!(rig.received(), b"before");
            for (counter, place) in [(1, "open"), (3, "gate"), (5, "merge"), (7, "write")] {
                match place {
                    "gate" => assert!(rig.wire.send(b"no data: gate").is_ok()),
                    _ => rig.receive(counter, place),
                }
                // Datagrams of the same receive call are lost, too.
                while rig.panics() == 0 {
                    std::thread::yield_now();
                }
                rig.receive(counter + 1, "after");
                assert_eq!(rig.received(), b"after");
            }
            rig.send("out");
            assert_eq!(rig.sent(), b"out");
        }
    }

    #[test]
    fn c085_a_panic_in_a_call_of_pythons_costs_a_packet_and_the_call_is_done() {
        for portable in PLANES {
            let rig = Rig::new(*portable, false);
            rig.send("seal");
            rig.send("after");
            while rig.peer.sessions().staged_segments() < 2 {
                std::thread::yield_now();
            }
            rig.install();
            assert_eq!(rig.panics(), 1);
            assert!(rig.peer.sessions().current.is_some());
            assert_eq!(rig.peer.stamps()[3], 0, "nothing wants a handshake");
            rig.plane.send_keepalive(&rig.peer);
            assert_eq!(rig.sent(), b"after");
            rig.plane.send_keepalive(&rig.peer);
            assert_eq!(rig.sent(), b"", "a keepalive");
            assert_eq!(rig.panics(), 0);
        }
    }

    /// Locks that are held during a panic stay usable.
    #[test]
    fn c085_a_lock_that_was_held_is_usable() {
        let plane = Plane::new(false).unwrap();
        let peer = plane.peer(plane.add_peer()).unwrap();
        let held = catch_unwind(AssertUnwindSafe(|| {
            let _sessions = peer.sessions();
            let _outbound = lock(&plane.outbound);
            let _table = write(&plane.shared.table);
            std::panic::resume_unwind(Box::new(()));
        }));
        assert!(held.is_err());
        plane.install(&peer, session(plane.reserve(&peer), true));
        plane.send_keepalive(&peer);
        plane.remove_peer(&peer);
    }

    #[test]
    fn c085_a_thread_that_keeps_failing_is_reported() {
        keep_planted();
        let plane = Plane::new(false).unwrap();
        let worker = Worker::spawn("doomed", plane.shared.clone(), |_| {
            crate::panics::plant("doomed", b"doomed");
        });
        worker.unwrap().end();
        let mut expected = vec![(PANIC, 0); 6];
        expected.push((THREAD_LOST, 0));
        assert_eq!(plane.take_events(), expected);
    }
}
