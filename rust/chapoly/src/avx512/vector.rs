//! Bytes to vectors and back: all the memory that this crate reads and writes as vectors.

use std::arch::x86_64::{
    __m512i, _mm512_loadu_si512, _mm512_mask_storeu_epi8, _mm512_maskz_loadu_epi8,
    _mm512_storeu_si512,
};

/// The first 64 bytes, or those that are there and zeros.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub fn load(bytes: &[u8]) -> __m512i {
    if bytes.len() >= 64 {
        // SAFETY: 64 bytes are there, and any alignment is right.
        unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
    } else {
        // SAFETY: the mask keeps to the bytes that are there.
        unsafe { _mm512_maskz_loadu_epi8(mask(bytes), bytes.as_ptr().cast()) }
    }
}

/// Writes as much of the vector as there is room for.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub fn store(bytes: &mut [u8], vector: __m512i) {
    if bytes.len() >= 64 {
        // SAFETY: there is room for 64 bytes, and any alignment is right.
        unsafe { _mm512_storeu_si512(bytes.as_mut_ptr().cast(), vector) }
    } else {
        // SAFETY: the mask keeps to the room that is there.
        unsafe { _mm512_mask_storeu_epi8(bytes.as_mut_ptr().cast(), mask(bytes), vector) }
    }
}

/// A bit for each of less than 64 bytes.
#[inline]
fn mask(bytes: &[u8]) -> u64 {
    (1 << bytes.len()) - 1
}
