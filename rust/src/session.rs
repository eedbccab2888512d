//! A session: transport keys with all that must hold of every message, even while Python hangs.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use crate::replay::{RECEIVE_LIMIT, WINDOW, Window};
use crate::secret::{AeadKey, TAG};

pub const HEADER: usize = 16;
/// What sealing adds to a packet.
pub const OVERHEAD: usize = HEADER + TAG;

const MESSAGE_DATA: u32 = 4;
const REKEY_AFTER_MESSAGES: u64 = 1 << 60;
/// As in the kernel, which leaves a window's room below the greatest counter.
const REJECT_AFTER_MESSAGES: u64 = u64::MAX - WINDOW - 1;

pub struct Session {
    pub local_index: u32,
    pub remote_index: u32,
    pub initiator: bool,
    pub created: u64,
    send_key: AeadKey,
    receive_key: AeadKey,
    rekey_sending: u64,
    rekey_receiving: u64,
    reject: u64,
    /// The next message's; 64 bits on every machine.
    counter: AtomicU64,
    expired: AtomicBool,
    rekey_reported: AtomicBool,
    window: Mutex<Window>,
}

impl Session {
    /// `lifetimes` are ages in ns: rekey when sending, rekey when receiving, reject.
    pub fn new(
        send_key: AeadKey,
        receive_key: AeadKey,
        local_index: u32,
        remote_index: u32,
        initiator: bool,
        created: u64,
        lifetimes: [u64; 3],
    ) -> Session {
        let [rekey_sending, rekey_receiving, reject] = lifetimes;
        Session {
            local_index,
            remote_index,
            initiator,
            created,
            send_key,
            receive_key,
            rekey_sending,
            rekey_receiving,
            reject,
            counter: AtomicU64::new(0),
            expired: AtomicBool::new(false),
            rekey_reported: AtomicBool::new(false),
            window: Mutex::default(),
        }
    }

    pub fn can_send(&self, now: u64) -> bool {
        !self.expired.load(Relaxed)
            && self.age(now) < self.reject
            && self.counter.load(Relaxed) < REJECT_AFTER_MESSAGES
    }

    /// The first of `count` consecutive counters, which are the caller's alone. None when they
    /// would pass the limit.
    pub fn claim(&self, count: u64) -> Option<u64> {
        // Not fetch_add: refused claims must not move the counter, least of all around its end.
        let next = |counter: u64| {
            counter
                .checked_add(count)
                .filter(|next| *next <= REJECT_AFTER_MESSAGES)
        };
        self.counter.fetch_update(Relaxed, Relaxed, next).ok()
    }

    /// Makes a data message of [room for the header | packet | room for the tag].
    ///
    /// The counter must be claimed, and used once.
    #[inline]
    pub fn seal_in_place(&self, counter: u64, message: &mut [u8]) {
        let (header, text) = message.split_at_mut(HEADER);
        header[..4].copy_from_slice(&MESSAGE_DATA.to_le_bytes());
        header[4..8].copy_from_slice(&self.remote_index.to_le_bytes());
        header[8..].copy_from_slice(&counter.to_le_bytes());
        self.send_key.seal(counter, &[], text);
    }

    /// The padded packet inside a data message. None for a bad tag, a replay, or a session too
    /// old; what is in `message` then is no plaintext to be used: discard it.
    #[inline]
    pub fn open_in_place<'a>(&self, message: &'a mut [u8], now: u64) -> Option<&'a mut [u8]> {
        if message.len() < OVERHEAD || self.age(now) >= self.reject {
            return None;
        }
        let (header, text) = message.split_at_mut(HEADER);
        let counter = u64::from_le_bytes(header[8..].try_into().expect("eight bytes"));
        if counter >= RECEIVE_LIMIT {
            return None;
        }
        let packet = self.receive_key.open(counter, &[], text)?;
        // Only now: a forged counter must not move the window.
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        window.accept(counter).then_some(packet)
    }

    /// Whether sending (or receiving) a message now calls for a new handshake (§6.2): of receiving,
    /// the first to ask is told, and no other.
    pub fn rekey_due(&self, now: u64, sending: bool) -> bool {
        if self.expired.load(Relaxed) {
            return false;
        }
        if sending {
            return self.counter.load(Relaxed) > REKEY_AFTER_MESSAGES
                || self.initiator && self.age(now) > self.rekey_sending;
        }
        self.initiator
            && self.age(now) > self.rekey_receiving
            && !self.rekey_reported.swap(true, Relaxed)
    }

    /// From now on the session receives, but sends no more.
    pub fn expire(&self) {
        self.expired.store(true, Relaxed);
    }

    fn age(&self, now: u64) -> u64 {
        now.saturating_sub(self.created)
    }
}
