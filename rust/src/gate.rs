//! The first look at a datagram, before anything costs much: type, length, mac1, load, cookie, rate
//! (§5.3, §5.4.4, §5.4.7). A datagram that fails is nothing: no error, no log, no answer.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use blake2::digest::consts::U16;
use blake2::digest::{KeyInit, Mac};
use blake2::{Blake2s256, Blake2sMac, Digest};
use zeroize::Zeroizing;

use crate::secret::{random, seal_cookie};

/// Handshake messages that wait for Python; one more is dropped.
pub const QUEUE_LIMIT: usize = 128;
/// As many mean load: what Python handles in some 5 ms (the kernel: 512 of 4096).
pub const LOAD_THRESHOLD: usize = 16;

pub const MESSAGE_INITIATION: u32 = 1;
pub const MESSAGE_RESPONSE: u32 = 2;
pub const MESSAGE_COOKIE: u32 = 3;
pub const MESSAGE_DATA: u32 = 4;

const SECOND: u64 = 1_000_000_000;
const LOAD_LASTS: u64 = SECOND;
const COOKIE_SECRET_LIFETIME: u64 = 120 * SECOND;
const MAC: usize = 16;
const RECENT: usize = 256;

#[derive(Debug, PartialEq)]
pub enum Verdict {
    Drop,
    Data,
    Queue,
    /// A cookie reply for the datagram's source.
    Reply([u8; 64]),
}

#[inline]
pub fn is_data(datagram: &[u8]) -> bool {
    datagram.len() >= 32 && datagram[..4] == MESSAGE_DATA.to_le_bytes()
}

pub struct Gate {
    identity: Option<Identity>,
    /// The mac1s last queued: a copy of such a message is worth no work and no answer.
    recent: Box<[[u8; MAC]; RECENT]>,
    oldest: usize,
    loaded_until: u64,
    cookie_secret: Zeroizing<[u8; 32]>,
    cookie_secret_ends: u64,
    limiter: Limiter,
}

struct Identity {
    mac1_key: [u8; 32],
    cookie_key: [u8; 32],
}

impl Gate {
    pub fn new() -> Gate {
        Gate {
            identity: None,
            recent: Box::new([[0; MAC]; RECENT]),
            oldest: 0,
            loaded_until: 0,
            cookie_secret: Zeroizing::new([0; 32]),
            cookie_secret_ends: 0,
            limiter: Limiter::default(),
        }
    }

    /// The device's own public key; without one no handshake message passes.
    pub fn set_identity(&mut self, public: Option<[u8; 32]>) {
        let key = |label: &[u8]| Blake2s256::new().chain_update(label);
        self.identity = public.map(|public| Identity {
            mac1_key: key(b"mac1----").chain_update(public).finalize().into(),
            cookie_key: key(b"cookie--").chain_update(public).finalize().into(),
        });
    }

    /// `queue_length` is how many handshake messages wait already.
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
            _ => return Verdict::Drop,
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

        let (rest, mac2) = datagram
            .split_last_chunk::<MAC>()
            .expect("the length is right");
        let (body, mac1) = rest.split_last_chunk::<MAC>().expect("the length is right");
        if mac(&identity.mac1_key, &[body]).verify_slice(mac1).is_err() {
            return Verdict::Drop;
        }
        if self.recent.contains(mac1) {
            return Verdict::Drop;
        }
        if now < self.loaded_until {
            let cookie = self.cookie(source, now);
            if mac(&cookie, &[rest]).verify_slice(mac2).is_err() {
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
        let key = &self
            .identity
            .as_ref()
            .expect("its mac1 was checked")
            .cookie_key;
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

impl Default for Gate {
    fn default() -> Gate {
        Gate::new()
    }
}

/// BLAKE2s-128 with a key.
fn mac(key: &[u8], parts: &[&[u8]]) -> Blake2sMac<U16> {
    let mac = Blake2sMac::new_from_slice(key).expect("the key has at most 32 bytes");
    parts.iter().fold(mac, |mac, part| mac.chain_update(part))
}

/// A token bucket for every IPv4 address and every IPv6 /64: 20 a second, and 5 at once.
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

/// Tokens are nanoseconds, so that they grow with the clock.
struct Bucket {
    tokens: u64,
    last: u64,
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
        let full = Bucket {
            tokens: Limiter::MOST,
            last: now,
        };
        let bucket = self.buckets.entry(subnet).or_insert(full);
        let earned = now.saturating_sub(bucket.last);
        bucket.tokens = (bucket.tokens + earned).min(Limiter::MOST);
        bucket.last = now;
        match bucket.tokens.checked_sub(Limiter::COST) {
            Some(left) => bucket.tokens = left,
            None => return false,
        }
        true
    }

    /// Forgets idle buckets, which are full again, once a second.
    fn sweep(&mut self, now: u64) {
        if now.saturating_sub(self.swept) < Limiter::IDLE {
            return;
        }
        self.swept = now;
        self.buckets
            .retain(|_, bucket| now.saturating_sub(bucket.last) < Limiter::IDLE);
        self.buckets.shrink_to(2 * self.buckets.len());
    }
}
