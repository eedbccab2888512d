//! A session: transport keys, and the limits that hold for every message even while Python hangs.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use crate::replay::{RECEIVE_LIMIT, WINDOW, Window};
use crate::secret::{AeadKey, TAG};

pub const HEADER: usize = 16;
/// Bytes that sealing adds to a packet.
pub const OVERHEAD: usize = HEADER + TAG;

const MESSAGE_DATA: u32 = 4;
const REKEY_AFTER_MESSAGES: u64 = 1 << 60;
/// As in the kernel, the limit is one window below the greatest counter.
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
    /// The counter of the next message; 64 bits on every machine.
    counter: AtomicU64,
    expired: AtomicBool,
    /// Set once the session is too old, so that a clock that steps back does not revive it.
    dead: AtomicBool,
    rekey_reported: AtomicBool,
    window: Mutex<Window>,
}

impl Session {
    /// Makes a session. `lifetimes` are ages in ns: rekey when sending, rekey when receiving,
    /// reject.
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
            dead: AtomicBool::new(false),
            rekey_reported: AtomicBool::new(false),
            window: Mutex::default(),
        }
    }

    pub fn can_send(&self, now: u64) -> bool {
        !self.expired.load(Relaxed)
            && !self.too_old(now)
            && self.counter.load(Relaxed) < REJECT_AFTER_MESSAGES
    }

    /// Claims `count` consecutive counters for the caller and returns the first. None if they would
    /// pass the limit.
    pub fn claim(&self, count: u64) -> Option<u64> {
        // Not fetch_add: refused claims must not move the counter, least of all past its end.
        let next =
            |counter: u64| counter.checked_add(count).filter(|next| *next <= REJECT_AFTER_MESSAGES);
        self.counter.fetch_update(Relaxed, Relaxed, next).ok()
    }

    /// Makes a data message of [room for the header | packet | room for the tag].
    ///
    /// The counter must be claimed, and used only once.
    #[inline]
    pub fn seal_in_place(&self, counter: u64, message: &mut [u8]) {
        let (header, text) = message.split_at_mut(HEADER);
        header[..4].copy_from_slice(&MESSAGE_DATA.to_le_bytes());
        header[4..8].copy_from_slice(&self.remote_index.to_le_bytes());
        header[8..].copy_from_slice(&counter.to_le_bytes());
        self.send_key.seal(counter, &[], text);
    }

    /// Returns whether a message of this session begins like this.
    #[inline]
    pub fn made(&self, message: &[u8]) -> bool {
        message.starts_with(&MESSAGE_DATA.to_le_bytes())
            && message[4..].starts_with(&self.remote_index.to_le_bytes())
    }

    /// Decrypts the padded packet in a data message. None for a bad tag, a replay, or a session
    /// that is too old: then discard the content of `message`.
    #[inline]
    pub fn open_in_place<'a>(&self, message: &'a mut [u8], now: u64) -> Option<&'a mut [u8]> {
        if message.len() < OVERHEAD || self.too_old(now) {
            return None;
        }
        let (header, text) = message.split_at_mut(HEADER);
        let counter = u64::from_le_bytes(header[8..].try_into().expect("eight bytes"));
        if counter >= RECEIVE_LIMIT {
            return None;
        }
        let packet = self.receive_key.open(counter, &[], text)?;
        // Only now, because a forged counter must not move the window.
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        window.accept(counter).then_some(packet)
    }

    /// Returns whether sending (or receiving) a message now requires a new handshake (§6.2). For
    /// receiving, it returns true only once.
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

    /// Stops sending in the session, which still receives.
    pub fn expire(&self) {
        self.expired.store(true, Relaxed);
    }

    fn too_old(&self, now: u64) -> bool {
        if self.age(now) >= self.reject {
            self.dead.store(true, Relaxed);
        }
        self.dead.load(Relaxed)
    }

    fn age(&self, now: u64) -> u64 {
        now.saturating_sub(self.created)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::thread;

    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const START: u64 = 1000 * SECOND;

    fn pair() -> (Session, Session) {
        let key = |byte| AeadKey::new(&[byte; 32]);
        let lifetimes = [120 * SECOND, 165 * SECOND, 180 * SECOND];
        (
            Session::new(key(1), key(2), 11, 22, true, START, lifetimes),
            Session::new(key(2), key(1), 22, 11, false, START, lifetimes),
        )
    }

    fn sealed(session: &Session, counter: u64, packet: &[u8]) -> Vec<u8> {
        let mut message = [&[0; HEADER], packet, &[0; TAG]].concat();
        session.seal_in_place(counter, &mut message);
        message
    }

    #[test]
    fn c046_c051_sealed_messages_open_once() {
        let (initiator, responder) = pair();
        let message = sealed(&initiator, 7, b"packet");
        assert_eq!(message[..16], [4, 0, 0, 0, 22, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(responder.open_in_place(&mut message.clone(), START).unwrap(), b"packet");
        assert!(responder.open_in_place(&mut message.clone(), START).is_none());
        let keepalive = sealed(&responder, 0, b"");
        assert_eq!(keepalive.len(), 32);
        assert_eq!(initiator.open_in_place(&mut keepalive.clone(), START).unwrap(), b"");
    }

    #[test]
    fn a_session_knows_its_own_messages() {
        let (initiator, responder) = pair();
        let message = sealed(&initiator, 7, b"packet");
        assert!(initiator.made(&message) && !responder.made(&message));
        for other in [&message[..7], &message[1..], b""] {
            assert!(!initiator.made(other));
        }
    }

    #[test]
    fn c052_a_forged_message_changes_nothing() {
        let (initiator, responder) = pair();
        let mut forged = sealed(&initiator, 1 << 40, b"packet");
        forged[20] ^= 1;
        assert!(responder.open_in_place(&mut forged, START).is_none());
        for length in 0..32 {
            assert!(responder.open_in_place(&mut vec![4; length], START).is_none());
        }
        assert!(responder.open_in_place(&mut sealed(&initiator, 0, b"packet"), START).is_some());
    }

    #[test]
    fn c054_c069_sessions_end_with_age() {
        let (initiator, responder) = pair();
        for (age, alive) in [(0, true), (180 * SECOND - 1, true), (180 * SECOND, false)] {
            assert_eq!(initiator.can_send(START + age), alive);
            let mut message = sealed(&initiator, age, b"packet");
            assert_eq!(responder.open_in_place(&mut message, START + age).is_some(), alive);
        }
    }

    #[test]
    fn c074_a_clock_that_steps_back_revives_nothing() {
        let (initiator, responder) = pair();
        let mut message = sealed(&initiator, 0, b"packet");
        assert!(initiator.can_send(START - SECOND) && initiator.can_send(START));
        assert!(!initiator.can_send(START + 180 * SECOND));
        assert!(responder.open_in_place(&mut message.clone(), START + 180 * SECOND).is_none());
        for now in [0, START - SECOND, START, START + 179 * SECOND] {
            assert!(!initiator.can_send(now));
            assert!(responder.open_in_place(&mut message, now).is_none());
        }
    }

    /// The text is decrypted in place before its tag is checked. It must not stay there.
    #[test]
    fn c061_a_wrong_tag_leaves_no_plaintext() {
        let (initiator, responder) = pair();
        for length in [1, 15, 16, 64, 100, 256, 1420, 65_000] {
            let packet: Vec<u8> = (0..length).map(|i| (i % 251 + 1) as u8).collect();
            let good = sealed(&initiator, 5, &packet);
            for at in [HEADER, HEADER + length - 1, HEADER + length, good.len() - 1] {
                let mut forged = good.clone();
                forged[at] ^= 1;
                assert!(responder.open_in_place(&mut forged, START).is_none());
                let same = packet.iter().zip(&forged[HEADER..]).filter(|(a, b)| a == b).count();
                assert!(same <= 4 + length / 64, "{same} of {length} bytes can be read");
            }
        }
    }

    #[test]
    fn c103_expired_sessions_only_receive() {
        let (initiator, responder) = pair();
        initiator.expire();
        assert!(!initiator.can_send(START));
        assert!(!initiator.rekey_due(START + 170 * SECOND, true));
        assert!(initiator.open_in_place(&mut sealed(&responder, 0, b"packet"), START).is_some());
    }

    #[test]
    fn c047_c048_counters_end_before_they_repeat() {
        let (session, _) = pair();
        assert_eq!(session.claim(64), Some(0));
        assert_eq!(session.claim(1), Some(64));
        session.counter.store(REJECT_AFTER_MESSAGES - 2, Relaxed);
        for _ in 0..10_000 {
            assert_eq!(session.claim(3), None);
            assert_eq!(session.claim(u64::MAX), None);
        }
        assert_eq!(session.claim(1), Some(REJECT_AFTER_MESSAGES - 2));
        assert!(session.can_send(START));
        assert_eq!(session.claim(1), Some(REJECT_AFTER_MESSAGES - 1));
        assert!(!session.can_send(START));
        assert_eq!(session.claim(1), None);
    }

    #[test]
    fn c050_the_greatest_counters_are_refused() {
        let (initiator, responder) = pair();
        let opens = |counter| {
            responder.open_in_place(&mut sealed(&initiator, counter, b""), START).is_some()
        };
        assert!(!opens(u64::MAX));
        assert!(!opens(u64::MAX - (1 << 13)));
        assert!(opens(u64::MAX - (1 << 13) - 1));
    }

    #[test]
    fn c049_c067_c068_rekeys_are_due() {
        let (initiator, responder) = pair();
        assert!(!initiator.rekey_due(START + 120 * SECOND, true));
        assert!(initiator.rekey_due(START + 120 * SECOND + 1, true));
        assert!(initiator.rekey_due(START + 120 * SECOND + 1, true));
        assert!(!initiator.rekey_due(START + 165 * SECOND, false));
        assert!(initiator.rekey_due(START + 165 * SECOND + 1, false));
        assert!(!initiator.rekey_due(START + 165 * SECOND + 1, false));
        assert!(!responder.rekey_due(START + 179 * SECOND, true));
        assert!(!responder.rekey_due(START + 179 * SECOND, false));
        responder.counter.store(REKEY_AFTER_MESSAGES, Relaxed);
        assert!(!responder.rekey_due(START, true));
        responder.claim(1);
        assert!(responder.rekey_due(START, true));
    }

    #[test]
    fn c053_threads_share_a_session() {
        let (initiator, responder) = pair();
        let accepted = AtomicUsize::new(0);
        let messages: Vec<_> = (0..2000).map(|counter| sealed(&initiator, counter, b"")).collect();
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for message in &messages {
                        let mut message = message.clone();
                        let opened = responder.open_in_place(&mut message, START);
                        accepted.fetch_add(opened.is_some().into(), Relaxed);
                        initiator.claim(3).unwrap();
                    }
                });
            }
        });
        assert_eq!(accepted.into_inner(), messages.len());
        assert_eq!(initiator.claim(1), Some(4 * 2000 * 3));
    }
}
