"""The pure parts of the benchmark's handshakes, many peers and instructions."""

import json
import os
import socket
import struct
import threading
from pathlib import Path

import pytest
from wiresnake_conformance import oracle

from bench import instructions, scale
from bench.handshakes import Initiators, inner_address, responds_to, source_address
from bench.tunnel import FAR
from lab.hosts import LabError


def test_initiations_of_a_later_turn_are_newer_and_no_index_comes_twice() -> None:
    initiators = Initiators(2)
    turns = [initiators.initiate(turn) for turn in range(3)]
    assert [each.index for turn in turns for each in turn] == list(range(6))
    for number in range(2):
        key = initiators.keys[number]
        times = [timestamp(each.message, initiators, key) for each in (t[number] for t in turns)]
        assert times == sorted(set(times))


def timestamp(message: bytes, initiators: Initiators, key: oracle.Key) -> bytes:
    state = oracle.State(initiators.device.public)
    state.mix_ephemeral(message[8:40])
    state.mix_key(initiators.device.exchange(message[8:40]))
    assert state.open(message[40:88]) == key.public
    state.mix_key(initiators.device.exchange(key.public))
    return state.open(message[88:116])


def test_a_response_is_known_by_type_length_and_receiver() -> None:
    response = struct.pack("<III", 2, 77, 105) + bytes(80)
    assert responds_to(response, 100) == 5
    assert responds_to(response, 106) is None
    assert responds_to(response[:-1], 100) is None
    assert responds_to(b"\x03" + response[1:], 100) is None


def test_peers_have_addresses_of_their_own() -> None:
    assert (inner_address(0), inner_address(65_536)) == ("10.64.0.0", "10.65.0.0")
    assert (source_address(0), source_address(499)) == ("198.18.0.1", "198.18.1.244")
    text = scale.idle(300)
    assert text.count("[Peer]") == len(set(text.splitlines())) // 2 == 300


def test_what_is_discarded_is_a_good_packet() -> None:
    packet = scale.discarded("10.64.0.7")
    assert len(packet) == 200
    total = sum(struct.unpack("!10H", packet[:20]))
    assert (total & 0xFFFF) + (total >> 16) == 0xFFFF
    assert packet[12:20] == socket.inet_aton("10.64.0.7") + socket.inet_aton(FAR)
    assert struct.unpack("!HHH", packet[20:26]) == (9, 9, 180)


@pytest.mark.parametrize("cut", [1, 2, 7, 100])
def test_a_reply_ends_with_the_empty_line_wherever_it_is_cut(tmp_path: Path, cut: int) -> None:
    path, reply = str(tmp_path / "sock"), b"a=1\nb=2\nerrno=0\n\n"

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            assert connection.recv(100) == b"get=1\n\n"
            for at in range(0, len(reply), cut):
                connection.sendall(reply[at : at + cut])
            connection.recv(1)  # held open: the client must not need the end

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(path)
        listener.listen()
        thread = threading.Thread(target=serve)
        thread.start()
        assert scale.read_all(path, b"get=1\n\n") == len(reply)
        thread.join(5)
        assert not thread.is_alive()


def test_memory_is_read_in_bytes() -> None:
    assert 1e6 < scale.resident(os.getpid()) < 1e10


def test_the_bench_binary_is_the_one_executable() -> None:
    lines = [{"executable": None}, {"reason": "x"}, {"executable": "/t/packets-1"}]
    messages = "\n".join(map(json.dumps, lines))
    assert instructions.executable(messages) == Path("/t/packets-1")
    with pytest.raises(LabError):
        instructions.executable(messages.splitlines()[0])


def test_callgrinds_total_is_found() -> None:
    report = "==7== Events    : Ir\n==7== Collected : 1234567\n==7==\n==7== I   refs: 1,234,567\n"
    assert instructions.collected(report) == 1_234_567
    with pytest.raises(LabError):
        instructions.collected("==7== killed")
