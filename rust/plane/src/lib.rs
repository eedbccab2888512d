//! The part of wiresnake that carries packets and keeps secrets. Python makes all decisions.

pub mod allowed_ips;
pub mod drops;
pub mod gate;
pub mod inbound;
pub mod ip;
pub mod link;
pub mod lock;
pub mod offload;
pub mod outbound;
pub mod panics;
pub mod peer;
pub mod plane;
pub mod portable;
pub mod replay;
pub mod secret;
pub mod session;
pub mod shared;
pub mod signal;
pub mod sockets;
pub mod table;
#[cfg(target_os = "linux")]
pub mod tun;
pub mod uapi;
#[cfg(target_os = "linux")]
pub mod udp;
pub mod x25519;
