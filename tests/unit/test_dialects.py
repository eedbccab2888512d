"""Other WireGuards' files: read, written, and what was left out is said."""

import base64
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wiresnake.cli.main import main
from wiresnake.conffile.check import check
from wiresnake.conffile.dialects import catalogue, wg_quick
from wiresnake.conffile.dialects.catalogue import Text
from wiresnake.conffile.dialects.document import Document, LeftOut, Peer
from wiresnake.errors import ConfigError

KEY = st.binary(min_size=32, max_size=32).map(lambda data: base64.b64encode(data).decode())
SOME_KEY = KEY.filter(lambda key: any(base64.b64decode(key)))
NETWORKS = [
    *("0.0.0.0/0", "::/0", "10.0.0.0/8", "10.0.0.2/32", "192.168.7.0/24", "fd00::/64"),
    "2001:db8::1/128",
]
WORDS = st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=12)
HOOKS = st.tuples(
    st.sampled_from(["PreUp", "PostUp", "PreDown", "PostDown"]),
    st.sampled_from(["echo %i # x", "true; false", "a = 'b'", "ip rule add table 7"]),
)
PEERS = st.builds(
    Peer,
    public_key=SOME_KEY,
    name=WORDS | st.just(""),
    preshared_key=KEY | st.just(""),
    allowed_ips=st.lists(st.sampled_from(NETWORKS), unique=True, max_size=4).map(tuple),
    endpoint=st.sampled_from(["", "vpn.example:51820", "192.0.2.1:1", "[2001:db8::1]:65535"]),
    persistent_keepalive=st.integers(0, 65535),
    hooks=st.sampled_from([(), (("OnUp", "echo up"), ("OnDown", "echo '#'"))]),
)
DOCUMENTS = st.builds(
    Document,
    private_key=SOME_KEY,
    listen_port=st.integers(0, 65535),
    fwmark=st.sampled_from([0, 1, 51820, 0xFFFFFFFF]),
    addresses=st.lists(
        st.sampled_from(["10.0.0.2/32", "10.9.0.1/24", "fd00::2/128", "fd09::1/64"]), unique=True
    ).map(tuple),
    dns=st.lists(st.sampled_from(["10.0.0.1", "9.9.9.9", "fd00::1"]), unique=True).map(tuple),
    search=st.lists(st.sampled_from(["example.com", "corp"]), unique=True).map(tuple),
    mtu=st.sampled_from([0, 1280, 1420]),
    table=st.sampled_from(["", "off", "main", "123", "4294967295"]),
    hooks=st.lists(HOOKS, max_size=3).map(tuple),
    save=st.booleans(),
    peers=st.lists(PEERS, max_size=4, unique_by=lambda peer: peer.public_key).map(tuple),
)


def less(document: Document, left: list[LeftOut]) -> Document:
    """The document without what was said to be left out."""
    keys = {one.key for one in left}
    peers = tuple(
        replace(peer, hooks=tuple(pair for pair in peer.hooks if pair[0] not in keys))
        for peer in document.peers
    )
    return replace(
        document,
        hooks=tuple(pair for pair in document.hooks if pair[0] not in keys),
        peers=peers,
        save=document.save and "SaveConfig" not in keys,
        fwmark=0 if "FwMark" in keys else document.fwmark,
        table="" if "Table" in keys else document.table,
        dns=() if "DNS" in keys else document.dns,
        search=() if "DNS" in keys else document.search,
    )


def same(document: Document) -> Document:
    """With one word for what means the same."""
    if document.default and not document.table and document.fwmark == 51820:
        document = replace(document, fwmark=0)  # wg-quick's own choice.
    if document.table == "main" and not document.default:
        document = replace(document, table="")  # Where routes go by themselves.
    if not any(peer.allowed_ips for peer in document.peers) and document.table != "off":
        document = replace(document, table="")  # There are no routes.
    addresses = sorted(document.addresses, key=lambda one: ":" in one)
    servers = sorted(document.dns, key=lambda one: ":" in one)
    return replace(document, addresses=tuple(addresses), dns=tuple(servers))


@pytest.mark.parametrize("dialect", catalogue.TO)
@given(DOCUMENTS)
def test_there_and_back(dialect: str, document: Document) -> None:
    """Equal up to what was said to be left out."""
    files, left = catalogue.write(dialect, document, "wg0")
    texts = [Text(name, text) for name, text in files.items()]
    assert catalogue.recognise(texts) == (dialect if dialect.startswith("net") else "wg-quick")
    read = catalogue.read(dialect, texts)
    expected = less(document, left)
    if any(one.key == "DNS" for one in left):
        read = read._replace(document=replace(read.document, dns=(), search=()))
    assert read.name == "wg0"
    assert same(read.document) == same(expected), files
    assert not read.left


@given(DOCUMENTS)
def test_wg_quick_files_that_are_made_are_right(document: Document) -> None:
    text = wg_quick.write(document)
    assert not [one for one in check(text) if one.level == "error"]
    assert repr(document).count(document.private_key) == 0
    again, left = wg_quick.read(text, "x")
    assert (again, left) == (document, [])


def said(dialect: str, *texts: str) -> tuple[str, list[str]]:
    """The wg-quick text, and what was left out as file:line: key, with a `!` where the tunnel does
    something else without it."""
    read = catalogue.read(dialect, [Text(f"f{number}", text) for number, text in enumerate(texts)])
    return wg_quick.write(read.document), [
        f"{path}:{one.line}: {one.key}{'!' * one.changes}" for path, one in read.left
    ]


PRIVATE = base64.b64encode(b"\x40" * 32).decode()
PUBLIC = base64.b64encode(b"\x11" * 32).decode()
START = f"[Interface]\nPrivateKey = {PRIVATE}\n"
PEER = f"\n[Peer]\nPublicKey = {PUBLIC}\nAllowedIPs = 10.0.0.0/8\n"


def test_android_and_amnezia() -> None:
    extra = "ExcludedApplications = com.example.a, b\nJc = 4\nS1 = 15\nH1 = 1\nH2 = 77\n"
    extra += "Frobnicate=1\nQEBAQEBAQEBAQEBAQEBAQEBA=\n"
    text, left = said("wg-quick", START + extra + PEER)
    assert text == START + PEER
    names = ("ExcludedApplications", "Jc", "S1!", "H1", "H2!", "Frobnicate!")
    assert left.pop() == "f0:9: a line!"
    assert left == [f"f0:{line}: {name}" for line, name in enumerate(names, 3)]
    whys = [one.why for _, one in catalogue.read("wg-quick", [Text("x", START + extra)]).left]
    assert "choice of apps" in whys[0]
    assert "does not need" in whys[1]
    assert "cannot talk to it" in whys[2]
    assert "value of plain WireGuard" in whys[3]
    assert "cannot talk to it" in whys[4]
    _, left = said("wg-quick", START + "IncludedApplications = com.example.a\n")
    assert left == ["f0:3: IncludedApplications!"]


def test_windows_runs_other_commands() -> None:
    text, left = said("windows", START + "PostUp = cmd /c dir\nTable = off\n" + PEER)
    assert text == START + "Table = off\n" + PEER
    assert left == ["f0:0: PostUp!"]


def test_a_hook_without_a_command_is_none() -> None:
    text, left = said("wg-quick", START + "PostUp =\nPreDown = \n" + PEER)
    assert (text, left) == (START + PEER, [])


def test_a_peer_that_comes_twice() -> None:
    again = f"\n[Peer]\nPublicKey = {PUBLIC}\nAllowedIPs = fd00::/8\nPersistentKeepalive = 5\n"
    text, left = said("wg-quick", START + PEER + again)
    assert text == START + again
    assert left == ["f0:8: [Peer]"]


NETDEV = f"""\
[NetDev]
Name=wg7
Kind=wireguard
Description=the office

[WireGuard]
PrivateKeyFile=/etc/keys/it's
ListenPort=auto
RouteMetric=5

[WireGuardPeer]
PublicKey={PUBLIC}
PresharedKeyFile=/run/psk
AllowedIPs=10.0.0.0/8
AllowedIPs=
AllowedIPs=192.168.0.0/16, \\
  fd00::/8
Endpoint=vpn.example:51820
"""
NETWORK = """\
# mine
[Match]
Name=wg7
[Network]
Address=10.1.0.2/24
DNS=10.1.0.1#dns.example 10.1.0.1
Domains=~corp.example example.com
IPForward=yes
[Address]
Address=fd00::2/64
[Route]
Destination=192.168.0.0/16
Gateway=10.1.0.1
[Route]
Destination=172.16.0.0/12
[RoutingPolicyRule]
Table=9
"""


def test_networkd() -> None:
    text, left = said("networkd", NETDEV, NETWORK)
    quoted = "'/etc/keys/it'\"'\"'s'"
    assert text == (
        "[Interface]\nAddress = 10.1.0.2/24, fd00::2/64\nTable = off\n"
        f"PostUp = wiresnake set %i private-key {quoted}\n"
        f"PostUp = wiresnake set %i peer {PUBLIC} preshared-key /run/psk\n"
        "PostUp = sysctl -q -w net.ipv4.ip_forward=1\n"
        "PostUp = sysctl -q -w net.ipv6.conf.all.forwarding=1\n"
        "PostUp = resolvectl dns %i 10.1.0.1 10.1.0.1\n"
        "PostUp = resolvectl domain %i '~corp.example' example.com\n"
        "PostUp = resolvectl default-route %i false\n"
        "PostUp = ip -4 route add 192.168.0.0/16 dev %i\n"
        "PostUp = ip -4 route add 172.16.0.0/12 dev %i\n"
        "PostUp = ip -4 rule add table 9\nPostDown = ip -4 rule del table 9\n\n"
        f"[Peer]\nPublicKey = {PUBLIC}\nAllowedIPs = 192.168.0.0/16, fd00::/8\n"
        "Endpoint = vpn.example:51820\n"
    )
    assert left == [
        *("f0:4: Description", "f0:8: ListenPort", "f1:6: DNS", "f1:13: Gateway"),
    ]
    text, left = said("networkd", NETDEV)
    assert "Table = off" in text
    assert left[-1] == "f0:1: Address!"


def networkd(device: str = "", peer: str = "AllowedIPs=10.0.0.0/8", network: str = "") -> str:
    """The [Interface] of a file with such lines, nothing left out."""
    netdev = f"[NetDev]\nName=wg0\nKind=wireguard\n[WireGuard]\nPrivateKey={PRIVATE}\n{device}\n"
    netdev += f"[WireGuardPeer]\nPublicKey={PUBLIC}\n{peer}\n"
    text, left = said("networkd", netdev, f"[Match]\nName=wg*\n{network}\n")
    assert left == []
    return text.removeprefix(START).partition("\n[Peer]")[0]


def test_networkd_makes_the_routes_that_are_asked_for_and_no_others() -> None:
    assert networkd() == "Table = off\n"
    assert networkd("RouteTable=main") == ""
    assert networkd("RouteTable=9") == "Table = 9\n"
    assert networkd("RouteTable=9", "AllowedIPs=10.0.0.0/8\nRouteTable=off") == "Table = off\n"
    route = "PostUp = ip -4 route add 10.0.0.0/8 dev %i"
    assert networkd("RouteTable=main\nRouteMetric=5") == f"Table = off\n{route} metric 5\n"
    peers = "AllowedIPs=10.0.0.0/8\nRouteTable=7\n[WireGuardPeer]\nPublicKey="
    peers += f"{PUBLIC.replace('R', 'S')}\nAllowedIPs=fd00::/8\nRouteTable=8\nRouteMetric=1024"
    assert networkd("", peers) == (
        f"Table = off\n{route} table 7\nPostUp = ip -6 route add fd00::/8 dev %i table 8\n"
    )
    only = "[Route]\nDestination=10.0.0.0/8\nPreferredSource=10.0.0.9\nTable=4"
    assert networkd("", network=only) == f"Table = off\n{route} table 4 src 10.0.0.9\n"
    assert networkd("", network="[Route]\nDestination=10.0.0.0/8") == ""
    more = networkd("RouteTable=main", network="[Route]\nDestination=192.0.2.0/24")
    assert more == "PostUp = ip -4 route add 192.0.2.0/24 dev %i\n"
    # What an Address brings anyway needs no words.
    inside = networkd("RouteTable=main", network="[Network]\nAddress=10.0.0.1/8")
    assert inside == "Address = 10.0.0.1/8\n"
    both = networkd("", "AllowedIPs=0.0.0.0/0, ::/0", "[Network]\nGateway=10.2.0.1")
    assert both == "Table = off\nPostUp = ip -4 route add 0.0.0.0/0 dev %i\n"


def test_networkd_forwards_and_masquerades() -> None:
    own = "[Network]\nAddress=10.0.0.1/24\nAddress=fd00::1/64\n"
    text = networkd("RouteTable=main", network=f"{own}IPMasquerade=ipv4")
    assert "PostUp = sysctl -q -w net.ipv4.ip_forward=1\n" in text
    assert "ip saddr 10.0.0.0/24" in text and "fd00" not in text.partition("PostUp")[2]
    assert "PostDown = nft 'delete table inet nat-%i'" in text
    assert "ip6 saddr fd00::/64" in networkd(network=f"{own}IPMasquerade=both")
    assert "PostUp" not in networkd(network=f"{own}IPMasquerade=no\nIPForward=no")
    own += "IPv4Forwarding=yes"
    assert "PostUp = sysctl -q -w net/ipv4/conf/%i/forwarding=1\n" in networkd(network=own)


PAIR = """[RoutingPolicyRule]
Family=both
Table=main
SuppressPrefixLength=0
[RoutingPolicyRule]
Family=both
FirewallMark=0xca6c
InvertRule=yes
Table=51820
"""


def test_networkd_with_wg_quicks_own_rules() -> None:
    device = "FirewallMark=51820\nRouteTable=51820"
    assert networkd(device, "AllowedIPs=0.0.0.0/0, ::/0, 10.0.0.0/8", PAIR) == ""
    # Of one IP version only, though the peer has the other's default route too.
    four = networkd(
        "FirewallMark=51820",
        "AllowedIPs=0.0.0.0/0, ::/0",
        PAIR.replace("both", "ipv4") + "[Route]\nDestination=0.0.0.0/0\nTable=51820",
    )
    assert four == (
        "FwMark = 0xca6c\nTable = off\n"
        "PostUp = sysctl -q -w net.ipv4.conf.all.src_valid_mark=1\n"
        "PostUp = ip -4 route add 0.0.0.0/0 dev %i table 51820\n"
        "PostUp = ip -4 rule add not fwmark 51820 table 51820\n"
        "PostUp = ip -4 rule add table main suppress_prefixlength 0\n"
        "PostDown = ip -4 rule del not fwmark 51820 table 51820\n"
        "PostDown = ip -4 rule del table main suppress_prefixlength 0\n"
    )


@pytest.mark.parametrize(
    ("device", "peer", "network", "key"),
    [
        ("Frobnicate=1", "", "", "Frobnicate"),
        ("RouteTable=vpn", "", "", "RouteTable"),
        ("", "PresharedKey=@psk", "", "PresharedKey"),
        ("", "Endpoint=@end", "", "Endpoint"),
        ("", "", "[Network]\nVRF=blue", "VRF"),
        ("", "", "[Network]\nDNS=10.0.0.1:5353", "DNS"),
        ("", "", "[Address]\nAddress=10.0.0.1/24\nAddPrefixRoute=no", "AddPrefixRoute"),
        ("", "", "[Route]\nType=blackhole\nDestination=10.0.0.0/8", "[Route]"),
        ("", "", "[RoutingPolicyRule]\nTable=9; reboot", "Table"),
        ("", "", "[RoutingPolicyRule]\nTypeOfService=16", "TypeOfService"),
        ("", "", "[Match]\nName=eth0", "Name"),
        ("", "", "[Bridge]\nCost=1", "Cost"),
    ],
)
def test_networkd_is_refused_where_the_tunnel_would_do_something_else(
    device: str, peer: str, network: str, key: str
) -> None:
    netdev = f"[NetDev]\nName=wg0\nKind=wireguard\n[WireGuard]\nPrivateKey={PRIVATE}\n{device}\n"
    netdev += f"[WireGuardPeer]\nPublicKey={PUBLIC}\nAllowedIPs=10.0.0.0/8\n{peer}\n"
    text, left = said("networkd", netdev, network)
    assert [one.split()[-1] for one in left] == [f"{key}!"]
    assert "reboot" not in text


def test_networkd_with_keys_that_only_systemd_has() -> None:
    start = "[NetDev]\nName=wg0\nKind=wireguard\n[WireGuard]\n"
    peer = f"[WireGuardPeer]\nPublicKey={PUBLIC}\n"
    for line in ("PrivateKey=@network.wireguard.private.wg0", ""):
        read = catalogue.read(
            "networkd",
            [
                Text("a/50-x.netdev", f"{start}{line}\n{peer}"),
                Text("x.network", "[Match]\nName=wg0\n"),
            ],
        )
        [(path, left)] = read.left
        assert (path, left.key, left.changes) == ("a/50-x.netdev", "PrivateKey", True)
        assert ("systemd-creds decrypt" if line else "private.50-x") in left.why
    _, gone = said("networkd", f"{start}PrivateKey={PRIVATE}\n[WireGuardPeer]\nPublicKey=@x\n", "")
    assert gone == ["f0:7: PublicKey!"]


def test_networkd_keeps_the_tunnel_out_of_its_own_default_route() -> None:
    peer = Peer(PUBLIC, allowed_ips=("0.0.0.0/0",))
    files, _ = catalogue.write("networkd", Document(private_key=PRIVATE, peers=(peer,)), "wg0")
    assert "FirewallMark=51820\n" in files["wg0.netdev"]
    assert files["wg0.netdev"].endswith("RouteTable=51820\n")
    suppress, mark = files["wg0.network"].split("[RoutingPolicyRule]\n")[1:]
    assert suppress.startswith("Family=ipv4\nTable=main\nSuppressPrefixLength=0\n")
    assert mark.startswith("Family=ipv4\nFirewallMark=51820\nInvertRule=yes\nTable=51820\n")


def test_a_table_is_a_number_or_a_name() -> None:
    strange = "1\tPostUp = x; #"
    text, left = said("networkd", NETDEV.replace("RouteMetric=5", f"RouteTable={strange}"))
    assert "Table = off\n" in text
    assert "f0:9: RouteTable!" in left
    text, left = said("networkmanager", NM.replace("method=manual", f"route-table={strange}"))
    assert "Table = off\n" in text
    assert "f0:23: route-table!" in left


def test_networkd_with_rules_of_its_own() -> None:
    """A default route by mark and table, as the manual's example has it, without [Route]s in
    main: it is wg-quick's way, but with a number of the writer's."""
    netdev = (
        f"[NetDev]\nName=wg0\nKind=wireguard\n[WireGuard]\nPrivateKey={PRIVATE}\n"
        f"FirewallMark=34952\nRouteTable=1000\n[WireGuardPeer]\nPublicKey={PUBLIC}\n"
        "AllowedIPs=0.0.0.0/0\n"
    )
    rule = "[RoutingPolicyRule]\nFirewallMark=34952\nInvertRule=true\nTable=1000\nPriority=10\n"
    text, left = said("networkd", netdev, rule)
    assert "FwMark = 0x8888\nTable = 1000\n" in text
    rule = "not fwmark 34952 table 1000 priority 10"
    assert f"PostUp = ip -4 rule add {rule}\nPostDown = ip -4 rule del {rule}\n" in text
    assert left == []


NM = f"""\
[connection]
id=Office VPN
uuid=0d1f3a5c-0000-4000-8000-000000000000
type=wireguard
interface-name=wg9
autoconnect=true
zone=home

[wireguard]
private-key={PRIVATE}
listen-port=51821
peer-routes=false

[wireguard-peer.{PUBLIC}]
endpoint=vpn.example:51820
preshared-key-flags=1
allowed-ips=10.0.0.0/8;fd00::/8;

[ipv4]
address1=10.1.0.2/24,10.1.0.1
dns=10.1.0.1;
dns-search=~corp;example.com;
method=manual
never-default=true

[ipv6]
method=auto

[proxy]
"""


def test_networkmanager() -> None:
    text, left = said("networkmanager", NM)
    zone = "! firewall-cmd -q --state || firewall-cmd -q --zone=home"
    assert text == (
        f"[Interface]\nPrivateKey = {PRIVATE}\nAddress = 10.1.0.2/24\nListenPort = 51821\n"
        f"Table = off\nPostUp = {zone} --change-interface=%i\n"
        f"PostDown = {zone} --remove-interface=%i\n"
        "PostUp = resolvectl dns %i 10.1.0.1\n"
        "PostUp = resolvectl domain %i '~corp' example.com\n"
        "PostUp = resolvectl default-route %i false\n\n"
        f"[Peer]\nPublicKey = {PUBLIC}\nAllowedIPs = 10.0.0.0/8, fd00::/8\n"
        "Endpoint = vpn.example:51820\n"
    )
    assert left == [
        *("f0:6: autoconnect", "f0:16: preshared-key-flags!", "f0:27: method", "f0:20: address1"),
    ]
    assert catalogue.read("networkmanager", [Text("x", NM)]).name == "wg9"


def manager(allowed: str, *, four: str = "", six: str = "", tunnel: str = "") -> str:
    """The [Interface] of a connection with such lines, nothing left out."""
    text, left = said(
        "networkmanager",
        f"[connection]\ntype=wireguard\nautoconnect=false\n[wireguard]\nprivate-key={PRIVATE}\n"
        f"{tunnel}\n[wireguard-peer.{PUBLIC}]\nallowed-ips={allowed}\n[ipv4]\nmethod=manual\n{four}\n"
        f"[ipv6]\n{six}\n",
    )
    assert left == []
    return text.removeprefix(START).partition("\n[Peer]")[0]


def test_networkmanager_makes_the_routes_that_are_asked_for_and_no_others() -> None:
    whole, never = "0.0.0.0/0;::/0;", "never-default=true"
    assert manager(whole) == ""
    assert manager("0.0.0.0/0", four=never) == "Table = off\n"
    assert manager(whole, four=never, six="method=disabled") == "Table = off\n"
    assert manager(whole, tunnel="peer-routes=false") == "Table = off\n"
    assert manager("10.0.0.0/8", four="route-table=7") == "Table = 7\n"
    assert manager("10.0.0.0/8", four="route-table=0\nroute-metric=-1\nmay-fail=false") == ""
    route = "PostUp = ip -4 route add 10.0.0.0/8 dev %i"
    assert manager("10.0.0.0/8", four="route-metric=600") == f"Table = off\n{route} metric 600\n"
    assert manager("0.0.0.0/0;10.0.0.0/8", four=never) == f"Table = off\n{route}\n"
    assert manager("10.0.0.0/8", four="route1=192.0.2.0/24,10.0.0.1,9") == (
        "PostUp = ip -4 route add 192.0.2.0/24 dev %i metric 9\n"
    )
    assert manager("0.0.0.0/0", tunnel="ip4-auto-default-route=0") == "Table = main\n"
    # The default route of one IP version alone.
    six = manager(whole, four=never)
    assert six == (
        "FwMark = 0xca6c\nTable = off\n"
        "PostUp = ip -6 route add ::/0 dev %i table 51820\n"
        "PostUp = ip -6 rule add not fwmark 51820 table 51820\n"
        "PostUp = ip -6 rule add table main suppress_prefixlength 0\n"
        "PostDown = ip -6 rule del not fwmark 51820 table 51820\n"
        "PostDown = ip -6 rule del table main suppress_prefixlength 0\n"
    )
    four = manager(whole, six="method=disabled", four="route-table=9", tunnel="fwmark=5")
    assert "rule add not fwmark 5 table 5\nPostUp = ip -4 rule add table 9 suppress" in four
    assert "-6" not in four


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ("[ipv4]\nmethod=shared", "method"),
        ("[ipv4]\nrouting-rule1=priority 5 from 0.0.0.0/0 table 9", "routing-rule1"),
        ("[ipv4]\nroute1=10.0.0.0/8\nroute1_options=table=7", "route1_options"),
        ("[ipv4]\naddress1=10.0.0.1/24,10.0.0.2", "address1"),
        ("[ipv4]\ngateway=10.0.0.2", "gateway"),
        ("[ipv4]\ndns=10.0.0.1:53", "dns"),
        ("[ipv4]\nforwarding=1", "forwarding"),
        ("[connection]\ntype=wireguard\nautoconnect=false\ncontroller=br0", "controller"),
        ("[bridge-port]\npriority=1", "[bridge-port]"),
        ("[ipv6]\nmtu=1280", "mtu"),
        ("mtu=1400\n[ipv6]\nmtu=1280", "mtu"),
        ("[ipv6]\ndhcpx=1", "dhcpx"),
    ],
)
def test_networkmanager_is_refused_where_the_tunnel_would_do_something_else(
    line: str, key: str
) -> None:
    start = f"[connection]\ntype=wireguard\nautoconnect=false\n[wireguard]\nprivate-key={PRIVATE}\n"
    _, left = said("networkmanager", start + line)
    assert [one.split()[-1] for one in left] == [f"{key}!"]


def test_networkmanager_with_details_of_automatic_addresses() -> None:
    """Of which a tunnel has none, whatever they are called; and an MTU that is no other."""
    for mtu in ("0", "auto", "1400"):
        assert manager("10.0.0.0/8", six=f"mtu={mtu}", tunnel="mtu=1400") == "MTU = 1400\n"
    start = f"[connection]\ntype=wireguard\nautoconnect=false\n[wireguard]\nprivate-key={PRIVATE}\n"
    keys = ("dhcp-timeout", "dhcp-send-release", "dhcp-of-tomorrow", "ra-timeout", "ra-of-tomorrow")
    _, left = said("networkmanager", start + "[ipv6]\n" + "=1\n".join(keys) + "=1\n")
    assert [one.split()[-1] for one in left] == list(keys)


def test_networkmanager_keeps_secrets_elsewhere() -> None:
    start = "[connection]\ntype=wireguard\nautoconnect=false\n[wireguard]\nprivate-key-flags=1\n"
    assert said("networkmanager", start)[1] == ["f0:4: private-key!"]
    # A flag next to the secret itself is not a reason.
    start += f"private-key={PRIVATE}\n[wireguard-peer.{PUBLIC}]\npreshared-key-flags=1\n"
    assert said("networkmanager", start)[1] == ["f0:8: preshared-key-flags!"]
    assert said("networkmanager", f"{start}preshared-key={PRIVATE}\n")[1] == []


@pytest.mark.parametrize(
    ("dialect", "text", "message"),
    [
        ("wg-quick", "[Interface]\nMTU = x\n", "f:2:7: MTU is not a number"),
        ("wg-quick", "[Interface]\njunk\n", "f:2:1: neither"),
        ("wg-quick", "MTU = 5\n", "f:1:7: a line before any section"),
        ("wg-quick", "[Peer]\n", "f:1:1: this .Peer. has no PublicKey"),
        ("wg-quick", "[Interface]\nListenPort =\n", "f:2:13: the value is missing"),
        ("networkd", "[NetDev]\nKind=bridge\n", "f:1:1: not Kind=wireguard"),
        ("networkd", NETDEV.replace("51820", "x"), "f:18:1: Endpoint's port"),
        ("networkd", "[NetDev]\nKind=wireguard\n[WireGuardPeer]\n", "f:3:1: this .WireGuardPeer"),
        ("networkd", "nonsense", "give networkd's .netdev file"),
        ("networkd", "[NetDev]\nx\n", "f:2:1: neither"),
        ("networkmanager", "[connection]\ntype=wifi\n", "f:1:1: not type=wireguard"),
        ("networkmanager", NM.replace(PUBLIC, "x"), "f:14:1: PublicKey has 1 characters"),
        ("networkmanager", NM.replace(PRIVATE, "x"), "f:10:1: PrivateKey has 1 characters"),
    ],
)
def test_mistakes_have_a_place(dialect: str, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        catalogue.read(dialect, [Text("f", text)])


@given(st.text() | st.text(alphabet="[]=#\n ;WireGuadPKey/0,.:\\"), st.sampled_from(catalogue.FROM))
def test_any_text_is_read_or_refused(text: str, dialect: str) -> None:
    for whole in (text, START + text, NETDEV + text, NM + text):
        try:
            catalogue.read(dialect, [Text("f", whole)])
        except ConfigError as error:
            assert PRIVATE not in str(error)


def test_apps_take_no_file_without_a_key() -> None:
    with pytest.raises(ConfigError, match="without PrivateKey"):
        catalogue.write("android", Document(), "x")


def test_the_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("wg5.conf").write_text(START + "PostUp = true\nPostUp = false\n" + PEER)
    assert main(["export", "--to", "networkd", "wg5.conf", "-o", "."]) == 0
    said = capsys.readouterr()
    assert said.err.startswith(
        "wg5.conf:3: left out PostUp: networkd runs no commands\n"
        "wg5.conf:4: left out PostUp: networkd runs no commands\n"
        "wrote wg5.netdev wg5.network\n"
    )
    assert PRIVATE not in said.out + said.err
    for name in ("wg5.netdev", "wg5.network"):
        assert stat.S_IMODE(Path(name).stat().st_mode) == 0o600
    assert main(["export", "--to", "networkd", "wg5.conf", "-o", "."]) == 1
    assert "exists already; --force" in capsys.readouterr().err
    assert main(["import", "wg5.netdev", "wg5.network"]) == 0
    assert capsys.readouterr().out == START + PEER
    assert main(["import", "wg5.netdev", "wg5.network", "-o", "new.conf"]) == 0
    assert Path("new.conf").read_text() == START + PEER
    assert stat.S_IMODE(Path("new.conf").stat().st_mode) == 0o600
    assert main(["export", "--to", "networkd", "new.conf", "-o", "x.conf"]) == 1
    assert main(["export", "--to", "networkd", "new.conf", "-o", "x"]) == 0
    assert Path("x.netdev").exists()
    capsys.readouterr()
    for name in ("../evil", "Office VPN", "a-name-of-an-app-that-is-long", "x\\"):
        Path("strange").write_text(NM.replace("wg9", name))
        assert main(["import", "strange", "-o", "."]) == 1
        assert "is not a valid interface name; give the file a name" in capsys.readouterr().err
    assert main(["import", "strange", "-o", "y.conf"]) == 1
    told = capsys.readouterr().err
    assert "strange:16: cannot take preshared-key-flags: the preshared key is kept" in told
    assert "nothing was written: without preshared-key-flags the tunnel would" in told
    assert not Path("y.conf").exists()
    assert main(["import", "strange", "-o", "y.conf", "--lossy"]) == 0
    assert "strange:16: left out preshared-key-flags" in capsys.readouterr().err
    Path("far too long a name.conf").write_text(START)
    assert main(["export", "--to", "networkd", "far too long a name.conf"]) == 1
    assert main(["export", "--to", "apple", "far too long a name.conf"]) == 0
    capsys.readouterr()
    assert main(["import", "wg5.conf"]) == 0
    assert "wg5.conf: has PostUp, which root will run; read them first" in capsys.readouterr().err
    assert main(["import", "none"]) == 1
    assert "cannot read none" in capsys.readouterr().err


def test_a_name_server_that_is_no_address_is_refused_in_words() -> None:
    document, _ = wg_quick.read("[Interface]\nAddress = 10.0.0.1/24\nDNS = 65536\n", "wg0.conf")
    with pytest.raises(ConfigError, match="DNS '65536' is not an IP address"):
        catalogue.write("networkmanager", document, "wg0")
