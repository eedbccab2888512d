//! The state that the two threads and Python's calls share.
//!
//! Locks are taken in the order thread, sessions, outbound, table, allowed IPs, sockets, endpoint,
//! link, gate, messages, others, drops, events. None is held during a wait, except a short one for
//! room in a socket's buffer, and that for the end of a thread.

use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, Mutex, RwLock};

use rustix::event::{EventfdFlags, eventfd};
use rustix::time::{ClockId, clock_gettime};

use crate::allowed_ips::AllowedIps;
use crate::drops::{DropCounter, Drops};
use crate::gate::{Gate, MESSAGE_COOKIE, MESSAGE_RESPONSE, u32_at};
use crate::link::Link;
use crate::lock::{lock, read, write};
use crate::peer::{HANDSHAKE_WANTED, Peer, SOURCE_MOVED, UNREPORTED, Way};
use crate::session::Session;
use crate::table::Table;
use crate::udp::{Endpoint, Outgoing, Sockets};

/// Returns the ns of CLOCK_BOOTTIME, which counts suspend.
pub fn now() -> u64 {
    let time = clock_gettime(ClockId::Boottime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

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
    /// None after the plane was closed.
    event_fd: RwLock<Option<OwnedFd>>,
}

impl Shared {
    pub fn new() -> io::Result<Shared> {
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
            event_fd: RwLock::new(Some(new_eventfd()?)),
        })
    }

    /// Returns the descriptor that is readable while events, messages or others wait; -1 after the
    /// plane was closed.
    pub fn event_fd(&self) -> RawFd {
        number(&self.event_fd)
    }

    pub fn close(&self) {
        *write(&self.event_fd) = None;
    }

    /// Returns the events since the last call.
    pub fn take_events(&self) -> Vec<(u8, u32)> {
        read(&self.event_fd).as_ref().map(drain); // first, so that later events wake again
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
        let code = error.raw_os_error().unwrap_or(libc::EAFNOSUPPORT);
        let lost = code != libc::EAGAIN; // a full queue is not a fault of the path
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

    pub fn wake(&self) {
        read(&self.event_fd).as_ref().map(signal);
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

pub fn new_eventfd() -> io::Result<OwnedFd> {
    Ok(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)
}

pub fn number(held: &RwLock<Option<OwnedFd>>) -> RawFd {
    read(held).as_ref().map_or(-1, AsRawFd::as_raw_fd)
}

pub fn signal(fd: &OwnedFd) {
    let _ = rustix::io::write(fd, &1u64.to_ne_bytes()); // EAGAIN: it is readable already
}

pub fn drain(fd: &OwnedFd) {
    let _ = rustix::io::read(fd, &mut [0u8; 8]);
}
