//! Runs a single step of a packet's way, so that its instructions can be counted.
//!
//! `packets STEP SIZE COUNT` takes COUNT packets of SIZE bytes through a step. For `lengths`, SIZE
//! is the number of prefix lengths, at most 129. The preparation does not depend on COUNT, so the
//! difference of two counts is the step alone. Without arguments (`cargo test`) it runs each step
//! once and checks the result.

use std::env::args;
use std::hint::black_box;
use std::net::Ipv4Addr;
use std::sync::Arc;

use plane::allowed_ips::AllowedIps;
use plane::offload::{Coalescer, Segments, VNET_HEADER};
use plane::peer::Peer;
use plane::secret::AeadKey;
use plane::session::{HEADER, OVERHEAD, Session};
use plane::table::Table;

/// Prepared packets, and so the greatest COUNT.
const MOST: usize = 1024;
/// Segments of a super-packet: as many as fit into one send of 1452 bytes each.
const SEGMENTS: usize = 32;
/// Peers in the tables that are searched.
const PEERS: u32 = 10_000;
const TCP_HEADERS: usize = 40;

fn main() {
    let words: Vec<String> = args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let [step, size, count] = &words[..] else {
        // Run as a test, with any filter.
        for step in ["seal", "open", "split", "coalesce", "index", "allowed", "lengths"] {
            for size in [64, 1420] {
                assert_eq!(take(step, size, MOST), MOST, "{step} of {size} bytes");
            }
        }
        return;
    };
    let [size, count] = [size, count].map(|word| word.parse().expect("a number"));
    assert_eq!(take(step, size, count), count, "{step}");
}

/// Takes packets through a step; returns how many succeeded.
fn take(step: &str, size: usize, count: usize) -> usize {
    match step {
        "seal" => seal(size, count),
        "open" => open(size, count),
        "split" => split(size, count),
        "coalesce" => coalesce(size, count),
        "index" => index(count),
        "allowed" => allowed(count),
        "lengths" => lengths(size.min(129) as u32, count),
        _ => panic!("there is no step {step:?}"),
    }
}

fn sessions() -> [Session; 2] {
    let key = |byte| AeadKey::new(&[byte; 32]);
    [
        Session::new(key(1), key(2), 1, 2, true, 0, [u64::MAX; 3]),
        Session::new(key(2), key(1), 2, 1, false, 0, [u64::MAX; 3]),
    ]
}

fn seal(size: usize, count: usize) -> usize {
    let [session, _] = sessions();
    let mut message = vec![0; size + OVERHEAD];
    for _ in 0..count {
        let counter = session.claim(1).expect("there are counters left");
        session.seal_in_place(counter, black_box(&mut message));
    }
    session.claim(1).expect("there are counters left") as usize
}

fn open(size: usize, count: usize) -> usize {
    let [from, to] = sessions();
    let mut messages = vec![vec![0; size + OVERHEAD]; MOST];
    for (counter, message) in messages.iter_mut().enumerate() {
        from.seal_in_place(counter as u64, message);
    }
    let opened = |message: &mut Vec<u8>| to.open_in_place(black_box(message), 0).is_some();
    messages[..count].iter_mut().filter_map(|message| opened(message).then_some(())).count()
}

/// A frame of a TUN device: one TCP super-packet of `SEGMENTS` segments.
fn super_frame(size: usize) -> Vec<u8> {
    let payload = size - TCP_HEADERS;
    let length = TCP_HEADERS + SEGMENTS * payload;
    let mut frame = vec![0; VNET_HEADER + length];
    for (at, value) in [(2, TCP_HEADERS), (4, payload), (6, 20), (8, 16)] {
        frame[at..at + 2].copy_from_slice(&(value as u16).to_ne_bytes());
    }
    frame[..2].copy_from_slice(&[1, 1]); // NEEDS_CSUM, TCPV4
    let packet = &mut frame[VNET_HEADER..];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&(length as u16).to_be_bytes());
    packet[6] = 0x40;
    packet[8..20].copy_from_slice(&[64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    packet[32..34].copy_from_slice(&[5 << 4, 0x10]); // 20 bytes of header; ACK
    frame
}

/// Makes a buffer for the messages of a super-packet, side by side.
fn room(size: usize) -> Vec<u8> {
    vec![0; SEGMENTS * (size + OVERHEAD)]
}

/// Splits the frame into `room`; returns the number of segments.
fn split_into(room: &mut [u8], size: usize, frame: &mut [u8]) -> usize {
    let segments = Segments::new(black_box(frame)).expect("a good frame");
    for (number, message) in room.chunks_mut(size + OVERHEAD).enumerate() {
        segments.write(number, &mut message[HEADER..HEADER + size]);
    }
    segments.count()
}

fn split(size: usize, count: usize) -> usize {
    let (mut frame, mut room) = (super_frame(size), room(size));
    (0..count / SEGMENTS).map(|_| split_into(black_box(&mut room), size, &mut frame)).sum()
}

fn coalesce(size: usize, count: usize) -> usize {
    let mut room = room(size);
    split_into(&mut room, size, &mut super_frame(size));
    let mut coalescer = Coalescer::new((true, true));
    let mut arrived = 0;
    let mut write = |frame: &mut [u8]| {
        arrived += (black_box(frame).len() - VNET_HEADER - TCP_HEADERS) / (size - TCP_HEADERS);
    };
    for _ in 0..count / SEGMENTS {
        for message in black_box(&room).chunks(size + OVERHEAD) {
            coalescer.add(&message[HEADER..HEADER + size], &mut write);
        }
        coalescer.flush(&mut write);
    }
    arrived
}

fn index(count: usize) -> usize {
    let mut table = Table::default();
    let reserve = |number| table.reserve(&Arc::new(Peer::new(number, &Arc::default())));
    let indices: Vec<u32> = (0..PEERS).map(reserve).collect();
    let found = |index: &&u32| table.lookup(*black_box(*index)).is_some();
    indices.iter().take(count).filter(found).count()
}

fn allowed(count: usize) -> usize {
    let address = |number: u32| Ipv4Addr::from(0x0a00_0000 + number).octets();
    let mut table = AllowedIps::default();
    for number in 0..PEERS {
        assert!(table.insert(&address(number), 32, number));
    }
    (0..count as u32).filter(|n| table.lookup(&black_box(address(*n))) == Some(n)).count()
}

/// Looks up nested networks, one of each length, by addresses of each in turn.
fn lengths(lengths: u32, count: usize) -> usize {
    let address = |number: u32| match number % lengths {
        127.. => u128::MAX - u128::from(number % lengths == 127),
        length => u128::MAX ^ 1 << (127 - length),
    };
    let mut table = AllowedIps::default();
    for length in 0..lengths {
        assert!(table.insert(&[0xff; 16], length as u8, length));
    }
    let found =
        |n: &u32| table.lookup(&black_box(address(*n)).to_be_bytes()) == Some(&(n % lengths));
    (0..count as u32).filter(found).count()
}
