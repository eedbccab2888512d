//! ChaCha20 (RFC 8439, 2.3 and 2.4), up to 24 blocks at a time.
//!
//! A vector holds one row of the state of four blocks, so a column is one lane of four vectors. Six
//! such states fill 24 of the 32 registers and make 24 blocks, as many as a full packet has.

use std::arch::x86_64::*;

use super::vector::{load, store};

const BLOCK: usize = 64;
/// The most blocks that are made at a time.
const AHEAD: usize = 24;
const CONSTANTS: &[u8; 16] = b"expand 32-byte k";

type Row = __m512i;

/// The key stream of one message. Block 0 is the key for Poly1305; the text starts at block 1.
pub struct Stream<'a> {
    /// The first state: constants, key, key, counters.
    rows: [Row; 4],
    blocks: &'a mut [Row; AHEAD],
}

/// Makes room for the blocks of a stream. The stream borrows it, since moving it would be slow.
#[inline]
#[target_feature(enable = "avx512f")]
pub fn room() -> [Row; AHEAD] {
    [_mm512_setzero_si512(); AHEAD]
}

impl<'a> Stream<'a> {
    /// Makes the first blocks for a text of that many bytes.
    #[target_feature(enable = "avx512f,avx512bw")]
    pub fn new(
        key: &[u8; 32],
        nonce: [u8; 12],
        length: usize,
        blocks: &'a mut [Row; AHEAD],
    ) -> Stream<'a> {
        let broadcast = |half: &[u8]| _mm512_broadcast_i32x4(_mm512_castsi512_si128(load(half)));
        let mut first = [0; 16];
        first[4..].copy_from_slice(&nonce);
        let numbers = _mm512_set_epi32(0, 0, 0, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0);
        let counters = _mm512_add_epi32(broadcast(&first), numbers);
        let rows = [broadcast(CONSTANTS), broadcast(&key[..16]), broadcast(&key[16..]), counters];
        let mut stream = Stream { rows, blocks };
        stream.advance(1 + length.div_ceil(BLOCK));
        stream
    }

    /// Returns the first half of block 0 (RFC 8439, 2.6). Call it before `xor`.
    #[target_feature(enable = "avx512f,avx512bw")]
    pub fn one_time_key(&self) -> [u8; 32] {
        let mut key = [0; 32];
        store(&mut key, self.blocks[0]);
        key
    }

    /// Encrypts or decrypts the text.
    #[target_feature(enable = "avx512f,avx512bw")]
    pub fn xor(&mut self, text: &mut [u8]) {
        let (first, rest) = text.split_at_mut(text.len().min((AHEAD - 1) * BLOCK));
        xor(first, &self.blocks[1..]);
        for text in rest.chunks_mut(AHEAD * BLOCK) {
            self.advance(text.len().div_ceil(BLOCK));
            xor(text, self.blocks);
        }
    }

    /// Makes the next blocks: at least as many as wanted, or as many as there is room for.
    #[target_feature(enable = "avx512f")]
    fn advance(&mut self, wanted: usize) {
        match wanted.div_ceil(4) {
            0 | 1 => self.make::<1>(),
            2 => self.make::<2>(),
            3 => self.make::<3>(),
            4 => self.make::<4>(),
            5 => self.make::<5>(),
            _ => self.make::<6>(),
        }
    }

    #[target_feature(enable = "avx512f")]
    fn make<const N: usize>(&mut self) {
        let mut first = [self.rows; N];
        for (number, state) in first.iter_mut().enumerate() {
            let blocks = _mm512_maskz_set1_epi32(0x1111, 4 * number as i32);
            state[3] = _mm512_add_epi32(state[3], blocks);
        }
        let mut states = first;
        for _ in 0..10 {
            quarter_rounds(&mut states);
            // The diagonals become columns. Row b stays, as it is ready last and needed first.
            for [a, _, c, d] in &mut states {
                *a = _mm512_shuffle_epi32::<0x93>(*a);
                *c = _mm512_shuffle_epi32::<0x39>(*c);
                *d = _mm512_shuffle_epi32::<0x4e>(*d);
            }
            quarter_rounds(&mut states);
            for [a, _, c, d] in &mut states {
                *a = _mm512_shuffle_epi32::<0x39>(*a);
                *c = _mm512_shuffle_epi32::<0x93>(*c);
                *d = _mm512_shuffle_epi32::<0x4e>(*d);
            }
        }
        for ((state, first), blocks) in
            states.into_iter().zip(first).zip(self.blocks.as_chunks_mut().0)
        {
            *blocks = transposed(sum(state, first));
        }
        let made = _mm512_maskz_set1_epi32(0x1111, 4 * N as i32);
        self.rows[3] = _mm512_add_epi32(self.rows[3], made);
    }
}

/// Does the quarter rounds of all columns (RFC 8439, 2.1), each step in all states.
#[inline]
#[target_feature(enable = "avx512f")]
fn quarter_rounds<const N: usize>(states: &mut [[Row; 4]; N]) {
    for [a, b, _, d] in &mut *states {
        *a = _mm512_add_epi32(*a, *b);
        *d = _mm512_rol_epi32::<16>(_mm512_xor_si512(*d, *a));
    }
    for [_, b, c, d] in &mut *states {
        *c = _mm512_add_epi32(*c, *d);
        *b = _mm512_rol_epi32::<12>(_mm512_xor_si512(*b, *c));
    }
    for [a, b, _, d] in &mut *states {
        *a = _mm512_add_epi32(*a, *b);
        *d = _mm512_rol_epi32::<8>(_mm512_xor_si512(*d, *a));
    }
    for [_, b, c, d] in &mut *states {
        *c = _mm512_add_epi32(*c, *d);
        *b = _mm512_rol_epi32::<7>(_mm512_xor_si512(*b, *c));
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn sum([a, b, c, d]: [Row; 4], first: [Row; 4]) -> [Row; 4] {
    [
        _mm512_add_epi32(a, first[0]),
        _mm512_add_epi32(b, first[1]),
        _mm512_add_epi32(c, first[2]),
        _mm512_add_epi32(d, first[3]),
    ]
}

/// Transposes four rows, each with a piece of four blocks, into four blocks.
#[inline]
#[target_feature(enable = "avx512f")]
fn transposed([a, b, c, d]: [Row; 4]) -> [Row; 4] {
    let [ab01, ab23] = [_mm512_shuffle_i32x4::<0x44>(a, b), _mm512_shuffle_i32x4::<0xee>(a, b)];
    let [cd01, cd23] = [_mm512_shuffle_i32x4::<0x44>(c, d), _mm512_shuffle_i32x4::<0xee>(c, d)];
    [
        _mm512_shuffle_i32x4::<0x88>(ab01, cd01),
        _mm512_shuffle_i32x4::<0xdd>(ab01, cd01),
        _mm512_shuffle_i32x4::<0x88>(ab23, cd23),
        _mm512_shuffle_i32x4::<0xdd>(ab23, cd23),
    ]
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn xor(text: &mut [u8], blocks: &[Row]) {
    for (text, block) in text.chunks_mut(BLOCK).zip(blocks) {
        store(text, _mm512_xor_si512(load(text), *block));
    }
}
