"""The steps of a JSON workflow as a table, from the step events of its log (`trackEvents`).

Invariant: it reads the log alone, an event at a time, and keeps one row a step.
"""

from datetime import UTC, datetime
from typing import Final

import msgspec
import orjson
from rich.text import Text

from runtara.protocol.api import EventView

from . import output

EVENT: Final = "step"  # the name of the custom events, as `runtara.dsl.runtime.tracing` writes them
TITLES: Final = ("STEP", "TYPE", "STATE", "STARTED", "TOOK", "INPUTS", "OUTPUTS")
MAX_ROWS: Final = 1_000  # of a workflow with more steps, the last ones are shown
_COLOURS: Final = {"running": "blue", "ended": "green", "failed": "red"}
_SHOWN: Final = 48  # characters of inputs and outputs


class _Row(msgspec.Struct, kw_only=True):
    step: str
    type: str
    started_us: int
    state: str = "running"
    took_us: int | None = None
    inputs: object = None
    outputs: object = None


class StepTable:
    """Give it each event of an instance, then print it."""

    def __init__(self) -> None:
        self._rows: dict[str, _Row] = {}
        self._left_out = 0

    def add(self, event: EventView) -> bool:
        """Whether it was a step event."""
        data = step_event(event)
        if data is None or event.key is None:
            return False
        path, _, phase = event.key.rpartition("/")
        row = self._rows.get(path)
        if phase == "started" or row is None:
            row = self._rows[path] = _Row(step=path, type=str(data.get("type", "")), started_us=event.at)
            row.inputs = data.get("inputs")
            self._bound()
        if phase != "started":
            row.state = str(data.get("phase"))
            row.took_us = event.at - row.started_us
            row.outputs = data.get("error") if row.state == "failed" else data.get("outputs")
        return True

    def print(self) -> None:
        """Nothing, if there was no step event."""
        if not self._rows:
            return
        console = output.console()
        console.print()
        if self._left_out:
            console.print(f"{output.counted(self._left_out, 'earlier step')} not shown")
        output.print_table(TITLES, [_cells(row) for row in self._rows.values()])

    def _bound(self) -> None:
        if len(self._rows) > MAX_ROWS:
            del self._rows[next(iter(self._rows))]
            self._left_out += 1


def step_event(event: EventView) -> dict[str, object] | None:
    """What a step event says; None for any other event."""
    if event.type != "CustomEvent":
        return None
    data = orjson.loads(bytes(event.data))
    said = data.get("data") if isinstance(data, dict) and data.get("name") == EVENT else None
    return said if isinstance(said, dict) and "phase" in said else None


def _cells(row: _Row) -> tuple[str | Text, ...]:
    at = datetime.fromtimestamp(row.started_us / 1e6, UTC).astimezone().strftime("%H:%M:%S.%f")[:-3]
    took = "" if row.took_us is None else f"{row.took_us / 1e6:.3f} s"
    state = Text(row.state, style=_COLOURS.get(row.state, ""))
    return row.step, row.type, state, at, took, _short(row.inputs), _short(row.outputs)


def _short(value: object) -> str:
    text = "" if value is None else orjson.dumps(value).decode()
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
