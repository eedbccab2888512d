"""What must be known of single scenarios to read their figures."""

_PEERS = "wireguard-go takes no more than 65,536 peers: it has 65,000 here."
_BESIDE = (
    "All tunnels with many peers are up side by side, and the 1,000 active peers of two of them"
    " send a packet a second each meanwhile."
)
_OFFERED = (
    "Offered is what the sender was asked for: as much as it sends over the bare cable when nothing"
    " holds it back. Here it shares two cores with the tunnel."
)
_AVX2 = "valgrind knows no AVX-512: cryptography is counted as it runs on a CPU with AVX2 only."

NOTES = {
    "UDP 64 B overload": _OFFERED,
    "UDP 1372 B overload": _OFFERED,
    "handshakes": "500 peers from 500 addresses. 16 initiations are outstanding at a time for"
    " wiresnake, 64 for wireguard-go: at more they begin to ask for cookies.",
    "10k peers": "Resident memory is taken right after the peers were listed several times.",
    "100k peers": _PEERS,
    "TCP 1 peer": _BESIDE,
    "TCP 100k peers": _PEERS,
    "show 1 peer": "Of ten times in turns with `python -c pass` the median.",
    "show 10k peers": "Of ten times the median.",
    "up and down 1k peers": "Each peer has a route of its own.",
    "reload 1 of 10k peers": "One peer's allowed IPs change. Stock's is `wg syncconf` of what"
    " `wg-quick strip` prints, as systemd does it, which leaves the routes as they were. 16 KiB"
    " come every 4 ms meanwhile, so that 4 ms is the least time without a byte.",
    "seal 1420 B": _AVX2,
    "open 1420 B": _AVX2,
}
