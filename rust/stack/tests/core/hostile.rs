//! What strangers send: nothing of it may panic, cost much, or harm those who are connected.

use std::net::SocketAddr;

use crate::common::{
    Chance, MS, MTU, Net, Path, Transfer, accepted, address, engine, frame, reversed, split,
};
use proptest::prelude::*;
use proptest::sample::Index;
use stack::connection::{Error, SECOND, Status};
use stack::engine::{Engine, Event, HALF_OPEN, Protocol};
use stack::packet::{self, Tuple, datagram};

fn checksummed(packet: &[u8]) -> Vec<u8> {
    let mut framed = frame(packet);
    packet::complete(&mut framed, usize::MAX);
    split(&mut framed).remove(0)
}

/// A segment to port 80 of the second stack.
fn segment(from: SocketAddr, seq: u32, ack: u32, flags: u8, options: &[u8]) -> Vec<u8> {
    let flow = Tuple { local: from, remote: SocketAddr::new(address(2, from.is_ipv6()), 80) };
    let header = 20 + options.len();
    let mut made = datagram(&flow, &vec![0; header - 8])[10..].to_vec();
    let start = made.len() - header;
    let protocol = if from.is_ipv6() { 6 } else { 9 };
    made[protocol] = 6;
    if from.is_ipv4() {
        plane::ip::put_ipv4_checksum(&mut made[..20]);
    }
    let tcp = &mut made[start..];
    tcp[4..8].copy_from_slice(&seq.to_be_bytes());
    tcp[8..12].copy_from_slice(&ack.to_be_bytes());
    tcp[12] = (header as u8 / 4) << 4;
    tcp[13] = flags;
    tcp[14..16].copy_from_slice(&1000u16.to_be_bytes());
    tcp[16..20].fill(0);
    tcp[20..].copy_from_slice(options);
    checksummed(&made)
}

fn listening() -> Engine {
    let mut engine = engine(2, true, 1);
    for v6 in [false, true] {
        let at = SocketAddr::new(address(2, v6), 80);
        engine.bind(Protocol::Tcp, at).unwrap();
        engine.listen(at, 5);
    }
    engine
}

fn packets(engine: &mut Engine, now: u64) -> Vec<Vec<u8>> {
    engine.poll(now, usize::MAX).iter_mut().flat_map(|frame| split(frame)).collect()
}

fn stranger(number: u32) -> SocketAddr {
    let [_, a, b, c] = number.to_be_bytes();
    SocketAddr::new([10, a, b, c].into(), 1024 + (number % 60_000) as u16)
}

const MSS_AND_SCALE: [u8; 8] = [2, 4, 5, 0x64, 3, 3, 7, 1];

#[test]
fn ten_thousand_half_open_connections_are_bounded_and_forgotten() {
    let mut engine = listening();
    for number in 0..10_000 {
        let syn = segment(stranger(number), number, 0, 2, &MSS_AND_SCALE);
        engine.ingress(&mut frame(&syn), SECOND);
        assert_eq!(packets(&mut engine, SECOND).len(), 1, "{number}");
    }
    assert_eq!((engine.half_open(), engine.connections()), (HALF_OPEN, 0));
    let mut now = SECOND;
    let mut repeated = 0;
    while let Some(due) = engine.deadline() {
        now = now.max(due);
        repeated += packets(&mut engine, now).len();
    }
    assert_eq!(repeated, 3 * HALF_OPEN);
    assert!(now < 17 * SECOND && engine.half_open() == 0);
}

#[test]
fn a_syn_with_data_is_not_kept() {
    let mut engine = listening();
    let mut syn = segment(stranger(1), 7, 0, 2, &[0; 8]);
    syn[32] = 5 << 4; // the header is shorter: what were options is data
    let syn = checksummed(&syn);
    engine.ingress(&mut frame(&syn), SECOND);
    assert!(packets(&mut engine, SECOND).is_empty() && engine.half_open() == 0);
}

#[test]
fn a_flood_of_syns_does_not_stop_a_connection() {
    let mut net = Net::new(Path::GOOD, true, 1);
    let at = net.listen(false);
    let flow = net.connect(false);
    let mut number = 0;
    while net.now < 2 * SECOND {
        // The list is full when the real one comes.
        let many = if number == 0 { HALF_OPEN } else { 2000 };
        if number > 0 {
            net.step(2 * SECOND);
        }
        for _ in 0..many {
            number += 1;
            let syn = segment(stranger(number), number, 0, 2, &[]);
            net.ends[1].ingress(&mut frame(&syn), net.now);
            for answer in packets(&mut net.ends[1], net.now) {
                if answer[16..20] == [10, 9, 0, 1] {
                    net.carry(1, answer);
                }
            }
        }
        if net.ends[0].connection(&flow).unwrap().status() == Status::Open {
            break;
        }
    }
    net.step(net.now + 20 * MS);
    assert_eq!(net.ends[1].take_events(), [Event::Accepted(at, reversed(&flow))]);
    assert!(net.ends[1].half_open() <= HALF_OPEN);
}

#[test]
fn a_backlog_bounds_those_who_wait() {
    let mut engine = listening();
    let complete = |engine: &mut Engine, number| {
        engine.ingress(&mut frame(&segment(stranger(number), 7, 0, 2, &[])), SECOND);
        let Some(answer) = packets(engine, SECOND).pop() else { return false };
        let seq = u32::from_be_bytes(answer[24..28].try_into().unwrap());
        let ack = segment(stranger(number), 8, seq.wrapping_add(1), 16, &[]);
        engine.ingress(&mut frame(&ack), SECOND);
        accepted(engine).len() == 1
    };
    let taken = (0..9).filter(|number| complete(&mut engine, *number)).count();
    assert_eq!(taken, 5);
    engine.accepted(SocketAddr::new(address(2, false), 80));
    assert!(complete(&mut engine, 20) && !complete(&mut engine, 21));
}

/// The answer's sequence number must be right, so a stranger who does not see it cannot connect.
#[test]
fn a_handshake_needs_the_answer() {
    let mut engine = listening();
    let from = stranger(1);
    engine.ingress(&mut frame(&segment(from, 7, 0, 2, &[])), SECOND);
    let answer = packets(&mut engine, SECOND).pop().unwrap();
    let seq = u32::from_be_bytes(answer[24..28].try_into().unwrap());
    for wrong in [seq, seq.wrapping_add(2), 0] {
        engine.ingress(&mut frame(&segment(from, 8, wrong, 16, &[])), SECOND);
        let reset = packets(&mut engine, SECOND).pop().unwrap();
        assert_eq!(reset[33] & 4, 4, "a reset");
        assert!(accepted(&mut engine).is_empty() && engine.half_open() == 1);
    }
    engine.ingress(&mut frame(&segment(from, 9, 0, 4, &[])), SECOND);
    assert_eq!(engine.half_open(), 1, "a reset with a wrong sequence number");
    engine.ingress(&mut frame(&segment(from, 8, 0, 4, &[])), SECOND);
    assert_eq!(engine.half_open(), 0);
}

#[test]
fn who_finds_nobody_is_told_so_and_errors_get_no_answer() {
    let mut engine = listening();
    let from = stranger(1);
    let mut closed = segment(from, 7, 0, 2, &[]);
    closed[22..24].copy_from_slice(&81u16.to_be_bytes());
    let closed = checksummed(&closed);
    engine.ingress(&mut frame(&closed), SECOND);
    let reset = packets(&mut engine, SECOND).pop().unwrap();
    assert_eq!((reset[9], reset[33] & 4), (6, 4));
    let flow = Tuple { local: from, remote: SocketAddr::new(address(2, false), 53) };
    engine.ingress(&mut datagram(&flow, b"anybody?"), SECOND);
    let unreachable = packets(&mut engine, SECOND).pop().unwrap();
    assert_eq!((unreachable[9], &unreachable[20..22]), (1, &[3, 3][..]));
    for wrong in [&reset[..], &unreachable] {
        let mut back = wrong.to_vec();
        let (one, two) = (wrong[12..16].to_vec(), wrong[16..20].to_vec());
        back[12..16].copy_from_slice(&two);
        back[16..20].copy_from_slice(&one);
        engine.ingress(&mut frame(&back), SECOND);
        assert!(packets(&mut engine, SECOND).is_empty());
    }
    // Wrong checksums and foreign addresses are nothing.
    for at in [16usize, 12, 30, 36] {
        let mut broken = closed.clone();
        broken[at] ^= 1;
        engine.ingress(&mut frame(&broken), SECOND);
        assert!(packets(&mut engine, SECOND).is_empty(), "byte {at}");
    }
}

#[test]
fn an_icmp_error_ends_an_attempt_only_if_it_quotes_it() {
    for (code, error) in
        [(3, Error::Refused), (1, Error::HostUnreachable), (0, Error::NetworkUnreachable)]
    {
        let mut net = Net::new(Path::GOOD, true, 1);
        let flow = net.connect(false);
        let syn = packets(&mut net.ends[0], net.now).pop().unwrap();
        let wrong = {
            let mut other = syn.clone();
            other[24] ^= 1; // another sequence number
            other
        };
        for (quoted, ends) in [(wrong, false), (syn, true)] {
            let mut message = plane::ip::unreachable(&quoted).expect("an error about it");
            message[21] = code;
            message[22..24].fill(0);
            let sum = !plane::ip::fold(plane::ip::sum(&message[20..]));
            message[22..24].copy_from_slice(&sum.to_ne_bytes());
            net.ends[0].ingress(&mut frame(&message), net.now);
            let status = net.ends[0].connection(&flow).unwrap().status();
            let ended = Status::Closed(Some(error));
            assert_eq!(status, if ends { ended } else { Status::Connecting });
        }
    }
}

#[test]
fn a_connection_attempt_that_nobody_answers_ends() {
    let mut net = Net::new(Path { loss: 100, ..Path::GOOD }, true, 1);
    let flow = net.connect(false);
    let mut last = net.now;
    while net.step(200 * SECOND) {
        last = net.now;
    }
    let status = net.ends[0].connection(&flow).unwrap().status();
    assert_eq!(status, Status::Closed(Some(Error::TimedOut)));
    assert!((70..80).contains(&(last / SECOND)), "{} s", last / SECOND);
    net.ends[0].leave(&flow, net.now);
    net.step(net.now + SECOND);
    assert_eq!((net.ends[0].connections(), net.ends[0].deadline()), (0, None));
}

/// Idle connections cost no time: there is no deadline.
#[test]
fn an_idle_connection_has_no_deadline_and_a_closed_one_is_forgotten() {
    let mut net = Net::new(Path::GOOD, true, 1);
    net.listen(false);
    let flow = net.connect(false);
    while net.step(10 * SECOND) {}
    let back = reversed(&flow);
    assert_eq!(net.ends[1].connection(&back).unwrap().status(), Status::Open);
    assert_eq!([net.ends[0].deadline(), net.ends[1].deadline()], [None; 2]);
    for (end, flow) in [(0, flow), (1, back)] {
        net.ends[end].leave(&flow, net.now);
    }
    while net.step(net.now + 100 * SECOND) {}
    assert_eq!([net.ends[0].connections(), net.ends[1].connections()], [0; 2]);
}

/// A peer that never closes its side does not hold a connection that was left.
#[test]
fn a_connection_that_was_left_ends_within_a_minute() {
    let mut net = Net::new(Path::GOOD, true, 1);
    net.listen(false);
    let flow = net.connect(false);
    while net.step(10 * SECOND) {}
    let begun = net.now;
    net.ends[0].leave(&flow, net.now);
    while net.step(begun + 100 * SECOND) && net.ends[0].connections() > 0 {}
    assert_eq!(net.ends[0].connections(), 0);
    assert!(net.now - begun <= 61 * SECOND);
    while net.step(net.now + SECOND) {}
    let status = net.ends[1].connection(&reversed(&flow)).unwrap().status();
    assert_eq!(status, Status::Closed(Some(Error::Reset)));
}

#[test]
fn a_reader_that_does_not_read_stops_its_peer_and_loses_nothing() {
    let mut net = Net::new(Path::GOOD, true, 1);
    net.listen(false);
    let flow = net.connect(false);
    let mut way = Transfer::new(5_000_000);
    let until = net.now + 5 * SECOND;
    while net.step(until) {
        if let Some(sender) = net.ends[0].connection(&flow) {
            while way.written < way.length && sender.can_send() {
                let at = way.written;
                way.written += sender.send(|room| {
                    room.iter_mut().enumerate().for_each(|(i, b)| *b = crate::common::byte(at + i));
                    room.len()
                });
            }
            net.ends[0].wake(flow);
        }
    }
    assert!(way.written <= 3 << 20, "both buffers hold a mebibyte");
    way.length = way.written;
    let sent = net.sent[0];
    net.step(until + 30 * SECOND);
    assert!(net.sent[0] < sent + 20, "only probes");
    let until = net.now + 100 * SECOND;
    while net.step(until) {
        way.turn(&mut net, 0, &flow);
    }
    assert_eq!(way.read, way.written);
}

/// Frames that an established connection exchanges, to be changed.
fn conversation() -> (Net, Tuple, Vec<Vec<u8>>) {
    let mut net = Net::new(Path::GOOD, true, 3);
    net.listen(false);
    let flow = net.connect(false);
    let mut seen = Vec::new();
    for round in 0..8 {
        let sent = packets(&mut net.ends[0], net.now);
        for packet in &sent {
            net.ends[1].ingress(&mut frame(packet), net.now);
        }
        seen.extend(sent);
        for packet in packets(&mut net.ends[1], net.now) {
            net.ends[0].ingress(&mut frame(&packet), net.now);
        }
        if round > 2
            && let Some(sender) = net.ends[0].connection(&flow)
        {
            sender.send(|room| {
                room[..3000].fill(7);
                3000
            });
            net.ends[0].wake(flow);
        }
    }
    assert!(seen.len() > 8);
    (net, flow, seen)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(
        std::env::var("STACK_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(256)
    ))]

    #[test]
    fn any_bytes_are_a_frame(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut engine = listening();
        engine.ingress(&mut bytes.clone(), SECOND);
        for first in [0x45, 0x46, 0x60] {
            let mut packet = bytes.clone();
            if packet.len() > 31 {
                packet[0..10].fill(0);
                packet[0] = 1; // no checksum is looked at
                packet[10] = first;
                let length = packet.len() as u16 - 10;
                packet[12..14].copy_from_slice(&length.to_be_bytes());
            }
            engine.ingress(&mut packet, SECOND);
        }
        engine.poll(SECOND, usize::MAX);
        engine.poll(100 * SECOND, usize::MAX);
    }

    /// Segments of a connection with changes, in any order, with right checksums.
    #[test]
    fn changed_segments_harm_nobody(
        changes in prop::collection::vec(
            (any::<Index>(), any::<Index>(), any::<u8>(), any::<bool>(), any::<Index>()), 1..40
        ),
        waits in prop::collection::vec(0..3 * SECOND, 1..40),
    ) {
        let (mut net, flow, seen) = conversation();
        let mut now = net.now;
        for ((which, place, value, whole, cut), wait) in changes.iter().zip(waits.iter().cycle()) {
            let mut packet = seen[which.index(seen.len())].clone();
            let at = 20 + place.index(packet.len().min(60) - 20);
            packet[at] = *value;
            if !whole {
                packet.truncate(20 + cut.index(packet.len() - 20));
            }
            let length = packet.len() as u16;
            packet[2..4].copy_from_slice(&length.to_be_bytes());
            plane::ip::put_ipv4_checksum(&mut packet[..20]);
            let mut changed = frame(&packet);
            changed[0] = 1; // verified
            net.ends[1].ingress(&mut changed, now);
            for mut sent in net.ends[1].poll(now, usize::MAX) {
                for packet in split(&mut sent) {
                    net.ends[0].ingress(&mut frame(&packet), now);
                }
            }
            net.ends[0].poll(now, usize::MAX);
            now += wait;
        }
        prop_assert!(net.ends[1].connections() <= 1 + changes.len());
        if let Some(connection) = net.ends[1].connection(&reversed(&flow)) {
            connection.receive(<[u8]>::len);
        }
    }

    /// The same from a stranger: another address cannot even disturb.
    #[test]
    fn segments_of_strangers_change_nothing(
        number in 10..1_000_000u32,
        seq: u32,
        ack: u32,
        flags: u8,
        options in prop::collection::vec(any::<[u8; 4]>(), 0..10),
    ) {
        let (mut net, flow, _) = conversation();
        let options = options.concat();
        let packet = segment(stranger(number), seq, ack, flags & !2, &options);
        net.ends[1].ingress(&mut frame(&packet), net.now);
        let answers = packets(&mut net.ends[1], net.now);
        prop_assert!(answers.len() <= 1 && answers.iter().all(|answer| answer.len() <= 60));
        prop_assert_eq!((net.ends[1].connections(), net.ends[1].half_open()), (1, 0));
        let status = net.ends[1].connection(&reversed(&flow)).unwrap().status();
        prop_assert_eq!(status, Status::Open);
    }
}

#[test]
fn numbers_are_used_up_before_they_come_again() {
    let mut engine = engine(1, true, 1);
    let any = SocketAddr::new(address(1, false), 0);
    let mut ports: Vec<u16> =
        (0..28_232).map(|_| engine.bind(Protocol::Udp, any).unwrap().port()).collect();
    assert_eq!(engine.bind(Protocol::Udp, any), Err(Error::InUse));
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), 28_232);
    let whole = SocketAddr::new([0, 0, 0, 0].into(), ports[0]);
    assert_eq!(engine.bind(Protocol::Udp, whole), Err(Error::InUse));
    assert!(engine.bind(Protocol::Tcp, whole).is_ok());
    let foreign = SocketAddr::new(address(9, false), 1);
    assert_eq!(engine.bind(Protocol::Tcp, foreign), Err(Error::NotAvailable));
    let mut chance = Chance(1);
    assert!(chance.next() != chance.next() && MTU > 0);
}
