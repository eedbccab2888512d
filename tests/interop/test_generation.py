"""The kernel's own uevents, as far as a machine that is not copied has any."""

import select
import socket
from pathlib import Path

import pytest
from interop.harness import unavailable

from wiresnake.linux import generation

TRIGGER = Path("/sys/class/mem/null/uevent")


@pytest.mark.alone  # All daemons of this host hear its events, those that are to sleep too.
def test_only_the_kernel_can_say_that_the_machine_was_copied() -> None:
    with generation._subscribe() as events:

        def heard() -> tuple[bytes, tuple[int, int]]:
            assert select.select([events], [], [], 5)[0], "no uevent within 5 s"
            event, sender = events.recvfrom(8192)
            return event, sender

        try:
            TRIGGER.write_text("change 11111111-2222-3333-4444-555555555555 NEWxVMGENID=1")
        except OSError as error:
            unavailable(f"{TRIGGER} takes no event ({error.strerror}): run where /sys is writable")
        # The host may have events of its own.
        while b"SYNTH_ARG_NEWxVMGENID=1" not in (told := heard())[0]:
            pass
        event, kernel = told
        assert kernel == (0, 1)
        assert not generation.tells_of_a_new_generation(event, kernel)

        own = b"change@/x\0ACTION=change\0NEW_VMGENID=1\0"
        with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, 15) as other:
            for target in (0, 1), (events.getsockname()[0], 0):  # to all, and to us alone
                other.sendto(own, target)
                while (told := heard())[0] != own:
                    pass
                assert not generation.tells_of_a_new_generation(*told)
        assert generation.tells_of_a_new_generation(own, kernel)
