"""Each reason of `wiresnake why` from facts that were written down; interop makes them for real."""

import errno
import json
from dataclasses import replace
from typing import Any

import pytest

from wiresnake.conffile.labels import PeerLabels
from wiresnake.diagnosis import forwarding, render, units
from wiresnake.diagnosis.facts import Facts, Forwarding, Lookup, Probe, Way
from wiresnake.diagnosis.rules import diagnose
from wiresnake.diagnosis.target import Named, Target, find, nearest
from wiresnake.diagnosis.verdict import Verdict
from wiresnake.errors import ConfigError
from wiresnake.uapi.snapshot import InterfaceState, PeerState
from wiresnake.uapi.vocabulary import DeviceReport, PeerReport

NOW = 1_800_000_000
KEY, OTHER, STRANGER = (letter * 43 + "=" for letter in "ABC")
ENDPOINT, ELSEWHERE = "192.0.2.2:51820", "198.51.100.9:4711"
PEER = PeerState(KEY, None, ENDPOINT, ("10.0.0.0/24", "fd00::/64"), (0, 0), 0, 0, 0)
TRIED = PeerReport(
    KEY, ENDPOINT, initiations=7, first_initiation_age_ms=35_000, last_initiation_age_ms=2_000
)
TALKING = PeerReport(
    KEY, ENDPOINT, "live", session_age_ms=9_000, received_age_ms=900, sent_age_ms=500
)


def shaken(peer: PeerState, age: int) -> PeerState:
    return peer._replace(latest_handshake=(NOW - age, 0), received=4_000, sent=5_000)


def facts(report: PeerReport | None = TRIED, peer: PeerState | None = PEER, **more: Any) -> Facts:
    """Our own device with one peer, whose endpoint is reached by eth0."""
    peers = (peer,) if peer else ()
    state = InterfaceState("wg0", "user", None, "OWN=", 51820, 0, (*peers, *more.pop("peers", ())))
    ours = Facts(
        state=state,
        up=True,
        wall=NOW,
        peer=peer,
        device=DeviceReport(up=True, bound=True),
        report=report,
        endpoint_way=Way("192.0.2.2", "eth0"),
        inner_ways=(Way("10.0.0.1", "wg0"),),
    )
    return replace(ours, **more)


def kernel(peer: PeerState, **more: Any) -> Facts:
    made = facts(None, peer, device=None, **more)
    return replace(made, state=made.state._replace(backend="kernel"))


def device(**values: Any) -> DeviceReport:
    return DeviceReport(**{"up": True, "bound": True, **values})


KNOCKED = device(
    unknown_initiations=4,
    unknown_initiator=STRANGER,
    unknown_initiator_endpoint="192.0.2.2:40000",
    unknown_initiator_age_ms=3_000,
)
CASES = {
    "talking": facts(TALKING, shaken(PEER, 9)),
    "talking, a rekey under way": facts(
        replace(TALKING, initiations=1, first_initiation_age_ms=400, last_initiation_age_ms=400)
    ),
    "interface_down": facts(up=False),
    "no_private_key": facts(state=facts().state._replace(public_key=None)),
    "no_such_peer": facts(None, None, missing=STRANGER, device=KNOCKED),
    "no_such_peer, but in the file": facts(None, None, missing=STRANGER, in_file=True),
    "not_in_allowed_ips": facts(None, None, address="10.9.9.9"),
    "not_routed": facts(address="10.0.0.1", inner_ways=(Way("10.0.0.1", "eth0", "192.0.2.254"),)),
    "not_routed, nowhere": facts(
        address="10.0.0.1", inner_ways=(Way("10.0.0.1", error=errno.ENETUNREACH),)
    ),
    "not_routed, an own address": facts(address="10.0.0.1", inner_ways=(Way("10.0.0.1", "lo"),)),
    "not_routed, asked by key": facts(
        PeerReport(KEY, ENDPOINT), inner_ways=(Way("10.0.0.1", "eth0"),)
    ),
    "source_not_allowed": facts(
        replace(
            TALKING, rejected_sources=8, rejected_source="10.7.0.1", rejected_source_age_ms=800
        ),
        shaken(PEER, 9),
    ),
    "not_forwarded": facts(
        TALKING, shaken(PEER, 9), forwarding=Forwarding((), ("FORWARD in x",), masked=True)
    ),
    "talking, and reaches this host alone": facts(
        TALKING, shaken(PEER, 9), forwarding=Forwarding((4, 6), masked=True)
    ),
    "talking, and nothing is known to forward it": facts(
        TALKING, shaken(PEER, 9), forwarding=Forwarding((), ("FORWARD in x",))
    ),
    "talking, with its own address": facts(TALKING, shaken(PEER, 9), forwarding=Forwarding()),
    "talking, and only root knows": facts(
        TALKING, shaken(PEER, 9), forwarding=Forwarding(unread=True)
    ),
    "clock_unset": facts(wall=86_400.0),
    "key_or_psk_differs": facts(replace(TRIED, bad_responses=7, bad_response_age_ms=2_000)),
    "endpoint_unresolved": facts(
        None,
        PEER._replace(endpoint=None),
        file_endpoint="vpn.example.org:51820",
        lookup=Lookup("vpn.example.org", error="Name or service not known"),
    ),
    "endpoint_in_tunnel": facts(endpoint_way=Way("192.0.2.2", "wg0")),
    "no_route": facts(
        replace(TRIED, send_errors=7, send_error=errno.ENETUNREACH, send_error_age_ms=2_000)
    ),
    "no_route, by lookup": kernel(
        PEER._replace(sent=148), endpoint_way=Way("192.0.2.2", error=errno.ENETUNREACH)
    ),
    "blocked_here": facts(
        replace(TRIED, send_errors=7, send_error=errno.EPERM, send_error_age_ms=2_000)
    ),
    "blocked_here, by probe": kernel(PEER._replace(sent=148), probe=Probe(False, errno.EPERM)),
    "cannot_send": facts(
        replace(TRIED, send_errors=7, send_error=errno.EINVAL, send_error_age_ms=2_000)
    ),
    "no_socket": facts(device=device(bound=False)),
    "clock_behind": facts(
        PeerReport(KEY, ENDPOINT, stale_initiations=3, stale_initiation_age_ms=4_000)
    ),
    "public_key_differs": facts(device=KNOCKED),
    "our_public_key_differs": facts(
        device=device(
            invalid_mac1=3, invalid_mac1_endpoint="192.0.2.2:51820", invalid_mac1_age_ms=1_000
        )
    ),
    "answers_lost": facts(
        PeerReport(KEY, ENDPOINT, unconfirmed_responses=5, unconfirmed_response_age_ms=3_000)
    ),
    "answers_lost, in a session": facts(
        replace(
            TALKING,
            unconfirmed_responses=3,
            unconfirmed_response_age_ms=1_000,
            received_age_ms=1_001,
        ),
        shaken(PEER, 60),
    ),
    "talking, over a lossy way": facts(
        replace(
            TALKING, unconfirmed_responses=3, unconfirmed_response_age_ms=1_000, received_age_ms=200
        ),
        shaken(PEER, 60),
    ),
    "answers_lost, of the kernel": kernel(PEER._replace(received=296, sent=184)),
    "no_endpoint": facts(PeerReport(KEY, staged=3), PEER._replace(endpoint=None)),
    "no_endpoint, not applied": facts(
        PeerReport(KEY), PEER._replace(endpoint=None), file_endpoint=ENDPOINT
    ),
    "endpoint_moved": facts(lookup=Lookup("vpn.example.org", ("203.0.113.7",))),
    "under_load": facts(replace(TRIED, cookie_replies=6, cookie_reply_age_ms=2_000)),
    "nobody_listens": facts(probe=Probe(True, errno.ECONNREFUSED)),
    "udp_filtered": facts(probe=Probe(True)),
    "udp_filtered, says a firewall": facts(probe=Probe(True, errno.EHOSTUNREACH)),
    "no_answer, no such host": facts(probe=Probe(False, errno.EHOSTUNREACH)),
    "no_answer": facts(probe=Probe(False)),
    "no_answer, of the kernel": kernel(PEER._replace(sent=148 * 5), probe=Probe(False)),
    "no_answer, in a session": facts(
        replace(TALKING, received_age_ms=60_000, initiations=4, first_initiation_age_ms=30_000),
        shaken(PEER, 60),
        file_endpoint=ENDPOINT,
    ),
    "away": facts(peer=shaken(PEER, 4000), probe=Probe(True)),
    "away, says its router": facts(peer=shaken(PEER, 4000), probe=Probe(False, errno.ECONNREFUSED)),
    "idle": facts(PeerReport(KEY, ENDPOINT, "expired"), shaken(PEER, 4000)),
    "idle, of the kernel": kernel(shaken(PEER, 4000), probe=Probe(True)),
}


@pytest.mark.parametrize("case", CASES)
def test_reason(case: str) -> None:
    first = diagnose(CASES[case])[0]
    assert first.reason == case.partition(",")[0]
    assert first.talking == (first.reason == "talking")
    for said in filter(None, (first.says, *first.evidence, first.remedy)):
        assert said.endswith(".")
        assert "None" not in said


def said(verdict: Verdict) -> str:
    return " ".join((verdict.says, *verdict.evidence, verdict.remedy))


@pytest.mark.parametrize(
    ("case", "parts"),
    [
        ("no_answer", ["7 initiations sent, the first 35 s ago, the last 2.0 s ago", "OWN="]),
        ("no_answer", ["PublicKey here is not the peer's", f"must print {KEY}"]),
        ("udp_filtered", ["PublicKey here is not the peer's", f"must print {KEY}", "OWN="]),
        ("no_endpoint", ["No handshake from anyone has reached UDP port 51820"]),
        ("not_forwarded", ["dropped by FORWARD in x", "iptables -I FORWARD -i wg0"]),
        ("talking, and reaches this host alone", ["not forward IPv4 and IPv6", "ip_forward"]),
        ("talking, and nothing is known to forward it", ["This host drops", "in FORWARD in x"]),
        ("talking, with its own address", ["masquerade"]),
        ("talking, and only root knows", ["Only root can see"]),
        ("no_answer, of the kernel", ["about 5 initiations"]),
        ("no_such_peer", [f"by {STRANGER} from 192.0.2.2:40000", "wiresnake set wg0 peer"]),
        ("no_such_peer, but in the file", ["was not applied", "wiresnake reload wg0"]),
        ("not_routed", ["leave through eth0", "via 192.0.2.254"]),
        ("source_not_allowed", ["10.7.0.1", "8 packets dropped", "10.0.0.0/24, fd00::/64"]),
        ("blocked_here", ["EPERM: a firewall on this host refused it", "7 datagrams"]),
        ("public_key_differs", ["4 handshake initiations", f"by {STRANGER} from 192.0.2.2:40000"]),
        ("endpoint_unresolved", ["Name or service not known"]),
        ("endpoint_moved", ["203.0.113.7", ENDPOINT]),
    ],
)
def test_evidence_has_the_numbers(case: str, parts: list[str]) -> None:
    text = said(diagnose(CASES[case])[0])
    for part in parts:
        assert part in text


def test_an_open_port_is_told_from_a_closed_one() -> None:
    nowhere = PEER._replace(endpoint=None)
    other = shaken(PEER._replace(public_key=OTHER), 4000)
    never = facts(PeerReport(KEY), nowhere, peers=(other,))
    assert "Other peers have reached UDP port 51820" in said(diagnose(never)[0])
    long_ago = device(invalid_mac1=1, invalid_mac1_endpoint=ENDPOINT, invalid_mac1_age_ms=10**9)
    knocked = facts(PeerReport(KEY), nowhere, device=long_ago)
    assert "Handshakes do arrive at UDP port 51820" in said(diagnose(knocked)[0])


def test_who_talked_before_has_the_right_keys() -> None:
    asked = facts(peer=shaken(PEER, 400), file_endpoint=ENDPOINT, probe=Probe(True))
    assert "PublicKey here" not in said(diagnose(asked)[0])


DOCKER = """\
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:DOCKER - [0:0]
:DOCKER-USER - [0:0]
-A INPUT -i wg0 -j ACCEPT
-A FORWARD -j DOCKER-USER
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A DOCKER -j ACCEPT
-A DOCKER-USER -j RETURN
COMMIT
*nat
:POSTROUTING ACCEPT [0:0]
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
COMMIT
"""


def drops(text: str, *sources: str) -> list[str]:
    """The chains that drop what wg0 brings, of what iptables-save prints."""
    packet = forwarding._Packet("wg0", sources or ("10.0.0.2/32",))
    return list(forwarding.dropping(forwarding.chains_of_iptables([text]), packet))


def test_which_chain_of_iptables_drops() -> None:
    assert drops(DOCKER) == ["FORWARD in iptables' table filter, whose policy is DROP"]
    assert not drops(DOCKER.replace("FORWARD DROP", "FORWARD ACCEPT"))
    for rule in (
        "-A FORWARD -i wg0 -j ACCEPT",
        "-A FORWARD -i wg+ -o eth0 -j ACCEPT",
        "-A DOCKER-USER -s 10.0.0.0/8 -j ACCEPT",
        '-A FORWARD -i wg0 -m comment --comment "let them in" -j ACCEPT',
        "-A FORWARD -m comment --comment all -j ACCEPT",
    ):
        first = DOCKER.replace("-A DOCKER-USER -j RETURN", f"{rule}\n-A DOCKER-USER -j RETURN")
        assert not drops(first), rule
    for rule in (
        "-A FORWARD -i wg1 -j ACCEPT",
        "-A FORWARD ! -i wg0 -j ACCEPT",
        "-A FORWARD -s 10.9.0.0/16 -j ACCEPT",
        "-A FORWARD -i wg0 -m state --state ESTABLISHED -j ACCEPT",
        "-A FORWARD -p tcp -m tcp --dport 80 -j ACCEPT",
    ):
        assert drops(DOCKER.replace("-A DOCKER-USER -j RETURN", rule)), rule
    # A last rule that refuses, as images of cloud providers have it.
    refuses = DOCKER.replace("FORWARD DROP", "FORWARD ACCEPT").replace(
        "-A DOCKER -j", "-A FORWARD -j REJECT --reject-with icmp-host-prohibited\n-A DOCKER -j"
    )
    assert drops(refuses) == ["a rule of FORWARD in iptables' table filter"]
    assert drops(
        "*filter\n:FORWARD DROP [0:0]\n:LOOP - [0:0]\n-A FORWARD -j LOOP\n-A LOOP -j LOOP\n"
    )


def test_whose_packets_are_masked() -> None:
    def masked(text: str) -> bool:
        packet = forwarding._Packet("wg0", ("10.0.0.2/32",))
        return forwarding.masks(forwarding.chains_of_iptables([text]), packet)

    assert not masked(DOCKER), "Docker's rule is for its own networks"
    for rule in (
        "-A POSTROUTING -o eth0 -j MASQUERADE",
        "-A POSTROUTING -s 10.0.0.0/24 -o eth0 -j MASQUERADE",
        "-A POSTROUTING -s 10.0.0.0/8 -o eth0 -j SNAT --to-source 192.0.2.1",
    ):
        assert masked(DOCKER.replace("-A POSTROUTING -s 172.17.0.0/16 ! -o docker0", rule)), rule


def nft(*rules: list[dict[str, Any]], policy: str = "drop", table: str = "mine") -> str:
    about = {"family": "inet", "table": table, "name": "fwd", "hook": "forward", "policy": policy}
    made: list[dict[str, Any]] = [{"metainfo": {}}, {"table": {"family": "inet"}}, {"chain": about}]
    made += (
        {"rule": {"family": "inet", "table": table, "chain": "fwd", "expr": expressions}}
        for expressions in rules
    )
    return json.dumps({"nftables": made})


def meta(key: str, value: Any, op: str = "==") -> dict[str, Any]:
    return {"match": {"op": op, "left": {"meta": {"key": key}}, "right": value}}


def test_which_chain_of_nft_drops() -> None:
    def found(text: str, *saved: str) -> list[str]:
        packet = forwarding._Packet("wg0", ("10.0.0.2/32",))
        return list(forwarding.dropping(forwarding.chains_of_nft(text, 4, saved), packet))

    accept: dict[str, Any] = {"accept": None}
    state = {"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": ["established"]}}
    source = {"payload": {"protocol": "ip", "field": "saddr"}}
    ours = {
        "match": {"op": "==", "left": source, "right": {"prefix": {"addr": "10.0.0.0", "len": 8}}}
    }
    said = ["fwd in nft's table inet mine, whose policy is DROP"]
    assert found(nft()) == found(nft([state, accept])) == said
    assert found(nft([meta("iifname", "eth0"), accept])) == said
    assert not found(nft([meta("iifname", {"set": ["eth0", "wg*"]}), {"counter": {}}, accept]))
    assert not found(nft([ours, accept]))
    assert not found(nft(policy="accept"))
    # What this program's own table drops is for others than peers.
    isolation = [meta("iifname", "wg0"), meta("oifname", "wg0", "!="), {"drop": None}]
    assert not found(nft(isolation, policy="accept"))
    assert found(nft([{"reject": {}}], policy="accept")) == [
        "a rule of fwd in nft's table inet mine"
    ]
    text = nft(table="filter").replace("inet", "ip")
    assert found(text)
    assert not found(text, "*filter\n"), "iptables-save has said it in its own words"


def test_others_that_talk_are_evidence() -> None:
    other = shaken(PEER._replace(public_key=OTHER), 20)
    first = diagnose(facts(peers=(other,), probe=Probe(False)))[0]
    assert "Other peers talk" in said(first)


def test_what_was_once_is_no_reason() -> None:
    """A send error before the last initiation, a stranger from elsewhere or of another hour."""
    old = replace(TRIED, send_errors=1, send_error=errno.EPERM, send_error_age_ms=20_000)
    assert diagnose(facts(old))[0].reason == "no_answer"
    from_elsewhere = replace(KNOCKED, unknown_initiator_endpoint=ELSEWHERE)
    assert diagnose(facts(device=from_elsewhere))[0].reason == "no_answer"
    talked = facts(peer=shaken(PEER, 1), device=KNOCKED, file_endpoint=ENDPOINT)
    assert diagnose(talked)[0].reason == "no_answer"
    long_ago = replace(KNOCKED, unknown_initiator_age_ms=3_600_000)
    assert diagnose(facts(device=long_ago))[0].reason == "no_answer"
    unconfirmed = PeerReport(
        KEY, ENDPOINT, unconfirmed_responses=1, unconfirmed_response_age_ms=3_600_000
    )
    assert diagnose(facts(unconfirmed))[0].reason == "idle"


def test_chatter_about_a_link_is_no_reason() -> None:
    chatter = replace(
        TALKING, rejected_sources=8, rejected_source="fe80::1", rejected_source_age_ms=800
    )
    assert diagnose(facts(chatter, shaken(PEER, 9)))[0].reason == "talking"


def test_a_stranger_counts_where_nobody_is_expected() -> None:
    """Without an endpoint anybody may be the peer; it is said before that it has none."""
    nowhere = PEER._replace(endpoint=None)
    reasons = [one.reason for one in diagnose(facts(PeerReport(KEY), nowhere, device=KNOCKED))]
    assert reasons[:2] == ["public_key_differs", "no_endpoint"]


def test_a_stranger_is_not_each_of_many_that_never_called() -> None:
    others = tuple(PEER._replace(public_key=key, endpoint=None) for key in (OTHER, STRANGER))
    for tells in (
        KNOCKED,
        device(invalid_mac1=3, invalid_mac1_endpoint=ENDPOINT, invalid_mac1_age_ms=1_000),
    ):
        first = diagnose(facts(PeerReport(KEY), others[0], peers=others[1:], device=tells))[0]
        assert first.reason == "no_endpoint"
        assert "If that was this peer" in said(first)


def test_who_talked_before_has_no_wrong_key() -> None:
    first = diagnose(facts(peer=shaken(PEER, 4000), device=KNOCKED))[0]
    assert "uses the same router" in first.says


def test_who_answers_is_not_said_to_be_silent() -> None:
    came = replace(TRIED, bad_responses=7, bad_response_age_ms=1_999)
    reasons = [one.reason for one in diagnose(facts(came, probe=Probe(True)))]
    assert reasons == ["key_or_psk_differs"]
    once = replace(came, bad_response_age_ms=30_000)
    reasons = [one.reason for one in diagnose(facts(once, probe=Probe(True)))]
    assert reasons == ["key_or_psk_differs", "udp_filtered"]


def test_more_than_one_reason() -> None:
    both = facts(up=True, endpoint_way=Way("192.0.2.2", "wg0"), device=KNOCKED)
    assert [one.reason for one in diagnose(both)] == ["endpoint_in_tunnel", "public_key_differs"]


def test_the_nearest_allowed_ips_are_named() -> None:
    other = PEER._replace(public_key=OTHER, allowed_ips=("10.9.0.0/16",))
    asked = facts(None, None, address="10.8.0.1", peers=(PEER, other))
    assert nearest(asked.state, "10.8.0.1") == (other, "10.9.0.0/16", 15)
    assert f"10.9.0.0/16 of {OTHER}: the first 15 bits agree" in said(diagnose(asked)[0])


def test_text_and_json() -> None:
    asked = CASES["key_or_psk_differs"]
    verdicts = diagnose(asked)
    text = render.as_text(asked, verdicts, "phone")
    assert text.startswith("The peer answers, but its answers do not decrypt")
    assert f"wg0, phone ({KEY}):" in text
    assert "does not report" not in text
    assert all(len(line) <= 100 for line in text.splitlines())
    answer = json.loads(render.as_json(asked, verdicts, "phone"))
    assert (answer["reason"], answer["talking"]) == ("key_or_psk_differs", False)
    assert (answer["interface"], answer["public_key"], answer["name"]) == ("wg0", KEY, "phone")


def test_it_says_what_cannot_be_known() -> None:
    asked = CASES["no_answer, of the kernel"]
    assert "A kernel device does not report" in render.as_text(asked, diagnose(asked), "")
    foreign = facts(None, device=None)
    assert "This interface's daemon does not report" in render.as_text(
        foreign, diagnose(foreign), ""
    )


ROAD = PEER._replace(public_key=OTHER, allowed_ips=("0.0.0.0/0",), endpoint=ELSEWHERE)
HOSTS = [
    Named(
        InterfaceState("wg0", "user", None, "OWN=", 1, 0, (PEER,)),
        {KEY: PeerLabels(KEY, "Phone"), STRANGER: PeerLabels(STRANGER, "tablet")},
    ),
    Named(InterfaceState("wg1", "user", None, "OWN=", 1, 0, (ROAD,)), {}),
]


@pytest.mark.parametrize(
    ("wanted", "interface", "key", "address"),
    [
        (KEY, "wg0", KEY, None),
        ("AAAA", "wg0", KEY, None),
        ("phone", "wg0", KEY, None),
        ("10.0.0.7", "wg0", KEY, "10.0.0.7"),
        ("10.0.0.7/32", "wg0", KEY, "10.0.0.7"),
        ("fd00::7", "wg0", KEY, "fd00::7"),
        ("10.0.1.7", "wg1", OTHER, "10.0.1.7"),
        ("fd01::7", "wg0", None, "fd01::7"),
        (STRANGER, "wg0", None, None),
    ],
)
def test_find(wanted: str, interface: str, key: str | None, address: str | None) -> None:
    found = find(wanted, HOSTS)
    assert found.interface.state.name == interface
    assert (found.peer.public_key if found.peer else None) == key
    assert found.address == address


def test_find_by_the_endpoint_where_nothing_covers_it() -> None:
    found = find("192.0.2.2", HOSTS[:1])
    assert found == Target(HOSTS[0], PEER)


def test_who_is_only_in_the_file_is_found() -> None:
    assert find("tablet", HOSTS) == Target(HOSTS[0], None, public_key=STRANGER)


def test_nobody_and_several_are_mistakes() -> None:
    with pytest.raises(ConfigError, match=r"'laptop'.*there are: .*Phone"):
        find("laptop", HOSTS)
    twin = HOSTS[1].state._replace(peers=(PEER._replace(public_key="AAB" + "A" * 40 + "="),))
    with pytest.raises(ConfigError, match=r"'AA' matches 2 peers: wg0 Phone, wg1 AAB"):
        find("AA", [HOSTS[0], Named(twin, {})])


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (3.21, "3.2 s"), (59.9, "59 s"), (125, "2 min 5 s"), (120, "2 min"),
     (11_400, "3 h 10 min"), (360_000, "4 d 4 h")],
)  # fmt: skip
def test_durations(seconds: float, text: str) -> None:
    assert units.duration(seconds) == text
