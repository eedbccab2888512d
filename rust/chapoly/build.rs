//! Tells the tests whether the own cipher can run here (`cfg(runs_own)`): where it cannot, those
//! of them that need it are ignored, which `cargo test` says, instead of passing for nothing.

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
