"""Netlink's messages: whatever comes in is read without an error, and what goes out comes back."""

import errno
import os
import struct
from contextlib import nullcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wiresnake._native import PrivateKey
from wiresnake.errors import HostError
from wiresnake.linux.genetlink import Message
from wiresnake.linux.netlink import (
    Netlink,
    Refused,
    Request,
    answers,
    attribute,
    attributes,
    fields,
    name,
    number,
    unsigned,
)
from wiresnake.linux.rtnetlink import GET_LINK, GET_ROUTE, RouteNetlink

NO_LINK = bytes(16)


def link(interface: str) -> Request:
    return Request(GET_LINK, NO_LINK + name(3, interface))


@given(st.binary(max_size=200))
def test_random_bytes_are_read_to_their_end(data: bytes) -> None:
    for answer in answers(data):
        list(attributes(answer.body))
    fields(memoryview(data))


@given(st.lists(st.tuples(st.integers(0, 0x3FFF), st.binary(max_size=9))))
def test_attributes_come_back(given: list[tuple[int, bytes]]) -> None:
    data = memoryview(b"".join(attribute(kind, value) for kind, value in given))
    assert [(kind, bytes(value)) for kind, value in attributes(data)] == given


def test_a_number_and_a_name() -> None:
    found = fields(memoryview(number(7, 0xFFFFFFFF) + name(3, "wg\udcff")))
    assert unsigned(found[7]) == 0xFFFFFFFF
    assert bytes(found[3]) == b"wg\xff\0"


def test_many_requests_one_by_one_refused() -> None:
    """More than one call takes, and more refusals than a default buffer holds."""
    good = {0, 499, 500, 1100}
    requests = [link("lo" if at in good else "no such link") for at in range(1101)]
    with Netlink() as kernel:
        refused = kernel.carry_out(requests)
        assert refused.keys() == set(range(1101)) - good
        assert {error.errno for error in refused.values()} == {errno.ENODEV}
        assert unsigned(kernel.ask(link("lo"))[4:8]) == 1, "the next answer is the next request's"


def test_the_kernels_own_words() -> None:
    nonsense = Request(GET_ROUTE, struct.pack("BBBBBBBBI", 2, 99, 0, 0, 0, 0, 0, 0, 0))
    with RouteNetlink() as kernel, pytest.raises(Refused) as refused:
        kernel.ask(nonsense)
    assert refused.value.errno == errno.EINVAL
    assert str(refused.value.strerror).startswith(f"{os.strerror(errno.EINVAL)} (")
    with Netlink() as kernel, pytest.raises(Refused) as refused:
        kernel.ask(link("no such link"))
    assert refused.value.strerror == os.strerror(errno.ENODEV)


def test_a_dump_is_whole() -> None:
    with Netlink() as kernel:
        found, whole = kernel.dump(Request(GET_LINK, NO_LINK))
        assert whole
        assert 1 in [unsigned(one[4:8]) for one in found]
        with pytest.raises(Refused):
            kernel.dump(Request(0x3FF, NO_LINK))
        assert kernel.dump(Request(0x3FF, NO_LINK), (errno.EOPNOTSUPP,))[0] == []


class Said:
    """A socket to a kernel that says what the test wants."""

    def __init__(self, *datagrams: bytes) -> None:
        self._datagrams = list(datagrams)

    def sendmsg(self, buffers: list[bytes]) -> None:
        self.sent = b"".join(buffers)

    def recv(self, _: int) -> bytes:
        return self._datagrams.pop(0)


def test_a_dump_in_which_something_changed_is_not_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    one = struct.pack("=IHHII", 20, 16, 0x12, 1, 0) + b"body"
    done = struct.pack("=IHHIIi", 20, 3, 2, 1, 0, 0)
    with Netlink() as kernel:
        monkeypatch.setattr(kernel, "_socket", Said(one + done))
        found, whole = kernel.dump(Request(GET_LINK, NO_LINK))
        monkeypatch.undo()
    assert ([bytes(body) for body in found], whole) == ([b"body"], False)


def test_keys_are_forgotten_once_they_are_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a change that the kernel takes, and of one that it refuses."""
    for refusal, refused in ((0, False), (errno.EPERM, True)):
        message = Message(7, 1)
        message.put_secret(3, PrivateKey.from_hex(b"42" * 32))
        said = Said(struct.pack("=IHHIIi", 20, 2, 0, 1, 0, -refusal))
        with Netlink() as kernel:
            monkeypatch.setattr(kernel, "_socket", said)
            with pytest.raises(HostError) if refused else nullcontext():
                message.carry_out(kernel)
            monkeypatch.undo()
        assert b"\x42" * 30 in said.sent
        assert not any(message.body)
