//! Own code for CPUs with AVX-512 (Intel from Ice Lake, AMD from Zen 4 on).

mod chacha20;
mod poly1305;
mod vector;

use std::arch::asm;
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
    /// Panics if `message` is shorter than a tag.
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

    /// Clears all vector registers.
    pub fn wipe_registers(self) {
        // SAFETY: `new` has seen that the CPU has them; all that calls may change is declared so.
        unsafe {
            asm!(
                "vzeroall",
                "vpxord zmm16, zmm16, zmm16",
                "vpxord zmm17, zmm17, zmm17",
                "vpxord zmm18, zmm18, zmm18",
                "vpxord zmm19, zmm19, zmm19",
                "vpxord zmm20, zmm20, zmm20",
                "vpxord zmm21, zmm21, zmm21",
                "vpxord zmm22, zmm22, zmm22",
                "vpxord zmm23, zmm23, zmm23",
                "vpxord zmm24, zmm24, zmm24",
                "vpxord zmm25, zmm25, zmm25",
                "vpxord zmm26, zmm26, zmm26",
                "vpxord zmm27, zmm27, zmm27",
                "vpxord zmm28, zmm28, zmm28",
                "vpxord zmm29, zmm29, zmm29",
                "vpxord zmm30, zmm30, zmm30",
                "vpxord zmm31, zmm31, zmm31",
                clobber_abi("C"),
                options(nomem, nostack),
            )
        }
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

/// Whether the tag is right; only then is the text decrypted.
#[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2")]
fn open(key: &[u8; 32], nonce: [u8; 12], aad: &[u8], text: &mut [u8], tag: &[u8; TAG]) -> bool {
    let mut room = chacha20::room();
    let mut stream = Stream::new(key, nonce, text.len(), &mut room);
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

    /// RFC 8439, 2.5 and 2.8, bit by bit: numbers are an upper and a lower u128.
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

    /// One-time keys and blocks that fill limbs to the brim: no key of the cipher can be chosen so.
    #[test]
    fn the_greatest_numbers_pass_no_limb() {
        if Aead::new().is_none() {
            return;
        }
        let limb = (1 << 44) - 1;
        for r in [u128::MAX, 0, 1, 2, 4, 5, limb, limb << 44, limb << 88, 0xffff_ffff] {
            for fill in [0, 1, 0x80, 0xfb, 0xff] {
                for length in [0, 1, 16, 97, 112, 113, 128, 240, 257, 369, 385, 640, 1424] {
                    let aad = vec![fill; length % 50];
                    let text = vec![fill; length];
                    let mut key = [0xff; 32];
                    key[..16].copy_from_slice(&r.to_le_bytes());
                    // SAFETY: the CPU has what `Aead::new` asks for.
                    let tag = unsafe { poly1305::tag(key, &aad, &text) };
                    assert_eq!(tag, slow_tag(key, &aad, &text), "{r:x}, {length} of {fill}");
                }
            }
        }
    }

    #[test]
    fn registers_are_wiped() {
        let Some(aead) = Aead::new() else { return };
        let mut held = [0u64; 16];
        // SAFETY: it has the registers, and is told which ones change; `held` has room for two.
        unsafe { asm!("vpternlogd zmm22, zmm22, zmm22, 255", out("zmm22") _) };
        aead.wipe_registers();
        // SAFETY: as above.
        unsafe {
            asm!(
                "vmovdqu64 [{held}], zmm22",
                "vmovdqu64 [{held} + 64], zmm0",
                held = in(reg) held.as_mut_ptr()
            )
        };
        assert_eq!(held, [0; 16]);
    }

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
