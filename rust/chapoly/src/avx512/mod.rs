//! The own cipher, for CPUs with AVX-512 (Intel from Ice Lake on, AMD from Zen 4 on).

mod chacha20;
mod poly1305;
mod vector;

use std::hint::black_box;

use self::chacha20::Stream;
use crate::{TAG, cpu};

/// Proof that this CPU has the instructions that the code needs. It holds no key.
#[derive(Clone, Copy)]
pub struct Aead(());

impl Aead {
    /// Returns None if the CPU lacks a needed instruction.
    pub fn new() -> Option<Aead> {
        cpu::runs_own().then_some(Aead(()))
    }

    /// Encrypts `message`, a plaintext with room for the tag, in place.
    ///
    /// Panics if `message` is shorter than a tag.
    pub fn seal(self, key: &[u8; 32], nonce: [u8; 12], aad: &[u8], message: &mut [u8]) {
        let (text, tag) = message.split_at_mut(message.len() - TAG);
        // SAFETY: `new` checked that the CPU has the features enabled there.
        tag.copy_from_slice(&unsafe { seal(key, nonce, aad, text) });
    }

    /// Decrypts `message`, a ciphertext and its tag, in place. If the tag is wrong, nothing is
    /// decrypted and this returns None.
    pub fn open<'a>(
        self,
        key: &[u8; 32],
        nonce: [u8; 12],
        aad: &[u8],
        message: &'a mut [u8],
    ) -> Option<&'a mut [u8]> {
        let (text, tag) = message.split_at_mut(message.len().checked_sub(TAG)?);
        let tag = (&*tag).try_into().ok()?;
        // SAFETY: `new` checked that the CPU has the features enabled there.
        unsafe { open(key, nonce, aad, text, tag) }.then_some(text)
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2")]
fn seal(key: &[u8; 32], nonce: [u8; 12], aad: &[u8], text: &mut [u8]) -> [u8; TAG] {
    let mut room = chacha20::room();
    let mut stream = Stream::new(key, nonce, text.len(), &mut room);
    let one_time = stream.one_time_key();
    stream.xor(text);
    poly1305::tag(one_time, aad, text)
}

/// Decrypts the text if the tag is right; returns whether it is.
#[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2")]
fn open(key: &[u8; 32], nonce: [u8; 12], aad: &[u8], text: &mut [u8], tag: &[u8; TAG]) -> bool {
    let mut room = chacha20::room();
    let mut stream = Stream::new(key, nonce, text.len(), &mut room);
    let own = poly1305::tag(stream.one_time_key(), aad, text);
    // In constant time: all bytes at once, and hidden from the compiler's optimizations.
    if black_box(u128::from_ne_bytes(own) ^ u128::from_ne_bytes(*tag)) != 0 {
        return false;
    }
    stream.xor(text);
    true
}

#[cfg(test)]
mod tests {
    use std::arch::x86_64::_mm512_maskz_set1_epi64;

    use super::poly1305::{LIMB, TOP, finish};
    use super::*;

    /// Computes RFC 8439, 2.5 and 2.8, bit by bit. A number is an upper and a lower u128.
    fn slow_tag(key: [u8; 32], aad: &[u8], text: &[u8]) -> [u8; 16] {
        fn reduced((mut high, mut low): (u128, u128)) -> (u128, u128) {
            while high > 3 || high == 3 && low >= u128::MAX - 4 {
                let carry;
                (low, carry) = low.overflowing_add(5);
                high = high + u128::from(carry) - 4;
            }
            (high, low)
        }
        let sum = |a: (u128, u128), b: (u128, u128)| {
            let (low, carry) = a.1.overflowing_add(b.1);
            reduced((a.0 + b.0 + u128::from(carry), low))
        };
        let [r, s] = [0, 16].map(|at| u128::from_le_bytes(key[at..at + 16].try_into().unwrap()));
        let r = r & 0x0fff_fffc_0fff_fffc_0fff_fffc_0fff_ffff;
        let lengths = [aad.len() as u64, text.len() as u64].map(u64::to_le_bytes).concat();
        let mut total = (0, 0);
        for block in [aad, text, &lengths].into_iter().flat_map(|part| part.chunks(16)) {
            let mut padded = [0; 16];
            padded[..block.len()].copy_from_slice(block);
            let factor = sum(total, (1, u128::from_le_bytes(padded)));
            total = (0, 0);
            for bit in (0..128).rev() {
                total = sum(total, total);
                if r >> bit & 1 == 1 {
                    total = sum(total, factor);
                }
            }
        }
        total.1.wrapping_add(s).to_le_bytes()
    }

    /// Computes one block of the key stream, word by word (RFC 8439, 2.3).
    fn slow_block(key: &[u8; 32], nonce: [u8; 12], number: u32) -> [u8; 64] {
        let words = [&b"expand 32-byte k"[..], key, &number.to_le_bytes(), &nonce].concat();
        let first: [u32; 16] = std::array::from_fn(|i| {
            u32::from_le_bytes(words[4 * i..4 * i + 4].try_into().unwrap())
        });
        let mut state = first;
        let mut quarter_round = |a: usize, b: usize, c: usize, d: usize| {
            for (to, from, turned, by) in [(a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)]
            {
                state[to] = state[to].wrapping_add(state[from]);
                state[turned] = (state[turned] ^ state[to]).rotate_left(by);
            }
        };
        for _ in 0..10 {
            for i in 0..4 {
                quarter_round(i, 4 + i, 8 + i, 12 + i);
            }
            for i in 0..4 {
                quarter_round(i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4);
            }
        }
        let sums = std::array::from_fn::<_, 16, _>(|i| state[i].wrapping_add(first[i]));
        sums.map(u32::to_le_bytes).concat().try_into().unwrap()
    }

    /// Tries each number of blocks made at a time, and more than are held. Without ring, so that
    /// Miri can run it.
    #[test]
    #[cfg_attr(not(runs_own), ignore = "needs a CPU with AVX-512 (F, BW, IFMA, VBMI2)")]
    fn own_agrees_with_the_rfc_word_by_word() {
        let aead = Aead::new().expect("the CPU can run it");
        let lengths = [0, 1, 63, 64, 191, 257, 500, 700, 1000, 1300, 1420, 1472, 1473, 3100];
        for length in lengths.into_iter().step_by(if cfg!(miri) { 5 } else { 1 }) {
            let key = std::array::from_fn(|i| (i * 11 + length) as u8);
            let nonce = [length as u8; 12];
            let text: Vec<u8> = (0..length).map(|i| (i * 31) as u8).collect();
            let aad = &text[..length.min(length % 50)];
            let stream = (1..).flat_map(|number| slow_block(&key, nonce, number));
            let sealed: Vec<u8> = text.iter().zip(stream).map(|(a, b)| a ^ b).collect();
            let one_time = slow_block(&key, nonce, 0)[..32].try_into().unwrap();
            let expected = [&sealed[..], &slow_tag(one_time, aad, &sealed)].concat();
            let mut message = [&text[..], &[0; TAG]].concat();
            aead.seal(&key, nonce, aad, &mut message);
            assert!(message == expected, "{length}");
            let opened = aead.open(&key, nonce, aad, &mut message);
            assert!(opened.is_some_and(|opened| *opened == text), "{length}");
        }
    }

    /// Tries one-time keys and blocks with the largest limbs, which no known cipher key gives.
    #[test]
    #[cfg_attr(not(runs_own), ignore = "needs a CPU with AVX-512 (F, BW, IFMA, VBMI2)")]
    fn the_greatest_numbers_pass_no_limb() {
        let limb = (1 << 44) - 1;
        for r in [u128::MAX, 0, 1, 2, 4, 5, limb, limb << 44, limb << 88, 0xffff_ffff] {
            for fill in [0, 1, 0x80, 0xfb, 0xff] {
                let lengths = [0, 97, 257, 1, 16, 112, 113, 128, 240, 369, 385, 640, 1424];
                // Miri is a thousand times slower.
                for length in lengths.into_iter().take(if cfg!(miri) { 3 } else { 13 }) {
                    let aad = vec![fill; length % 50];
                    let text = vec![fill; length];
                    let mut key = [0xff; 32];
                    key[..16].copy_from_slice(&r.to_le_bytes());
                    // SAFETY: the CPU has what `Aead::new` asks for, else this is ignored.
                    let tag = unsafe { poly1305::tag(key, &aad, &text) };
                    assert_eq!(tag, slow_tag(key, &aad, &text), "{r:x}, {length} of {fill}");
                }
            }
        }
    }

    /// Tries sums around 2^130 - 5, which do not occur in test vectors of the whole cipher.
    #[test]
    #[cfg_attr(not(runs_own), ignore = "needs a CPU with AVX-512 (F, BW, IFMA, VBMI2)")]
    fn the_sum_is_reduced() {
        let whole = |low: u64| [low, LIMB, TOP];
        for (sum, expected) in [
            (whole(LIMB - 5), -6i128 as u128), // 2^130 - 6
            (whole(LIMB - 4), 0),
            (whole(LIMB - 3), 1),
            (whole(LIMB), 4),
            ([0, 0, TOP + 1], 5),               // 2^130
            ([LIMB - 4, LIMB, 2 * TOP + 1], 5), // 2^131 - 5
            ([4, 0, 0], 4),
        ] {
            // SAFETY: the CPU has what `Aead::new` asks for, else this is ignored.
            let tag = unsafe {
                let lane = |limb: u64| _mm512_maskz_set1_epi64(0x10, limb as i64);
                finish(sum.map(lane), 3, 0)
            };
            assert_eq!(u128::from_le_bytes(tag), u128::wrapping_add(expected, 3), "{sum:x?}");
        }
    }
}
