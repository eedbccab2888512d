//! Keys: parsed, used and wiped here. Nothing secret leaves this file but inside its types.
//!
//! What lives long is boxed, so that a move leaves no copy behind. What the libraries leave on the
//! stack is overwritten by `scrub_stack` after every operation on a key.

use std::hint::black_box;
use std::mem::{MaybeUninit, needs_drop};

use blake2::{Blake2s256, Digest};
use chacha20poly1305::XChaCha20Poly1305;
use chacha20poly1305::aead::{Aead, Payload};
use hmac::{KeyInit, Mac, SimpleHmac};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroize;

pub const TAG: usize = 16;

/// Fills `bytes` with the operating system's randomness; waits until the kernel has collected any.
pub fn random(bytes: &mut [u8]) {
    SystemRandom::new()
        .fill(bytes)
        .expect("the operating system gives no randomness");
}

/// A clamped Curve25519 private key and its public key.
pub struct PrivateKey {
    scalar: Secret,
    public: [u8; 32],
}

impl PrivateKey {
    pub fn generate() -> PrivateKey {
        PrivateKey::clamp(Secret::generate())
    }

    /// None is the key of all zeros, which stands for none at all.
    pub fn parse(format: Format, text: &[u8]) -> Result<Option<PrivateKey>, Malformed> {
        let scalar = format.parse(text)?;
        Ok((!scalar.is_zero()).then(|| PrivateKey::clamp(scalar)))
    }

    pub fn write(&self, format: Format, text: &mut [u8]) {
        format.write(&self.scalar, text);
    }

    pub fn public(&self) -> &[u8; 32] {
        &self.public
    }

    /// X25519; None when the result is all zero, as every low-order point makes it.
    pub fn exchange(&self, public: &[u8; 32]) -> Option<SharedSecret> {
        scrubbed(|| {
            let scalar = StaticSecret::from(*self.scalar.0);
            let point = scalar.diffie_hellman(&PublicKey::from(*public));
            let result = Secret::from_bytes(point.as_bytes());
            (!result.is_zero()).then(|| SharedSecret(result))
        })
    }

    fn clamp(mut scalar: Secret) -> PrivateKey {
        scalar.0[0] &= 0b1111_1000;
        scalar.0[31] = scalar.0[31] & 0b0111_1111 | 0b0100_0000;
        let public = scrubbed(|| PublicKey::from(&StaticSecret::from(*scalar.0)).to_bytes());
        PrivateKey { scalar, public }
    }
}

impl PartialEq for PrivateKey {
    fn eq(&self, other: &PrivateKey) -> bool {
        self.scalar == other.scalar
    }
}

/// A symmetric key that both peers were given.
#[derive(PartialEq)]
pub struct PresharedKey(Secret);

impl PresharedKey {
    pub fn generate() -> PresharedKey {
        PresharedKey(Secret::generate())
    }

    /// None is the key of all zeros, which stands for none at all.
    pub fn parse(format: Format, text: &[u8]) -> Result<Option<PresharedKey>, Malformed> {
        let key = format.parse(text)?;
        Ok((!key.is_zero()).then(|| PresharedKey(key)))
    }

    pub fn write(&self, format: Format, text: &mut [u8]) {
        format.write(&self.0, text);
    }
}

/// The result of an exchange.
#[derive(PartialEq)]
pub struct SharedSecret(Secret);

/// Noise's SymmetricState (Noise specification, §5.2) with the CipherState that it holds.
pub struct SymmetricState {
    ck: Secret,
    h: [u8; 32],
    k: Option<Secret>,
    n: u64,
}

impl SymmetricState {
    /// h = protocol_name, padded with zeros, or HASH(protocol_name) if it is longer; ck = h.
    pub fn new(protocol_name: &[u8]) -> SymmetricState {
        let mut h = [0; 32];
        match h.get_mut(..protocol_name.len()) {
            Some(start) => start.copy_from_slice(protocol_name),
            None => h = Blake2s256::digest(protocol_name).into(),
        }
        SymmetricState {
            ck: Secret::from_bytes(&h),
            h,
            k: None,
            n: 0,
        }
    }

    pub fn copy(&self) -> SymmetricState {
        let k = self.k.as_ref().map(|k| Secret::from_bytes(&k.0));
        SymmetricState {
            ck: Secret::from_bytes(&self.ck.0),
            h: self.h,
            k,
            n: self.n,
        }
    }

    pub fn hash(&self) -> &[u8; 32] {
        &self.h
    }

    /// h = HASH(h || data)
    pub fn mix_hash(&mut self, data: &[u8]) {
        self.h = Blake2s256::new()
            .chain_update(self.h)
            .chain_update(data)
            .finalize()
            .into();
    }

    /// ck, k = KDF2(ck, material)
    pub fn mix_key(&mut self, material: &[u8]) {
        let [ck, k] = kdf(&*self.ck.0, material);
        self.ck = ck;
        self.k = Some(k);
        self.n = 0;
    }

    /// The same, with a secret.
    pub fn mix_secret(&mut self, material: &SharedSecret) {
        self.mix_key(&*material.0.0);
    }

    /// ck, t, k = KDF3(ck, psk); MixHash(t)
    pub fn mix_key_and_hash(&mut self, psk: Option<&PresharedKey>) {
        let [ck, t, k] = kdf(&*self.ck.0, psk.map_or(&[0; 32], |psk| &*psk.0.0));
        self.ck = ck;
        self.mix_hash(&*t.0);
        self.k = Some(k);
        self.n = 0;
    }

    /// c = AEAD(k, n++, plaintext, h), or the plaintext while there is no key; MixHash(c)
    pub fn encrypt_and_hash(&mut self, plaintext: &[u8]) -> Vec<u8> {
        let mut message = plaintext.to_vec();
        if let Some(k) = &self.k {
            message.resize(plaintext.len() + TAG, 0);
            scrubbed(|| AeadKey::new(&k.0).seal(self.n, &self.h, &mut message));
            self.n += 1;
        }
        self.mix_hash(&message);
        message
    }

    /// The reverse. None, and an unchanged state, when the tag is wrong.
    pub fn decrypt_and_hash(&mut self, ciphertext: &[u8]) -> Option<Vec<u8>> {
        let mut message = ciphertext.to_vec();
        if let Some(k) = &self.k {
            let opened = scrubbed(|| {
                Some(
                    AeadKey::new(&k.0)
                        .open(self.n, &self.h, &mut message)?
                        .len(),
                )
            });
            message.truncate(opened?);
            self.n += 1;
        }
        self.mix_hash(ciphertext);
        Some(message)
    }

    /// T(initiator to responder), T(responder to initiator) = KDF2(ck, "")
    pub fn split(self) -> (AeadKey, AeadKey) {
        let [first, second] = kdf(&*self.ck.0, &[]);
        (AeadKey::new(&first.0), AeadKey::new(&second.0))
    }
}

/// A ChaCha20-Poly1305 key, of one address for life: ring does not wipe its keys, so this does.
pub struct AeadKey(Box<MaybeUninit<LessSafeKey>>);

// A destructor would have to run before the wipe.
const _: () = assert!(!needs_drop::<LessSafeKey>());

impl AeadKey {
    pub fn new(key: &[u8; 32]) -> AeadKey {
        scrubbed(|| {
            let mut place = Box::new_uninit();
            let key = UnboundKey::new(&CHACHA20_POLY1305, key).expect("the key has 32 bytes");
            place.write(LessSafeKey::new(key));
            AeadKey(place)
        })
    }

    /// Encrypts `message`, which is a plaintext and room for the tag, in place.
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

    #[inline]
    fn seal_at(&self, nonce: [u8; 12], aad: &[u8], message: &mut [u8]) {
        let (plaintext, room) = message.split_at_mut(message.len() - TAG);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = self
            .key()
            .seal_in_place_separate_tag(nonce, Aad::from(aad), plaintext);
        room.copy_from_slice(tag.expect("a message is shorter than 256 GiB").as_ref());
    }

    #[inline]
    fn open_at<'a>(&self, nonce: [u8; 12], aad: &[u8], text: &'a mut [u8]) -> Option<&'a mut [u8]> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.key().open_in_place(nonce, Aad::from(aad), text).ok()
    }

    #[inline]
    fn key(&self) -> &LessSafeKey {
        // SAFETY: `new` wrote a key, and only `drop` overwrites it.
        unsafe { self.0.assume_init_ref() }
    }
}

impl Drop for AeadKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// How a key is written: 64 hexadecimal digits, or 44 characters of base64.
#[derive(Clone, Copy)]
pub enum Format {
    Hex,
    Base64,
}

/// A text that is no key.
#[derive(Debug)]
pub struct Malformed;

impl Format {
    pub const fn length(self) -> usize {
        match self {
            Format::Hex => 64,
            Format::Base64 => 44,
        }
    }

    /// No branch and no address depends on a character, but for the one that tells whether all of
    /// them are right.
    fn parse(self, text: &[u8]) -> Result<Secret, Malformed> {
        if text.len() != self.length() {
            return Err(Malformed);
        }
        let mut key = Secret::zero();
        let mut wrong = 0;
        match self {
            Format::Hex => {
                for (byte, digits) in key.0.iter_mut().zip(text.chunks_exact(2)) {
                    let (high, low) = (hex_value(digits[0]), hex_value(digits[1]));
                    wrong |= high | low;
                    *byte = (high << 4 | low) as u8;
                }
            }
            Format::Base64 => {
                for (bytes, digits) in key.0.chunks_mut(3).zip(text.chunks_exact(4)) {
                    // The last group is two bytes: its fourth character is the padding.
                    let count = bytes.len() + 1;
                    let mut bits = 0;
                    for digit in &digits[..count] {
                        let value = base64_value(*digit);
                        wrong |= value;
                        bits = bits << 6 | value & 63;
                    }
                    bits <<= 6 * (4 - count);
                    for (i, byte) in bytes.iter_mut().enumerate() {
                        *byte = (bits >> (16 - 8 * i)) as u8;
                    }
                    if count < 4 {
                        // Negative if it has bits that no byte takes, or no padding.
                        wrong |= -(bits & 0xff) | -i32::from(digits[3] ^ b'=');
                    }
                }
            }
        }
        // Every wrong value is negative, and no right one is.
        if black_box(wrong) < 0 {
            Err(Malformed)
        } else {
            Ok(key)
        }
    }

    fn write(self, key: &Secret, text: &mut [u8]) {
        match self {
            Format::Hex => {
                for (digits, byte) in text.chunks_exact_mut(2).zip(key.0.iter()) {
                    digits[0] = hex_digit(byte >> 4);
                    digits[1] = hex_digit(byte & 15);
                }
            }
            Format::Base64 => {
                for (digits, bytes) in text.chunks_exact_mut(4).zip(key.0.chunks(3)) {
                    let byte = |i| u32::from(*bytes.get(i).unwrap_or(&0));
                    let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
                    for (i, digit) in digits.iter_mut().enumerate() {
                        *digit = base64_digit((bits >> (18 - 6 * i)) as u8 & 63);
                    }
                }
                text[43] = b'=';
            }
        }
    }
}

/// Opens a cookie reply's cookie (§5.4.7): XAEAD(HASH("cookie--" || S_pub), nonce, cookie, mac1).
pub fn open_cookie(
    key: &[u8; 32],
    nonce: &[u8; 24],
    sealed: &[u8],
    mac1: &[u8],
) -> Option<Vec<u8>> {
    let payload = Payload {
        msg: sealed,
        aad: mac1,
    };
    XChaCha20Poly1305::new(key.into())
        .decrypt(nonce.into(), payload)
        .ok()
}

pub fn seal_cookie(key: &[u8; 32], nonce: &[u8; 24], cookie: &[u8], mac1: &[u8]) -> Vec<u8> {
    let payload = Payload {
        msg: cookie,
        aad: mac1,
    };
    let sealed = XChaCha20Poly1305::new(key.into()).encrypt(nonce.into(), payload);
    sealed.expect("a cookie is short")
}

/// Overwrites the 16 KiB of stack below the caller: cryptographic code leaves keys there.
#[inline(never)]
pub fn scrub_stack() {
    let mut waste = MaybeUninit::<[u64; 2048]>::uninit();
    let start = waste.as_mut_ptr().cast::<u64>();
    for i in 0..2048 {
        // SAFETY: `i` is inside the array, which nothing else refers to.
        unsafe { start.add(i).write_volatile(0) };
    }
    black_box(&waste);
}

/// 32 secret bytes at one address for life, wiped on drop.
struct Secret(Box<[u8; 32]>);

impl Secret {
    fn zero() -> Secret {
        Secret(Box::new([0; 32]))
    }

    fn generate() -> Secret {
        let mut secret = Secret::zero();
        random(&mut *secret.0);
        secret
    }

    fn from_bytes(bytes: &[u8; 32]) -> Secret {
        let mut secret = Secret::zero();
        secret.0.copy_from_slice(bytes);
        secret
    }

    fn is_zero(&self) -> bool {
        black_box(self.0.iter().fold(0, |all, byte| all | byte)) == 0
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Secret) -> bool {
        let bytes = self.0.iter().zip(other.0.iter());
        black_box(bytes.fold(0, |all, (a, b)| all | a ^ b)) == 0
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// t0 = HMAC(key, input); t1 = HMAC(t0, 1); tn = HMAC(t0, t(n-1) || n)
fn kdf<const N: usize>(key: &[u8], input: &[u8]) -> [Secret; N] {
    scrubbed(|| {
        let t0 = hmac(key, input, &[]);
        let mut outputs = [(); N].map(|()| Secret::zero());
        for n in 0..N {
            let before = if n == 0 {
                &[][..]
            } else {
                &outputs[n - 1].0[..]
            };
            let output = hmac(&*t0.0, before, &[n as u8 + 1]);
            outputs[n] = output;
        }
        outputs
    })
}

/// HMAC-BLAKE2s(key, first || second)
fn hmac(key: &[u8], first: &[u8], second: &[u8]) -> Secret {
    let hmac = SimpleHmac::<Blake2s256>::new_from_slice(key).expect("HMAC takes any key");
    let result = hmac.chain_update(first).chain_update(second).finalize();
    let mut output = Secret::zero();
    output.0.copy_from_slice(result.as_bytes());
    output
}

/// Does `work` in a stack frame of its own, and scrubs it.
fn scrubbed<T>(work: impl FnOnce() -> T) -> T {
    #[inline(never)]
    fn apart<T>(work: impl FnOnce() -> T) -> T {
        work()
    }
    let result = apart(work);
    scrub_stack();
    result
}

#[inline]
fn nonce(counter: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    nonce
}

/// All ones if low <= c <= high, else 0.
fn between(c: i32, low: u8, high: u8) -> i32 {
    black_box(((i32::from(low) - 1 - c) & (c - i32::from(high) - 1)) >> 31)
}

/// A digit's value, -1 if it is none.
fn hex_value(digit: u8) -> i32 {
    let c = i32::from(digit);
    (between(c, b'0', b'9') & (c - 47))
        + (between(c, b'A', b'F') & (c - 54))
        + (between(c, b'a', b'f') & (c - 86))
        - 1
}

fn base64_value(digit: u8) -> i32 {
    let c = i32::from(digit);
    (between(c, b'A', b'Z') & (c - 64))
        + (between(c, b'a', b'z') & (c - 70))
        + (between(c, b'0', b'9') & (c + 5))
        + (between(c, b'+', b'+') & 63)
        + (between(c, b'/', b'/') & 64)
        - 1
}

fn hex_digit(value: u8) -> u8 {
    let v = i32::from(value);
    (v + 48 + (black_box((9 - v) >> 31) & 39)) as u8
}

fn base64_digit(value: u8) -> u8 {
    let v = i32::from(value);
    let past = |last: i32| black_box((last - v) >> 31);
    (v + 65 + (past(25) & 6) - (past(51) & 75) - (past(61) & 15) + (past(62) & 3)) as u8
}
