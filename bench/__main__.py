"""`make bench`: every line of the budget that can be reached now, on the embedded servers with real fsync.

Engine and worker are processes of their own, as `runtara dev` starts them. Every case runs on a fresh platform after a
warm-up of a few workflows; a value is the median of its runs, and the table shows the lowest and highest of them, since
small machines are noisy.
"""

import argparse
import asyncio
import os
import platform as machine
import sys
import tempfile
import time
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from runtara.cli.platform import LocalPlatform
from runtara.infra.logs import configure
from runtara.infra.settings import Settings
from runtara.sdk.client import Client

from .agents import AGENTS
from .cases import CASES, Case, OurBench
from .dsl import DSL
from .json_steps import JSON
from .json_steps import TARGET as JSON_TARGET
from .launching import LAUNCHING
from .measure import Line, fsync_ms
from .waiting import WAITING

ALL = {**CASES, **WAITING, **LAUNCHING, **AGENTS, **DSL, **JSON}
RESULTS = Path(__file__).parent / "results"
TARGET = "bench.workflows"
JOURNAL_BYTES = 512 * 1024 * 1024


def main() -> None:
    options = _parser().parse_args()
    configure("warning")
    names = options.only or list(ALL)
    lines: list[Line] = []
    with tempfile.TemporaryDirectory(prefix="runtara-bench-", ignore_cleanup_errors=True) as folder:
        os.chmod(folder, 0o711)
        disk = fsync_ms(Path(folder))
        for name in names:
            sys.stderr.write(f"{name} …\n")
            data = Path(folder) / name
            lines += asyncio.run(_measure(name, data, quick=options.quick, runs=options.runs))
    _print(lines, disk)
    file = options.json or RESULTS / f"{time.strftime('%Y%m%d-%H%M%S')}.json"
    _write(lines, disk, file, quick=options.quick)


async def _measure(name: str, data: Path, *, quick: bool, runs: int) -> list[Line]:
    case: Case = ALL[name]
    targets = [TARGET, JSON_TARGET] if name in JSON else [TARGET]
    settings = Settings(log_level="error", concurrency=1_000, max_resident=2_000, journal_max_bytes=JOURNAL_BYTES)
    async with LocalPlatform(settings, data, targets) as platform, Client(platform.settings) as client:
        bench = OurBench(platform, client, quick=quick, runs=runs)
        await asyncio.gather(*(bench.run("one-step") for _ in range(20)))
        return await case(bench)


def _print(lines: list[Line], disk: float) -> None:
    table = Table(title=f"Runtara on {os.cpu_count()} cores; append + fdatasync {disk:.2f} ms", title_justify="left")
    for title in ("work", "measured", "runs (low … high)", "budget", ""):
        table.add_column(title)
    for one in lines:
        sign = {True: "[green]holds[/green]", False: "[red]missed[/red]", None: ""}[one.holds]
        limit = "" if one.budget is None else f"{'≥' if one.best == 'high' else '≤'} {one.budget:g} {one.unit}"
        spread = f"{min(one.runs):,.4g} … {max(one.runs):,.4g}"
        table.add_row(one.name, f"{one.value:,.4g} {one.unit}", spread, limit, sign)
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def _write(lines: list[Line], disk: float, file: Path, *, quick: bool) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    document = {
        "at": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "cores": os.cpu_count(),
        "python": machine.python_version(),
        "fsync_ms": round(disk, 4),
        "quick": quick,
        "lines": lines,
    }
    file.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n")
    sys.stderr.write(f"written to {file}\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure the budgets.")
    parser.add_argument("--only", action="append", choices=list(ALL), help="only this case; may be repeated")
    parser.add_argument("--quick", action="store_true", help="small counts: to see that it works")
    parser.add_argument("--runs", type=int, default=3, help="runs of each case (default 3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the figures")
    return parser


if __name__ == "__main__":
    main()
