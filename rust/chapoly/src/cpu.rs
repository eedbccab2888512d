//! What this CPU can run. The build script asks it too, for the tests.

/// What the own cipher needs, in words.
#[allow(dead_code)] // the build script has no use for it
pub const NEEDS: &str = "a CPU with AVX-512 (F, BW, IFMA, VBMI2)";

/// Whether this CPU and its operating system can run the own cipher.
pub fn runs_own() -> bool {
    #[cfg(target_arch = "x86_64")]
    return is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512ifma")
        && is_x86_feature_detected!("avx512vbmi2");
    #[cfg(not(target_arch = "x86_64"))]
    false
}
