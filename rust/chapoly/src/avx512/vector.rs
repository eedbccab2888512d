//! Converts bytes to vectors and back. All vector access to memory in this crate is here.

use std::arch::x86_64::{
    __m512i, _mm512_loadu_si512, _mm512_mask_storeu_epi8, _mm512_maskz_loadu_epi8,
    _mm512_storeu_si512,
};

/// Loads the first 64 bytes; zeros replace missing ones.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub fn load(bytes: &[u8]) -> __m512i {
    if bytes.len() >= 64 {
        // SAFETY: 64 bytes are there, and any alignment is right.
        unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
    } else {
        // SAFETY: the mask covers only the bytes of the slice.
        unsafe { _mm512_maskz_loadu_epi8(mask(bytes), bytes.as_ptr().cast()) }
    }
}

/// Stores as much of the vector as fits.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub fn store(bytes: &mut [u8], vector: __m512i) {
    if bytes.len() >= 64 {
        // SAFETY: there is room for 64 bytes, and any alignment is right.
        unsafe { _mm512_storeu_si512(bytes.as_mut_ptr().cast(), vector) }
    } else {
        // SAFETY: the mask covers only the bytes of the slice.
        unsafe { _mm512_mask_storeu_epi8(bytes.as_mut_ptr().cast(), mask(bytes), vector) }
    }
}

#[cfg(not(miri))]
pub use std::arch::x86_64::{_mm512_madd52hi_epu64, _mm512_madd52lo_epu64};

/// Miri checks this code on CPUs that cannot run it. It lacks two of the instructions, which are
/// here as Intel's manual describes them.
#[cfg(miri)]
pub use self::model::{_mm512_madd52hi_epu64, _mm512_madd52lo_epu64};

#[cfg(miri)]
mod model {
    use std::arch::x86_64::__m512i;
    use std::mem::transmute;

    const BITS: u32 = 52;
    const MASK: u64 = (1 << BITS) - 1;

    pub fn _mm512_madd52lo_epu64(sum: __m512i, x: __m512i, y: __m512i) -> __m512i {
        with_products(sum, x, y, |product| product as u64 & MASK)
    }

    pub fn _mm512_madd52hi_epu64(sum: __m512i, x: __m512i, y: __m512i) -> __m512i {
        with_products(sum, x, y, |product| (product >> BITS) as u64)
    }

    fn with_products(sum: __m512i, x: __m512i, y: __m512i, part: fn(u128) -> u64) -> __m512i {
        // SAFETY: both types are 64 bytes, and any are valid.
        let [sum, x, y] =
            [sum, x, y].map(|vector| unsafe { transmute::<__m512i, [u64; 8]>(vector) });
        let product = |lane: usize| u128::from(x[lane] & MASK) * u128::from(y[lane] & MASK);
        let lanes: [u64; 8] =
            std::array::from_fn(|lane| sum[lane].wrapping_add(part(product(lane))));
        // SAFETY: as above.
        unsafe { transmute::<[u64; 8], __m512i>(lanes) }
    }
}

/// A mask with a bit for each byte of a slice of less than 64.
#[inline]
fn mask(bytes: &[u8]) -> u64 {
    (1 << bytes.len()) - 1
}
