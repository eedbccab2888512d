//! Cryptokey routing (§2): finds the peer of an inner address by the longest prefix.
//!
//! Each family's addresses are cut into ranges with an owner, so a lookup is one binary search, for
//! any number of prefix lengths. Changes are more expensive: their cost is the number of ranges in
//! the changed prefix, at most two for each prefix within it, and one more.

use std::collections::HashMap;
use std::hash::Hash;
use std::ops::RangeInclusive;

/// An address as a number.
trait Address: Copy + Ord + Hash {
    const BITS: u8;
    const ZERO: Self;

    /// Returns all addresses of the address's network of that length.
    fn network(self, length: u8) -> RangeInclusive<Self>;

    fn next(self) -> Option<Self>;
}

macro_rules! address {
    ($number:ty) => {
        impl Address for $number {
            const BITS: u8 = <$number>::BITS as u8;
            const ZERO: Self = 0;

            fn network(self, length: u8) -> RangeInclusive<Self> {
                let host = <$number>::MAX.checked_shr(u32::from(length)).unwrap_or(0);
                self & !host..=self | host
            }

            fn next(self) -> Option<Self> {
                self.checked_add(1)
            }
        }
    };
}

address!(u32);
address!(u128);

/// Ranges in a leaf before it is split. A new range moves half a leaf, a split half the leaves.
const LEAF: usize = 128;

/// Consecutive ranges; each ends where the next one begins.
struct Leaf<A, T> {
    starts: Vec<A>,
    owners: Vec<Owner<T>>,
}

/// The length of a range's prefix, and the owner. None: the range has no owner.
type Owner<T> = Option<(u8, T)>;

struct Family<A, T> {
    routes: HashMap<(A, u8), T>,
    /// The number of routes of each length.
    counts: Vec<usize>,
    /// The leaves, none of which is empty, and the first address of each.
    leaves: Vec<Leaf<A, T>>,
    firsts: Vec<A>,
}

impl<A: Address, T: Clone> Family<A, T> {
    fn new() -> Self {
        Family {
            routes: HashMap::new(),
            counts: vec![0; usize::from(A::BITS) + 1],
            leaves: vec![Leaf { starts: vec![A::ZERO], owners: vec![None] }],
            firsts: vec![A::ZERO],
        }
    }

    fn insert(&mut self, address: A, length: u8, value: T) {
        let network = address.network(length);
        if self.routes.insert((*network.start(), length), value.clone()).is_none() {
            self.counts[usize::from(length)] += 1;
        }
        self.cut(*network.start());
        if let Some(behind) = network.end().next() {
            self.cut(behind);
        }
        self.change(&network, |owner| {
            if owner.as_ref().is_none_or(|(held, _)| *held <= length) {
                *owner = Some((length, value.clone()));
            }
        });
    }

    fn remove(&mut self, address: A, length: u8) -> Option<T> {
        let network = address.network(length);
        let old = self.routes.remove(&(*network.start(), length))?;
        self.counts[usize::from(length)] -= 1;
        let heir = self.shorter(address, length);
        self.change(&network, |owner| {
            if owner.as_ref().is_some_and(|(held, _)| *held == length) {
                owner.clone_from(&heir);
            }
        });
        self.join(*network.start());
        if let Some(behind) = network.end().next() {
            self.join(behind);
        }
        Some(old)
    }

    fn lookup(&self, address: A) -> Option<&T> {
        let (leaf, at) = self.find(address);
        self.leaves[leaf].owners[at].as_ref().map(|(_, value)| value)
    }

    /// Returns the longest route to the address that is shorter than `length`.
    fn shorter(&self, address: A, length: u8) -> Owner<T> {
        let used = (0..length).rev().filter(|length| self.counts[usize::from(*length)] > 0);
        used.into_iter().find_map(|length| {
            let value = self.routes.get(&(*address.network(length).start(), length))?;
            Some((length, value.clone()))
        })
    }

    /// Finds the range of the address: its leaf, and its place in the leaf.
    fn find(&self, address: A) -> (usize, usize) {
        let leaf = self.firsts.partition_point(|first| *first <= address) - 1;
        (leaf, self.leaves[leaf].starts.partition_point(|start| *start <= address) - 1)
    }

    /// Changes the owners of a network's ranges. Ranges must begin at its start and after its end.
    fn change(&mut self, network: &RangeInclusive<A>, mut action: impl FnMut(&mut Owner<T>)) {
        let (leaf, mut at) = self.find(*network.start());
        for leaf in &mut self.leaves[leaf..] {
            for (start, owner) in leaf.starts.iter().zip(&mut leaf.owners).skip(at) {
                if start > network.end() {
                    return;
                }
                action(owner);
            }
            at = 0;
        }
    }

    /// Splits the range of the address, so that a range begins there.
    fn cut(&mut self, address: A) {
        let (number, at) = self.find(address);
        let leaf = &mut self.leaves[number];
        if leaf.starts[at] == address {
            return;
        }
        let owner = leaf.owners[at].clone();
        leaf.starts.insert(at + 1, address);
        leaf.owners.insert(at + 1, owner);
        if leaf.starts.len() > LEAF {
            let (starts, owners) =
                (leaf.starts.split_off(LEAF / 2), leaf.owners.split_off(LEAF / 2));
            self.firsts.insert(number + 1, starts[0]);
            self.leaves.insert(number + 1, Leaf { starts, owners });
        }
    }

    /// Joins the range that begins at the address to the previous one, if both have the same route.
    fn join(&mut self, address: A) {
        let (number, at) = self.find(address);
        let before = match at {
            0 if number == 0 => return,
            0 => (number - 1, self.leaves[number - 1].starts.len() - 1),
            _ => (number, at - 1),
        };
        if self.route(before) != self.route((number, at)) {
            return;
        }
        let leaf = &mut self.leaves[number];
        leaf.starts.remove(at);
        leaf.owners.remove(at);
        match leaf.starts.first() {
            Some(first) => self.firsts[number] = *first,
            None => {
                self.leaves.remove(number);
                self.firsts.remove(number);
            }
        }
    }

    /// Returns the prefix of a range.
    fn route(&self, (leaf, at): (usize, usize)) -> Option<(A, u8)> {
        let Leaf { starts, owners } = &self.leaves[leaf];
        owners[at].as_ref().map(|(length, _)| (*starts[at].network(*length).start(), *length))
    }
}

/// The device-wide table of allowed IPs. Addresses are 4 or 16 bytes.
pub struct AllowedIps<T> {
    v4: Family<u32, T>,
    v6: Family<u128, T>,
}

impl<T: Clone> Default for AllowedIps<T> {
    fn default() -> Self {
        AllowedIps { v4: Family::new(), v6: Family::new() }
    }
}

impl<T: Clone> AllowedIps<T> {
    /// Routes address/length to `value`, also if it had an owner; false if it is not a network.
    pub fn insert(&mut self, address: &[u8], length: u8, value: T) -> bool {
        match (v4(address), v6(address)) {
            (Some(address), _) if length <= 32 => self.v4.insert(address, length, value),
            (_, Some(address)) if length <= 128 => self.v6.insert(address, length, value),
            _ => return false,
        }
        true
    }

    pub fn remove(&mut self, address: &[u8], length: u8) -> Option<T> {
        match (v4(address), v6(address)) {
            (Some(address), _) if length <= 32 => self.v4.remove(address, length),
            (_, Some(address)) if length <= 128 => self.v6.remove(address, length),
            _ => None,
        }
    }

    pub fn lookup(&self, address: &[u8]) -> Option<&T> {
        if let Some(address) = v4(address) {
            return self.v4.lookup(address);
        }
        self.v6.lookup(v6(address)?)
    }
}

fn v4(address: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(address.try_into().ok()?))
}

fn v6(address: &[u8]) -> Option<u128> {
    Some(u128::from_be_bytes(address.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;
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

    /// The tables, lookups and removals of other implementations' tests.
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
            ('c', "192.95.5.65/27"), // takes the previous one, as host bits are masked
            ('d', "2607:5300:6000:6b00::c05f:543/128"),
            ('c', "2607:5300:6000:6b00::/64"),
            ('e', "0.0.0.0/0 ::/0"),
            ('f', "::/0"), // takes the previous one
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

    /// Tries every depth, with addresses that each differ from the last one in one more bit.
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
        assert_eq!(ranges(&table.v6), 129);
        for length in 0..=128 {
            assert_eq!(table.remove(&[0xff; 16], length), Some(length));
        }
        assert_eq!((table.lookup(&[0xff; 16]), ranges(&table.v6)), (None, 1));
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

    fn ranges<A, T>(family: &Family<A, T>) -> usize {
        family.leaves.iter().map(|leaf| leaf.starts.len()).sum()
    }

    /// Checks the invariants that hold between changes.
    fn assert_in_order<A: Address + std::fmt::Debug, T: Clone>(family: &Family<A, T>) {
        let starts: Vec<A> = family.leaves.iter().flat_map(|leaf| leaf.starts.clone()).collect();
        assert!(starts[0] == A::ZERO && starts.is_sorted_by(|one, next| one < next));
        assert!(starts.len() <= 2 * family.routes.len() + 1, "removed routes leave no ranges");
        for (first, leaf) in family.firsts.iter().zip(&family.leaves) {
            assert_eq!((leaf.starts.first(), leaf.owners.len()), (Some(first), leaf.starts.len()));
            assert!(leaf.starts.len() <= LEAF);
        }
        assert_eq!(family.firsts.len(), family.leaves.len());
    }

    /// Few addresses of few bits, so that networks contain each other, touch, and repeat.
    fn addresses() -> impl Strategy<Value = Vec<u8>> {
        let v4 = (0..4u32, 0..16u32).prop_map(|(high, low)| high << 30 | low << 4);
        let v6 = (0..4u128, 0..16u128).prop_map(|(high, low)| high << 126 | low << 60);
        prop_oneof![
            prop_oneof![v4, Just(0), Just(u32::MAX), any::<u32>()]
                .prop_map(|bits| bits.to_be_bytes().to_vec()),
            prop_oneof![v6, Just(0), Just(u128::MAX), any::<u128>()]
                .prop_map(|bits| bits.to_be_bytes().to_vec()),
        ]
    }

    proptest! {
        /// Compares with the obvious way, which tries every route and keeps the longest match.
        #[test]
        fn c087_random_tables_agree_with_a_naive_one(
            changes in vec((addresses(), 0..=128u8, 0..4u8), 0..400),
            probes in vec(addresses(), 100),
        ) {
            let mut table = AllowedIps::default();
            let mut naive: HashMap<(Vec<u8>, u8), usize> = HashMap::new();
            for (peer, (address, length, kind)) in changes.iter().enumerate() {
                let length = length % (8 * address.len() as u8 + 1);
                let network = (masked(address, length), length);
                if *kind == 0 {
                    prop_assert_eq!(table.remove(address, length), naive.remove(&network));
                } else {
                    prop_assert!(table.insert(address, length, peer));
                    naive.insert(network, peer);
                }
            }
            assert_in_order(&table.v4);
            assert_in_order(&table.v6);
            for probe in probes.iter().chain(naive.keys().map(|(address, _)| address)) {
                let covers = |(address, length): &(Vec<u8>, u8)| {
                    address.len() == probe.len() && masked(probe, *length) == *address
                };
                let best = naive.iter().filter(|(network, _)| covers(network));
                let best = best.max_by_key(|((_, length), _)| *length).map(|(_, peer)| peer);
                prop_assert_eq!(table.lookup(probe), best);
            }
            for (address, length) in naive.keys() {
                prop_assert!(table.remove(address, *length).is_some());
            }
            prop_assert_eq!((ranges(&table.v4), ranges(&table.v6)), (1, 1));
        }
    }

    fn masked(address: &[u8], length: u8) -> Vec<u8> {
        let bits = |at: usize| (usize::from(length).saturating_sub(8 * at)).min(8);
        let keep = |at: usize| (0xff00u16 >> bits(at)) as u8;
        address.iter().enumerate().map(|(at, byte)| byte & keep(at)).collect()
    }

    /// Adds as many routes as the largest servers have, in the worst order, and removes them.
    #[test]
    fn c087_many_networks_come_and_go() {
        let mut table = AllowedIps::default();
        let address = |number: u32| number.wrapping_mul(0x9e37_79b1).to_be_bytes();
        table.insert(&[0; 4], 0, u32::MAX);
        for number in 0..100_000 {
            assert!(table.insert(&address(number), 32, number));
        }
        assert_in_order(&table.v4);
        for number in 0..100_000 {
            assert_eq!(table.lookup(&address(number)), Some(&number));
        }
        for number in 0..100_000 {
            assert_eq!(table.remove(&address(number), 32), Some(number));
            assert_eq!(table.lookup(&address(number)), Some(&u32::MAX));
        }
        assert_eq!(ranges(&table.v4), 1);
    }
}
