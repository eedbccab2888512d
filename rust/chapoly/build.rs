//! Sets `cfg(runs_own)` if the own cipher can run here. Elsewhere the tests that need it are
//! reported as ignored, instead of passing without a check.

#[path = "src/cpu.rs"]
mod cpu;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/cpu.rs");
    println!("cargo::rustc-check-cfg=cfg(runs_own)");
    let target = std::env::var("CARGO_CFG_TARGET_ARCH");
    if target.is_ok_and(|target| target == "x86_64") && cpu::runs_own() {
        println!("cargo::rustc-cfg=runs_own");
    }
}
