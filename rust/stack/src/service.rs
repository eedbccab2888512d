//! The stack's thread, and the descriptors that applications hold.
//!
//! An application's socket is one end of a pair of Unix sockets; this thread serves the other end.
//! A stream's bytes are raw. A datagram has an address in front of it, until its socket is
//! connected. A listener's descriptor is readable while a connection waits, whose descriptor comes
//! with a message.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token, Waker};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, IoSlice, ioctl_fionbio, read, retry_on_intr};
use rustix::net::{
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown, send, sendmsg, shutdown,
};

use plane::link::Link;
use plane::lock::lock;
use plane::panics::Failures;
use plane::secret::random;
use plane::shared::now;

use crate::connection::{Error, Limits, Status};
use crate::engine::{Engine, Event, Protocol};
use crate::packet::Tuple;
use crate::wire::Wire;

/// The address in front of a datagram: family (4 or 6), a zero, port, and 16 bytes.
pub const ADDRESS: usize = 20;
/// The most events per call.
const EVENTS: usize = 256;
const WAKER: Token = Token(usize::MAX);
/// The largest datagram.
const DATAGRAM: usize = 65_535;

#[cfg(target_vendor = "apple")]
const QUIET: SendFlags = SendFlags::empty();
#[cfg(not(target_vendor = "apple"))]
const QUIET: SendFlags = SendFlags::NOSIGNAL;

/// What an application's socket object may ask. It outlives the descriptor's other end.
#[derive(Default)]
pub struct Report {
    /// An error that was not yet reported.
    pub error: Option<Errno>,
    pub local: Option<SocketAddr>,
    pub remote: Option<SocketAddr>,
    /// The connection is complete, or it was.
    pub connected: bool,
    pub connecting: bool,
}

enum Kind {
    Idle,
    Stream(Tuple),
    Listener {
        at: SocketAddr,
        /// Connections whose message did not fit yet.
        pending: VecDeque<(OwnedFd, [u8; ADDRESS + 8])>,
        unclaimed: HashMap<usize, Arc<Mutex<Report>>>,
    },
    Datagrams,
}

/// Our end of an application's socket.
struct Entry {
    fd: OwnedFd,
    kind: Kind,
    report: Arc<Mutex<Report>>,
    bound: Option<SocketAddr>,
    v6: bool,
    /// A call would not fail with EAGAIN, as far as is known.
    readable: bool,
    writable: bool,
    /// The application has closed both directions.
    hung_up: bool,
    /// The application has ended what it writes; we have ended what it reads.
    finished: bool,
    ended: bool,
    /// Bytes that only kept the descriptor from being writable before it is connected.
    filler: usize,
}

struct State {
    engine: Engine,
    registry: Registry,
    wire: Arc<Wire>,
    entries: HashMap<usize, Entry>,
    next: usize,
    flows: HashMap<Tuple, usize>,
    /// Sockets that are bound: listeners and those of datagrams.
    bound: HashMap<(Protocol, SocketAddr), usize>,
    /// Entries to look at.
    active: HashSet<usize>,
    buffer: Box<[u8]>,
}

/// A stack with its thread.
pub struct Service {
    addresses: Vec<IpAddr>,
    limits: Limits,
    state: Mutex<State>,
    wire: Arc<Wire>,
    closed: AtomicBool,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Returns an engine with the operating system's randomness.
fn engine(addresses: &[IpAddr], limits: Limits) -> Engine {
    let entropy = || {
        let mut bytes = [0; 8];
        random(&mut bytes);
        u64::from_ne_bytes(bytes)
    };
    Engine::new(addresses.to_vec(), limits, Box::new(entropy))
}

fn errno(error: Error) -> Errno {
    match error {
        Error::Refused => Errno::CONNREFUSED,
        Error::Reset => Errno::CONNRESET,
        Error::TimedOut => Errno::TIMEDOUT,
        Error::HostUnreachable => Errno::HOSTUNREACH,
        Error::NetworkUnreachable => Errno::NETUNREACH,
        Error::InUse => Errno::ADDRINUSE,
        Error::NotAvailable => Errno::ADDRNOTAVAIL,
    }
}

pub fn write_address(address: &SocketAddr) -> [u8; ADDRESS] {
    let mut bytes = [0; ADDRESS];
    bytes[2..4].copy_from_slice(&address.port().to_be_bytes());
    match address.ip() {
        IpAddr::V4(v4) => {
            bytes[0] = 4;
            bytes[4..8].copy_from_slice(&v4.octets());
        }
        IpAddr::V6(v6) => {
            bytes[0] = 6;
            bytes[4..].copy_from_slice(&v6.octets());
        }
    }
    bytes
}

fn read_address(bytes: &[u8; ADDRESS]) -> Option<SocketAddr> {
    let octets: [u8; 16] = bytes[4..].try_into().ok()?;
    let ip = match bytes[0] {
        4 => IpAddr::from([octets[0], octets[1], octets[2], octets[3]]),
        6 => IpAddr::from(octets),
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_be_bytes([bytes[2], bytes[3]])))
}

fn any(v6: bool) -> SocketAddr {
    let ip = if v6 { Ipv6Addr::UNSPECIFIED.into() } else { IpAddr::V4(Ipv4Addr::UNSPECIFIED) };
    SocketAddr::new(ip, 0)
}

impl Service {
    /// Starts a stack with these addresses.
    pub fn new(addresses: Vec<IpAddr>, limits: Limits) -> io::Result<Arc<Service>> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        let wire = Arc::new(Wire::new(waker, limits.offloads)?);
        let state = State {
            engine: engine(&addresses, limits),
            registry: poll.registry().try_clone()?,
            wire: wire.clone(),
            entries: HashMap::new(),
            next: 0,
            flows: HashMap::new(),
            bound: HashMap::new(),
            active: HashSet::new(),
            buffer: vec![0; DATAGRAM + ADDRESS].into(),
        };
        let service = Arc::new(Service {
            addresses,
            limits,
            state: Mutex::new(state),
            wire,
            closed: AtomicBool::new(false),
            thread: Mutex::default(),
        });
        let inner = service.clone();
        let thread =
            Builder::new().name("wiresnake-stack".into()).spawn(move || inner.run(poll))?;
        *lock(&service.thread) = Some(thread);
        Ok(service)
    }

    /// Returns the link for a plane.
    pub fn link(&self) -> Arc<dyn Link> {
        self.wire.clone()
    }

    pub fn mtu(&self) -> usize {
        self.limits.mtu
    }

    /// Ends the thread. All descriptors see the end.
    pub fn close(&self) {
        self.closed.store(true, Relaxed);
        self.wire.wake();
        if let Some(thread) = lock(&self.thread).take() {
            let _ = thread.join();
        }
        lock(&self.state).clear(Errno::NETDOWN);
        self.wire.lose();
    }

    fn run(&self, mut poll: Poll) {
        let mut failures = Failures::default();
        while catch_unwind(AssertUnwindSafe(|| self.serve(&mut poll))).is_err() {
            let mut state = lock(&self.state);
            state.clear(Errno::IO);
            state.engine = engine(&self.addresses, self.limits);
            self.wire.panicked();
            if !failures.bearable(now()) {
                return self.wire.lose();
            }
        }
    }

    fn serve(&self, poll: &mut Poll) {
        let mut events = Events::with_capacity(EVENTS);
        let mut wait = Some(Duration::ZERO);
        loop {
            let _ = poll.poll(&mut events, wait); // an interrupted call has no events
            if self.closed.load(Relaxed) {
                return;
            }
            let mut state = lock(&self.state);
            for event in &events {
                state.note(event);
            }
            wait = state.pass();
        }
    }

    fn state(&self) -> Result<MutexGuard<'_, State>, Errno> {
        if self.closed.load(Relaxed) { Err(Errno::NETDOWN) } else { Ok(lock(&self.state)) }
    }

    /// Opens a socket, and returns it with the application's end.
    pub fn open(self: &Arc<Service>, v6: bool, stream: bool) -> Result<(Socket, OwnedFd), Errno> {
        let mut state = self.state()?;
        let kind = if stream { Kind::Idle } else { Kind::Datagrams };
        let (token, theirs) = state.open(kind, v6)?;
        let report = state.entries[&token].report.clone();
        let (service, limits) = (Arc::downgrade(self), self.limits);
        Ok((Socket { service, token, v6, limits, report }, theirs))
    }
}

/// An application's socket, from outside.
pub struct Socket {
    service: Weak<Service>,
    token: usize,
    v6: bool,
    limits: Limits,
    report: Arc<Mutex<Report>>,
}

impl Socket {
    /// Returns the longest datagram that fits into a packet.
    pub fn longest_datagram(&self) -> usize {
        self.limits.longest_datagram(self.v6)
    }

    pub fn report(&self) -> MutexGuard<'_, Report> {
        lock(&self.report)
    }

    /// Does something with the entry, and lets the thread look at it.
    fn with<T>(&self, act: impl FnOnce(&mut State, usize) -> Result<T, Errno>) -> Result<T, Errno> {
        let service = self.service.upgrade().ok_or(Errno::NETDOWN)?;
        let mut state = service.state()?;
        if !state.entries.contains_key(&self.token) {
            return Err(Errno::NOTCONN);
        }
        let result = act(&mut state, self.token);
        state.active.insert(self.token);
        drop(state);
        service.wire.wake();
        result
    }

    /// Binds the socket to an address of the tunnel. Port 0 stands for any.
    pub fn bind(&self, at: SocketAddr) -> Result<(), Errno> {
        self.with(|state, token| state.bind(token, at).map(|_| ()))
    }

    /// Begins to connect a stream, whose descriptor the application has filled with `filler` bytes;
    /// or sets the peer of datagrams.
    pub fn connect(&self, remote: SocketAddr, filler: usize) -> Result<(), Errno> {
        self.with(|state, token| state.connect(token, remote, filler))
    }

    pub fn listen(&self, backlog: usize) -> Result<(), Errno> {
        self.with(|state, token| state.listen(token, backlog))
    }

    /// Returns the socket of a connection that came with this number.
    pub fn accepted(&self, number: usize) -> Result<Socket, Errno> {
        self.with(|state, token| {
            let Some(Entry { kind: Kind::Listener { at, unclaimed, .. }, .. }) =
                state.entries.get_mut(&token)
            else {
                return Err(Errno::INVAL);
            };
            let report = unclaimed.remove(&number).ok_or(Errno::CONNABORTED)?;
            state.engine.accepted(*at);
            let Socket { service, v6, limits, .. } = self;
            let (service, v6, limits) = (service.clone(), *v6, *limits);
            Ok(Socket { service, token: number, v6, limits, report })
        })
    }

    /// Probes an idle peer at this interval in seconds; None stops that.
    pub fn set_keepalive(&self, seconds: Option<u64>) -> Result<(), Errno> {
        self.with(|state, token| {
            if let Kind::Stream(flow) = state.entries[&token].kind
                && let Some(connection) = state.engine.connection(&flow)
            {
                connection.set_keepalive(seconds);
                state.engine.wake(flow);
            }
            Ok(())
        })
    }
}

impl State {
    fn open(&mut self, kind: Kind, v6: bool) -> Result<(usize, OwnedFd), Errno> {
        let failed = |error: io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
        let (fd, theirs) = match kind {
            Kind::Datagrams => datagram_pair()?,
            _ => UnixStream::pair().map(|(one, two)| (one.into(), two.into())).map_err(failed)?,
        };
        ioctl_fionbio(&fd, true)?;
        let token = self.next;
        self.next += 1;
        let both = Interest::READABLE | Interest::WRITABLE;
        let source = fd.as_raw_fd();
        self.registry.register(&mut SourceFd(&source), Token(token), both).map_err(failed)?;
        let entry = Entry {
            fd,
            kind,
            report: Arc::default(),
            bound: None,
            v6,
            readable: true,
            writable: true,
            hung_up: false,
            finished: false,
            ended: false,
            filler: 0,
        };
        self.entries.insert(token, entry);
        Ok((token, theirs))
    }

    /// Closes our end of a socket, whose connection may go on to end by itself.
    fn remove(&mut self, token: usize) {
        let Some(entry) = self.entries.remove(&token) else { return };
        let _ = self.registry.deregister(&mut SourceFd(&entry.fd.as_raw_fd()));
        // A forked child may have a copy of this descriptor.
        let _ = shutdown(&entry.fd, Shutdown::Both);
        self.active.remove(&token);
        let protocol = match entry.kind {
            Kind::Datagrams => Protocol::Udp,
            _ => Protocol::Tcp,
        };
        if let Kind::Stream(flow) = entry.kind
            && self.flows.get(&flow) == Some(&token)
        {
            self.flows.remove(&flow);
            self.engine.leave(&flow, now());
        }
        if let Some(at) = entry.bound {
            self.bound.remove(&(protocol, at));
            self.engine.unbind(protocol, at);
        }
    }

    /// Closes all, with an error.
    fn clear(&mut self, error: Errno) {
        for token in self.entries.keys().copied().collect::<Vec<_>>() {
            lock(&self.entries[&token].report).error = Some(error);
            self.remove(token);
        }
    }

    fn bind(&mut self, token: usize, at: SocketAddr) -> Result<SocketAddr, Errno> {
        let entry = self.entries.get(&token).ok_or(Errno::BADF)?;
        if entry.bound.is_some() || matches!(entry.kind, Kind::Stream(_)) {
            return Err(Errno::INVAL);
        }
        let datagrams = matches!(entry.kind, Kind::Datagrams);
        let protocol = if datagrams { Protocol::Udp } else { Protocol::Tcp };
        let bound = self.engine.bind(protocol, at).or_else(|_| {
            self.remove_closed();
            self.engine.bind(protocol, at)
        });
        let at = bound.map_err(errno)?;
        let entry = self.entries.get_mut(&token).ok_or(Errno::BADF)?;
        entry.bound = Some(at);
        lock(&entry.report).local = Some(at);
        self.bound.insert((protocol, at), token);
        Ok(at)
    }

    /// Removes bound sockets that their applications have just closed.
    fn remove_closed(&mut self) {
        for token in self.bound.values().copied().collect::<Vec<_>>() {
            if self.entries.get(&token).is_some_and(|entry| is_hung_up(&entry.fd)) {
                self.remove(token);
            }
        }
    }

    fn connect(&mut self, token: usize, remote: SocketAddr, filler: usize) -> Result<(), Errno> {
        self.exchange_datagrams(token); // those that were sent before have addresses
        let entry = self.entries.get_mut(&token).ok_or(Errno::BADF)?;
        if remote.is_ipv6() != entry.v6 {
            return Err(Errno::AFNOSUPPORT);
        }
        match entry.kind {
            Kind::Idle => {
                let flow = self.engine.connect(entry.bound, remote, now()).map_err(errno)?;
                entry.kind = Kind::Stream(flow);
                entry.filler = filler;
                let mut report = lock(&entry.report);
                (report.local, report.remote) = (Some(flow.local), Some(flow.remote));
                report.connecting = true;
                self.flows.insert(flow, token);
                Ok(())
            }
            Kind::Datagrams => {
                let ip = self.engine.source(&remote.ip()).map_err(errno)?;
                let bound = entry.bound;
                let at = bound.map_or_else(|| self.bind(token, any(remote.is_ipv6())), Ok)?;
                let entry = self.entries.get_mut(&token).ok_or(Errno::BADF)?;
                let mut report = lock(&entry.report);
                let ip = if at.ip().is_unspecified() { ip } else { at.ip() };
                report.local = Some(SocketAddr::new(ip, at.port()));
                report.remote = Some(remote);
                report.connected = true;
                Ok(())
            }
            Kind::Stream(_) if lock(&entry.report).connecting => Err(Errno::ALREADY),
            _ => Err(Errno::ISCONN),
        }
    }

    fn listen(&mut self, token: usize, backlog: usize) -> Result<(), Errno> {
        let entry = self.entries.get_mut(&token).ok_or(Errno::BADF)?;
        let (v6, bound) = (entry.v6, entry.bound);
        if !matches!(entry.kind, Kind::Idle | Kind::Listener { .. }) {
            return Err(Errno::INVAL);
        }
        let at = bound.map_or_else(|| self.bind(token, any(v6)), Ok)?;
        self.engine.listen(at, backlog);
        let entry = self.entries.get_mut(&token).ok_or(Errno::BADF)?;
        if matches!(entry.kind, Kind::Idle) {
            let (pending, unclaimed) = Default::default();
            entry.kind = Kind::Listener { at, pending, unclaimed };
        }
        Ok(())
    }

    fn note(&mut self, event: &mio::event::Event) {
        let Token(token) = event.token();
        if let Some(entry) = self.entries.get_mut(&token) {
            entry.readable |= event.is_readable() || event.is_read_closed();
            entry.writable |= event.is_writable();
            entry.hung_up |= event.is_write_closed() || event.is_error();
            self.active.insert(token);
        }
    }

    /// Moves everything that can be moved, and returns how long to wait for more.
    fn pass(&mut self) -> Option<Duration> {
        let wire = self.wire.clone();
        let at = now();
        for mut frame in wire.receive() {
            #[cfg(test)]
            assert!(!frame.ends_with(b"planted"), "planted here");
            self.engine.ingress(&mut frame, at);
        }
        for event in self.engine.take_events() {
            self.handle(event);
        }
        for token in std::mem::take(&mut self.active) {
            self.look_at(token);
        }
        loop {
            let frames = self.engine.poll(at, wire.room());
            let touched = self.engine.take_touched();
            let idle = frames.is_empty() && touched.is_empty();
            wire.send(frames);
            if idle {
                break;
            }
            for flow in touched {
                if let Some(token) = self.flows.get(&flow) {
                    self.look_at(*token);
                }
            }
        }
        let blocked = (self.engine.is_ready() || !self.active.is_empty()) && wire.is_full();
        if !blocked && (self.engine.is_ready() || !self.active.is_empty()) {
            return Some(Duration::ZERO);
        }
        let deadline = self.engine.deadline()?;
        // Rounded up, as a poll that ends too early must be repeated.
        let wait = deadline.saturating_sub(now()).div_ceil(1_000_000);
        Some(Duration::from_millis(wait.max(u64::from(blocked))))
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Accepted(at, flow) => {
                let listener = self.bound.get(&(Protocol::Tcp, at)).copied();
                if listener.is_none_or(|listener| self.accept(listener, flow).is_err()) {
                    self.engine.accepted(at);
                    if let Some(connection) = self.engine.connection(&flow) {
                        connection.abort(Error::Reset);
                    }
                    self.engine.leave(&flow, now());
                }
            }
            Event::Datagram(at, from, payload) => {
                let Some(token) = self.bound.get(&(Protocol::Udp, at)) else { return };
                let Some(entry) = self.entries.get_mut(token) else { return };
                let (peer, header) = (lock(&entry.report).remote, write_address(&from));
                let parts = [IoSlice::new(&header), IoSlice::new(&payload)];
                let parts = match peer {
                    None => &parts[..],
                    Some(peer) if peer == from => &parts[1..],
                    Some(_) => return,
                };
                // A reader that is too slow loses datagrams.
                let _ = sendmsg(&entry.fd, parts, &mut SendAncillaryBuffer::default(), QUIET);
            }
            Event::Refused(at, remote, error) => {
                let Some(token) = self.bound.get(&(Protocol::Udp, at)) else { return };
                let Some(entry) = self.entries.get_mut(token) else { return };
                let mut report = lock(&entry.report);
                if report.remote == Some(remote) {
                    report.error = Some(errno(error));
                    // It wakes a reader, which then asks for the error.
                    let _ = send(&entry.fd, &[], QUIET);
                }
            }
        }
    }

    /// Passes a new connection to the application.
    fn accept(&mut self, listener: usize, flow: Tuple) -> Result<(), Errno> {
        let (token, theirs) = self.open(Kind::Stream(flow), flow.local.is_ipv6())?;
        // A peer may use its port again while the application still holds an ended connection.
        if let Some(old) = self.flows.insert(flow, token) {
            self.remove(old);
        }
        let report = self.entries[&token].report.clone();
        let (local, remote) = (Some(flow.local), Some(flow.remote));
        *lock(&report) = Report { local, remote, connected: true, ..Report::default() };
        let mut message = [0; ADDRESS + 8];
        message[..ADDRESS].copy_from_slice(&write_address(&flow.remote));
        message[ADDRESS..].copy_from_slice(&(token as u64).to_le_bytes());
        if let Some(Entry { kind: Kind::Listener { pending, unclaimed, .. }, .. }) =
            self.entries.get_mut(&listener)
        {
            pending.push_back((theirs, message));
            unclaimed.insert(token, report);
        }
        self.active.extend([token, listener]);
        Ok(())
    }

    /// Moves what can be moved between an application's socket and the engine.
    fn look_at(&mut self, token: usize) {
        let Some(entry) = self.entries.get_mut(&token) else { return };
        match &mut entry.kind {
            Kind::Idle => {
                if entry.hung_up {
                    self.remove(token);
                }
            }
            Kind::Stream(flow) => {
                let flow = *flow;
                self.exchange(token, flow);
            }
            Kind::Listener { pending, .. } => {
                while let Some((theirs, message)) = pending.front()
                    && pass_descriptor(&entry.fd, theirs, message).is_ok()
                {
                    pending.pop_front();
                }
                if entry.hung_up {
                    self.remove(token);
                }
            }
            Kind::Datagrams => self.exchange_datagrams(token),
        }
    }

    fn exchange(&mut self, token: usize, flow: Tuple) {
        let Some(entry) = self.entries.get_mut(&token) else { return };
        let Some(connection) = self.engine.connection(&flow) else { return self.remove(token) };
        let status = connection.status();
        let mut gone = false;
        let mut moved = false;
        if status == Status::Connecting {
            if entry.hung_up {
                connection.refuse(Error::Reset);
                self.remove(token);
            }
            return;
        }
        if let Status::Closed(error) = status {
            lock(&entry.report).error = error.map(errno);
        }
        {
            let mut report = lock(&entry.report);
            report.connecting = false;
            report.connected |= status == Status::Open;
        }
        while entry.filler > 0 {
            let most = entry.filler.min(self.buffer.len());
            match read(&entry.fd, &mut self.buffer[..most]) {
                Ok(count) if count > 0 => entry.filler -= count,
                _ => break,
            }
        }
        while entry.writable && connection.can_receive() {
            moved |= connection.receive(|bytes| {
                retry_on_intr(|| send(&entry.fd, bytes, QUIET)).unwrap_or_else(|error| {
                    entry.writable = false;
                    gone |= error != Errno::AGAIN;
                    0
                })
            }) > 0;
        }
        while entry.readable && !entry.finished && connection.can_send() {
            let mut end = false;
            moved |= connection.send(|room| match retry_on_intr(|| read(&entry.fd, &mut *room)) {
                Ok(count) => {
                    end = count == 0;
                    count
                }
                Err(error) => {
                    entry.readable = false;
                    end = error != Errno::AGAIN;
                    0
                }
            }) > 0;
            if end {
                entry.finished = true;
                connection.close();
                moved = true;
            }
        }
        if connection.is_at_end() && !connection.can_receive() && !entry.ended {
            entry.ended = true;
            let _ = shutdown(&entry.fd, Shutdown::Write);
        }
        let over = matches!(status, Status::Closed(_)) && (entry.ended || gone);
        if over || gone || entry.hung_up && entry.finished {
            self.remove(token);
        } else if moved {
            self.engine.wake(flow);
        }
    }

    /// Sends an application's datagrams while the plane has room.
    fn exchange_datagrams(&mut self, token: usize) {
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut room = self.wire.room();
        while let Some(entry) = self.entries.get_mut(&token)
            && matches!(entry.kind, Kind::Datagrams)
            && entry.readable
            && !entry.finished
        {
            if room == 0 {
                self.active.insert(token);
                break;
            }
            let length = match retry_on_intr(|| read(&entry.fd, &mut *buffer)) {
                Ok(0) if is_hung_up(&entry.fd) => {
                    self.remove(token);
                    break;
                }
                // Not an empty datagram, but the end of what the application sends.
                Ok(0) if has_shut_down(&entry.fd) => {
                    entry.finished = true;
                    break;
                }
                Ok(length) => length,
                Err(Errno::AGAIN) => {
                    entry.readable = false;
                    break;
                }
                Err(_) => {
                    self.remove(token);
                    break;
                }
            };
            let (peer, bound, v6) = (lock(&entry.report).remote, entry.bound, entry.v6);
            let (remote, payload) = match (peer, buffer[..length].split_first_chunk()) {
                (Some(peer), _) => (peer, &buffer[..length]),
                (None, Some((address, payload))) => match read_address(address) {
                    Some(remote) if remote.is_ipv6() == v6 => (remote, payload),
                    _ => continue,
                },
                (None, None) => continue,
            };
            let Ok(at) = bound.map_or_else(|| self.bind(token, any(v6)), Ok) else { continue };
            let Ok(source) = self.engine.source(&remote.ip()) else { continue };
            let ip = if at.ip().is_unspecified() { source } else { at.ip() };
            self.engine.send(&Tuple { local: SocketAddr::new(ip, at.port()), remote }, payload);
            room = room.saturating_sub(payload.len() + 100);
        }
        self.buffer = buffer;
    }
}

/// Makes a pair of sockets for datagrams.
#[cfg(target_vendor = "apple")]
fn datagram_pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    let pair = std::os::unix::net::UnixDatagram::pair();
    let failed = |error: io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
    pair.map(|(one, two)| (one.into(), two.into())).map_err(failed)
}

/// Makes a pair of sockets for datagrams. Unlike those of SOCK_DGRAM, one sees the other's end.
#[cfg(not(target_vendor = "apple"))]
fn datagram_pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
}

/// Returns whether the other end is closed, so that an empty read is not an empty datagram.
fn is_hung_up(fd: &OwnedFd) -> bool {
    polled(fd, PollFlags::HUP)
}

/// Returns whether the other end does not send any more.
#[cfg(target_os = "linux")]
fn has_shut_down(fd: &OwnedFd) -> bool {
    polled(fd, PollFlags::RDHUP)
}

/// Returns whether the other end does not send any more, where that can be known.
#[cfg(not(target_os = "linux"))]
fn has_shut_down(_: &OwnedFd) -> bool {
    false
}

fn polled(fd: &OwnedFd, flag: PollFlags) -> bool {
    let mut set = [PollFd::new(fd, PollFlags::IN | flag)];
    let _ = poll(&mut set, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
    set[0].revents().contains(flag)
}

/// Passes a descriptor with a message.
fn pass_descriptor(to: &OwnedFd, fd: &OwnedFd, message: &[u8]) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [fd.as_fd()];
    control.push(SendAncillaryMessage::ScmRights(&fds));
    sendmsg(to, &[IoSlice::new(message)], &mut control, QUIET).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;
    use plane::link::Frame;
    use std::io::Read;

    const LIMITS: Limits = Limits { mtu: 1420, offloads: true };

    fn service() -> Arc<Service> {
        let keep = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !info.to_string().contains("planted here") {
                keep(info);
            }
        }));
        Service::new(vec![[10, 9, 0, 1].into()], LIMITS).unwrap()
    }

    /// Reads from the link until the panic of the stack's thread comes out of it.
    fn panic_of(link: &dyn Link) {
        let read = || while !matches!(link.read(&mut [0; 1 << 17]), Frame::Lost) {};
        assert!(catch_unwind(AssertUnwindSafe(read)).is_err(), "the link was lost");
    }

    #[test]
    fn a_panic_costs_the_connections_and_is_the_planes_to_report() {
        let service = service();
        let link = service.link();
        let (socket, theirs) = service.open(false, true).unwrap();
        socket.connect(SocketAddr::new([10, 9, 0, 2].into(), 80), 0).unwrap();
        for _ in 0..5 {
            link.write(&mut b"planted".to_vec());
            panic_of(&*link);
        }
        assert_eq!(UnixStream::from(theirs).read(&mut [0; 9]).unwrap(), 0, "the end");
        assert_eq!(socket.report().error, Some(Errno::IO));
        let (socket, _theirs) = service.open(false, true).unwrap();
        socket.listen(5).unwrap();
        link.write(&mut b"planted".to_vec());
        let lost = || matches!(link.read(&mut [0; 1 << 17]), Frame::Lost);
        while !catch_unwind(AssertUnwindSafe(lost)).unwrap_or(false) {
            std::thread::yield_now();
        }
        service.close();
    }

    #[test]
    fn a_link_is_readable_while_a_frame_waits_and_full_it_takes_no_more() {
        let service = service();
        let link = service.link();
        assert!(!is_readable(&*link));
        let (socket, theirs) = service.open(false, false).unwrap();
        socket.connect(SocketAddr::new([10, 9, 0, 2].into(), 80), 0).unwrap();
        ioctl_fionbio(&theirs, true).unwrap();
        let mut sent = 0;
        let mut quiet = 0;
        while quiet < 100 {
            match rustix::io::write(&theirs, &[7; 1000]) {
                Ok(_) => (sent, quiet) = (sent + 1, 0),
                Err(_) => {
                    std::thread::sleep(Duration::from_millis(1));
                    quiet += 1;
                }
            }
        }
        assert!((900..2500).contains(&sent), "{sent} datagrams of 1000 bytes");
        let mut came = 0;
        while came < sent {
            match link.read(&mut [0; 1 << 17]) {
                Frame::Length(length) => {
                    assert_eq!(length, 10 + 28 + 1000);
                    came += 1;
                }
                _ => std::thread::yield_now(),
            }
        }
        assert!(matches!(link.read(&mut [0; 1 << 17]), Frame::Nothing));
        assert!(!is_readable(&*link));
        service.close();
        assert!(matches!(link.read(&mut [0; 1 << 17]), Frame::Lost));
    }

    fn is_readable(link: &dyn Link) -> bool {
        let mut set = [PollFd::from_borrowed_fd(link.as_fd(), PollFlags::IN)];
        poll(&mut set, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() > 0
    }
}
