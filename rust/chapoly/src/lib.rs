//! ChaCha20-Poly1305 (RFC 8439) with keys that are wiped: ring's, or where the CPU has AVX-512 code
//! of our own, which takes about 0.6 of ring's time for a full packet.
//!
//! No branch and no address depends on a key or on a text, only on lengths.

#[cfg(target_arch = "x86_64")]
mod avx512;

use std::mem::{MaybeUninit, needs_drop};

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use zeroize::Zeroize;

/// Bytes of the authentication tag.
pub const TAG: usize = 16;

/// A key, of one address for life, and wiped when dropped.
///
/// What `new` leaves on the stack is the caller's to wipe.
pub struct Key(Form);

/// A key as the code that uses it wants it.
enum Form {
    #[cfg(target_arch = "x86_64")]
    Avx512(avx512::Aead, Box<zeroize::Zeroizing<[u8; 32]>>),
    Ring(RingKey),
}

impl Key {
    pub fn new(key: &[u8; 32]) -> Key {
        #[cfg(target_arch = "x86_64")]
        if let Some(aead) = avx512::Aead::new() {
            let mut place = Box::new(zeroize::Zeroizing::new([0; 32]));
            place.copy_from_slice(key);
            return Key(Form::Avx512(aead, place));
        }
        Key::with_ring(key)
    }

    /// Whatever the CPU: to compare with.
    pub fn with_ring(key: &[u8; 32]) -> Key {
        Key(Form::Ring(RingKey::new(key)))
    }

    /// Encrypts `message`, a plaintext and room for the tag, in place. The nonce is four zero
    /// bytes and the counter.
    ///
    /// Panics if `message` is shorter than a tag. No message is as long as 256 GiB.
    #[inline]
    pub fn seal(&self, counter: u64, aad: &[u8], message: &mut [u8]) {
        self.seal_at(nonce(counter), aad, message);
    }

    /// Decrypts `message` in place; on None it holds no plaintext of any use: discard it.
    #[inline]
    pub fn open<'a>(
        &self,
        counter: u64,
        aad: &[u8],
        message: &'a mut [u8],
    ) -> Option<&'a mut [u8]> {
        self.open_at(nonce(counter), aad, message)
    }

    /// `seal` with any nonce.
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

    /// `open` with any nonce.
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

/// ring does not wipe its keys, so this does.
struct RingKey(Box<MaybeUninit<LessSafeKey>>);

// A destructor would have to run before the wipe.
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

/// Clears the vector registers of this thread. Our own code leaves keys in the upper ones, which
/// other code hardly ever uses.
pub fn wipe_registers() {
    #[cfg(target_arch = "x86_64")]
    if let Some(aead) = avx512::Aead::new() {
        aead.wipe_registers();
    }
}

#[inline]
fn nonce(counter: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    nonce
}
