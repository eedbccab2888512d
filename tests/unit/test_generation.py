"""A copy of a virtual machine is heard of, and nothing else is taken for one."""

import asyncio
import errno
import os
import socket
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from wiresnake.linux import generation
from wiresnake.linux.generation import GenerationWatch, tells_of_a_new_generation

PATH = b"/devices/LNXSYSTM:00/LNXSYBUS:00/QEMUVGID:00"
EVENT = b"change@%b\0ACTION=change\0DEVPATH=%b\0SUBSYSTEM=acpi\0NEW_VMGENID=1\0SEQNUM=4711\0" % (
    PATH,
    PATH,
)
"""As drivers/virt/vmgenid.c and lib/kobject_uevent.c write it."""
KERNEL, SOMEBODY = (0, 1), (4711, 1)


def test_the_kernels_word_is_heard() -> None:
    assert tells_of_a_new_generation(EVENT, KERNEL)


@pytest.mark.parametrize(
    ("event", "sender"),
    [
        (EVENT, SOMEBODY),
        (EVENT.replace(b"change", b"add"), KERNEL),
        # What `echo change UUID NEW_VMGENID=1 > uevent` makes.
        (EVENT.replace(b"NEW_VMGENID", b"SYNTH_UUID=0\0SYNTH_ARG_NEW_VMGENID"), KERNEL),
        (EVENT.replace(b"=1\0", b"=10\0"), KERNEL),
        (b"libudev\0" + EVENT, KERNEL),
    ],
)
def test_another_word_is_not(event: bytes, sender: tuple[int, int]) -> None:
    assert not tells_of_a_new_generation(event, sender)


@example(b"")
@given(st.binary(max_size=300))
def test_any_bytes_are_a_uevent(event: bytes) -> None:
    assert not tells_of_a_new_generation(event, KERNEL)


def test_devices_that_come_and_go_do_not_even_wake_us() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, theirs:
        generation.keep_changes(ours)
        ours.setblocking(False)
        for event in (b"add@/devices/x\0", b"cha", b"", EVENT, b"remove@/devices/x\0"):
            theirs.send(event)
        assert ours.recv(8192) == EVENT
        with pytest.raises(BlockingIOError):
            ours.recv(8192)


def play(scene: Callable[[socket.socket, list[int]], None], said: list[OSError]) -> int:
    """How often a watch called, that hears what a scene writes, as if the kernel had."""

    class Uevents(socket.socket):
        def recvfrom(self, *words: object) -> tuple[bytes, tuple[int, int]]:
            if said:
                raise said.pop()
            return super().recv(8192), KERNEL

    async def main() -> int:
        calls: list[int] = []
        watch = GenerationWatch(lambda: calls.append(1))
        scene(theirs, calls)
        await asyncio.sleep(0.05)
        watch.close()
        return len(calls)

    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    heard = Uevents(fileno=ours.detach())
    heard.setblocking(False)
    with pytest.MonkeyPatch.context() as patch, theirs:
        patch.setattr(generation, "_subscribe", lambda: heard)
        return asyncio.run(main())


def test_each_generation_is_told_once() -> None:
    def scene(events: socket.socket, calls: list[int]) -> None:
        for event in (EVENT, b"change@/devices/power\0ACTION=change\0", EVENT):
            events.send(event)

    assert play(scene, []) == 2


def test_what_was_lost_may_have_been_it() -> None:
    lost = OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))

    def scene(events: socket.socket, calls: list[int]) -> None:
        events.send(b"x")

    assert play(scene, [lost]) == 1


def test_a_host_without_uevents_is_none_to_hear(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> socket.socket:
        raise OSError(errno.EPROTONOSUPPORT, "Protocol not supported")

    async def main() -> None:
        GenerationWatch(lambda: None).close()

    monkeypatch.setattr(generation, "_subscribe", refuse)
    asyncio.run(main())


def test_the_subscription_is_one_that_the_kernel_gives() -> None:
    """Or refuses, as some sandboxes do; with a filter that it takes."""
    try:
        events = generation._subscribe()
    except OSError as error:
        pytest.skip(f"this host has no uevents: {error.strerror}")
    with events:
        assert events.getsockname()[1] == 1
