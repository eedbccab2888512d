//! Poly1305 (RFC 8439, 2.5) of additional data and a ciphertext (2.8), eight blocks at a time.
//!
//! A number modulo 2^130 - 5 is three limbs of 44, 44 and 42 bits, each in a vector of eight lanes.
//! Each lane runs through every eighth block with r^8; the last step multiplies each by its own
//! power of r, and the lanes add up to the sum.

use std::arch::x86_64::*;

use super::vector::load;

const BLOCK: usize = 16;
const LANES: usize = 8;
const GROUP: usize = LANES * BLOCK;
const LIMB: u64 = (1 << 44) - 1;
const TOP: u64 = (1 << 42) - 1;

type Limbs = [__m512i; 3];

/// The tag of both under a one-time key, r and s.
#[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2")]
pub fn tag(key: [u8; 32], aad: &[u8], text: &[u8]) -> [u8; BLOCK] {
    let [r_low, r_high, s_low, s_high] =
        [0, 8, 16, 24].map(|at| u64::from_le_bytes(key[at..at + 8].try_into().expect("8 bytes")));
    let r = split(
        _mm512_set1_epi64((r_low & 0x0fff_fffc_0fff_ffff) as i64),
        _mm512_set1_epi64((r_high & 0x0fff_fffc_0fff_fffc) as i64),
    );
    let mut sum = [_mm512_setzero_si512(); 3];
    let r1 = Multiplier::new(r);
    for block in aad.chunks(BLOCK) {
        let block = _mm512_broadcast_i32x4(_mm512_castsi512_si128(load(block)));
        let [low, high] =
            [_mm512_unpacklo_epi64(block, block), _mm512_unpackhi_epi64(block, block)];
        sum = r1.times(add(sum, marked(split(low, high), 0xff)));
    }
    let powers = powers(r1);
    // The first group may be short, so that the last one is full: with the lengths, as a block.
    let blocks = text.len().div_ceil(BLOCK) + 1;
    let held = (blocks - 1) % LANES + 1;
    sum = sum.map(|limb| _mm512_maskz_mov_epi64(lanes(held) & !lanes(held - 1), limb));
    let mut group = [0; GROUP];
    let mut rest = text;
    if blocks > LANES {
        let (first, behind) = text.split_at(held * BLOCK);
        group[GROUP - first.len()..].copy_from_slice(first);
        let lane_0 = powers.map(|limb| _mm512_broadcastq_epi64(_mm512_castsi512_si128(limb)));
        let r8 = Multiplier::new(lane_0);
        sum = r8.times(add(sum, marked(limbs(&group), lanes(held))));
        let (groups, last) = behind.as_chunks();
        for group in groups {
            sum = r8.times(add(sum, marked(limbs(group), lanes(LANES))));
        }
        rest = last;
        group.fill(0);
    }
    let start = GROUP - BLOCK - rest.len().next_multiple_of(BLOCK);
    group[start..][..rest.len()].copy_from_slice(rest);
    group[GROUP - 16..][..8].copy_from_slice(&(aad.len() as u64).to_le_bytes());
    group[GROUP - 8..].copy_from_slice(&(text.len() as u64).to_le_bytes());
    let last = marked(limbs(&group), lanes(blocks.min(LANES)));
    finish(Multiplier::new(powers).times(add(sum, last)), s_low, s_high)
}

/// The lanes of the last blocks of a group: block 0 is in lane 0, block 4 in lane 1, and so on.
fn lanes(held: usize) -> u8 {
    [0, 0x80, 0xa0, 0xa8, 0xaa, 0xea, 0xfa, 0xfe, 0xff][held]
}

/// r, r^2, ... r^8: each in the lane of the block that it is for.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn powers(r: Multiplier) -> Limbs {
    let r2 = Multiplier::new(r.times(r.limbs));
    let r4 = Multiplier::new(r2.times(r2.limbs));
    // The lanes are to have the powers 8 4 7 3 6 2 5 1: the bits of one less say which factors.
    let powers = blend(0x33, r.limbs, r2.limbs);
    let powers = blend(0x0f, powers, r2.times(powers));
    blend(0x55, powers, r4.times(powers))
}

#[inline]
#[target_feature(enable = "avx512f")]
fn blend(lanes: u8, others: Limbs, those: Limbs) -> Limbs {
    [0, 1, 2].map(|limb| _mm512_mask_blend_epi64(lanes, others[limb], those[limb]))
}

/// The limbs of a group's blocks.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi2")]
fn limbs(group: &[u8; GROUP]) -> Limbs {
    let [front, back] = [load(&group[..GROUP / 2]), load(&group[GROUP / 2..])];
    split(_mm512_unpacklo_epi64(front, back), _mm512_unpackhi_epi64(front, back))
}

/// Sets the bit above the 128 of each block that is there.
#[inline]
#[target_feature(enable = "avx512f")]
fn marked([a, b, c]: Limbs, lanes: u8) -> Limbs {
    [a, b, _mm512_or_si512(c, _mm512_maskz_set1_epi64(lanes, 1 << 40))]
}

/// The limbs of numbers of 128 bits.
#[inline]
#[target_feature(enable = "avx512f,avx512vbmi2")]
fn split(low: __m512i, high: __m512i) -> Limbs {
    let limb = _mm512_set1_epi64(LIMB as i64);
    [
        _mm512_and_si512(low, limb),
        _mm512_and_si512(_mm512_shrdi_epi64::<44>(low, high), limb),
        _mm512_srli_epi64::<24>(high),
    ]
}

#[inline]
#[target_feature(enable = "avx512f")]
fn add(a: Limbs, b: Limbs) -> Limbs {
    [0, 1, 2].map(|limb| _mm512_add_epi64(a[limb], b[limb]))
}

/// Numbers to multiply by.
#[derive(Clone, Copy)]
struct Multiplier {
    limbs: Limbs,
    /// The upper two times 20: 2^132 is 20 modulo 2^130 - 5.
    wrapped: [__m512i; 2],
}

impl Multiplier {
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn new(limbs: Limbs) -> Multiplier {
        let times_20 =
            |limb| _mm512_add_epi64(_mm512_slli_epi64::<4>(limb), _mm512_slli_epi64::<2>(limb));
        Multiplier { limbs, wrapped: [times_20(limbs[1]), times_20(limbs[2])] }
    }

    /// The products: of limbs of up to 46 bits, with limbs of 44 (one bit more in the middle).
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    fn times(&self, [a, b, c]: Limbs) -> Limbs {
        let [r0, r1, r2] = self.limbs;
        let [s1, s2] = self.wrapped;
        let zero = _mm512_setzero_si512();
        // The lower 52 bits of the products, and the bits above them, which weigh 2^52.
        let low = |x, y, sum| _mm512_madd52lo_epu64(sum, x, y);
        let high = |x, y, sum| _mm512_madd52hi_epu64(sum, x, y);
        let l0 = low(c, s1, low(b, s2, low(a, r0, zero)));
        let l1 = low(c, s2, low(b, r0, low(a, r1, zero)));
        let l2 = low(c, r0, low(b, r1, low(a, r2, zero)));
        let h0 = high(c, s1, high(b, s2, high(a, r0, zero)));
        let h1 = high(c, s2, high(b, r0, high(a, r1, zero)));
        let h2 = high(c, r0, high(b, r1, high(a, r2, zero)));
        // 2^52 is 2^8 of the next limb; above the last one, 2^10 times 5 of the first.
        let l1 = _mm512_add_epi64(l1, _mm512_slli_epi64::<8>(h0));
        let l2 = _mm512_add_epi64(l2, _mm512_slli_epi64::<8>(h1));
        let (limb, top) = (_mm512_set1_epi64(LIMB as i64), _mm512_set1_epi64(TOP as i64));
        let l1 = _mm512_add_epi64(l1, _mm512_srli_epi64::<44>(l0));
        let l2 = _mm512_add_epi64(l2, _mm512_srli_epi64::<44>(l1));
        let over = _mm512_add_epi64(_mm512_slli_epi64::<10>(h2), _mm512_srli_epi64::<42>(l2));
        let over = _mm512_add_epi64(over, _mm512_slli_epi64::<2>(over));
        let l0 = _mm512_add_epi64(_mm512_and_si512(l0, limb), over);
        let l1 = _mm512_add_epi64(_mm512_and_si512(l1, limb), _mm512_srli_epi64::<44>(l0));
        [_mm512_and_si512(l0, limb), l1, _mm512_and_si512(l2, top)]
    }
}

/// The lanes' sum, modulo 2^130 - 5, plus s.
#[inline]
#[target_feature(enable = "avx512f")]
fn finish(sum: Limbs, s_low: u64, s_high: u64) -> [u8; BLOCK] {
    let [mut a, mut b, mut c] = sum.map(|limb| _mm512_reduce_add_epi64(limb) as u64);
    for _ in 0..2 {
        b += a >> 44;
        c += b >> 44;
        a = (a & LIMB) + (c >> 42) * 5;
        (b, c) = (b & LIMB, c & TOP);
    }
    b += a >> 44;
    a &= LIMB;
    // Minus 2^130 - 5, which is plus 5 minus 2^130, unless that is below zero.
    let reduced_a = a + 5;
    let reduced_b = b + (reduced_a >> 44);
    let reduced_c = c.wrapping_add(reduced_b >> 44).wrapping_sub(TOP + 1);
    let below = 0u64.wrapping_sub(reduced_c >> 63);
    let select = |number, reduced| (number & below) | (reduced & !below);
    let (a, b, c) =
        (select(a, reduced_a & LIMB), select(b, reduced_b & LIMB), select(c, reduced_c));
    let number = u128::from(a).wrapping_add(u128::from(b) << 44).wrapping_add(u128::from(c) << 88);
    let s = u128::from(s_low) | u128::from(s_high) << 64;
    number.wrapping_add(s).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sums around 2^130 - 5, which no vector of the whole cipher has.
    #[test]
    fn the_sum_is_reduced() {
        if crate::avx512::Aead::new().is_none() {
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
