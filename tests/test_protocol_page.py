"""The page of the wire names everything that the wire has."""

import inspect
import re
from pathlib import Path
from typing import get_args

from runtara.engine import api
from runtara.protocol import limits
from runtara.protocol.events import EVENT_TYPES
from runtara.protocol.records import WireRecord

NAMED = set(re.findall(r"`(\w+)`", (Path(__file__).parent.parent / "docs" / "protocol.md").read_text()))


def test_it_names_every_event() -> None:
    assert set(EVENT_TYPES) - NAMED == set()


def test_it_names_every_record() -> None:
    assert {record.__struct_config__.tag for record in get_args(WireRecord)} - NAMED == set()


def test_it_names_every_limit() -> None:
    names = {name for name in vars(limits) if name.isupper()}
    assert names - NAMED == set()
    assert {name for name in NAMED if name.isupper() and "_" in name} - names == set()


def test_it_names_every_verb() -> None:
    verbs = set(re.findall(r'"(\w+)": self\._', inspect.getsource(api)))
    assert len(verbs) == 10
    assert verbs - NAMED == set()
