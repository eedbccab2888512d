"""The table of keys: a new one is one row."""

import base64

import pytest

from wiresnake._native import Endpoint
from wiresnake.cli import completion
from wiresnake.cli import set as cli_set
from wiresnake.conffile import schema, wg, write
from wiresnake.conffile.check import check
from wiresnake.conffile.dialects import wg_quick
from wiresnake.conffile.schema import Key, Word
from wiresnake.errors import ConfigError
from wiresnake.uapi.snapshot import PeerState

PUBLIC = base64.b64encode(b"\x11" * 32).decode()
PEER = f"[Peer]\nPublicKey = {PUBLIC}\nAllowedIPs = 10.0.0.2/32\n"


def resolve(host: str, port: str) -> Endpoint:
    return Endpoint(host, int(port))


def test_keys_have_names_of_their_own() -> None:
    assert len({key.name.lower() for key in schema.KEYS}) == len(schema.KEYS)
    assert len({(key.section, key.field) for key in schema.KEYS}) == len(schema.KEYS)
    assert all(key.meaning and key.takes for key in schema.KEYS)


def test_a_new_key_is_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading, errors, `check`, `set`, its help and completion, dialects and writing follow."""
    row = Key(
        section="peer",
        name="Patience",
        kind="seconds",
        field="persistent_keepalive",
        meaning="How long the peer may be silent.",
        takes="it takes seconds of patience",
        word=Word("patience", "S", "how long to wait", "seconds of patience"),
    )
    monkeypatch.setattr(schema, "KEYS", (*schema.KEYS, row))
    monkeypatch.setattr(schema, "_BY_NAME", {**schema._BY_NAME, "patience": row})
    monkeypatch.setattr(schema, "WORDS", {**schema.WORDS, "patience": row})

    text = f"{PEER}pati ence = 7\n"
    [peer] = wg.parse(bytearray(text.encode()), resolve).peers
    assert peer.persistent_keepalive == 7
    with pytest.raises(ConfigError, match=":4:1: bad value of 'Patience'; it takes seconds of"):
        wg.parse(bytearray(f"{PEER}Patience = x".encode()), resolve)
    with pytest.raises(ConfigError, match=r"it has .*, Patience$"):
        wg.parse(bytearray(f"{PEER}Colour = x".encode()), resolve)

    assert any(one.reason.startswith("Patience is not") for one in check(f"{PEER}Patience = -x"))
    assert any("mean Patience" in one.remedy for one in check(f"{PEER}Patince = 1"))

    [said] = cli_set._from_words(["peer", PUBLIC, "patience", "9"]).peers
    assert said.persistent_keepalive == 9
    assert "  patience S                seconds of patience" in cli_set._listed("peer")
    offered = completion.candidates(["wiresnake", "set", "wg0", "peer", PUBLIC, "pa"])
    assert ("patience", "how long to wait") in offered

    document, left = wg_quick.read(text, "wg0.conf")
    assert (document.peers[0].persistent_keepalive, left) == (7, [])
    state = PeerState(PUBLIC, None, None, (), (0, 0), 0, 0, 7)
    assert "Patience = 7" in [*write.written(schema.keys_of("peer"), state)]
