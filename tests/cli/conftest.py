"""A `runtara dev` for the tests of its commands."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.servers import data_folder

ORDERS = (Path(__file__).parent.parent.parent / "examples" / "orders.py").read_text()
FAILING = """

@workflow
async def broken(ctx: Context) -> None:
    raise ValueError("no luck")


@workflow
async def endless(ctx: Context) -> None:
    import asyncio

    await asyncio.Event().wait()


@workflow
async def long(ctx: Context, value: str) -> str:
    return await ctx.step("double", lambda: value + value)
"""


class Shell:
    """Types `runtara …` in a directory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, *arguments: str, input: str | None = None) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "runtara.cli", *arguments],
            cwd=self.folder, input=input, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    def lines(self, *arguments: str) -> list[dict[str, Any]]:
        """What a command prints with `--json`."""
        done = self.run(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def shell() -> Iterator[Shell]:
    """A directory where `runtara dev` runs, with the example's workflows, two that end badly, one with a long value."""
    with data_folder() as folder:
        (folder / "flows.py").write_text(ORDERS + FAILING)
        command = [sys.executable, "-m", "runtara.cli", "dev", "flows.py"]
        dev = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert dev.stdout is not None
        assert dev.stderr is not None
        try:
            assert dev.stdout.readline().startswith(b"ready nats=nats://127.0.0.1:"), dev.stderr.read().decode()
            yield Shell(folder)
        finally:
            dev.terminate()
            dev.communicate(timeout=60)
        assert not (folder / ".runtara" / "dev.json").exists()
