//! The part of wiresnake that carries packets and keeps secrets. Every decision is Python's.

pub mod gate;
#[cfg(feature = "python")]
mod py;
pub mod replay;
pub mod secret;
pub mod session;
pub mod udp;
