"""Changes of a host's network that fail, are interrupted or killed at every step.

Runs inside a host of its own, as one process for all cases.
"""

import contextlib
import errno
import fcntl
import functools
import itertools
import os
import re
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from unittest import mock

from wiresnake.errors import HostError
from wiresnake.model import Dns
from wiresnake.network import journal, observe, transaction
from wiresnake.network.model import Network, Policy, Route
from wiresnake.network.steps import ProgramStep, Step

NAME_SERVERS = Path("/run/name-servers")
ROUTES = tuple(Route(f"10.{number}.0.0/16") for number in range(100, 110)) + tuple(
    Route(f"fd77:{number}::/48") for number in range(1, 11)
)
DEFAULT = (Route("0.0.0.0/0", 51820), Route("::/0", 51820))
RICH = Network(
    1400,
    ("10.9.0.1/24", "10.9.0.2/24", "fd09::1/64", "fd09::2/64"),
    (*ROUTES, *DEFAULT),
    Policy(51820, (4, 6)),
    Dns(("10.9.0.53", "fd09::53"), ("example.net",)),
)
OTHER = Network(
    1380,
    ("10.9.0.3/24", "10.9.0.2/24", "fd09::2/64"),
    (*ROUTES[5:15], Route("10.200.0.0/16"), Route("10.201.0.0/16", 77), *DEFAULT),
    Policy(51820, (4, 6)),
    Dns(("10.9.0.54",)),
)


def unheard(_: object) -> None:
    pass


def begin(
    interface: str, say: transaction.Say = unheard, warn: transaction.Say = unheard
) -> contextlib.AbstractContextManager[transaction.Change]:
    return transaction.begin(interface, say, warn, unheard)


def recover(interface: str, say: transaction.Say, warn: transaction.Say) -> bool:
    return transaction.recover(interface, say, warn, unheard)


def tell(line: str) -> None:
    """An echoed line; nothing reads it."""


def complain(line: str) -> None:
    raise AssertionError(f"a warning: {line}")


class Link:
    """A TUN device that lives until it is deleted, whatever becomes of us."""

    def __init__(self, name: str = "wg0") -> None:
        self.descriptor = os.open("/dev/net/tun", os.O_RDWR)
        fcntl.ioctl(self.descriptor, 0x400454CA, struct.pack("16sH22x", name.encode(), 0x1001))
        Path(f"/proc/sys/net/ipv6/conf/{name}/addr_gen_mode").write_text("1")

        fcntl.ioctl(self.descriptor, 0x400454CB, 1)  # TUNSETPERSIST

    def close(self) -> None:
        os.close(self.descriptor)


LINKS: list[Link] = []
Faults = Callable[[int], contextlib.AbstractContextManager[list[int]]]


def snapshot(firewall: str) -> str:
    """The host's network, to the byte, once the kernel has looked for duplicate addresses."""
    while "tentative" in (found := look(firewall)):
        time.sleep(0.005)
    return found


def look(firewall: str) -> str:
    orders = "address show\nroute show table all\nrule show\n"
    found = [output("ip", f"-{version}", "-batch", "-", text=orders) for version in (4, 6)]
    if firewall == "nft":
        found.append(output("nft", "list", "ruleset"))
    else:
        saved = output("iptables-save") + output("ip6tables-save")
        kept = "".join(line for line in saved.splitlines(True) if line[0] != "#")
        found.append(re.sub(r"\[\d+:\d+\]", "", kept))
    found += (f"{path.name}: {path.read_text()}" for path in sorted(NAME_SERVERS.iterdir()))
    found += (path.read_text() for path in sorted(journal.DIRECTORY.glob("*")))
    return "\n".join(found)


def output(*command: str, text: str = "") -> str:
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=True)
    return done.stdout


@contextlib.contextmanager
def refuse(step: int) -> Iterator[list[int]]:
    """That step fails: the kernel refuses it alone of its batch, a program has half done it. Yields
    how often it happened."""
    request, run = transaction._request, transaction.Change._run
    begun = 0
    happened: list[int] = []

    def refuse_request(interface: str, steps: Sequence[Step]) -> dict[int, OSError]:
        nonlocal begun
        at, begun = step - begun, begun + len(steps)
        if happened or not 0 <= at < len(steps):
            return request(interface, steps)
        happened.append(step)
        assert not request(interface, [*steps[:at], *steps[at + 1 :]])
        return {at: OSError(errno.EIO, "injected")}

    def fail_run(self: transaction.Change, one: ProgramStep) -> None:
        nonlocal begun
        run(self, one)
        begun += 1
        if begun - 1 == step and not happened:
            happened.append(step)
            raise HostError(errno.EIO, "injected")

    with (
        mock.patch.object(transaction, "_request", refuse_request),
        mock.patch.object(transaction.Change, "_run", fail_run),
    ):
        yield happened


@contextlib.contextmanager
def stop_before(group: int, signals: tuple[int, ...]) -> Iterator[list[int]]:
    """A signal, each in turn, comes before that call of the kernel or of a program."""
    groups = transaction._groups
    happened: list[int] = []

    def watched(steps: Iterable[Step]) -> Iterator[list[Step]]:
        number = -1
        for number, each in enumerate(groups(steps)):
            if number == group and not happened:
                happened.append(number)
                os.kill(os.getpid(), signals[group % len(signals)])
            yield each
        if group == number + 1 and not happened:
            happened.append(group)
            os.kill(os.getpid(), signals[group % len(signals)])

    with mock.patch.object(transaction, "_groups", watched):
        yield happened


def change(wanted: Network | None) -> None:
    with begin("wg0", tell, complain) as one:
        if not observe.exists("wg0") and wanted:
            one.do("ip tuntap add dev wg0 mode tun", lambda: LINKS.append(Link()), delete)
        one.to(wanted, file="/etc/wireguard/wg0.conf", backend="user")
    if wanted is None:
        close()


def delete() -> None:
    observe.delete("wg0")
    close()


def close() -> None:
    while LINKS:
        LINKS.pop().close()


def assert_as(before: str, firewall: str, what: str) -> None:
    after = snapshot(firewall)
    if after != before:
        Path("/run/before").write_text(before)
        Path("/run/after").write_text(after)
        done = subprocess.run(
            ["diff", "-u", "/run/before", "/run/after"], capture_output=True, text=True, check=False
        )
        raise AssertionError(f"{what}:\n{done.stdout}")


def undone(first: Network | None, wanted: Network | None, firewall: str) -> int:
    """Each fault at each step of a change from `first`; the number of steps."""
    if first:
        change(first)
    before = snapshot(firewall)
    faults = (
        refuse,
        functools.partial(stop_before, signals=(signal.SIGINT, signal.SIGTERM, signal.SIGHUP)),
    )
    counts = []
    for fault in faults:
        counts.append(undone_from(before, wanted, fault, firewall))
        change(first)
    if first:
        change(None)
    return counts[0]


def undone_from(before: str, wanted: Network | None, fault: Faults, firewall: str) -> int:
    for step in itertools.count():
        with begin("wg0") as one:
            if wanted is None and step == len(one.plan(None)) - 1:
                return step  # What deletes the interface is never undone.
        with fault(step) as happened:
            try:
                change(wanted)
            except (HostError, KeyboardInterrupt, SystemExit):
                assert happened
            else:
                assert not happened
                break
        assert_as(before, firewall, f"{fault} at step {step}")
    return step


def mended(first: Network | None, wanted: Network | None, firewall: str, gone: bool) -> int:
    """A kill before each call, then recovery; with `gone`, the interface has died with it."""
    nothing = snapshot(firewall)
    for step in itertools.count():
        if first:
            change(first)
        before = snapshot(firewall)
        killed = in_a_child(step, wanted)
        if gone:
            with contextlib.suppress(HostError):
                observe.delete("wg0")
        deleted = wanted is None and not observe.exists("wg0")
        assert (transaction.leftovers("wg0") is not None) == (killed and not deleted)
        if step % 2 or not killed:
            # What a whole change made outlives its interface until it is taken away.
            recover("wg0", tell, complain)
        else:
            with begin("wg0", tell, complain):
                pass  # The next command recovers it.
        assert transaction.leftovers("wg0") is None
        if killed and not gone and not deleted:
            assert_as(before, firewall, f"killed before step {step}")
        if observe.exists("wg0"):
            change(None)
        close()
        assert_as(nothing, firewall, f"killed before step {step}, and all gone")
        if not killed:
            return step
    raise AssertionError("unreachable")


def in_a_child(step: int, wanted: Network | None) -> bool:
    """Whether it was killed."""
    child = os.fork()
    if not child:
        with stop_before(step, (signal.SIGKILL,)):
            change(wanted)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert status in (0, signal.SIGKILL), status
    return status != 0


CASES: dict[str, tuple[Network | None, Network | None]] = {
    "up": (None, RICH),
    "reload": (RICH, OTHER),
    "down": (RICH, None),
}


def main() -> None:
    firewall = sys.argv[1]
    for name in sys.argv[2:]:
        first, wanted = CASES[name]
        assert undone(first, wanted, firewall) > 5
        if firewall == "nft":  # What a kill leaves is the same with any.
            assert mended(first, wanted, firewall, gone=False) > 5
        if first is None:
            mended(first, wanted, firewall, gone=True)


if __name__ == "__main__":
    main()
