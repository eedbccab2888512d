//! The first, cheap check of a datagram: type, length, mac1, load, cookie, rate (§5.3, §5.4.4,
//! §5.4.7). A datagram that fails is ignored: no error, no log line, no answer.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use blake2::digest::consts::U16;
use blake2::digest::{KeyInit, Mac};
use blake2::{Blake2s256, Blake2sMac, Digest};
use zeroize::Zeroizing;

use crate::drops::DropCounter;
use crate::secret::{random, seal_cookie};

/// Handshake messages that may wait for Python; more are dropped.
pub const QUEUE_LIMIT: usize = 128;
/// So many waiting messages mean load. Python handles them in about 5 ms (the kernel: 512 of 4096).
pub const LOAD_THRESHOLD: usize = 16;
/// Datagrams that are not WireGuard's: how many may wait for `take_other`, and the longest.
pub const OTHERS_LIMIT: usize = 128;
pub const LONGEST_OTHER: usize = 1500;

pub const MESSAGE_INITIATION: u32 = 1;
pub const MESSAGE_RESPONSE: u32 = 2;
pub const MESSAGE_COOKIE: u32 = 3;
pub const MESSAGE_DATA: u32 = 4;

const SECOND: u64 = 1_000_000_000;
const LOAD_LASTS: u64 = SECOND;
const COOKIE_SECRET_LIFETIME: u64 = 120 * SECOND;
const MAC: usize = 16;
/// Cookie replies are made by the thread that carries data. With 20,000 a second it has most of its
/// time left in any flood.
const REPLY_COST: u64 = SECOND / 20_000;
const REPLIES_AT_ONCE: u64 = 200;
const RECENT: usize = 256;

#[derive(Debug, PartialEq)]
pub enum Verdict {
    Drop,
    Data,
    Queue,
    /// A cookie reply for the datagram's source.
    Reply([u8; 64]),
    /// Not a message type of WireGuard's: ignored, unless somebody asked for such datagrams.
    Other,
}

#[inline]
pub fn is_data(datagram: &[u8]) -> bool {
    datagram.len() >= 32 && datagram[..4] == MESSAGE_DATA.to_le_bytes()
}

/// Reads the little-endian word at `at` in a message whose length was checked.
pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

pub struct Gate {
    identity: Option<Identity>,
    /// The mac1s of the last queued messages. A copy of one is dropped without work or an answer.
    recent: Box<[[u8; MAC]; RECENT]>,
    oldest: usize,
    loaded_until: u64,
    cookie_secret: Zeroizing<[u8; 32]>,
    cookie_secret_ends: u64,
    limiter: Limiter,
    replies: Bucket,
    /// Initiations and responses for another public key, or for no key at all, by source.
    pub invalid_mac1: DropCounter<SocketAddr>,
}

struct Identity {
    mac1_key: [u8; 32],
    cookie_key: [u8; 32],
}

impl Default for Gate {
    fn default() -> Gate {
        Gate {
            identity: None,
            recent: Box::new([[0; MAC]; RECENT]),
            oldest: 0,
            loaded_until: 0,
            cookie_secret: Zeroizing::new([0; 32]),
            cookie_secret_ends: 0,
            limiter: Limiter::default(),
            replies: Bucket::default(),
            invalid_mac1: DropCounter::default(),
        }
    }
}

impl Gate {
    /// Sets the device's public key. With None no handshake message passes.
    pub fn set_identity(&mut self, public: Option<[u8; 32]>) {
        let key = |label: &[u8]| Blake2s256::new().chain_update(label);
        self.identity = public.map(|public| Identity {
            mac1_key: key(b"mac1----").chain_update(public).finalize().into(),
            cookie_key: key(b"cookie--").chain_update(public).finalize().into(),
        });
    }

    /// Checks a datagram. `queue_length` is the number of waiting handshake messages.
    pub fn check(
        &mut self,
        datagram: &[u8],
        source: &SocketAddr,
        now: u64,
        queue_length: usize,
    ) -> Verdict {
        if is_data(datagram) {
            return Verdict::Data;
        }
        let Some((kind, _)) = datagram.split_first_chunk() else {
            return Verdict::Drop;
        };
        let kind = u32::from_le_bytes(*kind);
        match (kind, datagram.len()) {
            (MESSAGE_INITIATION, 148) | (MESSAGE_RESPONSE, 92) | (MESSAGE_COOKIE, 64) => {}
            (MESSAGE_INITIATION..=MESSAGE_DATA, _) => return Verdict::Drop,
            _ => return Verdict::Other,
        }
        let Some(identity) = &self.identity else {
            return Verdict::Drop;
        };
        if queue_length >= LOAD_THRESHOLD {
            self.loaded_until = now + LOAD_LASTS;
        }
        if queue_length >= QUEUE_LIMIT {
            return Verdict::Drop;
        }
        if kind == MESSAGE_COOKIE {
            return Verdict::Queue;
        }

        let (rest, mac2) = datagram.split_last_chunk::<MAC>().expect("the length is right");
        let (body, mac1) = rest.split_last_chunk::<MAC>().expect("the length is right");
        if mac(&identity.mac1_key, &[body]).verify_slice(mac1).is_err() {
            self.invalid_mac1.add(*source, now, false);
            return Verdict::Drop;
        }
        if self.recent.contains(mac1) {
            return Verdict::Drop;
        }
        if now < self.loaded_until {
            let cookie = self.cookie(source, now);
            if mac(&cookie, &[rest]).verify_slice(mac2).is_err() {
                if !self.replies.take(now, REPLY_COST, REPLIES_AT_ONCE * REPLY_COST) {
                    return Verdict::Drop;
                }
                return Verdict::Reply(self.reply(&datagram[4..8], mac1, &cookie));
            }
            if !self.limiter.allow(source.ip(), now) {
                return Verdict::Drop;
            }
        }
        self.recent[self.oldest] = *mac1;
        self.oldest = (self.oldest + 1) % RECENT;
        Verdict::Queue
    }

    /// MAC(secret, source address || source port)
    fn cookie(&mut self, source: &SocketAddr, now: u64) -> [u8; MAC] {
        if now >= self.cookie_secret_ends {
            random(&mut *self.cookie_secret);
            self.cookie_secret_ends = now + COOKIE_SECRET_LIFETIME;
        }
        let port = source.port().to_be_bytes();
        match source.ip().to_canonical() {
            IpAddr::V4(ip) => mac(&*self.cookie_secret, &[&ip.octets(), &port]),
            IpAddr::V6(ip) => mac(&*self.cookie_secret, &[&ip.octets(), &port]),
        }
        .finalize()
        .into_bytes()
        .into()
    }

    /// 3 || receiver || nonce || XAEAD(cookie_key, nonce, cookie, mac1)
    fn reply(&self, receiver: &[u8], mac1: &[u8; MAC], cookie: &[u8; MAC]) -> [u8; 64] {
        let key = &self.identity.as_ref().expect("its mac1 was checked").cookie_key;
        let mut nonce = [0; 24];
        random(&mut nonce);
        let mut reply = [0; 64];
        reply[..4].copy_from_slice(&MESSAGE_COOKIE.to_le_bytes());
        reply[4..8].copy_from_slice(receiver);
        reply[8..32].copy_from_slice(&nonce);
        reply[32..].copy_from_slice(&seal_cookie(key, &nonce, cookie, mac1));
        reply
    }
}

/// BLAKE2s-128 with a key.
fn mac(key: &[u8], parts: &[&[u8]]) -> Blake2sMac<U16> {
    let mac = Blake2sMac::new_from_slice(key).expect("the key has at most 32 bytes");
    parts.iter().fold(mac, |mac, part| mac.chain_update(part))
}

/// A token bucket for each IPv4 address and each IPv6 /64: 20 per second, bursts of 5.
#[derive(Default)]
struct Limiter {
    buckets: HashMap<Subnet, Bucket>,
    swept: u64,
}

#[derive(PartialEq, Eq, Hash)]
enum Subnet {
    V4([u8; 4]),
    V6([u8; 8]),
}

/// Tokens are nanoseconds and grow with the clock. A new bucket is full.
#[derive(Default)]
struct Bucket {
    tokens: u64,
    last: u64,
}

impl Bucket {
    /// Takes `cost` tokens if the bucket, which holds at most `most`, has that many.
    fn take(&mut self, now: u64, cost: u64, most: u64) -> bool {
        let earned = now.saturating_sub(self.last);
        self.tokens = (self.tokens + earned).min(most);
        self.last = now;
        let left = self.tokens.checked_sub(cost);
        self.tokens = left.unwrap_or(self.tokens);
        left.is_some()
    }
}

impl Limiter {
    const COST: u64 = SECOND / 20;
    const MOST: u64 = 5 * Limiter::COST;
    const IDLE: u64 = SECOND;
    const CAPACITY: usize = 65_536;

    fn allow(&mut self, source: IpAddr, now: u64) -> bool {
        self.sweep(now);
        let subnet = match source.to_canonical() {
            IpAddr::V4(ip) => Subnet::V4(ip.octets()),
            IpAddr::V6(ip) => Subnet::V6(*ip.octets().first_chunk().expect("16 bytes")),
        };
        if self.buckets.len() >= Limiter::CAPACITY && !self.buckets.contains_key(&subnet) {
            return false;
        }
        self.buckets.entry(subnet).or_default().take(now, Limiter::COST, Limiter::MOST)
    }

    /// Removes idle buckets, which are full again, once a second.
    fn sweep(&mut self, now: u64) {
        if now.saturating_sub(self.swept) < Limiter::IDLE {
            return;
        }
        self.swept = now;
        self.buckets.retain(|_, bucket| now.saturating_sub(bucket.last) < Limiter::IDLE);
        self.buckets.shrink_to(2 * self.buckets.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::open_cookie;

    const PUBLIC: [u8; 32] = [9; 32];
    const LENGTHS: [(u32, usize); 3] =
        [(MESSAGE_INITIATION, 148), (MESSAGE_RESPONSE, 92), (MESSAGE_COOKIE, 64)];
    const START: u64 = 1000 * SECOND;

    fn gate() -> Gate {
        let mut gate = Gate::default();
        gate.set_identity(Some(PUBLIC));
        gate
    }

    fn source(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    /// Makes a message with a valid mac1, and a mac2 if there is a cookie.
    fn message(kind: u32, length: usize, body: u64, cookie: Option<&[u8]>) -> Vec<u8> {
        let mut message = vec![0; length];
        message[..4].copy_from_slice(&kind.to_le_bytes());
        message[4..8].copy_from_slice(&0x1234_5678_u32.to_le_bytes());
        message[8..16].copy_from_slice(&body.to_le_bytes());
        let key = Blake2s256::new().chain_update(b"mac1----").chain_update(PUBLIC).finalize();
        let (rest, mac2) = message.split_last_chunk_mut::<MAC>().unwrap();
        let (body, mac1) = rest.split_last_chunk_mut::<MAC>().unwrap();
        *mac1 = mac(&key, &[body]).finalize().into_bytes().into();
        if let Some(cookie) = cookie {
            *mac2 = mac(cookie, &[rest]).finalize().into_bytes().into();
        }
        message
    }

    fn initiation(body: u64, cookie: Option<&[u8]>) -> Vec<u8> {
        message(MESSAGE_INITIATION, 148, body, cookie)
    }

    /// Returns the cookie that the gate gives to the sender of a message.
    fn cookie(gate: &mut Gate, source: &str, now: u64) -> Vec<u8> {
        let message = initiation(now, None);
        let verdict = gate.check(&message, &self::source(source), now, LOAD_THRESHOLD);
        let Verdict::Reply(reply) = verdict else { panic!("{verdict:?}") };
        assert_eq!(reply[..8], [3, 0, 0, 0, 0x78, 0x56, 0x34, 0x12]);
        let key = Blake2s256::new().chain_update(b"cookie--").chain_update(PUBLIC).finalize();
        let nonce = reply[8..32].try_into().unwrap();
        open_cookie(&key.into(), nonce, &reply[32..], &message[116..132]).unwrap()
    }

    #[test]
    fn c002_c003_only_right_lengths_and_types_pass() {
        let source = source("192.0.2.1:1");
        for length in 0..=300 {
            for kind in [0, 1, 2, 3, 4, 5, 0x0101, 0x0100_0001, 0x0100_0004, u32::MAX] {
                let message = if length < 48 {
                    vec![kind.to_le_bytes(); 75].concat()[..length].to_vec()
                } else {
                    message(kind, length, 0, None)
                };
                let expected = match (kind, length) {
                    (4, 32..) => Verdict::Data,
                    (1, 148) | (2, 92) | (3, 64) => Verdict::Queue,
                    (1..=4, _) | (_, ..4) => Verdict::Drop,
                    _ => Verdict::Other,
                };
                assert_eq!(gate().check(&message, &source, 0, 0), expected, "{kind} {length}");
            }
        }
    }

    #[test]
    fn c022_no_handshake_passes_without_an_identity() {
        let mut gate = gate();
        gate.set_identity(None);
        for (kind, length) in LENGTHS {
            let message = message(kind, length, 0, None);
            assert_eq!(gate.check(&message, &source("192.0.2.1:1"), 0, 0), Verdict::Drop);
        }
        assert_eq!(gate.check(&[4, 0, 0, 0].repeat(8), &source("[::1]:1"), 0, 0), Verdict::Data);
    }

    #[test]
    fn c029_c030_wrong_mac1_is_silent() {
        for queued in [0, LOAD_THRESHOLD, QUEUE_LIMIT] {
            for i in 0..132 {
                let mut message = initiation(0, None);
                message[i] ^= 1;
                let verdict = gate().check(&message, &source("192.0.2.1:1"), START, queued);
                assert_eq!(verdict, if i < 4 { Verdict::Other } else { Verdict::Drop });
            }
        }
    }

    #[test]
    fn c031_mac2_does_not_matter_without_load() {
        for byte in [0, 7] {
            let mut message = initiation(0, None);
            message[132..].fill(byte);
            let verdict = gate().check(&message, &source("192.0.2.1:1"), START, LOAD_THRESHOLD - 1);
            assert_eq!(verdict, Verdict::Queue);
        }
    }

    #[test]
    fn c094_copies_vanish() {
        let mut gate = gate();
        let source = source("192.0.2.1:1");
        assert_eq!(gate.check(&initiation(0, None), &source, START, 0), Verdict::Queue);
        for queued in [0, LOAD_THRESHOLD] {
            assert_eq!(gate.check(&initiation(0, None), &source, START, queued), Verdict::Drop);
        }
        let now = START + 2 * SECOND;
        for body in 1..=RECENT as u64 {
            assert_eq!(gate.check(&initiation(body, None), &source, now, 0), Verdict::Queue);
        }
        assert_eq!(gate.check(&initiation(0, None), &source, now, 0), Verdict::Queue);
    }

    #[test]
    fn c043_the_queue_is_bounded() {
        for (kind, length) in LENGTHS {
            let message = message(kind, length, 0, None);
            let source = source("192.0.2.1:1");
            assert_eq!(gate().check(&message, &source, START, QUEUE_LIMIT), Verdict::Drop);
            let mut gate = gate();
            let answer = gate.check(&message, &source, START, QUEUE_LIMIT - 1);
            assert_eq!(answer == Verdict::Queue, kind == MESSAGE_COOKIE);
        }
    }

    #[test]
    fn c041_load_lasts_a_second() {
        let mut gate = gate();
        let address = "192.0.2.1:1";
        cookie(&mut gate, address, START);
        let check =
            |gate: &mut Gate, now| gate.check(&initiation(1, None), &source(address), now, 0);
        assert!(matches!(check(&mut gate, START + SECOND - 1), Verdict::Reply(_)));
        assert_eq!(check(&mut gate, START + SECOND), Verdict::Queue);
    }

    #[test]
    fn c034_a_cookie_is_of_one_address_and_port() {
        for (address, same, others) in [
            ("192.0.2.1:5", "[::ffff:192.0.2.1]:5", ["192.0.2.1:6", "192.0.2.2:5"]),
            ("[2001:db8::1]:5", "[2001:db8::1]:5", ["[2001:db8::1]:6", "[2001:db8::2]:5"]),
        ] {
            let mut gate = gate();
            let cookie = cookie(&mut gate, address, START);
            let mut check = |body, address: &str| {
                let message = initiation(body, Some(&cookie));
                gate.check(&message, &source(address), START, LOAD_THRESHOLD)
            };
            assert_eq!(check(0, address), Verdict::Queue);
            assert_eq!(check(1, same), Verdict::Queue);
            for other in others {
                assert!(matches!(check(2, other), Verdict::Reply(_)));
            }
        }
    }

    #[test]
    fn c040_responses_are_answered_too() {
        let mut gate = gate();
        let response = message(MESSAGE_RESPONSE, 92, 0, None);
        let verdict = gate.check(&response, &source("192.0.2.1:1"), START, LOAD_THRESHOLD);
        assert!(matches!(verdict, Verdict::Reply(_)));
    }

    #[test]
    fn c035_cookies_end_with_their_secret() {
        let mut gate = gate();
        let address = "192.0.2.1:5";
        let old = cookie(&mut gate, address, START);
        let mut check = |body, age| {
            let message = initiation(body, Some(&old));
            gate.check(&message, &source(address), START + age, LOAD_THRESHOLD)
        };
        assert_eq!(check(0, 120 * SECOND - 1), Verdict::Queue);
        assert!(matches!(check(1, 120 * SECOND), Verdict::Reply(_)));
        let new = cookie(&mut gate, address, START + 121 * SECOND);
        assert_ne!(new, old);
    }

    #[test]
    fn c033_cookies_do_not_get_past_the_limiter() {
        let mut gate = gate();
        let address = "192.0.2.1:5";
        let cookie = cookie(&mut gate, address, START);
        let verdicts: Vec<_> = (0..7)
            .map(|body| {
                let message = initiation(body, Some(&cookie));
                gate.check(&message, &source(address), START, LOAD_THRESHOLD)
            })
            .collect();
        assert!(verdicts[..5].iter().all(|verdict| *verdict == Verdict::Queue));
        assert!(verdicts[5..].iter().all(|verdict| *verdict == Verdict::Drop));
    }

    #[test]
    fn c042_the_limiter_counts_tokens() {
        let steps = [
            (0, true),
            (0, true),
            (0, true),
            (0, true),
            (0, true),
            (0, false),
            (50, true),
            (0, false),
            (100, true),
            (0, true),
            (0, false),
        ];
        let mut limiter = Limiter::default();
        let sources: Vec<IpAddr> = (0..7)
            .flat_map(|i| [format!("192.0.2.{i}"), format!("2001:db8:0:{i}::1")])
            .map(|text| text.parse().unwrap())
            .collect();
        let mut now = START;
        for (step, (wait, allowed)) in steps.into_iter().enumerate() {
            now += wait * SECOND / 1000;
            for source in &sources {
                assert_eq!(limiter.allow(*source, now), allowed, "step {step}, {source}");
            }
        }
    }

    #[test]
    fn c042_the_limiter_counts_networks_of_ipv6() {
        let mut limiter = Limiter::default();
        let mut allow = |text: &str| limiter.allow(text.parse().unwrap(), START);
        for i in 0..5 {
            assert!(allow(&format!("2001:db8::{i}")));
        }
        assert!(!allow("2001:db8::ffff:0:0:1"));
        assert!(allow("2001:db8:0:1::1"));
        for i in 0..5 {
            assert!(allow(if i % 2 == 0 { "192.0.2.1" } else { "::ffff:192.0.2.1" }));
        }
        assert!(!allow("192.0.2.1"));
    }

    #[test]
    fn c042_the_limiter_is_bounded() {
        let mut limiter = Limiter::default();
        for i in 0..Limiter::CAPACITY as u32 {
            assert!(limiter.allow(IpAddr::V4(i.into()), START));
        }
        assert!(!limiter.allow(IpAddr::V4(u32::MAX.into()), START));
        assert!(limiter.allow(IpAddr::V4(0.into()), START + SECOND - 1));
        assert!(limiter.allow(IpAddr::V4(u32::MAX.into()), START + SECOND));
        assert_eq!(limiter.buckets.len(), 2);
        assert!(limiter.buckets.capacity() < 100);
    }
}
