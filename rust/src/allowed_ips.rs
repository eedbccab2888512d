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
    use std::net::{Ipv4Addr, Ipv6Addr};

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
