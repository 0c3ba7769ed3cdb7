"""The events of the log as a Parquet file: what `export` has as lines, as columns. Needs the extra `parquet`.

The file is written by a thread that takes page after page from the loop that reads them, so neither holds more than
one; a row group is held until it is full.
The heads are in the file's metadata, under `runtara`.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import BinaryIO, Final

import arro3.core as arrow
import asyncpg
import msgspec
from arro3.io import read_parquet, write_parquet

from .verdict import Heads

METADATA: Final = "runtara"
ROW_GROUP: Final = 20_000
_MOMENT: Final = arrow.DataType.timestamp("us", tz="UTC")
_TYPES: Final = {
    "partition": arrow.DataType.int32(),
    "offset": arrow.DataType.int64(),
    "tenant": arrow.DataType.utf8(),
    "instance": arrow.DataType.utf8(),
    "version": arrow.DataType.int32(),
    "type": arrow.DataType.utf8(),
    "attempt": arrow.DataType.int32(),
    "key": arrow.DataType.utf8(),
    "actor": arrow.DataType.utf8(),
    "command": arrow.DataType.utf8(),
    "at": _MOMENT,
    "recorded_at": _MOMENT,
    "data": arrow.DataType.utf8(),
    "hash": arrow.DataType.binary(),
}
_SCHEMA: Final = arrow.Schema([arrow.Field(name, kind) for name, kind in _TYPES.items()])


async def write(file: BinaryIO, pages: AsyncIterator[list[asyncpg.Record]], heads: Heads) -> None:
    """All `pages` into `file`, which stays open."""
    loop = asyncio.get_running_loop()

    def batches() -> Iterator[arrow.RecordBatch]:
        while page := asyncio.run_coroutine_threadsafe(_next(pages), loop).result():
            yield _batch(page)

    def write_all() -> None:
        reader = arrow.RecordBatchReader.from_batches(_SCHEMA, batches())
        metadata = {METADATA: msgspec.json.encode(heads).decode()}
        write_parquet(reader, file, compression="zstd(3)", max_row_group_size=ROW_GROUP, key_value_metadata=metadata)

    await asyncio.to_thread(write_all)


def read_heads(path: Path) -> Heads:
    """Raises `KeyError` or msgspec errors if the file has none."""
    metadata = read_parquet(path).schema.metadata
    return msgspec.json.decode(metadata[METADATA.encode()], type=Heads)


async def _next(pages: AsyncIterator[list[asyncpg.Record]]) -> list[asyncpg.Record]:
    return await anext(pages, [])


def _batch(page: list[asyncpg.Record]) -> arrow.RecordBatch:
    return arrow.RecordBatch.from_arrays([_column(name, page) for name in _TYPES], schema=_SCHEMA)


def _column(name: str, page: list[asyncpg.Record]) -> arrow.Array:
    values = [record[name] for record in page]
    if name == "data":
        return arrow.Array([value.decode() for value in values], type=_TYPES[name])
    if _TYPES[name] == _MOMENT:
        return arrow.Array(values, type=arrow.DataType.int64()).cast(_MOMENT)
    return arrow.Array(values, type=_TYPES[name])
