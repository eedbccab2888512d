//! TCP and UDP in this process, for tunnels without an interface.

pub mod congestion;
pub mod connection;
pub mod engine;
pub mod packet;
#[cfg(unix)]
pub mod service;
#[cfg(unix)]
pub mod wire;
