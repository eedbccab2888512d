//! Two stacks in virtual time, joined by a network that loses, repeats and reorders packets.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};

use plane::offload::{Coalescer, MAX_PACKET, Segments, VNET_HEADER};
use stack::connection::{Limits, SECOND};
use stack::engine::{Engine, Event, Protocol};
use stack::packet::Tuple;

pub const MTU: usize = 1420;
pub const MS: u64 = 1_000_000;

/// A small generator of reproducible numbers (splitmix64).
#[derive(Clone)]
pub struct Chance(pub u64);

impl Chance {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn percent(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }
}

pub fn address(number: u8, v6: bool) -> IpAddr {
    if v6 {
        [0xfd, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, number].into()
    } else {
        [10, 9, 0, number].into()
    }
}

pub fn engine(number: u8, offloads: bool, seed: u64) -> Engine {
    let mut chance = Chance(seed);
    let addresses = vec![address(number, false), address(number, true)];
    Engine::new(addresses, Limits { mtu: MTU, offloads }, Box::new(move || chance.next()))
}

/// Splits a frame into packets, as the plane does.
pub fn split(frame: &mut [u8]) -> Vec<Vec<u8>> {
    let segments = Segments::new(frame).expect("a frame that is well-formed");
    (0..segments.count())
        .map(|number| {
            let mut packet = vec![0; segments.length(number)];
            segments.write(number, &mut packet);
            assert!(packet.len() <= MTU, "a packet of {} bytes", packet.len());
            packet
        })
        .collect()
}

pub fn frame(packet: &[u8]) -> Vec<u8> {
    [&[0; VNET_HEADER], packet].concat()
}

#[derive(Clone, Copy, Debug)]
pub struct Path {
    pub delay: u64,
    pub loss: u64,
    pub repeats: u64,
    pub reorders: u64,
    /// Packets that wait at a bottleneck, and the ns that each takes there; 0 is without one.
    pub queue: u64,
    pub each: u64,
}

impl Path {
    pub const GOOD: Path =
        Path { delay: 10 * MS, loss: 0, repeats: 0, reorders: 0, queue: 0, each: 0 };
}

pub struct Net {
    pub ends: [Engine; 2],
    pub now: u64,
    pub path: Path,
    pub chance: Chance,
    pub sent: [u64; 2],
    pub lost: u64,
    merges: bool,
    free: [u64; 2],
    on_the_way: BTreeMap<(u64, u64), (usize, Vec<u8>)>,
    serial: u64,
}

impl Net {
    pub fn new(path: Path, offloads: bool, seed: u64) -> Net {
        let ends = [engine(1, offloads, seed), engine(2, offloads, !seed)];
        let (chance, sent, free) = (Chance(seed ^ 0x55), [0; 2], [0; 2]);
        let now = SECOND;
        let (lost, merges, on_the_way, serial) = (0, offloads, BTreeMap::new(), 0);
        Net { ends, now, path, chance, sent, lost, merges, free, on_the_way, serial }
    }

    /// Lets both ends send, then moves on to the next arrival or deadline; false if there is none
    /// before `until`.
    pub fn step(&mut self, until: u64) -> bool {
        for end in 0..2 {
            for mut frame in self.ends[end].poll(self.now, usize::MAX) {
                for packet in split(&mut frame) {
                    self.carry(end, packet);
                }
            }
        }
        let arrival = self.on_the_way.first_key_value().map(|((at, _), _)| *at);
        let next = self.ends.iter().filter_map(Engine::deadline).chain(arrival).min();
        let Some(next) = next.filter(|next| *next <= until) else {
            self.now = until;
            return false;
        };
        self.now = self.now.max(next);
        let mut merged =
            [Coalescer::new((self.merges, false)), Coalescer::new((self.merges, false))];
        let ends = &mut self.ends;
        let now = self.now;
        while let Some(first) = self.on_the_way.first_entry()
            && first.key().0 <= now
        {
            let (to, packet) = first.remove();
            merged[to].add(&packet, &mut |frame| ends[to].ingress(frame, now));
        }
        for (to, coalescer) in merged.iter_mut().enumerate() {
            coalescer.flush(&mut |frame| ends[to].ingress(frame, now));
        }
        true
    }

    pub fn carry(&mut self, from: usize, packet: Vec<u8>) {
        assert!(packet.len() <= MAX_PACKET);
        self.sent[from] += 1;
        if self.chance.percent(self.path.loss) {
            self.lost += 1;
            return;
        }
        let start = self.free[from].max(self.now);
        if self.path.each > 0 {
            if start - self.now >= self.path.queue * self.path.each {
                self.lost += 1;
                return;
            }
            self.free[from] = start + self.path.each;
        }
        let copies = if self.chance.percent(self.path.repeats) { 2 } else { 1 };
        for _ in 0..copies {
            let late = self.chance.percent(self.path.reorders);
            let extra = if late { self.chance.next() % (5 * MS) } else { 0 };
            self.serial += 1;
            let at = start + self.path.delay + extra;
            self.on_the_way.insert((at, self.serial), (1 - from, packet.clone()));
        }
    }

    pub fn listen(&mut self, v6: bool) -> SocketAddr {
        let at = SocketAddr::new(address(2, v6), 80);
        self.ends[1].bind(Protocol::Tcp, at).unwrap();
        self.ends[1].listen(at, 128);
        at
    }

    pub fn connect(&mut self, v6: bool) -> Tuple {
        let remote = SocketAddr::new(address(2, v6), 80);
        self.ends[0].connect(None, remote, self.now).unwrap()
    }
}

pub fn reversed(flow: &Tuple) -> Tuple {
    Tuple { local: flow.remote, remote: flow.local }
}

/// The bytes of a stream, which differ everywhere.
pub fn byte(at: usize) -> u8 {
    (at ^ (at >> 8).wrapping_mul(31) ^ (at >> 16).wrapping_mul(17)) as u8
}

/// One direction of a transfer.
pub struct Transfer {
    pub length: usize,
    pub written: usize,
    pub read: usize,
    pub closed: bool,
    pub ended: bool,
}

impl Transfer {
    pub fn new(length: usize) -> Transfer {
        Transfer { length, written: 0, read: 0, closed: false, ended: false }
    }

    /// Writes as much as possible, then a FIN; and checks what arrives.
    pub fn turn(&mut self, net: &mut Net, from: usize, flow: &Tuple) {
        if let Some(sender) = net.ends[from].connection(flow) {
            let before = self.written;
            while self.written < self.length && sender.can_send() {
                let (at, left) = (self.written, self.length - self.written);
                self.written += sender.send(|room| {
                    let count = room.len().min(left);
                    room[..count].iter_mut().enumerate().for_each(|(i, b)| *b = byte(at + i));
                    count
                });
            }
            let closes = self.written == self.length && !self.closed;
            if closes && sender.status() == stack::connection::Status::Open {
                self.closed = true;
                sender.close();
                net.ends[from].wake(*flow);
            } else if self.written != before {
                net.ends[from].wake(*flow);
            }
        }
        let there = reversed(flow);
        if let Some(receiver) = net.ends[1 - from].connection(&there) {
            let before = self.read;
            while receiver.can_receive() {
                let at = self.read;
                self.read += receiver.receive(|bytes| {
                    assert!(bytes.iter().enumerate().all(|(i, b)| *b == byte(at + i)), "at {at}");
                    bytes.len()
                });
            }
            self.ended |= receiver.is_at_end();
            if self.read != before {
                net.ends[1 - from].wake(there);
            }
        }
    }
}

/// Transfers bytes both ways, and returns the time that took; None if not done by `limit`.
pub fn transfer(net: &mut Net, lengths: [usize; 2], v6: bool, limit: u64) -> Option<u64> {
    net.listen(v6);
    let flow = net.connect(v6);
    let back = reversed(&flow);
    let mut ways = lengths.map(Transfer::new);
    let begun = net.now;
    while net.now < begun + limit {
        net.step(begun + limit);
        ways[0].turn(net, 0, &flow);
        ways[1].turn(net, 1, &back);
        if ways.iter().all(|way| way.ended && way.read == way.length) {
            return Some(net.now - begun);
        }
    }
    println!("{:?}", ways.map(|way| (way.length, way.written, way.read, way.closed, way.ended)));
    None
}

pub fn accepted(engine: &mut Engine) -> VecDeque<Tuple> {
    let of = |event| match event {
        Event::Accepted(_, flow) => Some(flow),
        _ => None,
    };
    engine.take_events().into_iter().filter_map(of).collect()
}
