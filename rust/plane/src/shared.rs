//! The state that the two threads and Python's calls share.
//!
//! Locks are taken in the order thread, sessions, outbound, table, allowed IPs, sockets, endpoint,
//! link, gate, messages, others, drops, events. None is held during a wait, except a short one for
//! room in a socket's buffer, and that for the end of a thread.

use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, Mutex, RwLock};

use rustix::fd::{AsFd, AsRawFd, RawFd};
use rustix::io::Errno;

use crate::allowed_ips::AllowedIps;
use crate::drops::{DropCounter, Drops};
use crate::gate::{Gate, MESSAGE_COOKIE, MESSAGE_RESPONSE, u32_at};
use crate::link::Link;
use crate::lock::{lock, read, write};
use crate::peer::{HANDSHAKE_WANTED, Peer, SOURCE_MOVED, UNREPORTED, Way};
use crate::session::Session;
use crate::sockets::{Endpoint, Outgoing, Sockets};
pub use crate::system::now;
use crate::system::{NO_FD, Signal};
use crate::table::Table;

/// Datagrams that wait for Python, each with its source.
pub type Datagrams = VecDeque<(Box<[u8]>, Endpoint)>;

/// The state that the threads and Python's calls share.
pub struct Shared {
    pub table: RwLock<Table>,
    pub allowed: RwLock<AllowedIps<Arc<Peer>>>,
    pub gate: Mutex<Gate>,
    /// Handshake messages that passed the gate, which limits their number.
    pub messages: Mutex<Datagrams>,
    /// Datagrams that are not WireGuard's; None if they are not kept.
    pub others: Mutex<Option<Datagrams>>,
    pub sockets: RwLock<Option<Arc<Sockets>>>,
    pub link: RwLock<Option<Arc<dyn Link>>>,
    pub mtu: AtomicUsize,
    /// The number of segments that wait for sessions, for all peers.
    pub staged: Arc<AtomicUsize>,
    /// Outbound packets that are not in any peer's allowed IPs, by destination.
    pub no_peer: Mutex<DropCounter<IpAddr>>,
    /// There is a subscriber, so UNREPORTED is posted.
    pub watched: AtomicBool,
    events: Mutex<Vec<(u8, u32)>>,
    /// Wakes Python; None after the plane was closed.
    signal: RwLock<Option<Signal>>,
    /// Only what every system has is used, and nothing is merged.
    pub portable: bool,
}

impl Shared {
    pub fn new(portable: bool) -> io::Result<Shared> {
        Ok(Shared {
            table: RwLock::default(),
            allowed: RwLock::default(),
            gate: Mutex::default(),
            messages: Mutex::default(),
            others: Mutex::default(),
            sockets: RwLock::default(),
            link: RwLock::default(),
            mtu: AtomicUsize::new(1420),
            staged: Arc::default(),
            no_peer: Mutex::default(),
            watched: AtomicBool::new(false),
            events: Mutex::default(),
            signal: RwLock::new(Some(Signal::new(portable)?)),
            portable,
        })
    }

    /// Returns the descriptor that is readable while events, messages or others wait; -1 after the
    /// plane was closed.
    pub fn event_fd(&self) -> RawFd {
        number(&self.signal)
    }

    pub fn close(&self) {
        *write(&self.signal) = None;
    }

    /// Returns the events since the last call.
    pub fn take_events(&self) -> Vec<(u8, u32)> {
        read(&self.signal).as_ref().map(Signal::clear); // first, so that later events wake again
        std::mem::take(&mut lock(&self.events))
    }

    /// Posts an event to Python. Armed bits limit their number.
    pub fn post(&self, kind: u8, peer: u32) {
        lock(&self.events).push((kind, peer));
        self.wake();
    }

    /// Wants a handshake with the peer. The caller holds the lock of its sessions.
    pub fn want_handshake(&self, peer: &Peer, now: u64) {
        if peer.want_handshake(now) {
            self.post(HANDSHAKE_WANTED, peer.id);
        }
    }

    /// Wants a rekey of the session, unless a newer one has replaced it.
    pub fn want_rekey(&self, peer: &Peer, session: &Arc<Session>, now: u64) {
        let sessions = peer.sessions();
        if sessions.current.as_ref().is_some_and(|current| Arc::ptr_eq(current, session)) {
            self.want_handshake(peer, now);
        }
    }

    /// Sets the peer's endpoint to the source of an authenticated message.
    #[cold]
    pub fn move_endpoint(&self, peer: &Peer, source: &Endpoint) {
        let before = peer.set_endpoint(Some(source.clone())).map(|endpoint| endpoint.remote);
        if peer.arm(SOURCE_MOVED) {
            self.post(SOURCE_MOVED, peer.id);
        }
        if let Some(before) = before.filter(|before| *before != source.remote)
            && self.watched.load(Relaxed)
        {
            self.record(peer, |drops, _| {
                drops.roamed_from.get_or_insert(before);
                true
            });
        }
    }

    /// Sends to the peer, by its present way. Errors of the kernel are counted.
    pub fn send(&self, peer: &Peer, message: &mut Outgoing<'_>, now: u64) -> io::Result<()> {
        let sockets = read(&self.sockets).clone(); // the lock is not held while sending waits
        match (peer.way(), sockets) {
            (Some(Way::Direct(mut endpoint)), Some(sockets)) => {
                let sticks = endpoint.sticks();
                let sent = sockets.send(&mut endpoint, message);
                if endpoint.sticks() != sticks {
                    peer.loosen_source(&endpoint);
                }
                sent.inspect_err(|error| self.send_failed(peer, error, now))
            }
            _ => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Counts a send that the kernel refused.
    pub fn send_failed(&self, peer: &Peer, error: &io::Error, now: u64) {
        let code = error.raw_os_error().unwrap_or(Errno::AFNOSUPPORT.raw_os_error());
        let lost = error.kind() != io::ErrorKind::WouldBlock; // a full queue is not the path's fault
        self.record(peer, |drops, watched| drops.send_error.add(code, now, watched && lost));
    }

    /// Changes the peer's drops. The action gets whether there is a subscriber, and returns whether
    /// the drop must be reported.
    #[cold]
    pub fn record(&self, peer: &Peer, action: impl FnOnce(&mut Drops, bool) -> bool) {
        let watched = self.watched.load(Relaxed);
        if peer.record(|drops| action(drops, watched)) && peer.arm(UNREPORTED) {
            self.post(UNREPORTED, peer.id);
        }
    }

    /// Returns whether TCP packets, and UDP packets, are merged before they go to the link.
    pub fn merges(&self, link: &dyn Link, now: u64) -> (bool, bool) {
        if self.portable { (false, false) } else { link.merges(now) }
    }

    pub fn wake(&self) {
        read(&self.signal).as_ref().map(Signal::set);
    }

    /// Returns whether a message that passed the gate answers something. An initiation does not; a
    /// response answers a pending handshake, a cookie reply that or a response sent from here.
    pub fn expects(&self, message: &[u8]) -> bool {
        let table = read(&self.table);
        match u32_at(message, 0) {
            MESSAGE_RESPONSE => {
                table.lookup(u32_at(message, 8)).is_some_and(|entry| entry.session.is_none())
            }
            MESSAGE_COOKIE => table.lookup(u32_at(message, 4)).is_some(),
            _ => true,
        }
    }
}

/// Returns the number of what is held, or `NO_FD`.
pub fn number(held: &RwLock<Option<impl AsFd>>) -> RawFd {
    read(held).as_ref().map_or(NO_FD, |held| held.as_fd().as_raw_fd())
}
