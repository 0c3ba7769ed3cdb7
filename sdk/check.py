"""What a target hosts, told without running it: `python -m runtara.sdk.run TARGET --check`.

The last line of its output is a `Checked` as JSON. Whoever builds an image asks here for what goes into it, and
whoever tests one asks inside it.
"""

import os
import platform
import sys
from typing import Final

import msgspec

from runtara.protocol.api import Registration
from runtara.protocol.images import KIND

from .discovery import Code

FLAG: Final = "--check"
AGENTS: Final = "agents"
_OF_AGENTS: Final = ("runtara.agents", "runtara.dsl")  # by name: whoever hosts code alone need not have them


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """`roots`: where the targets' own sources lie; `files`: those that were loaded from there; `user`: who loaded;
    `extras`: those of this library that were needed for it."""

    workflows: list[Registration]
    python: str
    user: int
    roots: list[str]
    files: list[str]
    extras: list[str] = []


def check(code: Code) -> Checked:
    return Checked(
        workflows=[workflow.registration(code_version=code.version, kind=KIND) for workflow in code.workflows],
        python=platform.python_version(),
        user=os.getuid(),
        roots=[str(root) for root in code.roots],
        files=[str(file) for file in code.files],
        extras=[AGENTS] if any(name in sys.modules for name in _OF_AGENTS) else [],
    )


def write(checked: Checked) -> None:
    """The line, behind whatever the code printed when it was imported."""
    sys.stdout.write(f"\n{msgspec.json.encode(checked).decode()}\n")
    sys.stdout.flush()


def read(output: str) -> Checked | None:
    """What was written; None if it was not."""
    lines = output.strip().splitlines()
    try:
        return msgspec.json.decode(lines[-1], type=Checked) if lines else None
    except msgspec.MsgspecError:
        return None
