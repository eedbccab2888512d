//! UDP sockets: where datagrams go and come from.

use std::net::{IpAddr, SocketAddr};

/// Where a peer's datagrams go, and the local address that its last one reached (sticky source).
#[derive(Clone, Debug)]
pub struct Endpoint {
    pub remote: SocketAddr,
    pub local: Option<IpAddr>,
}
