//! Writes a peer's part of the UAPI's `get` (wireguard.com/xplatform) and `state` (docs/uapi.md).

use std::fmt::{Display, Write};
use std::net::{IpAddr, SocketAddr};

use crate::drops::DropCounter;
use crate::ip;
use crate::peer::Peer;

const NO_KEY: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Writes a peer for `get`. The preshared key is written as zeros, which its owner overwrites.
///
/// `wg` crashes on an endpoint with a host name or an unknown zone, so zones are numbers.
pub fn describe(peer: &Peer, public: &[u8; 32], last_handshake: u64, keepalive: u32) -> String {
    let mut digits = [0; 64];
    let digits = base16ct::lower::encode_str(public, &mut digits).expect("two digits a byte");
    let mut text = String::with_capacity(512);
    for part in ["public_key=", digits, "\npreshared_key=", NO_KEY, "\nprotocol_version=1\n"] {
        text.push_str(part);
    }
    describe_endpoint(&mut text, peer);
    let (received, sent) = peer.transfer();
    let (seconds, rest) = (last_handshake / 1_000_000_000, last_handshake % 1_000_000_000);
    let _ = writeln!(text, "last_handshake_time_sec={seconds}\nlast_handshake_time_nsec={rest}");
    let _ = writeln!(text, "tx_bytes={sent}\nrx_bytes={received}");
    let _ = writeln!(text, "persistent_keepalive_interval={keepalive}");
    text
}

fn describe_endpoint(text: &mut String, peer: &Peer) {
    if let Some(endpoint) = peer.endpoint() {
        let _ = writeln!(text, "endpoint={}", endpoint.remote);
    }
}

/// Writes a line for an address of 4 or 16 bytes.
pub fn describe_allowed_ip(text: &mut String, address: &[u8], length: u8) {
    if let Some(address) = ip::address(address) {
        let _ = writeln!(text, "allowed_ip={address}/{length}");
    }
}

/// Writes the plane's part of a peer for `state`. Values that are zero, or never happened, are left
/// out.
pub fn describe_state(peer: &Peer, now: u64) -> String {
    let mut text = String::with_capacity(256);
    describe_endpoint(&mut text, peer);
    let sessions = peer.sessions();
    let _ = match &sessions.current {
        None => writeln!(text, "session=none"),
        Some(session) => {
            let state = if session.can_send(now) { "live" } else { "expired" };
            let age = age_ms(session.created, now);
            writeln!(text, "session={state}\nsession_age_ms={age}")
        }
    };
    let staged = sessions.staged_segments();
    drop(sessions);
    let [.., sent, received] = peer.stamps();
    for (name, stamp) in [("received_age_ms", received), ("sent_age_ms", sent)] {
        if stamp != 0 {
            let _ = writeln!(text, "{name}={}", age_ms(stamp, now));
        }
    }
    let (rx_bytes, tx_bytes) = peer.transfer();
    for (name, value) in [("rx_bytes", rx_bytes), ("tx_bytes", tx_bytes), ("staged", staged as u64)]
    {
        if value != 0 {
            let _ = writeln!(text, "{name}={value}");
        }
    }
    peer.read_drops(|drops| {
        let names = ["rejected_sources", "rejected_source", "rejected_source_age_ms"];
        describe_counter(&mut text, names, &drops.rejected, now);
        let names = ["send_errors", "send_error", "send_error_age_ms"];
        describe_counter(&mut text, names, &drops.send_error, now);
    });
    text
}

/// Writes the device's drops for `state`. The last merged frame that its link refused is given by
/// its errno.
pub fn describe_drops(
    invalid_mac1: &DropCounter<SocketAddr>,
    no_peer: &DropCounter<IpAddr>,
    refused_merges: &DropCounter<i32>,
    now: u64,
) -> String {
    let mut text = String::new();
    let names = ["invalid_mac1", "invalid_mac1_endpoint", "invalid_mac1_age_ms"];
    describe_counter(&mut text, names, invalid_mac1, now);
    let names = ["no_peer_packets", "no_peer_destination", "no_peer_age_ms"];
    describe_counter(&mut text, names, no_peer, now);
    let names = ["refused_merges", "refused_merge_error", "refused_merge_age_ms"];
    describe_counter(&mut text, names, refused_merges, now);
    text
}

/// Writes a counter under the names of its count, of the last one, and of its age.
fn describe_counter<T: Display>(
    text: &mut String,
    names: [&str; 3],
    counter: &DropCounter<T>,
    now: u64,
) {
    let [count, last, age] = names;
    if let Some((what, at)) = &counter.last {
        let _ = writeln!(text, "{count}={}\n{last}={what}", counter.count);
        let _ = writeln!(text, "{age}={}", age_ms(*at, now));
    }
}

fn age_ms(at: u64, now: u64) -> u64 {
    now.saturating_sub(at) / 1_000_000
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::secret::AeadKey;
    use crate::session::Session;
    use crate::sockets::Endpoint;

    const MS: u64 = 1_000_000;

    #[test]
    fn a_new_peer_says_little() {
        assert_eq!(describe_state(&Peer::new(1, &Arc::default()), 5), "session=none\n");
    }

    #[test]
    fn a_peer_tells_what_goes_on_and_what_went_wrong() {
        let peer = Peer::new(1, &Arc::default());
        let remote = "[fe80::1%3]:9".parse().unwrap();
        peer.set_endpoint(Some(Endpoint { remote, source: None }));
        let key = || AeadKey::new(&[7; 32]);
        let session =
            Session::new(key(), key(), 1, 2, true, 10 * MS, [u64::MAX, u64::MAX, 90 * MS]);
        peer.sessions().begin(Arc::new(session));
        peer.sessions().stage(&[0; 60], 3);
        peer.count_sent(100, true, 20 * MS);
        peer.count_received(32, false, 30 * MS);
        peer.record(|drops| {
            drops.rejected.add("10.9.9.9".parse().unwrap(), 40 * MS, false);
            drops.rejected.add("fd09::9".parse().unwrap(), 50 * MS, false);
            drops.send_error.add(101, 60 * MS, false);
        });
        let text = describe_state(&peer, 70 * MS);
        let lines: Vec<&str> = text.lines().collect();
        let expected = "endpoint=[fe80::1%3]:9 session=live session_age_ms=60 received_age_ms=40 \
                        sent_age_ms=50 rx_bytes=32 tx_bytes=100 staged=3 rejected_sources=2 \
                        rejected_source=fd09::9 rejected_source_age_ms=20 send_errors=1 \
                        send_error=101 send_error_age_ms=10";
        assert_eq!(lines, expected.split(' ').collect::<Vec<_>>());
        assert!(describe_state(&peer, 101 * MS).contains("session=expired\nsession_age_ms=91\n"));
        peer.sessions().purge();
        assert!(!describe_state(&peer, 101 * MS).contains("staged"));
    }

    #[test]
    fn the_devices_drops_are_counts_and_the_last_one() {
        let (mut mac1, mut no_peer) = (DropCounter::default(), DropCounter::default());
        let mut refused = DropCounter::default();
        assert_eq!(describe_drops(&mac1, &no_peer, &refused, 5), "");
        mac1.add("192.0.2.1:7".parse().unwrap(), MS, false);
        no_peer.add("10.0.0.9".parse().unwrap(), 2 * MS, false);
        refused.add(22, 2 * MS, false);
        let expected = "invalid_mac1=1 invalid_mac1_endpoint=192.0.2.1:7 invalid_mac1_age_ms=2 \
                        no_peer_packets=1 no_peer_destination=10.0.0.9 no_peer_age_ms=1 \
                        refused_merges=1 refused_merge_error=22 refused_merge_age_ms=1";
        let text = describe_drops(&mac1, &no_peer, &refused, 3 * MS);
        assert_eq!(text.lines().collect::<Vec<_>>(), expected.split(' ').collect::<Vec<_>>());
    }
}
