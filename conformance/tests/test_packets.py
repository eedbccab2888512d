"""The form of the suite's own packets. `test_run` checks that the kernel accepts them."""

from wiresnake_conformance import packets


def test_headers_are_right() -> None:
    for source, target, empty in (("10.0.0.1", "10.0.0.2", 28), ("fd00::1", "fd00::2", 48)):
        raw = packets.sized(source, target, empty + 13, tos=0xBB)
        packet = packets.read(raw)
        assert packet is not None
        assert (packet.source, packet.target, packet.tos) == (source, target, 0xBB)
        assert len(raw) == empty + 13
        assert packet.payload[8:] == bytes(range(13))
        assert packet.protocol == packets.UDP
    assert packets.checksum(packets.udp("10.0.0.1", "10.0.0.2")[:20]) == 0


def test_what_is_no_packet() -> None:
    for raw in (b"", b"\x45", bytes(40), b"\x60" + bytes(38)):
        assert packets.read(raw) is None
