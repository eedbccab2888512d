"""`wiresnake check` judges as stock wg-quick and wg do: what one of them takes, and what not."""

from pathlib import Path

from corpus import BAD, GOOD, OURS
from interop.harness import OURS as WIRESNAKED
from interop.harness import MakeHost

from wiresnake.conffile.check import check

EVERY_FILE = """
for file in *.conf; do
    if wg-quick strip ./$file >stripped 2>>said && wg setconf wg0 stripped 2>>said
    then echo $file good; else echo $file bad; fi
done
"""
EVERY_ADDRESS = """
while read -r address; do
    if ip address add "$address" dev lo 2>/dev/null
    then echo good; ip address flush dev lo; else echo bad; fi
done
"""
ADDRESSES = {
    "good": (
        *("10.0.0.1/24", "10.0.0.1", "10.1/8", "10.1", "fd00::1/64", "fd00::1", "10.0.0.1/32"),
        *("10.0.0.1/255.255.255.0", "::ffff:10.0.0.1/128", "10.0.0.1/0"),
    ),
    "bad": (
        *("10.0.0.1/33", "10.0.0.256", "10.0.0.1/", "x", "10.0.0.1.2", "fd00::1/129", "fd00:::1"),
        *("10.0.0.1/24/24", "10.0.0.1/-1", "1.2.3.4x"),
    ),
}


def test_check_accepts_what_stock_accepts(make_host: MakeHost, tmp_path: Path) -> None:
    host = make_host("us")
    WIRESNAKED.start(host)
    texts = {f"c{number:03}.conf": text for number, text in enumerate((*GOOD, *BAD, *OURS))}
    for name, text in texts.items():
        (tmp_path / name).touch(mode=0o600)
        (tmp_path / name).write_bytes(text.encode())
    script = f"cd {tmp_path} && {EVERY_FILE}"
    said = host.run("sh -c", script, env={"WG_ENDPOINT_RESOLUTION_RETRIES": "0"}, timeout=60)
    stock = dict(line.split() for line in said.stdout.splitlines())
    assert len(stock) == len(texts)
    different = [
        (text, "stock says " + stock[name], errors(text))
        for name, text in texts.items()
        if text not in OURS and (stock[name] == "bad") != bool(errors(text))
    ]
    assert not different
    assert [text for name, text in texts.items() if stock[name] == "good"] == list(GOOD)
    assert not [text for text in OURS if errors(text)]


def errors(text: str) -> list[str]:
    return [finding.reason for finding in check(text) if finding.level == "error"]


def test_addresses_as_ip_reads_them(make_host: MakeHost) -> None:
    host = make_host("us")
    both = [*ADDRESSES["good"], *ADDRESSES["bad"]]
    stock = host.run("sh -c", EVERY_ADDRESS, text="\n".join(both) + "\n").stdout.split()
    ours = ["bad" if errors(f"[Interface]\nAddress = {one}") else "good" for one in both]
    assert list(zip(both, ours, strict=True)) == list(zip(both, stock, strict=True))
    assert stock.count("good") == len(ADDRESSES["good"])
