//! The own cipher must give the same bytes as ring's. On CPUs without AVX-512 these tests are
//! ignored, and `cargo test` says so.

use chapoly::{Key, TAG};

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| (self.next() >> 24) as u8)
    }

    fn text(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| (self.next() >> 24) as u8).collect()
    }
}

fn sealed_by_ring(key: &[u8; 32], nonce: [u8; 12], aad: &[u8], text: &[u8]) -> Vec<u8> {
    let mut message = [text, &[0; TAG]].concat();
    Key::with_ring(key).seal_at(nonce, aad, &mut message);
    message
}

/// Makes a key for the own cipher, whatever was chosen. Otherwise ring, which replaces a cipher
/// that fails its self-test, would hide a defect.
fn own(key: &[u8; 32]) -> Key {
    Key::with_own(key).expect("this test was built on another CPU: build it again")
}

fn agree(key: &[u8; 32], nonce: [u8; 12], aad: &[u8], text: &[u8]) {
    let expected = sealed_by_ring(key, nonce, aad, text);
    let mut message = [text, &[0; TAG]].concat();
    let key = own(key);
    key.seal_at(nonce, aad, &mut message);
    let what = format!("{} bytes, {} of additional data", text.len(), aad.len());
    assert!(message == expected, "sealed: {what}");
    assert!(key.open_at(nonce, aad, &mut message).is_some_and(|opened| opened == text), "{what}");
}

#[test]
#[cfg_attr(not(runs_own), ignore = "needs a CPU with AVX-512 (F, BW, IFMA, VBMI2)")]
fn every_length_of_a_packet_and_more() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for length in (0..4200).chain([8920, 9000, 16384, 65519, 65535]) {
        agree(&random.bytes(), random.bytes(), &[], &random.text(length));
    }
}

#[test]
#[cfg_attr(not(runs_own), ignore = "needs a CPU with AVX-512 (F, BW, IFMA, VBMI2)")]
fn additional_data_of_every_length() {
    let mut random = Random(3);
    for length in (0..150).chain([1420, 3000]) {
        for aad in (0..70).chain([1000]) {
            agree(&random.bytes(), random.bytes(), &random.text(aad), &random.text(length));
        }
    }
}

/// Tries ciphertexts of zeros and of ones, for carries that random texts never cause.
#[test]
#[cfg_attr(not(runs_own), ignore = "needs a CPU with AVX-512 (F, BW, IFMA, VBMI2)")]
fn sums_at_the_edges_of_their_limbs() {
    let mut random = Random(1);
    for fill in [0, 0xff] {
        for length in (0..300).chain([1420, 1472, 1473, 4000]) {
            let (key, nonce) = (random.bytes(), random.bytes());
            let aad = vec![fill; random.next() as usize % 33];
            let stream = sealed_by_ring(&key, nonce, &aad, &vec![0; length]);
            let text: Vec<u8> = stream[..length].iter().map(|byte| byte ^ fill).collect();
            agree(&key, nonce, &aad, &text);
        }
    }
}

#[test]
fn ring_leaves_closed_what_is_forged() {
    what_is_forged_stays_closed(Key::with_ring);
}

#[test]
#[cfg_attr(not(runs_own), ignore = "needs a CPU with AVX-512 (F, BW, IFMA, VBMI2)")]
fn own_leaves_closed_what_is_forged() {
    what_is_forged_stays_closed(own);
}

fn what_is_forged_stays_closed(new: impl Fn(&[u8; 32]) -> Key) {
    let mut random = Random(7);
    for length in [0, 1, 16, 64, 100, 1420, 5000] {
        let key = new(&random.bytes());
        let (nonce, aad) = (random.bytes(), random.text(32));
        let mut message = random.text(length + TAG);
        key.seal_at(nonce, &aad, &mut message);
        for _ in 0..100 {
            let mut forged = message.clone();
            let at = random.next() as usize % forged.len();
            forged[at] ^= 1 << (random.next() % 8);
            assert!(key.open_at(nonce, &aad, &mut forged).is_none());
        }
        // A failed `open` destroys the buffer, so each try has its own copy.
        let opens = |nonce: [u8; 12], aad: &[u8], message: &[u8]| {
            key.open_at(nonce, aad, &mut message.to_vec()).is_some()
        };
        assert!(!opens(random.bytes(), &aad, &message));
        assert!(!opens(nonce, &aad[1..], &message));
        assert!(!opens(nonce, &aad, &message[..TAG - 1]));
        assert!(opens(nonce, &aad, &message));
    }
}

#[test]
fn ring_touches_nothing_else() {
    wherever_it_lies_nothing_else_is_touched(Key::with_ring);
}

#[test]
#[cfg_attr(not(runs_own), ignore = "needs a CPU with AVX-512 (F, BW, IFMA, VBMI2)")]
fn own_touches_nothing_else() {
    wherever_it_lies_nothing_else_is_touched(own);
}

fn wherever_it_lies_nothing_else_is_touched(new: impl Fn(&[u8; 32]) -> Key) {
    let mut random = Random(11);
    for offset in 0..65 {
        for length in [0, 1, 63, 64, 65, 127, 1471, 1472, 1473, 3008, 3009] {
            let (key, nonce, text) = (random.bytes(), random.bytes(), random.text(length));
            let whole = offset..offset + length + TAG;
            let mut memory = vec![0xa5; whole.end + 64];
            memory[offset..offset + length].copy_from_slice(&text);
            let key_here = new(&key);
            key_here.seal_at(nonce, &[], &mut memory[whole.clone()]);
            assert!(memory[whole.clone()] == sealed_by_ring(&key, nonce, &[], &text));
            assert!(key_here.open_at(nonce, &[], &mut memory[whole.clone()]).is_some());
            assert!(memory[..offset].iter().chain(&memory[whole.end..]).all(|byte| *byte == 0xa5));
        }
    }
}
