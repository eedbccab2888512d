//! Poly1305 (RFC 8439, 2.5) of additional data and a ciphertext (2.8), eight blocks at a time.
//!
//! A number modulo 2^130 - 5 is three limbs of 44, 44 and 42 bits, each in a vector of eight lanes.
//! Each lane handles every eighth block with r^8. The last step multiplies each lane by its own
//! power of r, and the sum of the lanes is the result.

use std::arch::x86_64::*;

use super::vector::{_mm512_madd52hi_epu64, _mm512_madd52lo_epu64, load};

const BLOCK: usize = 16;
const LANES: usize = 8;
const GROUP: usize = LANES * BLOCK;
pub const LIMB: u64 = (1 << 44) - 1;
pub const TOP: u64 = (1 << 42) - 1;

type Limbs = [__m512i; 3];

/// Computes the tag of `aad` and text with a one-time key, r and s.
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
    // The first group may be short, so that the last one, with the block of lengths, is full.
    let blocks = text.len().div_ceil(BLOCK) + 1;
    let held = (blocks - 1) % LANES + 1;
    sum = sum.map(|limb| _mm512_maskz_mov_epi64(lanes(held) & !lanes(held - 1), limb));
    let (first, rest) = text.split_at(if blocks > LANES { held * BLOCK } else { 0 });
    let (groups, rest) = rest.as_chunks();
    // The last group: the rest of the text, padded, and the lengths.
    let mut last = [0; GROUP];
    let start = GROUP - BLOCK - rest.len().next_multiple_of(BLOCK);
    last[start..][..rest.len()].copy_from_slice(rest);
    last[GROUP - 16..][..8].copy_from_slice(&(aad.len() as u64).to_le_bytes());
    last[GROUP - 8..].copy_from_slice(&(text.len() as u64).to_le_bytes());
    let mut last = marked(limbs(&last), lanes(blocks.min(LANES)));
    if first.is_empty() {
        last = add(last, sum);
    } else {
        let r8 = Multiplier::new(powers.map(|limb| broadcast(limb)));
        let mut group = [0; GROUP];
        group[GROUP - first.len()..].copy_from_slice(first);
        sum = add(sum, marked(limbs(&group), lanes(held)));
        sum = all(r8, sum, groups);
        last = add(last, r8.times(sum));
    }
    finish(Multiplier::new(powers).times(last), s_low, s_high)
}

/// Adds all of these groups to the sum. It carries after every second one.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2")]
fn all(r8: Multiplier, mut sum: Limbs, groups: &[[u8; GROUP]]) -> Limbs {
    let (pairs, rest) = groups.as_chunks();
    let r16 = Multiplier::new(r8.times(r8.limbs));
    for [first, second] in pairs {
        let products = Products::default().plus(&r16, sum).plus(&r8, whole(first));
        sum = add(products.carried(), whole(second));
    }
    for group in rest {
        sum = add(r8.times(sum), whole(group));
    }
    sum
}

/// Selects the lanes of the last blocks of a group. Block 0 is in lane 0, block 4 in lane 1, ...
fn lanes(held: usize) -> u8 {
    [0, 0x80, 0xa0, 0xa8, 0xaa, 0xea, 0xfa, 0xfe, 0xff][held]
}

/// Computes r, r^2, ... r^8, each in the lane of its block.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn powers(r: Multiplier) -> Limbs {
    let r2 = Multiplier::new(r.times(r.limbs));
    let r4 = Multiplier::new(r2.times(r2.limbs));
    // The lanes get the powers 8 4 7 3 6 2 5 1. The bits of the power minus 1 give the factors.
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

/// The limbs of a full group.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi2")]
fn whole(group: &[u8; GROUP]) -> Limbs {
    marked(limbs(group), lanes(LANES))
}

/// Copies lane 0 to all lanes.
#[inline]
#[target_feature(enable = "avx512f")]
fn broadcast(limb: __m512i) -> __m512i {
    _mm512_broadcastq_epi64(_mm512_castsi512_si128(limb))
}

/// Sets the bit above the 128 bits of each present block.
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
    #[target_feature(enable = "avx512f,avx512ifma")]
    fn new(limbs: Limbs) -> Multiplier {
        let zero = _mm512_setzero_si512();
        let times_20 = |limb| _mm512_madd52lo_epu64(zero, limb, _mm512_set1_epi64(20));
        Multiplier { limbs, wrapped: [times_20(limbs[1]), times_20(limbs[2])] }
    }

    /// Multiplies and carries. Limbs may have 46 bits. Those of the multiplier have little more
    /// than 44, to be below 2^52 when multiplied by 20: the instruction ignores higher bits.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    fn times(&self, limbs: Limbs) -> Limbs {
        Products::default().plus(self, limbs).carried()
    }
}

/// Sums of up to two products, each limb in two parts: the lower 52 bits, and the bits above.
struct Products {
    low: Limbs,
    high: Limbs,
}

impl Products {
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn default() -> Products {
        Products { low: [_mm512_setzero_si512(); 3], high: [_mm512_setzero_si512(); 3] }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    fn plus(self, by: &Multiplier, [a, b, c]: Limbs) -> Products {
        let [r0, r1, r2] = by.limbs;
        let [s1, s2] = by.wrapped;
        let low = |sum, x, y| _mm512_madd52lo_epu64(sum, x, y);
        let high = |sum, x, y| _mm512_madd52hi_epu64(sum, x, y);
        let ([l0, l1, l2], [h0, h1, h2]) = (self.low, self.high);
        Products {
            low: [
                low(low(low(l0, a, r0), b, s2), c, s1),
                low(low(low(l1, a, r1), b, r0), c, s2),
                low(low(low(l2, a, r2), b, r1), c, r0),
            ],
            high: [
                high(high(high(h0, a, r0), b, s2), c, s1),
                high(high(high(h1, a, r1), b, r0), c, s2),
                high(high(high(h2, a, r2), b, r1), c, r0),
            ],
        }
    }

    /// Carries into limbs again. The middle one may slightly exceed 44 bits.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn carried(self) -> Limbs {
        let ([l0, l1, l2], [h0, h1, h2]) = (self.low, self.high);
        let (limb, top) = (_mm512_set1_epi64(LIMB as i64), _mm512_set1_epi64(TOP as i64));
        // 2^52 is 2^8 in the next limb, and for the last limb 2^10 times 5 in the first.
        let l1 = _mm512_add_epi64(l1, _mm512_slli_epi64::<8>(h0));
        let l2 = _mm512_add_epi64(l2, _mm512_slli_epi64::<8>(h1));
        let l1 = _mm512_add_epi64(l1, _mm512_srli_epi64::<44>(l0));
        let l2 = _mm512_add_epi64(l2, _mm512_srli_epi64::<44>(l1));
        let over = _mm512_add_epi64(_mm512_slli_epi64::<10>(h2), _mm512_srli_epi64::<42>(l2));
        let over = _mm512_add_epi64(over, _mm512_slli_epi64::<2>(over));
        let l0 = _mm512_add_epi64(_mm512_and_si512(l0, limb), over);
        let l1 = _mm512_add_epi64(_mm512_and_si512(l1, limb), _mm512_srli_epi64::<44>(l0));
        [_mm512_and_si512(l0, limb), l1, _mm512_and_si512(l2, top)]
    }
}

/// Adds up the lanes modulo 2^130 - 5, and then s.
#[inline]
#[target_feature(enable = "avx512f")]
pub fn finish(sum: Limbs, s_low: u64, s_high: u64) -> [u8; BLOCK] {
    let [mut a, mut b, mut c] = sum.map(|limb| _mm512_reduce_add_epi64(limb) as u64);
    b += a >> 44;
    c += b >> 44;
    a = (a & LIMB) + (c >> 42) * 5;
    b = (b & LIMB) + (a >> 44);
    (a, c) = (a & LIMB, c & TOP);
    // Subtracts 2^130 - 5 (adds 5, subtracts 2^130) unless the result is below zero.
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
