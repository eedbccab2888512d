"""OnUp and OnDown: which run, in which order, and what happens to those that fail or hang."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from wiresnake.conffile.labels import PeerLabels
from wiresnake.events import Event
from wiresnake.lifecycle.peer_hooks import PeerHooks
from wiresnake.uapi.events import KINDS, Detail


class Ran:
    """Hooks that write what they receive into a file."""

    def __init__(
        self,
        path: Path,
        on_up: tuple[str, ...] | None = None,
        on_down: tuple[str, ...] | None = None,
    ) -> None:
        self.path = path
        path.touch()
        self.said: list[str] = []
        command = f'echo "$WIRESNAKE_EVENT $WIRESNAKE_PEER $WIRESNAKE_ENDPOINT" >>{path}'
        up = (command,) if on_up is None else on_up
        down = (command,) if on_down is None else on_down
        notes = {key: PeerLabels(key, "phone", on_up=up, on_down=down) for key in ("A=", "B=")}
        self.hooks = PeerHooks(
            "wg0", lambda key: notes.get(key, PeerLabels(key)), self.said.append, 0.3
        )

    def take(self, kind: str, key: str = "A=", **details: Detail) -> None:
        made: Callable[..., Event] = KINDS[kind]
        self.hooks.take(made(public_key=key, **{"endpoint": None, **details}))

    def end(self) -> list[str]:
        self.hooks.end()
        return self.path.read_text().splitlines()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


def test_hooks_run_once_as_a_peer_connects_and_once_as_it_is_gone(log: Path) -> None:
    ran = Ran(log)
    ran.take("handshake", endpoint="one")
    ran.take("connected", endpoint="one")
    ran.take("rekey", endpoint="one")
    ran.take("roamed", endpoint="two", old_endpoint="one")
    ran.take("disconnected", reason="expired", endpoint="two")
    ran.take("connected", "C=", endpoint="it has no hooks")
    assert ran.end() == ["connected A= one", "disconnected A= two"]
    assert ran.said == []


def test_hooks_of_peers_run_where_there_is_no_bash(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As PostUp does: sh runs them."""
    monkeypatch.setattr(shutil, "which", lambda _: None)
    ran = Ran(log)
    ran.take("connected", endpoint="one")
    assert ran.end() == ["connected A= one", "disconnected A= one"]
    assert ran.said == []


def test_who_is_connected_at_the_beginning_and_at_the_end(log: Path) -> None:
    ran = Ran(log)
    ran.hooks.begin({"A=": "one"})
    ran.take("connected", endpoint="one")
    ran.take("disconnected", "B=", reason="expired")
    assert ran.end() == ["connected A= one", "disconnected A= one"]


def test_a_peer_whose_session_had_expired_at_the_beginning(log: Path) -> None:
    ran = Ran(log)
    ran.take("rekey", endpoint="one")
    assert ran.end() == ["connected A= one", "disconnected A= one"]


def test_one_peers_hooks_wait_for_each_other_and_for_nobody_else(log: Path) -> None:
    slow = f'[ $WIRESNAKE_PEER = B= ] || sleep 0.2; echo "up $WIRESNAKE_PEER" >>{log}'
    ran = Ran(log, on_up=(slow,), on_down=(f'echo "down $WIRESNAKE_PEER" >>{log}',))
    ran.take("connected", "A=")
    ran.take("connected", "B=")
    ran.take("disconnected", "A=", reason="expired")
    said = ran.end()
    assert [line for line in said if "A=" in line] == ["up A=", "down A="]
    assert said.index("up B=") < said.index("up A=")


def test_a_hook_that_hangs_or_fails_is_reported_and_stops_nobody(log: Path) -> None:
    hang = f"sleep 77 & echo begun >>{log}; wait"
    ran = Ran(log, on_up=(hang, "exit 7", "kill -TERM $$"), on_down=(f"echo %i >>{log}",))
    begun = time.monotonic()
    ran.take("connected")
    assert ran.end() == ["begun", "wg0"]
    assert time.monotonic() - begun < 5
    assert ran.said == [
        "wg0: OnUp 1 of phone was ended after 0.3 s",
        "wg0: OnUp 2 of phone exited with 7",
        "wg0: OnUp 3 of phone was killed by signal 15",
    ]


def test_many_peers_at_once_are_not_as_many_processes(log: Path) -> None:
    ran = Ran(log)
    notes = PeerLabels("", on_up=(f"echo + >>{log}; sleep 0.1; echo - >>{log}",))
    ran.hooks = PeerHooks("wg0", lambda key: notes, ran.said.append)
    ran.hooks.begin({str(number): "" for number in range(100)})
    said = ran.end()
    assert said.count("+") == said.count("-") == 100
    running = [said[: at + 1].count("+") - said[: at + 1].count("-") for at in range(200)]
    assert 1 < max(running) <= 32


def test_hooks_get_no_input_and_leave_stdout_alone(
    log: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    ran = Ran(log, on_up=("cat; echo said",), on_down=())
    ran.take("connected")
    ran.end()
    assert capfd.readouterr().out == ""
