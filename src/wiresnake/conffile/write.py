"""Writes the lines of a configuration file."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from wiresnake.conffile import schema
from wiresnake.conffile.schema import Key, Kind
from wiresnake.uapi.snapshot import InterfaceState


def write_config(state: InterfaceState) -> str:
    """Returns the file for an identical interface: the output of `wg showconf`, with secrets."""
    # Secrets come last, as with stock `wg`.
    device = sorted(schema.keys_of("interface", quick=False), key=lambda key: key.secret)
    lines = ["[Interface]", *written(device, state), ""]
    peer_keys = schema.keys_of("peer", quick=False)
    for peer in state.peers:
        lines += ["[Peer]", *written(peer_keys, peer)]
        if peer is not state.peers[-1]:
            lines.append("")
    return "\n".join(lines) + "\n"


def written(keys: Iterable[Key], values: object) -> Iterator[str]:
    """Yields lines for the keys that have a value in `values`."""
    for key in keys:
        if value := getattr(values, key.field, None):
            if key.kind == "command":
                yield from (f"{key.name} = {command}" for command in value)
            else:
                yield f"{key.name} = {_WRITERS.get(key.kind, str)(value)}"


_WRITERS: dict[Kind, Callable[[Any], str]] = {
    "mark": "{:#x}".format,
    "networks": ", ".join,
    "addresses": ", ".join,
    "dns": ", ".join,
    "switch": lambda _: "true",
}
