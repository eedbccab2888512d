//! Chooses one of the two ciphers: the own one if it can run here and works, else ring's.
//! `WIRESNAKE_CIPHER=own` or `ring` in the environment forces one.

use std::env;
use std::sync::OnceLock;

use crate::{Cipher, Key, TAG, cpu};

const VARIABLE: &str = "WIRESNAKE_CIPHER";

/// The cipher that this process uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    pub cipher: Cipher,
    /// The CPU can run the own cipher, but it failed its self-test, so ring's is used.
    pub own_fails: bool,
}

/// Returns the choice, which is made at the first call. An error says what is wrong with
/// `WIRESNAKE_CIPHER`: a forced cipher is never replaced by the other one.
pub fn choice() -> &'static Result<Choice, String> {
    static CHOICE: OnceLock<Result<Choice, String>> = OnceLock::new();
    CHOICE.get_or_init(|| {
        let wanted = env::var_os(VARIABLE).unwrap_or_default();
        choose(&wanted.to_string_lossy(), || cpu::runs_own().then(own_works))
    })
}

/// Chooses a cipher. `own` returns whether the own cipher works, or None if it cannot run.
fn choose(wanted: &str, own: impl FnOnce() -> Option<bool>) -> Result<Choice, String> {
    let chosen = |cipher, own_fails| Ok(Choice { cipher, own_fails });
    match wanted {
        "" => match own() {
            Some(true) => chosen(Cipher::Own, false),
            failed => chosen(Cipher::Ring, failed.is_some()),
        },
        "ring" => chosen(Cipher::Ring, false),
        "own" => match own() {
            Some(true) => chosen(Cipher::Own, false),
            Some(false) => refused(wanted, "it fails its self-test on this CPU"),
            None => refused(wanted, &format!("it needs {}", cpu::NEEDS)),
        },
        _ => refused(wanted, "there is no such cipher"),
    }
}

fn refused(wanted: &str, why: &str) -> Result<Choice, String> {
    Err(format!("{VARIABLE}={wanted}: {why}; say 'ring', or leave it out"))
}

fn own_works() -> bool {
    let own = |key: &[u8; 32]| Key::with_own(key).expect("the CPU can run it");
    works(
        |key, nonce, aad, message| own(key).seal_at(nonce, aad, message),
        |key, nonce, aad, message| Some(own(key).open_at(nonce, aad, message)?.len()),
    )
}

/// The self-test: a cipher must give a known answer, agree with ring's for texts of all shapes, and
/// reject forged ones.
fn works(
    seal: impl Fn(&[u8; 32], [u8; 12], &[u8], &mut [u8]),
    open: impl Fn(&[u8; 32], [u8; 12], &[u8], &mut [u8]) -> Option<usize>,
) -> bool {
    if cfg!(null_crypto) {
        return true;
    }
    let agrees = |key: &[u8; 32], nonce, aad: &[u8], text: &[u8], expected: &[u8]| {
        let mut message = [text, &[0; TAG]].concat();
        seal(key, nonce, aad, &mut message);
        let opens = |message: &mut [u8]| open(key, nonce, aad, message) == Some(text.len());
        let forged = [0, text.len(), expected.len() - 1].map(|at| {
            let mut forged = expected.to_vec();
            forged[at] ^= 0x80;
            forged
        });
        message == expected
            && opens(&mut message)
            && message[..text.len()] == *text
            && !forged.into_iter().any(|mut forged| opens(&mut forged))
    };
    let known = || agrees(&KNOWN_KEY, KNOWN_NONCE, &KNOWN_AAD, KNOWN_TEXT, &KNOWN_MESSAGE);
    // Every number of blocks made at a time, and of blocks in the first group of a tag; several
    // groups; more blocks than are held.
    let as_ring = |length: usize| {
        let key = std::array::from_fn(|i| (i * 7 + length) as u8);
        let text: Vec<u8> = (0..length).map(|i| (i * i + length) as u8).collect();
        let aad = &text[..length.min(length % 64)];
        let mut expected = [&text[..], &[0; TAG]].concat();
        Key::with_ring(&key).seal_at([length as u8; 12], aad, &mut expected);
        agrees(&key, [length as u8; 12], aad, &text, &expected)
    };
    let mut lengths = (0..1600).step_by(53).chain([1420, 4096, 9001]);
    known() && (cfg!(miri) || lengths.all(as_ring)) // Miri cannot run ring's assembly
}

// RFC 8439, 2.8.2.
const KNOWN_KEY: [u8; 32] = {
    let mut key = [0x80; 32];
    let mut i = 0;
    while i < key.len() {
        key[i] += i as u8;
        i += 1;
    }
    key
};
const KNOWN_NONCE: [u8; 12] = *b"\x07\0\0\0\x40\x41\x42\x43\x44\x45\x46\x47";
const KNOWN_AAD: [u8; 12] = *b"\x50\x51\x52\x53\xc0\xc1\xc2\xc3\xc4\xc5\xc6\xc7";
const KNOWN_TEXT: &[u8] = b"Ladies and Gentlemen of the class of '99: If I could offer you only \
one tip for the future, sunscreen would be it.";
const KNOWN_MESSAGE: [u8; 130] = [
    0xd3, 0x1a, 0x8d, 0x34, 0x64, 0x8e, 0x60, 0xdb, 0x7b, 0x86, 0xaf, 0xbc, 0x53, 0xef, 0x7e, 0xc2,
    0xa4, 0xad, 0xed, 0x51, 0x29, 0x6e, 0x08, 0xfe, 0xa9, 0xe2, 0xb5, 0xa7, 0x36, 0xee, 0x62, 0xd6,
    0x3d, 0xbe, 0xa4, 0x5e, 0x8c, 0xa9, 0x67, 0x12, 0x82, 0xfa, 0xfb, 0x69, 0xda, 0x92, 0x72, 0x8b,
    0x1a, 0x71, 0xde, 0x0a, 0x9e, 0x06, 0x0b, 0x29, 0x05, 0xd6, 0xa5, 0xb6, 0x7e, 0xcd, 0x3b, 0x36,
    0x92, 0xdd, 0xbd, 0x7f, 0x2d, 0x77, 0x8b, 0x8c, 0x98, 0x03, 0xae, 0xe3, 0x28, 0x09, 0x1b, 0x58,
    0xfa, 0xb3, 0x24, 0xe4, 0xfa, 0xd6, 0x75, 0x94, 0x55, 0x85, 0x80, 0x8b, 0x48, 0x31, 0xd7, 0xbc,
    0x3f, 0xf4, 0xde, 0xf0, 0x8e, 0x4b, 0x7a, 0x9d, 0xe5, 0x76, 0xd2, 0x65, 0x86, 0xce, 0xc6, 0x4b,
    0x61, 0x16, 0x1a, 0xe1, 0x0b, 0x59, 0x4f, 0x09, 0xe2, 0x6a, 0x7e, 0x90, 0x2e, 0xcb, 0xd0, 0x60,
    0x06, 0x91,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_cipher_runs_where_it_can_and_works() {
        let chosen = |cipher, own_fails| Ok(Choice { cipher, own_fails });
        assert_eq!(choose("", || Some(true)), chosen(Cipher::Own, false));
        assert_eq!(choose("", || None), chosen(Cipher::Ring, false));
        assert_eq!(choose("", || Some(false)), chosen(Cipher::Ring, true));
    }

    #[test]
    fn either_can_be_forced_and_neither_takes_the_others_place() {
        let chosen = |cipher| Ok(Choice { cipher, own_fails: false });
        assert_eq!(choose("own", || Some(true)), chosen(Cipher::Own));
        assert_eq!(choose("ring", || panic!("it is not asked")), chosen(Cipher::Ring));
        for (wanted, own, why) in [
            ("own", None, "it needs a CPU with AVX-512"),
            ("own", Some(false), "it fails its self-test on this CPU"),
            ("Ring", Some(true), "there is no such cipher"),
            ("own ", Some(true), "there is no such cipher"),
        ] {
            let said = choose(wanted, || own).unwrap_err();
            assert!(said.starts_with(&format!("WIRESNAKE_CIPHER={wanted}: {why}")), "{said}");
        }
    }

    #[test]
    fn the_environment_is_heeded() {
        let wanted = env::var(VARIABLE).unwrap_or_default();
        let choice = choice().as_ref().expect("the cipher that is asked for can run here");
        let own = if wanted == "ring" { None } else { cpu::runs_own().then_some(Cipher::Own) };
        assert_eq!(*choice, Choice { cipher: own.unwrap_or(Cipher::Ring), own_fails: false });
    }

    #[test]
    #[cfg_attr(not(runs_own), ignore = "needs a CPU with AVX-512 (F, BW, IFMA, VBMI2)")]
    fn the_own_cipher_passes_its_self_test() {
        assert!(own_works());
    }

    /// A defect of a cipher, when it seals or opens.
    type Twist = fn(message: &mut [u8]);

    /// Runs the self-test with ring's cipher and planted defects in its results and inputs.
    fn works_with(sealed: Twist, to_open: Twist) -> bool {
        works(
            |key, nonce, aad, message| {
                Key::with_ring(key).seal_at(nonce, aad, message);
                sealed(message);
            },
            |key, nonce, aad, message| {
                to_open(message);
                Some(Key::with_ring(key).open_at(nonce, aad, message)?.len())
            },
        )
    }

    #[test]
    fn the_self_test_sees_what_is_wrong() {
        assert!(works_with(|_| {}, |_| {}));
        let wrong: [Twist; 4] = [
            |message| *message.last_mut().unwrap() ^= 1,
            |message| message[0] ^= 1,
            // Only in long texts, after the first blocks.
            |message| message.iter_mut().skip(24 * 64).for_each(|byte| *byte ^= 1),
            // Only in texts that end within a block.
            |message| message[message.len() / 2] ^= u8::from(message.len() % 64 == 5),
        ];
        for twist in wrong {
            assert!(!works_with(twist, |_| {}));
            assert!(!works_with(|_| {}, twist));
        }
    }

    #[test]
    fn the_self_test_sees_what_only_agrees_with_itself() {
        let other = |mut nonce: [u8; 12]| {
            nonce[4] ^= 1;
            nonce
        };
        assert!(!works(
            |key, nonce, aad, message| Key::with_ring(key).seal_at(other(nonce), aad, message),
            |key, nonce, aad, message| {
                Some(Key::with_ring(key).open_at(other(nonce), aad, message)?.len())
            },
        ));
    }

    #[test]
    fn the_self_test_sees_what_opens_though_it_is_forged() {
        let seal = |key: &[u8; 32], nonce, aad: &[u8], message: &mut [u8]| {
            Key::with_ring(key).seal_at(nonce, aad, message);
        };
        // It decrypts after checking half of the tag.
        let careless = |key: &[u8; 32], nonce, aad: &[u8], message: &mut [u8]| {
            let (text, tag) = message.split_at_mut(message.len() - TAG);
            let mut stream = [&vec![0; text.len()][..], &[0; TAG]].concat();
            seal(key, nonce, aad, &mut stream);
            text.iter_mut().zip(&stream).for_each(|(byte, key)| *byte ^= key);
            let mut again = [&*text, &[0; TAG]].concat();
            seal(key, nonce, aad, &mut again);
            (again[text.len()..][..8] == tag[..8]).then_some(text.len())
        };
        assert!(!works(seal, careless));
    }
}
