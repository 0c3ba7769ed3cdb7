"""What a measurement is, and the disk's own speed beside it."""

import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the table. `runs` are the values of all runs, `value` their median; `best` says which way is good."""

    name: str
    unit: str
    value: float
    runs: list[float]
    budget: float | None = None
    best: str = "high"
    note: str = ""

    @property
    def holds(self) -> bool | None:
        if self.budget is None:
            return None
        return self.value >= self.budget if self.best == "high" else self.value <= self.budget


def line(name: str, unit: str, runs: Sequence[float], *, budget: float | None, best: str, note: str = "") -> Line:
    values = [round(value, 4) for value in runs]
    return Line(name=name, unit=unit, value=statistics.median(values), runs=values, budget=budget, best=best, note=note)


def percentile(values: Sequence[float], percent: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def fsync_ms(folder: Path, count: int = 500) -> float:
    """Median milliseconds of a 200-byte append with fdatasync."""
    seconds = []
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        for _ in range(count):
            began = time.perf_counter()
            os.write(file.fileno(), b"x" * 200)
            os.fdatasync(file.fileno())
            seconds.append(time.perf_counter() - began)
    return statistics.median(seconds) * 1_000


def rss_mb(pid: int) -> float:
    """Resident memory of a process in MB."""
    for text in Path(f"/proc/{pid}/status").read_text().splitlines():
        if text.startswith("VmRSS:"):
            return int(text.split()[1]) / 1024
    return 0.0


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
