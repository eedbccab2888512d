//! Cryptokey routing (§2): which peer an inner address belongs to, by longest prefix.
//!
//! One hash table a family, asked once per prefix length in use, longest first. Real
//! configurations use a handful of lengths, so this is a probe or two, and simpler than a trie.

use std::collections::HashMap;

/// An address of either family at the top of 128 bits, so that masking is one shift for both.
type Bits = u128;

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Network {
    bits: Bits,
    length: u8,
}

struct Family<T> {
    routes: HashMap<Network, T>,
    /// How many routes there are of each length, and the lengths in use, longest first.
    counts: Vec<usize>,
    lengths: Vec<u8>,
}

impl<T> Family<T> {
    fn new(longest: usize) -> Self {
        Family { routes: HashMap::new(), counts: vec![0; longest + 1], lengths: Vec::new() }
    }

    fn insert(&mut self, network: Network, value: T) {
        if self.routes.insert(network, value).is_none() {
            self.count(network.length, 1);
        }
    }

    fn remove(&mut self, network: Network) -> Option<T> {
        let old = self.routes.remove(&network);
        if old.is_some() {
            self.count(network.length, -1);
        }
        old
    }

    fn count(&mut self, length: u8, change: isize) {
        let count = &mut self.counts[usize::from(length)];
        let before = *count;
        *count = before.wrapping_add_signed(change);
        if before == 0 || *count == 0 {
            self.lengths = (0..self.counts.len() as u8).rev().collect();
            self.lengths.retain(|length| self.counts[usize::from(*length)] > 0);
        }
    }

    fn lookup(&self, bits: Bits) -> Option<&T> {
        self.lengths.iter().find_map(|&length| self.routes.get(&masked(bits, length)))
    }
}

fn masked(bits: Bits, length: u8) -> Network {
    let mask = if length == 0 { 0 } else { Bits::MAX << (128 - u32::from(length)) };
    Network { bits: bits & mask, length }
}

/// The device-wide table of allowed IPs. Addresses are 4 or 16 bytes.
pub struct AllowedIps<T> {
    v4: Family<T>,
    v6: Family<T>,
}

impl<T> Default for AllowedIps<T> {
    fn default() -> Self {
        AllowedIps { v4: Family::new(32), v6: Family::new(128) }
    }
}

impl<T> AllowedIps<T> {
    /// Routes address/length to `value`, whosever it was; false for what is no network.
    pub fn insert(&mut self, address: &[u8], length: u8, value: T) -> bool {
        let Some((family, bits)) = self.family(address, length) else { return false };
        family.insert(masked(bits, length), value);
        true
    }

    pub fn remove(&mut self, address: &[u8], length: u8) -> Option<T> {
        let (family, bits) = self.family(address, length)?;
        family.remove(masked(bits, length))
    }

    pub fn lookup(&self, address: &[u8]) -> Option<&T> {
        let family = if address.len() == 4 { &self.v4 } else { &self.v6 };
        family.lookup(to_bits(address)?)
    }

    fn family(&mut self, address: &[u8], length: u8) -> Option<(&mut Family<T>, Bits)> {
        let family = if address.len() == 4 { &mut self.v4 } else { &mut self.v6 };
        (usize::from(length) < family.counts.len()).then_some(())?;
        Some((family, to_bits(address)?))
    }
}

fn to_bits(address: &[u8]) -> Option<Bits> {
    match address.len() {
        4 => Some(Bits::from(u32::from_be_bytes(address.try_into().ok()?)) << 96),
        16 => Some(Bits::from_be_bytes(address.try_into().ok()?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    fn v4(text: &str) -> [u8; 4] {
        text.parse::<Ipv4Addr>().unwrap().octets()
    }

    #[test]
    fn c087_longest_prefix_wins_and_duplicates_move() {
        let mut table = AllowedIps::default();
        for (net, length, peer) in
            [("192.168.4.0", 24, 'a'), ("192.168.4.4", 32, 'b'), ("192.168.0.0", 16, 'c')]
        {
            assert!(table.insert(&v4(net), length, peer));
        }
        table.insert(&v4("0.0.0.0"), 0, 'z');
        assert_eq!(table.lookup(&v4("192.168.4.20")), Some(&'a'));
        assert_eq!(table.lookup(&v4("192.168.4.4")), Some(&'b'));
        assert_eq!(table.lookup(&v4("192.168.200.182")), Some(&'c'));
        assert_eq!(table.lookup(&v4("8.8.8.8")), Some(&'z'));
        assert!(table.insert(&v4("192.168.4.77"), 24, 'd'));
        assert_eq!(table.lookup(&v4("192.168.4.20")), Some(&'d'));
        assert_eq!(table.remove(&v4("192.168.4.0"), 24), Some('d'));
        assert_eq!(table.lookup(&v4("192.168.4.20")), Some(&'c'));
        assert_eq!(table.remove(&v4("0.0.0.0"), 0), Some('z'));
        assert_eq!(table.lookup(&v4("8.8.8.8")), None);
    }

    /// The tables, lookups and removals with which the other implementations test theirs.
    #[test]
    fn c087_lookups_of_the_kernels_selftest() {
        let bytes = |text: &str| match text.parse::<IpAddr>().unwrap() {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        let mut table = AllowedIps::default();
        let insert = |table: &mut AllowedIps<char>, peer, networks: &str| {
            for network in networks.split(' ') {
                let (address, length) = network.split_once('/').unwrap();
                assert!(table.insert(&bytes(address), length.parse().unwrap(), peer));
            }
        };
        for (peer, networks) in [
            ('a', "192.168.4.0/24"),
            ('b', "192.168.4.4/32"),
            ('c', "192.168.0.0/16"),
            ('d', "192.95.5.64/27"),
            ('c', "192.95.5.65/27"), // takes the one before, by its masked bits
            ('d', "2607:5300:6000:6b00::c05f:543/128"),
            ('c', "2607:5300:6000:6b00::/64"),
            ('e', "0.0.0.0/0 ::/0"),
            ('f', "::/0"), // takes the one before
            ('g', "2404:6800::/32"),
            ('h', "2404:6800:4004:800:dead:beef:dead:beef/64"),
            ('a', "2404:6800:4004:800:dead:beef:dead:beef/128"),
            ('c', "2444:6800:40e4:800:deae:beef:def:beef/128"),
            ('b', "2444:6800:f0e4:800:eeae:beef::/98"),
            ('g', "64.15.112.0/20"),
            ('h', "64.15.123.211/25"),
            ('a', "10.0.0.0/25"),
            ('b', "10.0.0.128/25"),
            ('a', "10.1.0.0/30"),
            ('b', "10.1.0.4/30"),
            ('c', "10.1.0.8/29"),
            ('d', "10.1.0.16/29"),
        ] {
            insert(&mut table, peer, networks);
        }
        let expected = [
            ('a', "192.168.4.20 192.168.4.0 2404:6800:4004:800:dead:beef:dead:beef"),
            ('a', "10.0.0.52 10.1.0.2"),
            ('b', "192.168.4.4 10.0.0.220 10.1.0.6"),
            ('c', "192.168.200.182 192.95.5.68 2607:5300:6000:6b00::c02e:1ee 10.1.0.10"),
            ('d', "2607:5300:6000:6b00::c05f:543 10.1.0.20"),
            ('e', "192.95.5.96"),
            ('f', "2607:5300:6000:6b01:: 2404:67ff:4004:806:0:1234:0:5678"),
            ('f', "2404:6801:4004:806:0:1234:0:5678"),
            ('g', "2404:6800:4004:806::1006 2404:6800:4004:806:0:1234:0:5678"),
            ('g', "64.15.116.26 64.15.127.3 64.15.123.1"),
            ('h', "2404:6800:4004:800:0:1234:0:5678 2404:6800:4004:800::"),
            ('h', "2404:6800:4004:800:1010:1010:1010:1010 64.15.123.128 64.15.123.129"),
        ];
        let mut positive = 0;
        for (peer, addresses) in expected {
            for address in addresses.split(' ') {
                assert_eq!(table.lookup(&bytes(address)), Some(&peer), "{address}");
                positive += 1;
            }
        }
        assert_eq!(positive, 28);

        let single = "1.0.0.0/32 64.0.0.0/32 128.0.0.0/32 192.0.0.0/32 255.0.0.0/32";
        for (networks, absent) in [
            (single, "1.0.0.0 64.0.0.0 128.0.0.0 192.0.0.0 255.0.0.0"),
            ("192.168.0.0/16 192.168.0.0/24", "192.168.0.1"),
        ] {
            let mut table = AllowedIps::default();
            insert(&mut table, 'e', "0.0.0.0/0");
            insert(&mut table, 'a', networks);
            for address in absent.split(' ') {
                assert_eq!(table.lookup(&bytes(address)), Some(&'a'), "{address}");
            }
            for network in networks.split(' ') {
                let (address, length) = network.split_once('/').unwrap();
                assert_eq!(table.remove(&bytes(address), length.parse().unwrap()), Some('a'));
            }
            for address in absent.split(' ') {
                assert_eq!(table.lookup(&bytes(address)), Some(&'e'), "{address}");
            }
        }
    }

    /// Every depth at once: addresses that differ from the last one in one bit more each.
    #[test]
    fn c087_a_chain_of_every_depth() {
        let mut table = AllowedIps::default();
        for length in 0..=128 {
            assert!(table.insert(&[0xff; 16], length, length));
        }
        for length in 0..128 {
            let differs = u128::MAX ^ 1 << (127 - u32::from(length));
            assert_eq!(table.lookup(&differs.to_be_bytes()), Some(&length));
        }
        assert_eq!(table.lookup(&[0xff; 16]), Some(&128));
        assert_eq!(table.v6.lengths.len(), 129);
        for length in 0..=128 {
            assert_eq!(table.remove(&[0xff; 16], length), Some(length));
        }
        assert_eq!((table.lookup(&[0xff; 16]), table.v6.lengths.len()), (None, 0));
    }

    #[test]
    fn families_do_not_mix_and_nonsense_is_refused() {
        let mut table = AllowedIps::default();
        let any6 = Ipv6Addr::UNSPECIFIED.octets();
        table.insert(&any6, 0, 6);
        assert_eq!(table.lookup(&v4("1.2.3.4")), None);
        assert_eq!(table.lookup(&Ipv6Addr::LOCALHOST.octets()), Some(&6));
        assert!(!table.insert(&v4("1.2.3.4"), 33, 4));
        assert!(!table.insert(&any6, 129, 4));
        assert!(!table.insert(&[1, 2, 3], 8, 4));
        assert_eq!(table.lookup(&[]), None);
    }

    /// Against the obvious: every route tried, the longest that covers the address kept.
    #[test]
    fn c087_random_tables_agree_with_a_naive_one() {
        let mut seed = 0x9e37_79b9_7f4a_7c15u64;
        let mut random = move || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed
        };
        let mut table = AllowedIps::default();
        let mut naive: Vec<(Network, u64)> = Vec::new();
        for _ in 0..2000 {
            let address = (random() as u32 & 0xff03_0f0f).to_be_bytes();
            let network = masked(to_bits(&address).unwrap(), (random() % 33) as u8);
            naive.retain(|(n, _)| *n != network);
            if random() % 4 == 0 {
                table.remove(&address, network.length);
            } else {
                let peer = random() % 100;
                table.insert(&address, network.length, peer);
                naive.push((network, peer));
            }
            let probe = (random() as u32 & 0xff03_0f0f).to_be_bytes();
            let bits = to_bits(&probe).unwrap();
            let best = naive
                .iter()
                .filter(|(n, _)| masked(bits, n.length) == *n)
                .max_by_key(|(n, _)| n.length);
            assert_eq!(table.lookup(&probe), best.map(|(_, peer)| peer));
        }
    }
}
