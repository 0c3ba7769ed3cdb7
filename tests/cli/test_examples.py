"""The examples run as their first lines say."""

import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import Shell

EXAMPLES = Path(__file__).parent.parent.parent / "examples"

pytestmark = pytest.mark.timeout(120)


def test_a_fan_out_gets_each_branch_its_own_result(shell: Shell) -> None:
    done = shell.run("run", str(EXAMPLES / "fan_out.py"), "--input", '{"cities": ["Oslo", "Quito"]}', "--json")
    assert done.returncode == 0, done.stderr
    assert '"result":["Oslo: soleado","Quito: soleado"]' in done.stdout


def test_a_script_is_an_instance_like_any_other(shell: Shell) -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLES / "script.py"],
        cwd=shell.folder, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"processing order {n}" for n in range(5)]
    (view,) = shell.lines("show", "order-batch-001")
    assert (view["status"], view["result"]) == ("completed", {"processed": 5})
