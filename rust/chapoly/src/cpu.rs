//! What this CPU can run. The build script uses it too, for the tests.

/// What the own cipher needs, for messages.
#[allow(dead_code)] // the build script does not use it
pub const NEEDS: &str = "a CPU with AVX-512 (F, BW, IFMA, VBMI2)";

/// Returns whether this CPU and its operating system can run the own cipher.
pub fn runs_own() -> bool {
    #[cfg(target_arch = "x86_64")]
    return is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512ifma")
        && is_x86_feature_detected!("avx512vbmi2");
    #[cfg(not(target_arch = "x86_64"))]
    false
}
