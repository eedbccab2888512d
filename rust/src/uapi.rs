//! A peer's part of the UAPI's `get` (wireguard.com/xplatform).

use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::peer::Peer;

const NO_KEY: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// The preshared key is written as none: whoever holds it overwrites that.
///
/// `wg` crashes on an endpoint with a host name or an unknown zone, so a zone is a number.
pub fn describe(peer: &Peer, public: &[u8; 32], last_handshake: u64, keepalive: u32) -> String {
    let mut digits = [0; 64];
    let digits = base16ct::lower::encode_str(public, &mut digits).expect("two digits a byte");
    let mut text = String::with_capacity(512);
    for part in ["public_key=", digits, "\npreshared_key=", NO_KEY, "\nprotocol_version=1\n"] {
        text.push_str(part);
    }
    if let Some(endpoint) = peer.endpoint() {
        let _ = writeln!(text, "endpoint={}", endpoint.remote);
    }
    let (received, sent) = peer.transfer();
    let (seconds, rest) = (last_handshake / 1_000_000_000, last_handshake % 1_000_000_000);
    let _ = writeln!(text, "last_handshake_time_sec={seconds}\nlast_handshake_time_nsec={rest}");
    let _ = writeln!(text, "tx_bytes={sent}\nrx_bytes={received}");
    let _ = writeln!(text, "persistent_keepalive_interval={keepalive}");
    text
}

/// A line for an address of 4 or 16 bytes.
pub fn describe_allowed_ip(text: &mut String, address: &[u8], length: u8) {
    let _ = match (<[u8; 4]>::try_from(address), <[u8; 16]>::try_from(address)) {
        (Ok(v4), _) => writeln!(text, "allowed_ip={}/{length}", Ipv4Addr::from(v4)),
        (_, Ok(v6)) => writeln!(text, "allowed_ip={}/{length}", Ipv6Addr::from(v6)),
        _ => Ok(()),
    };
}
