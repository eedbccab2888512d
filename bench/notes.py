"""Notes that a reader needs to understand the figures of single scenarios."""

_PEERS = "wireguard-go accepts at most 65,536 peers, so it has 65,000 here."
_BESIDE = (
    "All tunnels with many peers are up at the same time. Meanwhile the 1,000 active "
    "peers of two of them send a packet per second each."
)
_OFFERED = (
    "Offered is the rate that the sender was asked for: as much as it can send over "
    "the bare cable. Here it shares two cores with the tunnel."
)
_AVX2 = "valgrind does not support AVX-512, so cryptography is counted as on a CPU with only AVX2."

_FORWARD = "iperf3 at 127.0.0.1, through a fixed forward of each."
_EXEC = (
    "iperf3 through `wiresnake exec`. As root the tunnel sets its receive buffer by "
    "SO_RCVBUFFORCE, beyond net.core.rmem_max, which is as it was found."
)

NOTES = {
    "UDP 64 B overload": _OFFERED,
    "UDP 1372 B overload": _OFFERED,
    "handshakes": "500 peers from 500 addresses. At a time, 16 initiations are "
    "outstanding for wiresnake and 64 for wireguard-go; with more they begin to ask "
    "for cookies.",
    "10k peers": "Resident memory is measured right after the peers were listed several times.",
    "100k peers": _PEERS,
    "TCP 1 peer": _BESIDE,
    "TCP 100k peers": _PEERS,
    "show 1 peer": "The median of ten runs, in turns with `python -c pass`.",
    "show 10k peers": "The median of ten runs.",
    "up and down 1k peers": "Each peer has its own route.",
    "reload 1 of 10k peers": "One peer's allowed IPs change. Stock uses `wg syncconf`"
    " with the output of `wg-quick strip`, like its systemd unit, which does not "
    "change routes. Meanwhile 16 KiB are sent every 4 ms, so 4 ms is the shortest "
    "time without a byte.",
    "seal 1420 B": _AVX2,
    "open 1420 B": _AVX2,
    "TCP exec": _EXEC,
    "TCP forward": _FORWARD,
    "TCP SOCKS5": "A program that sends, or reads, blocks of 256 KiB; the receiver counts.",
    "connect SOCKS5": "From connecting to the proxy to its answer that the far end has"
    " accepted, the median of 300. The round trip is that of pings from"
    " the far end through the same tunnel.",
    "start exec": "`wiresnake exec FILE -- true`, in turns with `true`; the median of 20.",
    "100 tunnels": "Each has a session with the same far end. PSS and CPU are those of the program"
    " and all its children; CPU is counted when nothing was sent for 30 s.",
    "connections": "Over one tunnel. Each has sent a byte and got it back, and again when all were"
    " open.",
    "import wiresnake": "The median of ten runs, in turns with `python -c pass`.",
}
