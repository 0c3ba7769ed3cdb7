"""Reading what exports and archives have."""

import gzip
from datetime import datetime
from pathlib import Path

import msgspec

from runtara.projections.archives import Contents
from runtara.projections.export import EventLine


def micros(text: str) -> int:
    """Microseconds since 1970 of an RFC 3339 time."""
    moment = datetime.fromisoformat(text)
    return int(moment.replace(microsecond=0).timestamp()) * 1_000_000 + moment.microsecond


def read_archive(file: Path) -> tuple[list[EventLine], Contents]:
    with gzip.open(file) as whole:
        *events, last = whole.read().splitlines()
    return [msgspec.json.decode(event, type=EventLine) for event in events], msgspec.json.decode(last, type=Contents)
