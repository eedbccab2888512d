"""Configuration files, good and bad, that stock wg-quick, our parser and `check` judge."""

import base64

PRIVATE = base64.b64encode(b"\x40" * 32).decode()
PUBLIC = base64.b64encode(b"\x11" * 32).decode()
OTHER = base64.b64encode(b"\x22" * 32).decode()
ZERO = base64.b64encode(bytes(32)).decode()
START = f"[Interface]\nPrivateKey = {PRIVATE}\n"
PEER = f"[Peer]\nPublicKey = {PUBLIC}\n"

# What stands under [Interface], or under the [Peer] that follows it.
GOOD_INTERFACE = (
    *("ListenPort = 0", "ListenPort = 65535", "ListenPort = 99999", "ListenPort = domain"),
    *("ListenPort = +5", "Listen Port = 5 1 8 2 0", "listenport=1", "ListenPort = 00051820"),
    *("FwMark = off", "FwMark = OFF", "FwMark = 0xca6c", "FwMark = 51820", "FwMark = 0"),
    *("FwMark = 0xffffffff", "FwMark = 007", "Address = 10.0.0.1/24", "Address = 10.0.0.1"),
    *("Address = ", "DNS = 1.1.1.1, example.com", "DNS =", "MTU = 1420", "MTU =", "Table = off"),
    *("Table = 123", "Table =", "SaveConfig = true", "SaveConfig = FALSE", "PostUp = echo # x"),
    *("PostUp = echo 'a=b'", "PostUp =", "# comment", "  # comment", "\t", "\r", "MTU = 1420 # c"),
    *("ADDRESS = fd00::1/64", "Address=10.0.0.1/24,10.0.0.2/24", "[Interface] # again"),
    *("ListenPort = 1\r", "ListenPort = 1\nListenPort = 2", "ListenPort = 1 # \u00e9"),
    f"PrivateKey = {ZERO}",
    f"Private\tKey = {PRIVATE[:20]} {PRIVATE[20:]}",
)
BAD_INTERFACE = (
    *("ListenPort =", "ListenPort = -1", "ListenPort = x", "ListenPort = 0x10", "ListenPort"),
    *("FwMark =", "FwMark = 0x", "FwMark = 0X10", "FwMark = 0x100000000", "FwMark = 4294967296"),
    *("FwMark = -1", "FwMark = on", "SaveConfig = yes", "SaveConfig =", "PrivateKey = abc"),
    *("PrivateKey =", f"PrivateKey = {PRIVATE[:-1]}", f"PrivateKey = {PRIVATE}A"),
    *(f'PrivateKey = "{PRIVATE}"', f"PrivateKey = {PRIVATE[:42]}B=", "; comment", "// comment"),
    *("PublicKey = x", "AllowedIPs = 10.0.0.0/8", "Adress = 10.0.0.1/24", "Jc = 4", "[Server]"),
    *("[Interface", "[]", "[Inter face]x", "PrivateKey: abc", "ListenPort = 1 2 x", "junk"),
    *("ListenPort\u00a0= 1", "ListenPort = 1\u00a0", "Listen\u00a0Port = 1", "FwMark = 0x1_0"),
    *("Listen\u212aport = 1", "IncludedApplications = a.b", "FwMark = \u0661", "[Peers]", "= 1"),
)
GOOD_PEER = (
    *("AllowedIPs = 0.0.0.0/0, ::/0", "AllowedIPs = 10.0.0.1/24", "AllowedIPs = 10.0.0.1"),
    *(
        "AllowedIPs = 10.0.0.0/8\nAllowedIPs = fd00::/8",
        "Allowed IPs = 1.2.3.4 / 32",
        "allowedips=::",
    ),
    *("AllowedIPs = 10.0.0.0/08", "AllowedIPs = ::ffff:1.2.3.4/128", "AllowedIPs = 0.0.0.0/00"),
    *("Endpoint = 192.0.2.1:51820", "Endpoint = [2001:db8::1]:51820", "Endpoint = 192.0.2.1:99999"),
    *("Endpoint = 2001:db8::1:51820", "Endpoint = 10.1:5", "Endpoint = 192.0.2.1:domain"),
    *(
        "Endpoint = [192.0.2.1]:1",
        "Endpoint = 127.1:0",
        "Endpoint = 2001:db8:::1",
        "Endpoint = [fe80::1%lo]:1",
    ),
    *("PersistentKeepalive = off", "PersistentKeepalive = 0", "PersistentKeepalive = 65535"),
    *("PersistentKeepalive = Off", "PersistentKeepalive = 0025", f"PresharedKey = {OTHER}"),
    *(
        f"PresharedKey = {ZERO}",
        f"PublicKey = {OTHER}",
        f"publickey={OTHER}",
        "# friendly_name = x",
    ),
    *(
        f"[Peer]\nPublicKey = {PUBLIC}",
        "[Interface]\nListenPort = 5",
        "[ Peer ]\nPublicKey=" + OTHER,
    ),
    *(
        "[Interface]\nAddress = 10.0.0.9/32",
        "[PEER]\nPublicKey=" + OTHER,
        "  [Peer]\nPublicKey=" + OTHER,
    ),
)
BAD_PEER = (
    *("AllowedIPs =", "AllowedIPs = 10.0.0.0/33", "AllowedIPs = 10.0.0.0/255.0.0.0"),
    *("AllowedIPs = 10.0.0.0/8,", "AllowedIPs = ,10.0.0.0/8", "AllowedIPs = 10.0.0.0/8,,::/0"),
    *(
        "AllowedIPs = 10.0.0/24",
        "AllowedIPs = 010.0.0.0/8",
        "AllowedIPs = x",
        "AllowedIPs = ::/129",
    ),
    *("AllowedIPs = 10.0.0.0/", "AllowedIPs = /8", "AllowedIPs = 10.0.0.0/-1", "AllowedIPs = any"),
    *("AllowedIPs = fe80::1%lo", "AllowedIPs = 10.0.0.0/8/8", "AllowedIPs = 10.0.0.0/8; ::/0"),
    *("AllowedIPs = 10.0.0.0/x", "AllowedIPs = 10.0.0.0/+8", "AllowedIPs = 1.2.3.4\u00a0"),
    *("Endpoint =", "Endpoint = 192.0.2.1", "Endpoint = 192.0.2.1:", "Endpoint = :51820"),
    *("Endpoint = [2001:db8::1]", "Endpoint = [2001:db8::1", "Endpoint = [2001:db8::1]51820"),
    *("Endpoint = 192.0.2.1:x", "Endpoint = 192.0.2.1:-1", "Endpoint = 192.0.2.256:1"),
    *("Endpoint = 2001:db8:1", "Endpoint = http://192.0.2.1:1", "Endpoint = []:1"),
    *("PersistentKeepalive =", "PersistentKeepalive = 65536", "PersistentKeepalive = -1"),
    *("PersistentKeepalive = 25s", "PersistentKeepalive = on", "PersistentKeepalive = +5"),
    *("PresharedKey = abc", "PresharedKey =", "PublicKey = abc", f"PublicKey = {PUBLIC[:-1]}"),
    *("PrivateKey = x", "ListenPort = 1", "Address = 10.0.0.1/24", "MTU = 1420", "PostUp = x"),
    *("[Peer]", "[Peer", "[Peer]\nAllowedIPs = 10.0.0.0/8", "[peer]]\nPublicKey = " + OTHER),
    *("[WireGuardPeer]\nPublicKey = " + OTHER, "Endpoint", "PublicKey\u00a0= " + OTHER),
)
GOOD_WHOLE = ("", "\n\n", "# only a comment", "[Interface]", PEER, "[Peer]\r\nPublicKey=" + PUBLIC)
BAD_WHOLE = ("ListenPort = 1\n" + START, "Address = 10.0.0.1\n" + START, "x", "[Peer]")

GOOD = (
    *GOOD_WHOLE,
    *(START + text + "\n" for text in GOOD_INTERFACE),
    *(START + PEER + text + "\n" for text in GOOD_PEER),
)
BAD = (
    *BAD_WHOLE,
    *(START + text + "\n" for text in BAD_INTERFACE),
    *(START + PEER + text + "\n" for text in BAD_PEER),
)
OURS = (
    "\ufeff" + START,
    "[ Interface ]\nAddress = 10.0.0.1/24\n",
    START + "Save Config = true\n",
    START + PEER + "AllowedIPs = +10.0.0.0/8, -::/0\n",
    START + PEER + "OnUp = echo # up\nOnDown = echo down\n",
)
"""What stock refuses and we take; signed networks stock takes since 2025."""
