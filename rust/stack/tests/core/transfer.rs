//! Two stacks against each other, over good and bad paths.

use crate::common::{MS, Net, Path, frame, split, transfer};
use proptest::prelude::*;
use stack::connection::SECOND;
use stack::packet::Tcp;

#[test]
fn a_good_path_is_filled() {
    for (v6, offloads) in [(false, true), (true, true), (false, false), (true, false)] {
        let mut net = Net::new(Path::GOOD, offloads, 1);
        let took = transfer(&mut net, [20_000_000, 0], v6, 60 * SECOND).expect("it ends");
        // A window of 1 MiB and a round trip of 20 ms: 52 MB/s.
        assert!(took < SECOND * 7 / 10, "{} ms, v6 {v6}, offloads {offloads}", took / MS);
        let least = 20_000_000 / (crate::common::MTU as u64 - 40);
        assert!(net.sent[0] < least * 102 / 100, "{} packets for {least}", net.sent[0]);
    }
}

/// 100 Mbit/s, a round trip of 20 ms, and a queue of 100 packets.
#[test]
fn a_bottleneck_is_used_without_many_losses() {
    let path = Path { queue: 100, each: 112_000, ..Path::GOOD };
    for offloads in [true, false] {
        let mut net = Net::new(path, offloads, 1);
        let took = transfer(&mut net, [50_000_000, 0], false, 60 * SECOND).expect("it ends");
        let rate = 50_000_000 * 8 * 1000 / took;
        let packets = 50_000_000 / (crate::common::MTU as u64 - 40);
        println!("{rate} Mbit/s, {} of {} packets lost, {packets} needed", net.lost, net.sent[0]);
        assert!(rate > 75, "{rate} Mbit/s");
        assert!(net.lost * 20 < packets, "{} of {} packets lost", net.lost, net.sent[0]);
    }
}

/// Not what fits into a super-packet, though smoltcp thinks so.
#[test]
fn a_syn_announces_what_fits_into_the_tunnel() {
    for (v6, mss) in [(false, 1380), (true, 1360)] {
        let mut net = Net::new(Path::GOOD, true, 1);
        net.listen(v6);
        net.connect(v6);
        for end in 0..2 {
            let mut frames = net.ends[end].poll(net.now, usize::MAX);
            let packet = split(&mut frames[0]).remove(0);
            let tcp = &packet[if v6 { 40 } else { 20 }..];
            assert_eq!(Tcp::parse(tcp).unwrap().mss(tcp), Some(mss));
            net.ends[1 - end].ingress(&mut frame(&packet), net.now);
        }
    }
}

/// A path that loses nothing carries whole segments, also while the window grows.
#[test]
fn a_bottleneck_wastes_few_packets() {
    let path = Path { queue: 10_000, each: 112_000, ..Path::GOOD };
    let mut net = Net::new(path, true, 1);
    transfer(&mut net, [20_000_000, 0], false, 60 * SECOND).expect("it ends");
    let packets = 20_000_000 / (crate::common::MTU as u64 - 40);
    assert_eq!(net.lost, 0);
    assert!(net.sent[0] * 100 < packets * 103, "{} of {packets} packets", net.sent[0]);
}

/// Losses that are not the sender's fault, as by radio.
#[test]
fn a_lossy_path_is_usable() {
    for loss in [1, 5] {
        let path = Path { loss, ..Path::GOOD };
        let mut net = Net::new(path, true, 1);
        let took = transfer(&mut net, [2_000_000, 0], false, 600 * SECOND).expect("it ends");
        println!("{loss} %: {} kbit/s", 2_000_000 * 8 * 1_000_000 / took);
        assert!(took < [3, 30][usize::from(loss == 5)] * SECOND, "{loss} %: {} ms", took / MS);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(48) })]

    /// Whatever a path does, the bytes arrive whole and in order, both ways, and then the ends.
    #[test]
    fn bytes_arrive_whole_and_in_order(
        loss in 0..15u64,
        repeats in 0..15u64,
        reorders in 0..30u64,
        lengths in prop::array::uniform2(0..200_000usize),
        v6: bool,
        offloads: bool,
        seed: u64,
    ) {
        let path = Path { loss, repeats, reorders, ..Path::GOOD };
        let mut net = Net::new(path, offloads, seed);
        prop_assert!(transfer(&mut net, lengths, v6, 1200 * SECOND).is_some());
    }
}
