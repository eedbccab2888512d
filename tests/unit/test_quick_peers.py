"""What a reload sends to a device: the least that makes its peers those of a file."""

import base64
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import pytest

from wiresnake._native import Endpoint, PresharedKey
from wiresnake.conffile import peer_sections
from wiresnake.conffile.scanner import scan
from wiresnake.errors import ConfigError
from wiresnake.lifecycle import reload
from wiresnake.lifecycle.others import Others, digest
from wiresnake.lifecycle.peer_diff import Difference, compare, said, whole
from wiresnake.model import CLEAR, PeerChange, Prefix
from wiresnake.uapi.snapshot import InterfaceState, PeerState


def key(number: int) -> str:
    return base64.b64encode(bytes([number]) * 32).decode()


A, B, C, SECRET, SECRET2 = map(key, range(1, 6))
LOOKED_UP: list[str] = []


def resolve(host: str, port: str) -> Endpoint:
    LOOKED_UP.append(host)
    return Endpoint({"vpn.example": "192.0.2.7"}.get(host, host), int(port))


def live(
    public: str,
    *allowed: str,
    psk: str | None = None,
    endpoint: str | None = None,
    age: float | None = None,
    keepalive: int = 0,
) -> PeerState:
    shaken = (0, 0) if age is None else (int(time.time() - age), 0)
    return PeerState(public, psk, endpoint, allowed, shaken, 0, 0, keepalive)


def peer(public: str, *lines: str) -> str:
    return "\n".join(["[Peer]", f"PublicKey = {public}", *lines, ""])


def differ(
    text: str, *peers: PeerState, applied: Mapping[str, str] | None = None, own: str | None = None
) -> Difference:
    LOOKED_UP.clear()
    state = InterfaceState("wg0", "user", None, own, 51820, 0, peers)
    wg = bytearray(f"[Interface]\n{text}".encode())
    before = bytes(wg)
    found = compare(wg, [*scan(wg)], state, applied, resolve, name="wg0.conf")
    assert wg == before
    return found


def changes(*arguments: object, **more: object) -> tuple[PeerChange, ...]:
    return tuple(one.change for one in differ(*arguments, **more).peers)  # type: ignore[arg-type]


def adding(*prefixes: str) -> tuple[tuple[bool, Prefix], ...]:
    return tuple((True, Prefix.parse(one)) for one in prefixes)


def test_what_is_so_is_not_touched_however_it_is_written() -> None:
    text = peer(
        A,
        "allowed ips=10.0.0.0/24 , 2001:DB8:0::/48 # two",
        "AllowedIPs = 10.1.2.3",
        f"PreSharedKey = {SECRET}",
        "PersistentKeepalive = 25",
        "Endpoint = vpn.example:51820",
    ) + peer(B, "PersistentKeepalive = off")
    one = live(
        A,
        *("10.1.2.3/32", "10.0.0.0/24", "2001:db8::/48"),
        psk=SECRET,
        endpoint="192.0.2.99:1",
        age=10,
        keepalive=25,
    )
    found = differ(text, one, live(B), applied={A: "vpn.example:51820"})
    assert found.peers == ()
    assert found.allowed_ips == {"10.1.2.3/32", "10.0.0.0/24", "2001:db8::/48"}
    assert LOOKED_UP == [], "no name is looked up for nothing"


def test_only_what_differs_is_sent() -> None:
    text = peer(A, "AllowedIPs = 10.0.0.0/24, 10.1.0.0/24", f"PresharedKey = {SECRET2}") + peer(
        B, "AllowedIPs = 10.2.0.0/24"
    )
    states = live(A, "10.0.0.0/24", psk=SECRET, keepalive=25), live(B, "10.2.0.0/24")
    [change] = changes(text, *states)
    assert change == PeerChange(
        base64.b64decode(A),
        update_only=True,
        preshared_key=PresharedKey.from_base64(SECRET2.encode()),
        persistent_keepalive=0,
        allowed_ips=adding("10.1.0.0/24"),
    )
    [change] = changes(peer(A, "AllowedIPs = 10.0.0.0/24"), live(A, "10.0.0.0/24", psk=SECRET))
    assert change.preshared_key is CLEAR, "what the file lacks goes"


def test_peers_come_and_go() -> None:
    gone, new = changes(peer(A, "AllowedIPs = 10.0.0.0/24", "Endpoint = vpn.example:5"), live(B))
    assert gone == PeerChange(base64.b64decode(B), remove=True)
    assert (new.public_key, new.endpoint) == (base64.b64decode(A), Endpoint("192.0.2.7", 5))


def test_a_network_that_moves_or_goes() -> None:
    """Whoever gains it takes it; a list is only sent again for what nobody takes."""
    states = live(A, "10.0.0.0/24", "10.1.0.0/24"), live(B)
    moved = changes(
        peer(A, "AllowedIPs = 10.0.0.0/24") + peer(B, "AllowedIPs = 10.1.0.0/24"), *states
    )
    assert [(one.replace_allowed_ips, one.allowed_ips) for one in moved] == [
        (False, ()),
        (False, adding("10.1.0.0/24")),
    ]
    [gone] = changes(peer(A, "AllowedIPs = 10.0.0.0/24") + peer(B), *states)
    assert (gone.replace_allowed_ips, gone.allowed_ips) == (True, adding("10.0.0.0/24"))
    # One goes, one moves: who gains comes first, so that no packet has nowhere to go.
    mixed = changes(peer(A) + peer(B, "AllowedIPs = 10.1.0.0/24"), *states)
    assert [(one.public_key[0], one.replace_allowed_ips, one.allowed_ips) for one in mixed] == [
        (2, False, adding("10.1.0.0/24")),
        (1, True, ()),
    ]
    # Two that claim one network: the last has it, in the device too, so nothing is to do.
    both = peer(A, "AllowedIPs = 10.0.0.0/24") + peer(B, "AllowedIPs = 10.0.0.0/24")
    assert changes(both, live(A), live(B, "10.0.0.0/24")) == ()


def test_a_peer_that_comes_twice() -> None:
    text = peer(A, "PersistentKeepalive = 9", "AllowedIPs = 10.0.0.0/24") + peer(
        A, "AllowedIPs = 10.1.0.0/24"
    )
    assert changes(text, live(A, "10.1.0.0/24", keepalive=9)) == ()
    [change] = changes(text, live(A, "10.0.0.0/24", keepalive=9))
    assert (change.replace_allowed_ips, change.allowed_ips) == (True, adding("10.1.0.0/24"))
    [change] = changes(peer(A, "Endpoint = 192.0.2.1:5") + peer(A), live(A))
    assert change.endpoint == Endpoint("192.0.2.1", 5)


@pytest.mark.parametrize(
    ("written", "applied", "age", "sent"),
    [
        ("192.0.2.1:5", "192.0.2.1:5", 10, False),
        ("192.0.2.1:5", "192.0.2.1:5", None, False),
        ("192.0.2.1:5", "192.0.2.1:4", 10, True),
        ("vpn.example:5", "vpn.example:5", 10, False),
        ("vpn.example:5", "vpn.example:5", 200, True),
        ("vpn.example:5", "other.example:5", 10, True),
        ("192.0.2.1:5", None, 10, False),
        ("192.0.2.1:5", None, 200, True),
        ("192.0.2.99:7", "192.0.2.1:5", None, False),
    ],
)
def test_endpoints(written: str, applied: str | None, age: float | None, sent: bool) -> None:
    """`peers` says when an endpoint is sent."""
    state = live(A, endpoint="192.0.2.99:7", age=age)
    record = None if applied is None else {A: applied}
    plain = peer(A, f"Endpoint = {written}")
    for text in (plain, plain + plain):  # The second is not judged by its text.
        found = differ(text, state, applied=record)
        assert [one.change.endpoint is not None for one in found.peers] == [True] * sent
        assert found.unsure == ((A,) if applied is None and not sent else ())


def test_a_name_that_leads_where_the_peer_is_leaves_no_doubt() -> None:
    """As when wg-quick brought the interface up, which leaves no word of what it applied."""
    text = peer(A, "Endpoint = vpn.example:5")
    assert not differ(text, live(A, endpoint="192.0.2.7:5", age=10)).unsure
    assert differ(text, live(A, endpoint="192.0.2.7:6", age=10)).unsure == (A,)


def test_own_key_is_no_peer() -> None:
    found = differ(peer(A, "AllowedIPs = 10.0.0.0/24"), own=A)
    assert (found.peers, found.allowed_ips) == ((), frozenset())


def test_mistakes_keep_their_place_behind_peers_that_are_so() -> None:
    text = peer(A, "AllowedIPs = 10.0.0.0/24") + peer(B, "AllowedIPs = 10.0.0.0/33")
    with pytest.raises(ConfigError, match=r"wg0.conf:7:1: bad value of 'AllowedIPs'"):
        differ(text, live(A, "10.0.0.0/24"))
    with pytest.raises(ConfigError, match=r"wg0.conf:4:1: neither a section nor"):
        differ(peer(A, "nonsense"), live(A))


def test_what_a_peer_was_can_be_made_again() -> None:
    state = live(A, "10.0.0.0/24", psk=SECRET, endpoint="[2001:db8::1]:7", keepalive=3)
    assert whole(state) == PeerChange(
        base64.b64decode(A),
        preshared_key=PresharedKey.from_base64(SECRET.encode()),
        endpoint=Endpoint("2001:db8::1", 7),
        persistent_keepalive=3,
        replace_allowed_ips=True,
        allowed_ips=adding("10.0.0.0/24"),
    )


class Told(NamedTuple):
    difference: Difference
    kept: set[tuple[str, str]]
    """Who keeps what."""
    notes: list[str]


def told(text: str, *peers: PeerState, before: str | None, **more: Any) -> Told:
    """Of a file that said `before` when it was last applied; None: nobody knows."""
    record = None
    if before is not None:
        wg = bytearray(before.encode())
        record = said(wg, peer_sections.read(wg, [*scan(wg)]))
    only = more.pop("only", frozenset())
    others = Others(record, **more)
    state = InterfaceState("wg0", "user", None, None, 51820, 0, peers)
    wg = bytearray(f"[Interface]\n{text}".encode())
    found = compare(wg, [*scan(wg)], state, {}, resolve, name="wg0.conf", others=others, only=only)
    gone = [one.public_key for one in found.peers if one.change.remove]
    notes = list(others.notes("wg0", "wg0.conf", {}, gone))
    return Told(found, {(one.public_key, one.what) for one in others.kept}, notes)


FILE = peer(A, "AllowedIPs = 10.0.0.1/32")
ALONE: list[dict[str, bool]] = [{}]
LOOSE = [{"hooks": True}, {"save": True}, {"hooks": True, "save": True}]


@pytest.mark.parametrize("how", [*LOOSE, {"keep": True}])
def test_what_the_file_never_named_stays(how: dict[str, bool]) -> None:
    """A peer, a preshared key, a keepalive and a network that a hook or `wg set` added."""
    peers = (
        live(A, "10.0.0.1/32", "10.1.0.0/16", psk=SECRET, keepalive=25),
        live(B, "10.0.0.2/32"),
    )
    found = told(FILE, *peers, before=FILE, **how)
    assert found.difference.peers == ()
    assert found.kept == {
        (A, "allowed ips 10.1.0.0/16"),
        (A, "preshared key"),
        (A, "persistent keepalive"),
        (B, "peer"),
    }
    assert len(found.notes) == 4
    assert not any(SECRET in line for line in found.notes)
    assert found.difference.allowed_ips == {"10.0.0.1/32"}
    assert found.difference.undecided == {"10.1.0.0/16", "10.0.0.2/32"}
    # Beside a change that is wanted, too.
    text = FILE + peer(C, "AllowedIPs = 10.0.0.3/32") + "PersistentKeepalive = 3\n"
    [change] = told(text, *peers, before=FILE, **how).difference.peers
    assert change.public_key == C
    edited = FILE.replace("10.0.0.1/32", "10.0.0.1/32, 10.4.0.0/16")
    [change] = told(edited, *peers, before=FILE, **how).difference.peers
    assert (change.gained, change.lost) == (("10.4.0.0/16",), ())
    assert (change.change.preshared_key, change.change.persistent_keepalive) == (None, None)


@pytest.mark.parametrize("how", ALONE)
def test_a_file_alone_is_the_whole_truth(how: dict[str, bool]) -> None:
    peers = live(A, "10.0.0.1/32", "10.1.0.0/16", psk=SECRET), live(B)
    gone, less = told(FILE, *peers, before=FILE, **how).difference.peers
    assert (gone.public_key, gone.change.remove) == (B, True)
    assert (less.change.preshared_key, less.lost) == (CLEAR, ("10.1.0.0/16",))


TAKEN = FILE + peer(B, f"PresharedKey = {SECRET}")


@pytest.mark.parametrize(
    ("before", "how"),
    [*((TAKEN, how) for how in [*LOOSE, *ALONE]), (None, {}), (None, {"hooks": True})],
)
def test_who_is_taken_out_of_the_file_goes(before: str | None, how: dict[str, bool]) -> None:
    """Whatever hooks there are; so does who nobody can tell of, which is said."""
    found = told(FILE, live(A, "10.0.0.1/32"), live(B, psk=SECRET), before=before, **how)
    assert [one.change.remove for one in found.difference.peers] == [True]
    assert found.kept == set()
    assert ["--keep" in line for line in found.notes] == [True] * bool(before is None and how)
    kept = told(FILE, live(A, "10.0.0.1/32"), live(B), before=before, keep=True, **how)
    assert kept.difference.peers == ()


@pytest.mark.parametrize("how", LOOSE)
def test_what_is_edited_out_goes(how: dict[str, bool]) -> None:
    before = peer(
        A, "AllowedIPs = 10.0.0.1, 10.2.0.0/16", f"PresharedKey={SECRET}", "PersistentKeepalive = 9"
    )
    [change] = told(
        FILE,
        live(A, "10.0.0.1/32", "10.2.0.0/16", psk=SECRET, keepalive=9),
        before=before,
        **how,
    ).difference.peers
    assert change.lost == ("10.2.0.0/16",)
    assert (change.change.preshared_key, change.change.persistent_keepalive) == (CLEAR, 0)


def test_without_a_record_the_interface_that_is_saved_decides() -> None:
    peers = live(A, "10.0.0.1/32", "10.1.0.0/16", psk=SECRET), live(B)
    found = told(FILE, *peers, before=None, save=True)
    assert found.difference.peers == ()
    assert len(found.notes) == 3
    [peer] = [one for one in found.notes if B in one]
    assert "remove it here too" in peer and "wiresnake remove PEER --reload" in peer


def test_without_a_record_only_values_stay() -> None:
    """They let nobody in; a network does."""
    state = live(A, "10.0.0.1/32", "10.1.0.0/16", psk=SECRET, keepalive=9)
    found = told(FILE, state, before=None, hooks=True)
    [change] = found.difference.peers
    assert change.lost == ("10.1.0.0/16",)
    assert (change.change.preshared_key, change.change.persistent_keepalive) == (None, None)
    assert found.kept == {(A, "preshared key"), (A, "persistent keepalive")}


def test_with_save_config_the_interface_decides_what_was_not_edited() -> None:
    before = peer(A, "AllowedIPs = 10.0.0.1, 10.2.0.0/16", f"PresharedKey = {SECRET}") + peer(B)
    state = live(A, "10.0.0.1/32", psk=SECRET2, keepalive=3)
    found = told(before, state, before=before, save=True)
    assert found.difference.peers == ()
    assert found.difference.allowed_ips == {"10.0.0.1/32"}
    assert "stays removed" in "".join(found.notes)
    # With hooks the file does: what it names comes back.
    changed, new = told(before, state, before=before, hooks=True).difference.peers
    assert (new.public_key, changed.gained) == (B, ("10.2.0.0/16",))
    # And what was edited since is applied.
    edited = before.replace(SECRET, key(9)).replace("10.2.", "10.3.")
    [change] = told(edited, state, before=before, save=True).difference.peers
    assert change.gained == ("10.3.0.0/16",)
    assert change.change.preshared_key == PresharedKey.from_base64(key(9).encode())


def test_a_network_that_the_file_gives_to_another_moves() -> None:
    text = FILE + peer(B, "AllowedIPs = 10.1.0.0/16")
    found = told(text, live(A, "10.0.0.1/32", "10.1.0.0/16"), before=FILE, hooks=True)
    gained = {one.public_key: one.gained for one in found.difference.peers}
    assert gained[B] == ("10.1.0.0/16",)
    assert found.difference.undecided == frozenset()
    assert "10.1.0.0/16" in found.difference.allowed_ips


def test_one_peer_alone() -> None:
    """Nothing else is looked at: neither mistakes nor names of others, nor who is to go."""
    text = (
        peer(A, "Endpoint = nowhere.invalid:5", "AllowedIPs = 10.0.0.0/99")
        + peer(B, "AllowedIPs = 10.0.0.2")
        + peer(key(8), "AllowedIPs = 10.0.0.8")
    )
    LOOKED_UP.clear()
    peers = live(A), live(C), live(key(7))
    found = told(text, *peers, before="", only={B, C}).difference
    assert [(one.public_key, one.change.remove) for one in found.peers] == [(C, True), (B, False)]
    assert LOOKED_UP == []
    # Who is asked for goes, also where it was never in the file.
    found = told(text, *peers, before="", only={C}, hooks=True).difference
    assert [one.change.remove for one in found.peers] == [True]


def test_many_are_said_in_one_line() -> None:
    many = [live(key(number)) for number in range(50, 60)]
    [line] = told(FILE, live(A, "10.0.0.1/32"), *many, before=FILE, hooks=True).notes
    assert "and 5 more" in line
    assert line.count("=") == 5


def test_a_record_holds_no_secret() -> None:
    wg = bytearray(peer(A, f"PresharedKey = {SECRET}", "AllowedIPs = 10.0.0.1").encode())
    found = said(wg, peer_sections.read(wg, [*scan(wg)]))
    assert SECRET not in str(found)
    assert found[A].preshared_key == digest(SECRET.encode()) != ""
    assert found[A].allowed_ips == ("10.0.0.1/32",)


@pytest.mark.parametrize(
    ("step", "sign"),
    [
        ("ip -4 address add 10.0.0.1/24 dev del", "+"),
        ("ip -6 route delete fd00::/64 dev add", "-"),
        ("ip -4 rule del not fwmark 1 table 1", "-"),
        ("ip link set mtu 1420 up dev add", "~"),
        ("resolvconf -d delete -f", "~"),
        ("resolvectl dns add 10.0.0.1", "~"),
        ("ip link delete dev add", "-"),
    ],
)
def test_the_sign_of_a_step_is_its_verbs(step: str, sign: str) -> None:
    assert reload._signed(step) == f"{sign} {step}"
