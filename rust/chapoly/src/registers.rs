//! Wipes the vector registers.

use std::arch::asm;

/// Clears this thread's vector registers, where encryption leaves keys and texts: all of them on
/// x86-64 and aarch64, none on other CPUs.
#[inline]
pub fn wipe_registers() {
    #[cfg(target_arch = "x86_64")]
    if crate::cpu::runs_own() {
        wipe_zmm();
    } else if is_x86_feature_detected!("avx") {
        wipe_ymm();
    } else {
        wipe_xmm();
    }
    #[cfg(target_arch = "aarch64")]
    wipe_neon();
}

/// The 32 of AVX-512. Little other code uses the upper ones, so their content would stay for long.
#[cfg(target_arch = "x86_64")]
fn wipe_zmm() {
    // SAFETY: the caller checked that the CPU has them, and all changed registers are declared.
    unsafe {
        asm!(
            "vzeroall",
            ".irp n, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31",
            "vpxord zmm\\n, zmm\\n, zmm\\n",
            ".endr",
            clobber_abi("C"),
            options(nomem, nostack),
        )
    }
}

/// The 16 of AVX.
#[cfg(target_arch = "x86_64")]
fn wipe_ymm() {
    // SAFETY: as above.
    unsafe { asm!("vzeroall", clobber_abi("C"), options(nomem, nostack)) }
}

/// The 16 that every x86-64 has.
#[cfg(target_arch = "x86_64")]
fn wipe_xmm() {
    // SAFETY: as above.
    unsafe {
        asm!(
            ".irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15",
            "xorps xmm\\n, xmm\\n",
            ".endr",
            clobber_abi("C"),
            options(nomem, nostack),
        )
    }
}

/// The 32 of NEON, which every aarch64 with Linux has.
#[cfg(target_arch = "aarch64")]
fn wipe_neon() {
    // SAFETY: as above. The compiler saves the lower halves of 8 to 15, which a call must keep.
    unsafe {
        asm!(
            ".irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15",
            "movi v\\n\\().2d, #0",
            ".endr",
            ".irp n, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31",
            "movi v\\n\\().2d, #0",
            ".endr",
            clobber_abi("C"),
            options(nomem, nostack),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn xmm_registers_are_wiped() {
        let mut held = [7u64; 4];
        // SAFETY: every x86-64 has them, and they are declared as changed.
        unsafe {
            asm!("pcmpeqd xmm3, xmm3", "pcmpeqd xmm15, xmm15", out("xmm3") _, out("xmm15") _)
        };
        wipe_xmm();
        // SAFETY: `held` has room for two.
        unsafe {
            asm!("movups [{held}], xmm3", "movups [{held} + 16], xmm15", held = in(reg) &mut held)
        };
        assert_eq!(held, [0; 4]);
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn whole_ymm_registers_are_wiped() {
        assert!(
            is_x86_feature_detected!("avx2"),
            "this test needs a CPU with AVX2, of 2013 or later"
        );
        for wipe in [wipe_ymm, wipe_registers as fn()] {
            let mut held = [7u64; 8];
            // SAFETY: the CPU has them, and they are declared as changed.
            unsafe {
                asm!(
                    "vpcmpeqd ymm3, ymm3, ymm3",
                    "vpcmpeqd ymm15, ymm15, ymm15",
                    out("ymm3") _, out("ymm15") _
                )
            };
            wipe();
            // SAFETY: `held` has room for two.
            unsafe {
                asm!(
                    "vmovdqu [{held}], ymm3",
                    "vmovdqu [{held} + 32], ymm15",
                    held = in(reg) &mut held
                )
            };
            assert_eq!(held, [0; 8]);
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    #[cfg_attr(not(runs_own), ignore = "needs a CPU with AVX-512 (F, BW, IFMA, VBMI2)")]
    fn zmm_registers_are_wiped() {
        let mut held = [7u64; 16];
        // SAFETY: the CPU has them, and they are declared as changed.
        unsafe {
            asm!(
                "vpternlogd zmm3, zmm3, zmm3, 255",
                "vpternlogd zmm22, zmm22, zmm22, 255",
                out("zmm3") _, out("zmm22") _
            )
        };
        wipe_registers();
        // SAFETY: `held` has room for two.
        unsafe {
            asm!(
                "vmovdqu64 [{held}], zmm3",
                "vmovdqu64 [{held} + 64], zmm22",
                held = in(reg) &mut held
            )
        };
        assert_eq!(held, [0; 16]);
    }

    #[cfg(target_arch = "aarch64")]
    #[test]
    fn neon_registers_are_wiped() {
        let mut held = [7u64; 6];
        // SAFETY: the registers are declared as changed.
        unsafe {
            asm!(
                "movi v3.16b, #255",
                "movi v12.16b, #255",
                "movi v31.16b, #255",
                out("v3") _, out("v12") _, out("v31") _
            )
        };
        wipe_registers();
        // SAFETY: `held` has room for three.
        unsafe {
            asm!(
                "st1 {{v3.2d}}, [{held}], #16",
                "st1 {{v12.2d}}, [{held}], #16",
                "st1 {{v31.2d}}, [{held}]",
                held = inout(reg) &raw mut held => _
            )
        };
        // The lower half of 12 belongs to the caller.
        assert_eq!([held[0], held[1], held[3], held[4], held[5]], [0; 5]);
    }
}
