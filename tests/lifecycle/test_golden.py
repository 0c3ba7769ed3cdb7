"""Event logs of earlier versions replay to the states they had."""

from pathlib import Path
from typing import get_args

import msgspec
import pytest

from runtara.engine.lifecycle import State, evolve
from runtara.protocol.events import AnyEvent
from tests.lifecycle.golden_lives import FOLDER, LIVES, read

LOGS = sorted(FOLDER.glob("*.ndjson"))
UNUSED = {"ProgressReported", "LogWritten"}  # they change nothing


@pytest.mark.parametrize("path", LOGS, ids=lambda path: path.stem)
def test_a_log_replays_to_the_state_it_had(path: Path) -> None:
    events, expected = read(path)
    state: State | None = None
    for version, event in events:
        state = evolve(state, event)
        assert state.version == version
    assert state is not None
    assert msgspec.structs.replace(msgspec.json.decode(expected, type=State), keys=state.keys) == state


@pytest.mark.parametrize("name", LIVES)
def test_the_same_life_is_decided_as_it_was(name: str) -> None:
    events, _ = read(FOLDER / f"{name}.ndjson")
    assert LIVES[name]().log == events


def test_every_kind_of_event_is_in_some_log() -> None:
    seen = {type(event).__name__ for path in LOGS for _, event in read(path)[0]}
    assert {cls.__name__ for cls in get_args(AnyEvent)} - seen == UNUSED
