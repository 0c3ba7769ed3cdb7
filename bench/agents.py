"""Files as agents read them: rows of CSV and elements of XML out of a stream, and the memory that takes."""

import asyncio
import sys
from typing import Final

import msgspec

from .cases import Case, OurBench
from .measure import Line, line

COUNT: Final = 1_000_000
PER_SECOND: Final = 100_000
MEMORY_MB: Final = 16  # more than before the first row; the file has a hundred


async def csv(bench: OurBench) -> list[Line]:
    return await _stream(bench, "csv", "rows")


async def xml(bench: OurBench) -> list[Line]:
    return await _stream(bench, "xml", "elements")


async def _stream(bench: OurBench, form: str, what: str) -> list[Line]:
    """In a process of its own: the most memory that a process ever had is all that the system remembers."""
    count = bench.scaled(COUNT)
    rates, growths = [], []
    for _ in range(bench.runs):
        command = [sys.executable, "-m", "bench.streams", form, str(count)]
        child = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        out, _ = await child.communicate()
        if child.returncode:
            raise RuntimeError(f"{' '.join(command)} failed with exit code {child.returncode}; see above")
        found = msgspec.json.decode(out, type=dict[str, float])
        rates.append(found["per_second"])
        growths.append(found["growth_mb"])
    title = f"{form.upper()} stream of {count:,} {what}"
    return [
        line(f"{title}, each as an object", f"{what}/s", rates, budget=PER_SECOND, best="high"),
        line(f"{title}: memory it takes", "MB", growths, budget=MEMORY_MB, best="low"),
    ]


AGENTS: Final[dict[str, Case]] = {"csv": csv, "xml": xml}
