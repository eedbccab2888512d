//! The stack without an operating system: frames and `now` in, frames and events out.
//!
//! A packet finds its connection by addresses and ports. Only that connection's socket is given to
//! smoltcp. A packet that finds none is given to an interface without sockets, which answers as
//! hosts do: with a reset, an ICMP error, or an echo reply.
//!
//! A SYN costs no socket. What came and the seed of the answer's sequence number are kept, and the
//! socket is made when the handshake is complete, as if it had existed before.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use smoltcp::iface::{Interface, SocketSet};
use smoltcp::socket::tcp;

use plane::offload::VNET_HEADER;

use crate::connection::{
    Card, Connection, Error, Limits, SECOND, Status, instant, interface, new_socket,
};
use crate::packet::{
    self, ACK, FIN, Packet, RST, Reason, SYN, TCP, Tcp, Tuple, UDP, Unreachable, complete,
    is_unicast, is_verified,
};

/// Handshakes that peers have begun. The oldest is dropped for another one.
pub const HALF_OPEN: usize = 8192;
/// A SYN-ACK is repeated after 1, 3 and 7 seconds; after 15 the handshake is forgotten.
const REPEATS: u32 = 3;
/// The most connections, and from when on none is kept only to wait for stray segments.
const CONNECTIONS: usize = 65_536;
const CROWDED: usize = 1024;
/// Ports for those who ask for any (RFC 6335, as Linux).
const EPHEMERAL: std::ops::Range<u16> = 32_768..61_000;

/// Randomness, which is passed in.
pub type Entropy = Box<dyn FnMut() -> u64 + Send>;

#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// A connection to a listener is complete.
    Accepted(SocketAddr, Tuple),
    /// A datagram for the socket that is bound there.
    Datagram(SocketAddr, SocketAddr, Vec<u8>),
    /// A datagram of the socket that is bound there was refused by its peer.
    Refused(SocketAddr, SocketAddr, Error),
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    Tcp,
    Udp,
}

struct Listener {
    backlog: usize,
    /// Connections that were not accepted yet.
    waiting: usize,
}

struct HalfOpen {
    syn: Box<[u8]>,
    transport: usize,
    seed: u64,
    /// The sequence numbers of their SYN, and of the first byte after ours.
    theirs: u32,
    first: u32,
    serial: u64,
    due: u64,
    repeats: u32,
}

pub struct Engine {
    addresses: Vec<IpAddr>,
    limits: Limits,
    entropy: Entropy,
    connections: HashMap<Tuple, Connection>,
    deadlines: BTreeSet<(u64, Tuple)>,
    ready: VecDeque<Tuple>,
    touched: Vec<Tuple>,
    listeners: HashMap<SocketAddr, Listener>,
    half_open: HashMap<Tuple, HalfOpen>,
    oldest: BTreeMap<u64, Tuple>,
    half_due: BTreeSet<(u64, Tuple)>,
    serial: u64,
    /// Answers SYNs, one after the other.
    spare: Option<tcp::Socket<'static>>,
    bound: HashSet<(Protocol, SocketAddr)>,
    stray: Interface,
    frames: Vec<Vec<u8>>,
    events: Vec<Event>,
}

impl Engine {
    pub fn new(addresses: Vec<IpAddr>, limits: Limits, mut entropy: Entropy) -> Engine {
        let stray = interface(addresses.iter().map(|ip| (*ip).into()), limits.mtu, entropy());
        Engine {
            addresses,
            limits,
            entropy,
            connections: HashMap::new(),
            deadlines: BTreeSet::new(),
            ready: VecDeque::new(),
            touched: Vec::new(),
            listeners: HashMap::new(),
            half_open: HashMap::new(),
            oldest: BTreeMap::new(),
            half_due: BTreeSet::new(),
            serial: 0,
            spare: None,
            bound: HashSet::new(),
            stray,
            frames: Vec::new(),
            events: Vec::new(),
        }
    }

    /// Takes a frame from the link.
    pub fn ingress(&mut self, frame: &mut [u8], now: u64) {
        let Some((vnet, packet)) = frame.split_at_mut_checked(VNET_HEADER) else { return };
        let Some(parsed) = Packet::parse(packet) else { return };
        if !self.addresses.contains(&parsed.destination) || !is_unicast(&parsed.source) {
            return;
        }
        let packet = &mut packet[..parsed.transport.end];
        if matches!(parsed.protocol, TCP | UDP) && !is_verified(vnet) && !parsed.is_intact(packet) {
            return;
        }
        match parsed.protocol {
            TCP => self.segment(packet, &parsed, now),
            UDP => self.datagram(packet, &parsed, now),
            _ => self.control(packet, &parsed, now),
        }
    }

    fn segment(&mut self, packet: &mut [u8], parsed: &Packet, now: u64) {
        let flow = parsed.tuple(packet);
        let start = parsed.transport.start;
        let Some(tcp) = Tcp::parse(&packet[start..]) else { return };
        if flow.remote.port() == 0 || flow.local.port() == 0 {
            return;
        }
        let kind = tcp.flags & (SYN | ACK | RST | FIN);
        if kind == SYN && self.connections.get(&flow).is_some_and(Connection::is_waiting_to_end) {
            self.remove(&flow);
        }
        if let Some(connection) = self.connections.get_mut(&flow) {
            connection.ingress(packet, start, now, &mut self.frames);
            return self.wake(flow);
        }
        if kind == SYN && self.opened(packet, start, &flow, &tcp, now) {
            return;
        }
        if let Some(half) = self.half_open.get(&flow) {
            if kind & RST != 0 {
                if tcp.seq == half.theirs.wrapping_add(1) {
                    self.forget(&flow);
                }
                return;
            }
            if kind & (SYN | ACK) == ACK && tcp.ack == half.first {
                return self.established(packet, start, flow, now);
            }
        }
        self.stray(packet, now);
    }

    /// Returns the listener for a local address.
    fn listener(&self, local: SocketAddr) -> Option<SocketAddr> {
        let any = SocketAddr::new(unspecified(&local.ip()), local.port());
        [local, any].into_iter().find(|at| self.listeners.contains_key(at))
    }

    /// Answers a SYN; false if nobody listens.
    fn opened(&mut self, packet: &[u8], start: usize, flow: &Tuple, tcp: &Tcp, now: u64) -> bool {
        let Some(at) = self.listener(flow.local) else { return false };
        let full = self.listeners[&at].waiting >= self.listeners[&at].backlog;
        // Nor is data in a SYN kept, as nobody was offered that (RFC 7413). The peer tries again.
        let data = packet.len() > start + tcp.header;
        if full || data || self.connections.len() >= CONNECTIONS {
            return true;
        }
        let known = self.half_open.get(flow).filter(|half| half.theirs == tcp.seq);
        let seed = known.map(|half| half.seed);
        if seed.is_none() {
            self.forget(flow);
        }
        let seed = seed.unwrap_or_else(|| (self.entropy)());
        let Some(first) = self.answer(&mut packet.to_vec(), start, flow, seed, now) else {
            return true;
        };
        if self.half_open.contains_key(flow) {
            return true;
        }
        if self.half_open.len() >= HALF_OPEN
            && let Some((_, oldest)) = self.oldest.pop_first()
        {
            self.forget(&oldest);
        }
        self.serial += 1;
        let (serial, due, theirs) = (self.serial, now + SECOND, tcp.seq);
        let (syn, transport, repeats) = (packet.into(), start, 0);
        let half = HalfOpen { syn, transport, seed, theirs, first, serial, due, repeats };
        self.half_open.insert(*flow, half);
        self.oldest.insert(serial, *flow);
        self.half_due.insert((due, *flow));
        true
    }

    /// Sends a SYN-ACK, and returns the sequence number after it.
    fn answer(
        &mut self,
        syn: &mut [u8],
        start: usize,
        flow: &Tuple,
        seed: u64,
        now: u64,
    ) -> Option<u32> {
        let socket = self.spare.take().unwrap_or_else(new_socket);
        let mut connection = Connection::listen(*flow, self.limits, seed, socket, now);
        connection.ingress(syn, start, now, &mut self.frames);
        connection.egress(now, &mut self.frames);
        let first = connection.first();
        self.spare = Some(connection.into_socket());
        first
    }

    fn forget(&mut self, flow: &Tuple) {
        if let Some(half) = self.half_open.remove(flow) {
            self.oldest.remove(&half.serial);
            self.half_due.remove(&(half.due, *flow));
        }
    }

    /// Makes the connection of a handshake that a segment completes.
    fn established(&mut self, packet: &mut [u8], start: usize, flow: Tuple, now: u64) {
        let Some(at) = self.listener(flow.local) else { return self.stray(packet, now) };
        let Some(half) = self.half_open.get_mut(&flow) else { return };
        if self.listeners[&at].waiting >= self.listeners[&at].backlog {
            return;
        }
        let mut connection = Connection::listen(flow, self.limits, half.seed, new_socket(), now);
        let mut sent = Vec::new();
        connection.ingress(&mut half.syn.clone(), half.transport, now, &mut sent);
        connection.egress(now, &mut sent); // it was sent before
        connection.ingress(packet, start, now, &mut self.frames);
        if connection.status() != Status::Open {
            return;
        }
        self.forget(&flow);
        self.connections.insert(flow, connection);
        if let Some(listener) = self.listeners.get_mut(&at) {
            listener.waiting += 1;
        }
        self.events.push(Event::Accepted(at, flow));
        self.wake(flow);
    }

    fn datagram(&mut self, packet: &[u8], parsed: &Packet, now: u64) {
        let flow = parsed.tuple(packet);
        let segment = &packet[parsed.transport.clone()];
        let length = usize::from(u16::from_be_bytes([segment[4], segment[5]]));
        let Some(payload) = segment.get(8..length) else { return };
        let any = SocketAddr::new(unspecified(&flow.local.ip()), flow.local.port());
        let bound = |at: &SocketAddr| self.bound.contains(&(Protocol::Udp, *at));
        match [flow.local, any].into_iter().find(bound) {
            Some(at) => self.events.push(Event::Datagram(at, flow.remote, payload.to_vec())),
            None => self.stray(packet, now),
        }
    }

    /// Handles ICMP: errors about what was sent, and echo requests.
    fn control(&mut self, packet: &[u8], parsed: &Packet, now: u64) {
        let Some(unreachable) = Unreachable::parse(packet, parsed) else {
            return self.stray(packet, now);
        };
        let error = match unreachable.reason {
            Reason::Port => Error::Refused,
            Reason::Network => Error::NetworkUnreachable,
            Reason::Host | Reason::TooBig(_) => Error::HostUnreachable,
        };
        let flow = unreachable.flow;
        if unreachable.protocol == UDP {
            let any = SocketAddr::new(unspecified(&flow.local.ip()), flow.local.port());
            let bound = |at: &SocketAddr| self.bound.contains(&(Protocol::Udp, *at));
            if let Some(at) = [flow.local, any].into_iter().find(bound)
                && !matches!(unreachable.reason, Reason::TooBig(_))
            {
                self.events.push(Event::Refused(at, flow.remote, error));
            }
        } else if unreachable.protocol == TCP
            && let Some(connection) = self.connections.get_mut(&flow)
            && connection.is_under_way(unreachable.seq)
        {
            match unreachable.reason {
                Reason::TooBig(mtu) => connection.shrink(mtu, unreachable.seq),
                // An open connection survives: the path may come back.
                _ => connection.refuse(error),
            }
            self.wake(flow);
        }
    }

    /// Lets an interface without sockets answer.
    fn stray(&mut self, packet: &[u8], now: u64) {
        let from = self.frames.len();
        let frames = &mut self.frames;
        let mut card = Card { packet_size: self.limits.mtu, input: Some(packet), frames };
        let mut none = SocketSet::new(Vec::new());
        self.stray.poll_ingress_single(instant(now), &mut card, &mut none);
        for frame in &mut self.frames[from..] {
            complete(frame, usize::MAX);
        }
    }

    /// Does what is due, and adds frames until they have that many bytes.
    pub fn poll(&mut self, now: u64, mut room: usize) -> Vec<Vec<u8>> {
        while let Some((due, flow)) = self.deadlines.first().copied()
            && due <= now
        {
            self.deadlines.pop_first();
            if let Some(connection) = self.connections.get_mut(&flow) {
                connection.deadline = None;
                connection.due(now);
                self.wake(flow);
            }
        }
        while let Some((due, flow)) = self.half_due.first().copied()
            && due <= now
        {
            self.repeat(&flow, now);
        }
        let mut frames = mem::take(&mut self.frames);
        room = room.saturating_sub(frames.iter().map(Vec::len).sum());
        while room > 0
            && let Some(flow) = self.ready.pop_front()
        {
            let Some(connection) = self.connections.get_mut(&flow) else { continue };
            let (old, from) = (connection.deadline, frames.len());
            if connection.egress(now, &mut frames) {
                self.ready.push_back(flow); // one frame each, so that all have their turn
            } else {
                connection.ready = false;
                let deadline = connection.deadline;
                self.touch(flow);
                if old != deadline {
                    old.map(|old| self.deadlines.remove(&(old, flow)));
                    deadline.map(|deadline| self.deadlines.insert((deadline, flow)));
                }
                self.settle(&flow);
            }
            room = room.saturating_sub(frames[from..].iter().map(Vec::len).sum());
        }
        frames
    }

    /// Repeats a SYN-ACK, or gives the handshake up.
    fn repeat(&mut self, flow: &Tuple, now: u64) {
        let Some(mut half) = self.half_open.remove(flow) else { return };
        self.half_due.remove(&(half.due, *flow));
        if half.repeats >= REPEATS || self.listener(flow.local).is_none() {
            self.oldest.remove(&half.serial);
            return;
        }
        self.answer(&mut half.syn.clone(), half.transport, flow, half.seed, now);
        half.repeats += 1;
        half.due = now + (SECOND << half.repeats);
        self.half_due.insert((half.due, *flow));
        self.half_open.insert(*flow, half);
    }

    /// Removes a connection that its user has left and that has ended.
    fn settle(&mut self, flow: &Tuple) {
        let crowded = self.connections.len() > CROWDED;
        if let Some(connection) = self.connections.get(flow)
            && connection.is_orphan()
            && (matches!(connection.status(), Status::Closed(_))
                || crowded && connection.is_waiting_to_end())
        {
            self.remove(flow);
        }
    }

    fn remove(&mut self, flow: &Tuple) {
        if let Some(connection) = self.connections.remove(flow)
            && let Some(deadline) = connection.deadline
        {
            self.deadlines.remove(&(deadline, *flow));
        }
    }

    fn touch(&mut self, flow: Tuple) {
        if let Some(connection) = self.connections.get_mut(&flow)
            && !mem::replace(&mut connection.touched, true)
        {
            self.touched.push(flow);
        }
    }

    /// Lets the connection send in the next `poll`.
    pub fn wake(&mut self, flow: Tuple) {
        if let Some(connection) = self.connections.get_mut(&flow) {
            if !mem::replace(&mut connection.ready, true) {
                self.ready.push_back(flow);
            }
            self.touch(flow);
        }
    }

    /// Returns whether a connection waits for room to send, so that `poll` would add frames.
    pub fn is_ready(&self) -> bool {
        !self.ready.is_empty() || !self.frames.is_empty()
    }

    /// Returns when `poll` has something to do.
    pub fn deadline(&self) -> Option<u64> {
        let half = self.half_due.first().map(|(due, _)| *due);
        self.deadlines.first().map(|(due, _)| *due).into_iter().chain(half).min()
    }

    /// Returns the connections that may have changed since the last call.
    pub fn take_touched(&mut self) -> Vec<Tuple> {
        let touched = mem::take(&mut self.touched);
        for flow in &touched {
            if let Some(connection) = self.connections.get_mut(flow) {
                connection.touched = false;
            }
        }
        touched
    }

    pub fn take_events(&mut self) -> Vec<Event> {
        mem::take(&mut self.events)
    }

    pub fn connection(&mut self, flow: &Tuple) -> Option<&mut Connection> {
        self.connections.get_mut(flow)
    }

    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    pub fn half_open(&self) -> usize {
        self.half_open.len()
    }

    /// Returns our address that packets to there come from.
    pub fn source(&self, remote: &IpAddr) -> Result<IpAddr, Error> {
        let of_family = |ip: &&IpAddr| ip.is_ipv4() == remote.is_ipv4();
        self.addresses.iter().find(of_family).copied().ok_or(Error::NetworkUnreachable)
    }

    /// Reserves a local address. Port 0 stands for any.
    pub fn bind(&mut self, protocol: Protocol, at: SocketAddr) -> Result<SocketAddr, Error> {
        if !at.ip().is_unspecified() && !self.addresses.contains(&at.ip()) {
            return Err(Error::NotAvailable);
        }
        let at = if at.port() != 0 {
            self.is_free(protocol, at).then_some(at)
        } else {
            self.ephemeral()
                .find(|port| self.is_free(protocol, SocketAddr::new(at.ip(), *port)))
                .map(|port| SocketAddr::new(at.ip(), port))
        };
        let at = at.ok_or(Error::InUse)?;
        self.bound.insert((protocol, at));
        Ok(at)
    }

    /// Returns all ephemeral ports, from a random one on.
    fn ephemeral(&mut self) -> impl Iterator<Item = u16> + use<> {
        let count = EPHEMERAL.end - EPHEMERAL.start;
        let first = ((self.entropy)() % u64::from(count)) as u16;
        (0..count).map(move |step| EPHEMERAL.start + (first + step) % count)
    }

    fn is_free(&self, protocol: Protocol, at: SocketAddr) -> bool {
        let taken = |ip: IpAddr| self.bound.contains(&(protocol, SocketAddr::new(ip, at.port())));
        let any = unspecified(&at.ip());
        let covered = at.ip() == any
            && self.addresses.iter().any(|ip| ip.is_ipv4() == at.is_ipv4() && taken(*ip));
        !taken(at.ip()) && !taken(any) && !covered
    }

    pub fn unbind(&mut self, protocol: Protocol, at: SocketAddr) {
        self.bound.remove(&(protocol, at));
        if protocol == Protocol::Tcp {
            self.listeners.remove(&at);
        }
    }

    /// Accepts connections at a bound address. At most `backlog` wait.
    pub fn listen(&mut self, at: SocketAddr, backlog: usize) {
        let backlog = backlog.max(1);
        self.listeners
            .entry(at)
            .and_modify(|listener| listener.backlog = backlog)
            .or_insert(Listener { backlog, waiting: 0 });
    }

    /// Notes that a waiting connection was accepted, or is gone.
    pub fn accepted(&mut self, at: SocketAddr) {
        if let Some(listener) = self.listeners.get_mut(&at) {
            listener.waiting = listener.waiting.saturating_sub(1);
        }
    }

    /// Begins a connection, from a bound address or any.
    pub fn connect(
        &mut self,
        bound: Option<SocketAddr>,
        remote: SocketAddr,
        now: u64,
    ) -> Result<Tuple, Error> {
        if remote.port() == 0 || !is_unicast(&remote.ip()) {
            return Err(Error::NetworkUnreachable);
        }
        if self.connections.len() >= CONNECTIONS {
            return Err(Error::NotAvailable);
        }
        let ip = match bound.map(|bound| bound.ip()).filter(|ip| !ip.is_unspecified()) {
            Some(ip) if ip.is_ipv4() != remote.is_ipv4() => return Err(Error::NetworkUnreachable),
            Some(ip) => ip,
            None => self.source(&remote.ip())?,
        };
        let port = bound.map(|bound| bound.port());
        let flow = |port| Tuple { local: SocketAddr::new(ip, port), remote };
        let port = match port {
            Some(port) => Some(port).filter(|port| !self.connections.contains_key(&flow(*port))),
            None => self.ephemeral().find(|port| {
                let local = SocketAddr::new(ip, *port);
                !self.connections.contains_key(&flow(*port)) && self.is_free(Protocol::Tcp, local)
            }),
        };
        let flow = flow(port.ok_or(Error::InUse)?);
        let seed = (self.entropy)();
        let connection = Connection::connect(flow, self.limits, seed, now);
        self.connections.insert(flow, connection.ok_or(Error::NetworkUnreachable)?);
        self.wake(flow);
        Ok(flow)
    }

    /// Leaves a connection to end by itself: nobody reads or writes any more.
    pub fn leave(&mut self, flow: &Tuple, now: u64) {
        if let Some(connection) = self.connections.get_mut(flow) {
            connection.orphan(now);
            self.wake(*flow);
        }
    }

    /// Sends a datagram, or drops it if it is too long.
    pub fn send(&mut self, flow: &Tuple, payload: &[u8]) {
        let fits = payload.len() <= self.limits.longest_datagram(flow.remote.is_ipv6());
        if fits && flow.remote.port() != 0 && is_unicast(&flow.remote.ip()) {
            self.frames.push(packet::datagram(flow, payload));
        }
    }
}

fn unspecified(like: &IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}
