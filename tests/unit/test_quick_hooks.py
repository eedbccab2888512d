"""PreUp and its kind: what a command finds around it, as in wg-quick; names that it makes known."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from wiresnake._native import Endpoint
from wiresnake.conffile import wg_quick
from wiresnake.lifecycle import hooks, keeper
from wiresnake.lifecycle.applied import Applied
from wiresnake.lifecycle.hooks import HookFailed, Variables
from wiresnake.lifecycle.resolve import later, resolver

TEXT = b"""[Interface]
Address = 10.9.0.1/24, fd00::1/64
DNS = 10.9.0.53, corp.example lan
MTU = 1380
Table = 123
SaveConfig = true
"""


def said(command: str, path: Path, text: bytes = TEXT) -> str:
    """What a hook of that file writes to $OUT, the file's own variables around it."""
    os.environ["OUT"] = str(path / "out")
    file = wg_quick.parse(bytearray(text), "wg0.conf")
    variables = Variables.of(file, "/etc/wireguard/wg0.conf")
    hooks.run([command], "wg0", variables, lambda _: None)
    return (path / "out").read_text()


def test_variables_of_wg_quick(tmp_path: Path) -> None:
    """Hooks are evaluated within wg-quick, and so have all of these there."""
    plain = '>"$OUT" printf "%s;" "$INTERFACE" "$CONFIG_FILE" "$MTU" "$TABLE" "$SAVE_CONFIG"'
    assert said(plain, tmp_path) == "wg0;/etc/wireguard/wg0.conf;1380;123;1;"
    lists = '>"$OUT" printf "%s;" "${ADDRESSES[@]}" ${#DNS[@]} "${DNS[@]}" "${DNS_SEARCH[@]}"'
    assert said(lists, tmp_path) == "10.9.0.1/24;fd00::1/64;1;10.9.0.53;corp.example;lan;"
    nothing = '>"$OUT" echo "${#ADDRESSES[@]}.$MTU.$TABLE.$SAVE_CONFIG"'
    assert said(nothing, tmp_path, b"[Interface]\n") == "0...0\n"
    assert said('cmd eval "echo done %i >$OUT"', tmp_path) == "done wg0\n"


def test_a_program_of_a_hook_finds_the_interface_and_the_file(tmp_path: Path) -> None:
    """And nothing that may have another meaning for it."""
    script = "import os; print(*map(os.environ.get, ('INTERFACE', 'CONFIG_FILE', 'MTU', 'TABLE')))"
    found = said(f'{sys.executable} -c "{script}" >$OUT', tmp_path)
    assert found == "wg0 /etc/wireguard/wg0.conf None None\n"


def test_what_the_caller_exported_is_no_way_to_the_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("MTU", "TABLE", "DNS", "DNS_SEARCH", "ADDRESSES", "SAVE_CONFIG")
    for name in names:
        monkeypatch.setenv(name, "the caller's")
    script = f"import os; print(*map(os.environ.get, {names}))"
    assert (
        said(f'{sys.executable} -c "{script}" >$OUT', tmp_path) == f"{'None ' * 6}".strip() + "\n"
    )


def test_a_process_of_another_interface_is_let_live(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its number may have been that of one that has ended."""
    ended: list[tuple[int, int]] = []
    script = "import sys; print(flush=True); sys.stdin.read()"
    words = ["-c", script, "events", "--hooks", "/x/wg0.conf", "wg0"]
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, *words], stdin=pipe, stdout=pipe) as process:
        try:
            # `Popen` returns once the program's files are closed, a moment before the kernel knows
            # its words: until then /proc has none.
            assert process.stdout is not None
            process.stdout.readline()
            with monkeypatch.context() as patched:
                patched.setattr(os, "kill", lambda *call: ended.append(call))
                record = Applied(events=process.pid)
                for other in ("wg1", "g0", "wg", "/x/wg0.conf"):
                    keeper.stop(record, other)
                assert ended == []
                keeper.stop(record, "wg0")
                assert ended == [(process.pid, signal.SIGTERM)]
        finally:
            process.kill()


@pytest.mark.parametrize("table", ["$(touch here)", "a'b", "`touch here`", "x;touch", '"', "\\"])
def test_a_value_is_no_command(table: str, tmp_path: Path) -> None:
    text = TEXT.replace(b"123", table.replace(" ", "").encode())
    assert said('>"$OUT" echo "$TABLE"', tmp_path, text) == table.replace(" ", "") + "\n"
    assert not (tmp_path / "here").exists()


def test_a_hook_fails_with_its_code() -> None:
    with pytest.raises(HookFailed) as failed:
        hooks.run(["true", "exit 5"], "wg0", Variables("wg0.conf"), lambda _: None)
    assert failed.value.code == 5


def test_without_bash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is only sh, it has no lists: but the interface and the file it has."""
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert said('echo "$INTERFACE $CONFIG_FILE" >"$OUT"', tmp_path) == (
        "wg0 /etc/wireguard/wg0.conf\n"
    )


def test_before_a_pre_up_no_name_is_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """But what no hook can make right is judged."""

    def look_up(host: str, *_: object, **__: object) -> object:
        asked.append(host)
        raise OSError("no resolver")

    asked: list[str] = []
    monkeypatch.setattr("wiresnake.lifecycle.resolve.socket.getaddrinfo", look_up)
    for name in ("vpn.example.org", "fe80::1%eth9", "127.1"):
        assert later(name, "7") == Endpoint("0.0.0.0", 7)
    assert later("192.0.2.7", "51820") == Endpoint("192.0.2.7", 51820)
    assert not asked
    with pytest.raises(OSError, match="no resolver"):
        later("vpn.example.org", "no-such-service")
    assert asked == ["0.0.0.0"]


def test_of_several_addresses_it_is_one_with_a_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """The resolver prefers IPv6 where, past a tunnel that is shut, there is none."""
    found = [(0, 0, 0, "", ("2001:db8::1", 7, 0, 0)), (0, 0, 0, "", ("192.0.2.7", 7))]
    monkeypatch.setattr("wiresnake.lifecycle.resolve.socket.getaddrinfo", lambda *_, **__: found)
    assert resolver(0, lambda one: ":" not in one)("vpn", "7") == Endpoint("192.0.2.7", 7)
    assert resolver(0, lambda _: False)("vpn", "7") == Endpoint("2001:db8::1", 7)
    assert resolver()("vpn", "7") == Endpoint("2001:db8::1", 7)


def test_what_the_shell_is_told_is_one_line() -> None:
    """So that its errors name the line of the hook."""
    assert "\n" not in Variables("wg0.conf", ("10.0.0.1/24",)).prelude()
    assert (
        subprocess.run(["bash", "-n", "-c", Variables("x").prelude()], check=False).returncode == 0
    )
