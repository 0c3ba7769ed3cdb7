"""Reading heads that were kept elsewhere: from the end of an export, from a Parquet file, from a verdict."""

import os
from pathlib import Path
from typing import Final

import msgspec

from runtara.protocol.errors import BadInput, ExtraMissing

from .verdict import Heads

MAX_LINE_BYTES: Final = 16 * 1024 * 1024  # of the last line
PARQUET_MAGIC: Final = b"PAR1"
_HINT: Final = "give a file that `runtara audit export` or `runtara audit verify --json` wrote"


def read_heads(path: Path) -> Heads:
    """The heads that a file ends with. Raises `BadInput` if it has none."""
    try:
        with path.open("rb") as file:
            begins = file.read(len(PARQUET_MAGIC))
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - MAX_LINE_BYTES))
            end = file.read()
    except OSError as exc:
        raise BadInput(reason=f"cannot read {path}: {exc.strerror or exc}") from exc
    try:
        if begins == PARQUET_MAGIC and end.endswith(PARQUET_MAGIC):  # a whole one: the library panics at others
            return _from_parquet(path)
        last = next((line for line in reversed(end.splitlines()) if line.strip()), b"")
        return msgspec.json.decode(last, type=Heads)
    except (KeyError, msgspec.MsgspecError) as exc:
        raise BadInput(reason=f"{path} does not end with heads; {_HINT}") from exc


def _from_parquet(path: Path) -> Heads:
    try:
        from .parquet import read_heads
    except ImportError as exc:
        raise ExtraMissing(extra="parquet") from exc
    return read_heads(path)
