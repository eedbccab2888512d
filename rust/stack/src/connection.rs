//! One TCP connection: smoltcp's socket, and what is changed in its segments on their way.
//!
//! *Offloads.* smoltcp is given a large MTU, so it makes segments of up to 64 KiB, which leave as
//! super-packets. Its peer must not know: the maximum segment sizes in SYNs are replaced, that from
//! here by the tunnel's, that from the peer by a large one.
//!
//! *Congestion and losses.* smoltcp never sends more than the window that the peer announces. So
//! windows are made smaller before smoltcp sees them: to what `congestion` allows, and during a
//! recovery to the bytes that may be lost. smoltcp itself repeats everything under way after three
//! duplicate acknowledgements. It gets these only when a loss is found here (RFC 6582), so that the
//! acknowledgements of repeated segments do not look like further losses.

use std::collections::VecDeque;

use smoltcp::iface::{Config, Interface, PollResult, SocketHandle, SocketSet};
use smoltcp::phy::{Checksum, ChecksumCapabilities, Device, DeviceCapabilities, Medium};
use smoltcp::phy::{RxToken, TxToken};
use smoltcp::socket::tcp;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr};

use plane::ip::put_be16;
use plane::offload::VNET_HEADER;

use crate::congestion::Cubic;
use crate::packet::{self, ACK, FIN, RST, SYN, Tcp, Tuple};

pub const SECOND: u64 = 1_000_000_000;

/// Bytes that a connection receives before its reader takes them, and sends before they are
/// acknowledged. Memory that is not used is not touched. All connections have the same, as the
/// receive buffer determines the shift count of windows.
const BUFFER: usize = 1 << 20;
/// A connection attempt ends after this time, and one whose peer acknowledges nothing after that.
const CONNECT: u64 = 75 * SECOND;
const SILENCE: u64 = 300 * SECOND;
/// How long a connection that its user has closed may still take to end.
const LINGER: u64 = 60 * SECOND;
/// Nothing is repeated sooner, as in Linux, nor later.
const LEAST_TIMEOUT: u64 = SECOND / 5;
const LONGEST_TIMEOUT: u64 = 60 * SECOND;
/// Segments whose round trips are measured at a time.
const MEASURED: usize = 64;
/// The segment size of a peer that announces none (RFC 9293, 3.7.1).
const DEFAULT_MSS: u16 = 536;
/// The smallest that is believed; a smaller one would only cost time.
const LEAST_MSS: usize = 88;
/// The largest batch of messages that a socket takes in one call, and the most segments in it.
const BATCH: usize = 65_487;
const SEGMENTS: usize = 64;
/// What a data message adds to a packet, with padding.
const MESSAGE: usize = 32 + 15;

/// The link's properties.
#[derive(Clone, Copy)]
pub struct Limits {
    pub mtu: usize,
    /// Super-packets may be sent and received.
    pub offloads: bool,
}

impl Limits {
    /// Returns the longest payload of a UDP datagram.
    pub fn longest_datagram(&self, v6: bool) -> usize {
        self.mtu - if v6 { 48 } else { 28 }
    }

    /// Returns the payload of a segment in a packet with such a header.
    fn mss(&self, header: usize) -> usize {
        self.mtu - header - 20
    }

    /// Returns the largest packet that smoltcp may make.
    fn packet(&self, header: usize) -> usize {
        if !self.offloads {
            return self.mtu;
        }
        let segments = (BATCH / (self.mtu + MESSAGE)).clamp(1, SEGMENTS);
        (header + 20 + segments * self.mss(header)).min(BATCH)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    Refused,
    Reset,
    TimedOut,
    HostUnreachable,
    NetworkUnreachable,
    InUse,
    NotAvailable,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Connecting,
    Open,
    /// With the reason, unless both sides have closed it.
    Closed(Option<Error>),
}

/// What smoltcp takes for a network card.
pub struct Card<'a> {
    pub packet_size: usize,
    pub input: Option<&'a [u8]>,
    pub frames: &'a mut Vec<Vec<u8>>,
}

pub struct Input<'a>(&'a [u8]);
pub struct Output<'a>(&'a mut Vec<Vec<u8>>);

impl RxToken for Input<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(self.0)
    }
}

impl TxToken for Output<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, write: F) -> R {
        let mut frame = vec![0; VNET_HEADER + length];
        let result = write(&mut frame[VNET_HEADER..]);
        self.0.push(frame);
        result
    }
}

impl Device for Card<'_> {
    type RxToken<'a>
        = Input<'a>
    where
        Self: 'a;
    type TxToken<'a>
        = Output<'a>
    where
        Self: 'a;

    fn receive(&mut self, _: Instant) -> Option<(Input<'_>, Output<'_>)> {
        Some((Input(self.input.take()?), Output(self.frames)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Output<'_>> {
        Some(Output(self.frames))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut checksums = ChecksumCapabilities::default();
        checksums.ipv4 = Checksum::Tx; // verified before
        (checksums.tcp, checksums.udp) = (Checksum::None, Checksum::None);
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.packet_size;
        capabilities.checksum = checksums;
        capabilities
    }
}

/// Makes an interface with these addresses. A sequence number chosen in it depends on `seed` alone.
pub fn interface(
    addresses: impl Iterator<Item = IpAddress>,
    packet_size: usize,
    seed: u64,
) -> Interface {
    let mut config = Config::new(HardwareAddress::Ip);
    config.random_seed = seed;
    let mut card = Card { packet_size, input: None, frames: &mut Vec::new() };
    let mut interface = Interface::new(config, &mut card, Instant::ZERO);
    interface.update_ip_addrs(|list| {
        for address in addresses {
            let whole = if address.version() == smoltcp::wire::IpVersion::Ipv4 { 32 } else { 128 };
            let _ = list.push(IpCidr::new(address, whole));
        }
    });
    interface
}

pub fn instant(now: u64) -> Instant {
    Instant::from_micros((now / 1000) as i64)
}

/// Returns whether a sequence number comes before another one.
fn before(one: u32, other: u32) -> bool {
    (one.wrapping_sub(other) as i32) < 0
}

/// Makes a socket for `Connection`. It may be used for another connection after `into_socket`.
pub fn new_socket() -> tcp::Socket<'static> {
    let buffer = || tcp::SocketBuffer::new(vec![0; BUFFER]);
    let mut socket = tcp::Socket::new(buffer(), buffer());
    // Data that comes together is acknowledged together, since `egress` follows on a whole batch.
    socket.set_ack_delay(None);
    // A stream is read as much at a time as there is.
    socket.set_nagle_enabled(false);
    socket
}

#[derive(Clone, Copy, PartialEq)]
enum Recovery {
    None,
    /// Until this sequence number is acknowledged.
    Fast(u32),
    Timeout(u32),
}

pub struct Connection {
    interface: Interface,
    sockets: SocketSet<'static>,
    handle: SocketHandle,
    tuple: Tuple,
    limits: Limits,
    /// Payload bytes per segment to the peer.
    mss: usize,
    /// The shift count of the peer's windows.
    scale: u32,
    cubic: Cubic,
    /// The sequence number that is not yet acknowledged, and that after all that was ever sent.
    acknowledged: u32,
    sent: u32,
    /// That which was last acknowledged to the peer, and what has come in order since.
    received: u32,
    unacknowledged: u32,
    /// The sequence number of the first byte.
    first: Option<u32>,
    /// The peer's window, and that which smoltcp was given, not shifted.
    window: usize,
    given: u16,
    duplicates: u32,
    recovery: Recovery,
    /// The last place where something is missing, during a recovery.
    hole: Option<u32>,
    /// Sequence numbers whose acknowledgement is measured, and when they were sent.
    measured: VecDeque<(u32, u64)>,
    /// Smoothed, with its variation (RFC 6298).
    round_trip: u64,
    variation: u64,
    /// The end of what was under way when the present round trip began.
    round: u32,
    /// When something was last acknowledged, or began to be under way.
    progress: u64,
    /// When something was last repeated, and how often without progress.
    repeated: u64,
    repeats: u32,
    closing: bool,
    closed_since: Option<u64>,
    keepalive: bool,
    error: Option<Error>,
    /// The time at which `due` wants to be called.
    pub deadline: Option<u64>,
    /// It waits for `egress`, or for its user to look at it.
    pub ready: bool,
    pub touched: bool,
}

impl Connection {
    fn new(tuple: Tuple, limits: Limits, seed: u64, socket: tcp::Socket<'static>) -> Connection {
        let header = packet::ip_header(&tuple.local.ip());
        let addresses = [IpAddress::from(tuple.local.ip())].into_iter();
        let mut sockets = SocketSet::new(Vec::with_capacity(1));
        let handle = sockets.add(socket);
        Connection {
            interface: interface(addresses, limits.packet(header), seed),
            sockets,
            handle,
            tuple,
            limits,
            mss: limits.mss(header),
            scale: 0,
            cubic: Cubic::new(limits.mss(header)),
            acknowledged: 0,
            sent: 0,
            received: 0,
            unacknowledged: 0,
            first: None,
            window: 0,
            given: 0,
            duplicates: 0,
            recovery: Recovery::None,
            hole: None,
            measured: VecDeque::new(),
            round_trip: 0,
            variation: 0,
            round: 0,
            progress: 0,
            repeated: 0,
            repeats: 0,
            closing: false,
            closed_since: None,
            keepalive: false,
            error: None,
            deadline: None,
            ready: false,
            touched: false,
        }
    }

    /// Makes a connection to the tuple's remote side.
    pub fn connect(tuple: Tuple, limits: Limits, seed: u64, now: u64) -> Option<Connection> {
        let mut made = Connection::new(tuple, limits, seed, new_socket());
        let (remote, local) = (tuple.remote, tuple.local);
        let socket = made.sockets.get_mut::<tcp::Socket<'_>>(made.handle);
        socket.connect(made.interface.context(), remote, local).ok()?;
        made.progress = now;
        Some(made)
    }

    /// Makes a connection that a SYN has asked for. `ingress` must be given this SYN next.
    pub fn listen(
        tuple: Tuple,
        limits: Limits,
        seed: u64,
        mut socket: tcp::Socket<'static>,
        now: u64,
    ) -> Connection {
        let _ = socket.listen(tuple.local);
        let mut made = Connection::new(tuple, limits, seed, socket);
        made.progress = now;
        made
    }

    /// Takes the socket back, for another connection.
    pub fn into_socket(mut self) -> tcp::Socket<'static> {
        match self.sockets.remove(self.handle) {
            smoltcp::socket::Socket::Tcp(mut socket) => {
                socket.abort();
                socket
            }
            _ => new_socket(),
        }
    }

    fn socket(&mut self) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(self.handle)
    }

    pub fn status(&self) -> Status {
        match self.sockets.get::<tcp::Socket<'_>>(self.handle).state() {
            tcp::State::Listen | tcp::State::SynSent | tcp::State::SynReceived => {
                Status::Connecting
            }
            tcp::State::Closed => Status::Closed(self.error),
            _ => Status::Open,
        }
    }

    pub fn is_waiting_to_end(&self) -> bool {
        self.sockets.get::<tcp::Socket<'_>>(self.handle).state() == tcp::State::TimeWait
    }

    /// Takes a segment in. Answers that cannot wait are added to `frames`.
    pub fn ingress(
        &mut self,
        packet: &mut [u8],
        transport: usize,
        now: u64,
        frames: &mut Vec<Vec<u8>>,
    ) {
        let segment = &mut packet[transport..];
        let Some(tcp) = Tcp::parse(segment) else { return };
        let syn = tcp.flags & SYN != 0;
        if syn {
            self.agree(&tcp, segment);
        }
        if tcp.flags & (ACK | RST) == ACK {
            let window = usize::from(tcp.window) << if syn { 0 } else { self.scale };
            if self.acknowledge(&tcp, segment, window, now) {
                return;
            }
        }
        if syn {
            self.window = tcp.window.into();
        }
        self.given = self.allow(if syn { 0 } else { self.scale });
        put_be16(segment, 14, self.given);
        let connecting = self.status() == Status::Connecting;
        self.feed(packet, now, frames);
        self.close_when_possible();
        if tcp.flags & RST != 0 && matches!(self.status(), Status::Closed(_)) {
            let error = if connecting { Error::Refused } else { Error::Reset };
            self.error.get_or_insert(error);
        }
        // RFC 1122, 4.2.2.13: data that nobody will read resets the connection.
        let orphan = self.closed_since.is_some();
        if orphan && self.socket().can_recv() {
            self.abort(Error::Reset);
        }
    }

    /// Takes what a SYN offers, and hides the peer's segment size from smoltcp.
    fn agree(&mut self, tcp: &Tcp, segment: &mut [u8]) {
        if self.status() != Status::Connecting {
            return;
        }
        let header = packet::ip_header(&self.tuple.local.ip());
        let theirs = usize::from(tcp.mss(segment).unwrap_or(DEFAULT_MSS)).max(LEAST_MSS);
        self.set_mss(theirs.min(self.limits.mss(header)));
        self.scale = tcp.scale(segment);
        if self.limits.offloads {
            tcp.set_mss(segment, self.limits.packet(header) / self.mss * self.mss);
        }
    }

    fn set_mss(&mut self, mss: usize) {
        self.mss = mss;
        self.cubic = Cubic::new(mss);
    }

    /// Handles an acknowledgement; returns whether smoltcp must not see it.
    fn acknowledge(&mut self, tcp: &Tcp, segment: &[u8], window: usize, now: u64) -> bool {
        let acked = tcp.ack.wrapping_sub(self.acknowledged);
        let flight = self.sent.wrapping_sub(self.acknowledged);
        if acked > flight || self.first.is_none() {
            return false;
        }
        if acked > 0 {
            self.acknowledged = tcp.ack;
            self.duplicates = 0;
            self.progress = now;
            self.repeats = 0;
            self.measure(tcp.ack, now);
            match self.recovery {
                Recovery::Fast(end) if before(tcp.ack, end) => {
                    self.find_hole(tcp, segment);
                }
                Recovery::Fast(_) => {
                    self.recovery = Recovery::None;
                    self.cubic.recovered(flight.wrapping_sub(acked) as usize);
                }
                other => {
                    if let Recovery::Timeout(end) = other
                        && !before(tcp.ack, end)
                    {
                        self.recovery = Recovery::None;
                    }
                    let (acked, flight) = (acked as usize, flight as usize);
                    self.cubic.acknowledged(acked, flight, now, self.round_trip);
                }
            }
        } else {
            let duplicate = segment.len() == tcp.header
                && tcp.flags & (SYN | FIN) == 0
                && flight > 0
                && window == self.window;
            if duplicate {
                self.duplicates += 1;
                self.duplicate(tcp, segment, now);
                return true;
            }
        }
        self.window = window;
        false
    }

    /// Takes the round trip of the last segment that is acknowledged.
    fn measure(&mut self, ack: u32, now: u64) {
        let mut sent = None;
        while let Some((seq, at)) = self.measured.front().copied()
            && !before(ack, seq)
        {
            sent = Some(at);
            self.measured.pop_front();
        }
        if !before(ack, self.round) {
            self.round = self.sent;
            self.cubic.next_round();
        }
        let Some(sent) = sent else { return };
        let sample = now.saturating_sub(sent);
        self.cubic.sampled(sample);
        if self.round_trip == 0 {
            (self.round_trip, self.variation) = (sample, sample / 2);
        }
        self.variation = (self.variation * 3 + self.round_trip.abs_diff(sample)) / 4;
        self.round_trip = (self.round_trip * 7 + sample) / 8;
    }

    /// Handles a duplicate acknowledgement. The third one says that something was lost, or that more
    /// than two segments came after a gap (RFC 6675). While the rest of a loss is repeated, only the
    /// latter counts: the others may be due to what was repeated.
    fn duplicate(&mut self, tcp: &Tcp, segment: &[u8], now: u64) {
        let beyond = self.find_hole(tcp, segment);
        match self.recovery {
            Recovery::Fast(_) => {
                if self.allow(self.scale) > self.given {
                    self.tell(self.allow(self.scale), now);
                }
            }
            other => {
                let third = self.duplicates >= 3 && (beyond > 0 || other == Recovery::None);
                if third || beyond > 2 * self.mss {
                    self.recovery = Recovery::Fast(self.sent);
                    self.cubic.lost();
                    self.repeat(now);
                }
            }
        }
    }

    /// Makes smoltcp repeat as much of what is under way as the window allows.
    fn repeat(&mut self, now: u64) {
        self.measured.clear();
        self.repeated = now;
        let window = self.allow(self.scale);
        // A change of the window makes it count duplicates from the beginning.
        self.tell(if window > 1 { window - 1 } else { 2 }, now);
        for _ in 0..4 {
            self.tell(window, now);
        }
    }

    /// Returns when something must be repeated if nothing is acknowledged.
    fn repeats_at(&self) -> Option<u64> {
        let flight = self.first.is_some() && self.sent != self.acknowledged && self.window > 0;
        let open = self.status() == Status::Open;
        let wait = match (self.round_trip, self.recovery) {
            (0, _) => SECOND,
            // What was repeated may be lost, too.
            (trip, Recovery::Fast(_)) if self.repeats == 0 => {
                (trip + 4 * self.variation).max(LEAST_TIMEOUT / 10)
            }
            (trip, _) => (trip + 4 * self.variation).max(LEAST_TIMEOUT),
        };
        let wait = (wait << self.repeats.min(16)).min(LONGEST_TIMEOUT);
        (flight && open).then(|| self.progress.max(self.repeated) + wait)
    }

    /// Notes the end of the last gap in what the peer has, and returns how much it has after gaps.
    fn find_hole(&mut self, tcp: &Tcp, segment: &[u8]) -> usize {
        let flight = self.sent.wrapping_sub(self.acknowledged);
        let mut beyond = 0;
        for (start, end) in tcp.sacked(segment) {
            let gap = start.wrapping_sub(self.acknowledged);
            let length = end.wrapping_sub(start);
            if gap == 0 || gap > flight || length > flight - gap {
                continue;
            }
            beyond += length as usize;
            if self.hole.is_none_or(|held| before(held, start)) {
                self.hole = Some(start);
            }
        }
        beyond
    }

    /// Returns the window for smoltcp.
    fn allow(&self, scale: u32) -> u16 {
        if self.window == 0 {
            return 0;
        }
        let mut allowed = self.cubic.window();
        if let (Recovery::Fast(_), Some(hole)) = (self.recovery, self.hole)
            && before(self.acknowledged, hole)
        {
            allowed = allowed.min(hole.wrapping_sub(self.acknowledged) as usize);
        }
        allowed = allowed.max(self.mss).min(self.window);
        // What may be sent now is whole segments. A window less than a unit smaller makes the last
        // one a little shorter.
        let flight = self.sent.wrapping_sub(self.acknowledged) as usize;
        if allowed < self.window && allowed > flight + self.mss {
            allowed -= (allowed - flight) % self.mss;
        }
        (allowed >> scale).clamp(1, u16::MAX.into()) as u16
    }

    /// Gives smoltcp an acknowledgement of nothing new, with a window.
    fn tell(&mut self, window: u16, now: u64) {
        self.given = window;
        let next = self.received.wrapping_add(self.unacknowledged);
        let packet = packet::acknowledgement(&self.tuple, next, self.acknowledged, window);
        self.feed(&packet, now, &mut Vec::new());
    }

    fn feed(&mut self, packet: &[u8], now: u64, frames: &mut Vec<Vec<u8>>) {
        let (packet_size, from) = (self.packet_size(), frames.len());
        let queued = self.socket().recv_queue();
        let mut card = Card { packet_size, input: Some(packet), frames };
        self.interface.poll_ingress_single(instant(now), &mut card, &mut self.sockets);
        let more = self.socket().recv_queue().saturating_sub(queued);
        self.unacknowledged = self.unacknowledged.wrapping_add(more as u32);
        for frame in &mut frames[from..] {
            self.finish(frame, now);
        }
    }

    fn packet_size(&self) -> usize {
        self.limits.packet(packet::ip_header(&self.tuple.local.ip()))
    }

    /// Adds at most one frame, and returns whether there may be more.
    pub fn egress(&mut self, now: u64, frames: &mut Vec<Vec<u8>>) -> bool {
        let (packet_size, from) = (self.packet_size(), frames.len());
        let mut card = Card { packet_size, input: None, frames };
        let waits = self.is_waiting_to_end();
        let result = self.interface.poll_egress(instant(now), &mut card, &mut self.sockets);
        for frame in &mut frames[from..] {
            self.finish(frame, now);
        }
        if let Status::Closed(None) = self.status()
            && self.keepalive
            && !waits
        {
            self.error = Some(Error::TimedOut);
        }
        if result == PollResult::None {
            self.plan(now);
            return false;
        }
        true
    }

    /// Handles a deadline. smoltcp has a timer of its own for repeating, but later.
    pub fn due(&mut self, now: u64) {
        let connecting = self.status() == Status::Connecting;
        let flight = self.sent != self.acknowledged && self.first.is_some();
        let since = now.saturating_sub(self.progress);
        if connecting && since >= CONNECT || flight && since >= SILENCE {
            return self.abort(Error::TimedOut);
        }
        if self.lingers_until().is_some_and(|until| now >= until) {
            return self.abort(Error::TimedOut);
        }
        if self.repeats_at().is_some_and(|at| now >= at) {
            self.repeats += 1;
            self.duplicates = 0;
            if self.repeats > 1 || !matches!(self.recovery, Recovery::Fast(_)) {
                if !matches!(self.recovery, Recovery::Timeout(_)) {
                    self.cubic.timed_out();
                }
                self.recovery = Recovery::Timeout(self.sent);
            }
            self.repeat(now);
        }
    }

    fn lingers_until(&self) -> Option<u64> {
        self.closed_since.map(|since| since.max(self.progress) + LINGER)
    }

    /// Sets the deadline.
    fn plan(&mut self, now: u64) {
        let at = self.interface.poll_at(instant(now), &self.sockets);
        // At least a millisecond, in case smoltcp waits for nothing.
        let at = at.map(|at| (at.total_micros() as u64 * 1000).max(now + SECOND / 1000));
        let connecting = (self.status() == Status::Connecting).then_some(self.progress + CONNECT);
        self.deadline =
            [at, connecting, self.lingers_until(), self.repeats_at()].into_iter().flatten().min();
        if let Status::Closed(_) = self.status() {
            self.deadline = None;
        }
    }

    /// Makes a frame of smoltcp's fit for the link, and notes what is under way.
    fn finish(&mut self, frame: &mut [u8], now: u64) {
        let start = VNET_HEADER + packet::ip_header(&self.tuple.local.ip());
        let limits = self.limits;
        let segment = &mut frame[start..];
        let Some(tcp) = Tcp::parse(segment) else { return };
        let mut end = tcp.seq.wrapping_add((segment.len() - tcp.header) as u32);
        if tcp.flags & ACK != 0 {
            (self.received, self.unacknowledged) = (tcp.ack, 0);
        }
        if tcp.flags & (SYN | FIN) != 0 {
            end = end.wrapping_add(1);
        }
        // While smoltcp repeats, its acknowledgements and resets have old sequence numbers, and the
        // peer would not look at them (RFC 9293, 3.10.7.4).
        if tcp.flags & (SYN | FIN) == 0 && end == tcp.seq && before(tcp.seq, self.sent) {
            segment[4..8].copy_from_slice(&self.sent.to_be_bytes());
        }
        if tcp.flags & SYN != 0 {
            tcp.set_mss(segment, limits.mss(start - VNET_HEADER));
            if self.first.is_none() {
                self.first = Some(end);
                (self.acknowledged, self.sent) = (tcp.seq, tcp.seq);
            }
        }
        if tcp.flags & RST == 0 && before(self.sent, end) {
            if self.sent == self.acknowledged {
                self.progress = self.progress.max(now);
            }
            if self.measured.len() < MEASURED {
                self.measured.push_back((end, now));
            }
            self.sent = end;
        }
        packet::complete(frame, self.mss);
    }

    /// Lowers the segment size to what a hop's MTU allows, if `seq` is under way.
    pub fn shrink(&mut self, mtu: usize, seq: u32) {
        let mss = mtu.saturating_sub(packet::ip_header(&self.tuple.local.ip()) + 20);
        if self.is_under_way(seq) && (LEAST_MSS.max(256)..self.mss).contains(&mss) {
            self.set_mss(mss);
        }
    }

    /// Returns whether the peer has not yet acknowledged this sequence number, so that an ICMP error
    /// about it may be believed.
    pub fn is_under_way(&self, seq: u32) -> bool {
        seq.wrapping_sub(self.acknowledged) < self.sent.wrapping_sub(self.acknowledged)
    }

    /// Ends an attempt to connect.
    pub fn refuse(&mut self, error: Error) {
        if self.status() == Status::Connecting {
            self.error.get_or_insert(error);
            self.socket().close();
        }
    }

    pub fn abort(&mut self, error: Error) {
        self.error.get_or_insert(error);
        self.socket().abort();
    }

    /// Sends a FIN after all that was written.
    pub fn close(&mut self) {
        self.closing = true;
        self.close_when_possible();
    }

    /// In LAST-ACK, smoltcp handles no acknowledgement of nothing new, so no loss would be noticed. If
    /// the peer has closed already, the FIN waits until everything is acknowledged.
    fn close_when_possible(&mut self) {
        let closing = self.closing;
        let socket = self.socket();
        if closing && (socket.state() != tcp::State::CloseWait || socket.send_queue() == 0) {
            socket.close();
        }
    }

    /// Notes that nobody reads any more; the connection ends by itself.
    pub fn orphan(&mut self, now: u64) {
        self.closed_since.get_or_insert(now);
        if self.socket().can_recv() {
            return self.abort(Error::Reset);
        }
        self.close();
    }

    pub fn is_orphan(&self) -> bool {
        self.closed_since.is_some()
    }

    /// Probes an idle peer at this interval, and gives up after ten; None stops that.
    pub fn set_keepalive(&mut self, seconds: Option<u64>) {
        self.keepalive = seconds.is_some();
        self.socket().set_keep_alive(seconds.map(Duration::from_secs));
        self.socket().set_timeout(seconds.map(|seconds| Duration::from_secs(seconds * 10)));
    }

    /// Lets `read` take from the next bytes of the peer; it returns their number.
    pub fn receive(&mut self, mut read: impl FnMut(&[u8]) -> usize) -> usize {
        let taken = self.socket().recv(|bytes| {
            let count = read(bytes);
            (count, count)
        });
        taken.unwrap_or(0)
    }

    pub fn can_receive(&mut self) -> bool {
        self.socket().can_recv()
    }

    /// Returns whether the peer has sent its FIN, and everything before that was taken.
    pub fn is_at_end(&mut self) -> bool {
        let status = self.status();
        let socket = self.socket();
        status != Status::Connecting && !socket.may_recv()
    }

    /// Lets `write` fill the next free space; it returns the number of bytes.
    pub fn send(&mut self, mut write: impl FnMut(&mut [u8]) -> usize) -> usize {
        let written = self.socket().send(|room| {
            let count = write(room);
            (count, count)
        });
        written.unwrap_or(0)
    }

    pub fn can_send(&mut self) -> bool {
        self.socket().can_send()
    }

    /// Returns the sequence number that a SYN was answered with.
    pub fn first(&self) -> Option<u32> {
        self.first
    }
}
