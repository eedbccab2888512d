"""The public suite on ours: all of its checks that do not wait for timers."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from interop.harness import Implementation, unavailable
from wiresnake_conformance import checks
from wiresnake_conformance.run import WAITING
from wiresnake_conformance.verdict import CHECKS, Check

checks.load()
pytestmark = pytest.mark.alone
QUICK = [check for check in CHECKS if check.seconds <= WAITING]


@pytest.fixture(scope="module")
def outcomes(ours: Implementation, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the suite found, by item and check."""
    if os.geteuid():
        unavailable("needs root, for network namespaces")
    written = tmp_path_factory.mktemp("conformance") / "results.json"
    daemon = f"ours={ours.program}"
    command = [sys.executable, "-m", "wiresnake_conformance", "--quick", "--daemon", daemon]
    done = subprocess.run(
        [*command, "--json", written], capture_output=True, text=True, timeout=1200, check=False
    )
    assert written.exists(), done.stdout + done.stderr
    return {
        f"{item['number']} {outcome['check']}": outcome
        for item in json.loads(Path(written).read_text())["items"]
        for outcome in item["results"]["ours"]["checks"]
    }


@pytest.mark.parametrize("check", QUICK, ids=lambda check: f"{check.number}-{check.name}")
def test_item(check: Check, outcomes: dict[str, Any]) -> None:
    outcome = outcomes[f"{check.number} {check.name}"]
    evidence = "\n".join([outcome["reason"], *outcome["evidence"]])
    if outcome["result"] == "inconclusive":
        unavailable(evidence)
    assert outcome["result"] in ("pass", "not applicable"), evidence
