"""The process of `agents.py`: writes a file, reads it as a stream, and says how fast and with how much memory."""

import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from runtara.agents.csv import rows
from runtara.agents.xml import elements

ROW: Final = '%d,Customer %d,12.50,3,"a note, quoted"\n'
ELEMENT: Final = '<order id="%d"><name>Customer %d</name><price>12.50</price><count>3</count></order>\n'


def main() -> None:
    form, count = sys.argv[1], int(sys.argv[2])
    with tempfile.TemporaryFile() as file:
        file.writelines(piece.encode() for piece in _pieces(form, count))
        file.seek(0)
        before = _most_memory_mb()
        began = time.perf_counter()
        found = sum(1 for _ in _read(form, file))
        seconds = time.perf_counter() - began
        growth = _most_memory_mb() - before
    if found != count:
        sys.exit(f"{found:,} came out of {count:,}")
    print(msgspec.json.encode({"per_second": count / seconds, "growth_mb": growth}).decode())


def _pieces(form: str, count: int) -> Iterator[str]:
    if form == "csv":
        yield "id,name,price,count,note\n"
        yield from (ROW % (index, index) for index in range(count))
    else:
        yield "<orders>\n"
        yield from (ELEMENT % (index, index) for index in range(count))
        yield "</orders>\n"


def _read(form: str, file: BinaryIO) -> Iterator[object]:
    return rows(file) if form == "csv" else elements(file, "order")


def _most_memory_mb() -> float:
    """The most that this process has had. Not `getrusage`, whose figure begins with that of the parent."""
    status = Path("/proc/self/status").read_text()
    return next(int(row.split()[1]) / 1024 for row in status.splitlines() if row.startswith("VmHWM:"))


if __name__ == "__main__":
    main()
