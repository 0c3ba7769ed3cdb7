"""The demo tells the truth."""

import json
import subprocess
import sys

import pytest


@pytest.mark.smoke
def test_the_demo_loses_its_process_and_nothing_else() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "runtara.cli", "demo", "--orders", "100", "--json"],
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    proof = json.loads(done.stdout)
    assert proof["holds"] is True
    assert (proof["died_after"], proof["resumed_at"], proof["processes"], proof["attempts"]) == (50, 51, 2, 2)
    assert (proof["twice"], proof["lost"], proof["recorded"]) == ([], [], 100)
