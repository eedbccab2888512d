//! Own code for CPUs with AVX-512 (Intel from Ice Lake, AMD from Zen 4 on).

mod chacha20;
mod poly1305;
mod vector;

use std::hint::black_box;

use self::chacha20::Stream;
use crate::TAG;

/// Proof that this CPU has what the code needs. Keys stay with their owner.
#[derive(Clone, Copy)]
pub struct Aead(());

impl Aead {
    /// None where the CPU lacks an instruction that this needs.
    pub fn new() -> Option<Aead> {
        let able = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512ifma")
            && is_x86_feature_detected!("avx512vbmi2");
        able.then_some(Aead(()))
    }

    /// Encrypts `message`, a plaintext and room for the tag, in place.
    ///
    /// Panics if `message` is shorter than a tag. A text is shorter than 256 GiB.
    pub fn seal(self, key: &[u8; 32], nonce: [u8; 12], aad: &[u8], message: &mut [u8]) {
        let (text, tag) = message.split_at_mut(message.len() - TAG);
        // SAFETY: `new` has seen that the CPU has all that is enabled there.
        tag.copy_from_slice(&unsafe { seal(key, nonce, aad, text) });
    }

    /// Decrypts `message`, a ciphertext and its tag, in place. None, and nothing is decrypted,
    /// if the tag is wrong.
    pub fn open<'a>(
        self,
        key: &[u8; 32],
        nonce: [u8; 12],
        aad: &[u8],
        message: &'a mut [u8],
    ) -> Option<&'a mut [u8]> {
        let (text, tag) = message.split_at_mut(message.len().checked_sub(TAG)?);
        let tag = (&*tag).try_into().ok()?;
        // SAFETY: `new` has seen that the CPU has all that is enabled there.
        unsafe { open(key, nonce, aad, text, tag) }.then_some(text)
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2")]
fn seal(key: &[u8; 32], nonce: [u8; 12], aad: &[u8], text: &mut [u8]) -> [u8; TAG] {
    let mut stream = Stream::new(key, nonce, text.len());
    let one_time = stream.one_time_key();
    stream.xor(text);
    poly1305::tag(one_time, aad, text)
}

/// Whether the tag is right; only then is the text decrypted.
#[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2")]
fn open(key: &[u8; 32], nonce: [u8; 12], aad: &[u8], text: &mut [u8], tag: &[u8; TAG]) -> bool {
    let mut stream = Stream::new(key, nonce, text.len());
    let own = poly1305::tag(stream.one_time_key(), aad, text);
    // All bytes at once, and the compiler must not know what becomes of them.
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

    /// Sums around 2^130 - 5, which no vector of the whole cipher has.
    #[test]
    fn the_sum_is_reduced() {
        if Aead::new().is_none() {
            return;
        }
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
            // SAFETY: the CPU has what `Aead::new` asks for.
            let tag = unsafe {
                let lane = |limb: u64| _mm512_maskz_set1_epi64(0x10, limb as i64);
                finish(sum.map(lane), 3, 0)
            };
            assert_eq!(u128::from_le_bytes(tag), u128::wrapping_add(expected, 3), "{sum:x?}");
        }
    }
}
