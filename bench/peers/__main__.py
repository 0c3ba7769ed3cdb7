"""`make bench-peers`: the cases of `bench/cases.py` on DBOS with Postgres, beside our own figures.

The very functions that measure us measure DBOS, through a `Bench` whose `run` asks DBOS's process: same counts, same
states, same arithmetic, and a fresh Postgres with real fsync for each case. Our figures are those of the newest
`make bench`, unless `--with-ours` measures them at once; without any they are measured too.
"""

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from runtara.infra.logs import configure
from runtara.protocol.errors import RuntaraError

from ..cases import (
    checkpoints,
    idle_latency,
    kill_and_resume,
    large_state,
    many_at_once,
    one_step_workflows,
    resume_cost,
    sequential_steps,
)
from ..measure import Line, fsync_ms
from .peer import Peer, PeerBench, PeerFailed, embedded_postgres

RESULTS = Path(__file__).parents[1] / "results"
CASES = {
    "sequential": sequential_steps,
    "many": many_at_once,
    "one-step": one_step_workflows,
    "idle": idle_latency,
    "checkpoint": checkpoints,
    "kill": kill_and_resume,
    "resume": resume_cost,
    "large": large_state,
}
CASE_SECONDS = 600.0  # several times what the longest, resume, takes on two cores
NOTES = {"checkpoint": "checkpoint: of DBOS a step, which has returned when Postgres has committed it"}


class Theirs(msgspec.Struct, kw_only=True):
    """What was measured of DBOS. `exchange_ms`: what asking its process costs by itself, part of every figure."""

    version: str = ""
    exchange_ms: float = 0.0
    lines: list[Line] = msgspec.field(default_factory=list)
    failures: list[str] = msgspec.field(default_factory=list)


class Ours(msgspec.Struct, frozen=True):
    """What `make bench` has written, as far as it matters here."""

    at: str
    fsync_ms: float
    lines: list[Line]
    quick: bool = False


def main() -> int:
    options = _parser().parse_args()
    configure("warning")
    if not options.python.exists():
        sys.stderr.write(f"DBOS is not installed ({options.python} does not exist): `make bench-peers` installs it\n")
        return 1
    names = options.only or list(CASES)
    with tempfile.TemporaryDirectory(prefix="runtara-bench-", ignore_cleanup_errors=True) as folder:
        os.chmod(folder, 0o711)
        disk = fsync_ms(Path(folder))
        theirs = asyncio.run(_measure_all(names, Path(folder), options))
    if theirs.lines:
        wanted = {line.name for line in theirs.lines}
        ours = (None if options.with_ours else _newest(wanted)) or _measure_ours(names, options)
        _print(theirs, ours, disk, quick=options.quick)
        _write(theirs, ours, disk, options)
    for failure in theirs.failures:
        sys.stderr.write(f"{failure}\n")
    return 1 if theirs.failures else 0


async def _measure_all(names: Sequence[str], folder: Path, options: argparse.Namespace) -> Theirs:
    """Each case on a Postgres of its own; one that cannot run says why, and the others go on."""
    theirs = Theirs()
    for name in names:
        sys.stderr.write(f"DBOS: {name} …\n")
        try:
            async with (
                asyncio.timeout(CASE_SECONDS),
                embedded_postgres(folder / name) as url,
                Peer(options.python, url) as peer,
            ):
                lines = await _measure(name, peer, theirs, options)
        except TimeoutError:
            theirs.failures.append(f"{name}: not done within {CASE_SECONDS:g} s; fewer --runs may help")
        except RuntaraError as error:
            theirs.failures.append(f"{name}: {error}")
            if isinstance(error, PeerFailed) and not theirs.version:
                break  # it has never launched: the next case would tell the same
        else:
            theirs.lines += [msgspec.structs.replace(line, budget=None, note=NOTES.get(name, "")) for line in lines]
    return theirs


async def _measure(name: str, peer: Peer, theirs: Theirs, options: argparse.Namespace) -> list[Line]:
    bench = PeerBench(peer, quick=options.quick, runs=options.runs)
    await asyncio.gather(*(bench.run("one-step") for _ in range(20)))
    theirs.version, theirs.exchange_ms = peer.version, await peer.exchange_ms()
    return await CASES[name](bench)


def _newest(wanted: set[str]) -> Ours | None:
    """The figures of the last `make bench` that was not a quick one and has all the lines."""
    for file in sorted(RESULTS.glob("[0-9]*.json"), reverse=True):
        ours = msgspec.json.decode(file.read_bytes(), type=Ours)
        if not ours.quick and wanted <= {line.name for line in ours.lines}:
            return ours
    return None


def _measure_ours(names: Sequence[str], options: argparse.Namespace) -> Ours:
    """As `make bench` does it, in a process of its own."""
    file = RESULTS / f"{time.strftime('%Y%m%d-%H%M%S')}.json"
    command = [sys.executable, "-m", "bench", "--json", str(file), "--runs", str(options.runs)]
    command += ["--quick"] if options.quick else []
    for name in names:
        command += ["--only", name]
    sys.stderr.write("Runtara: the same cases …\n")
    if subprocess.run(command, check=False, stdout=subprocess.DEVNULL).returncode != 0:
        sys.stderr.write("Runtara could not be measured; its own words are above\n")
        return Ours(at="never", fsync_ms=0.0, lines=[])
    return msgspec.json.decode(file.read_bytes(), type=Ours)


def _print(theirs: Theirs, ours: Ours, disk: float, *, quick: bool) -> None:
    machine = f"on {os.cpu_count()} cores; append + fdatasync {disk:.2f} ms{'; quick: small counts' if quick else ''}"
    notes = [
        f"Runtara: measured {ours.at}, append + fdatasync {ours.fsync_ms:.2f} ms",
        f"DBOS: its process is asked through a pipe, {theirs.exchange_ms:.2f} ms of each start",
        *dict.fromkeys(line.note for line in theirs.lines if line.note),
    ]
    table = Table(
        title=f"Runtara and DBOS {theirs.version} {machine}",
        title_justify="left",
        caption="\n".join(notes),
        caption_justify="left",
    )
    for title in ("work", "Runtara", "DBOS", "runs of DBOS (low … high)"):
        table.add_column(title)
    known = {line.name: line for line in ours.lines}
    for line in theirs.lines:
        mine = known.get(line.name)
        spread = f"{_short(min(line.runs))} … {_short(max(line.runs))}"
        table.add_row(line.name, _figure(mine), _figure(line), spread)
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def _figure(line: Line | None) -> str:
    return "–" if line is None else f"{_short(line.value)} {line.unit}"


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 1_000 else f"{value:.4g}"


def _write(theirs: Theirs, ours: Ours, disk: float, options: argparse.Namespace) -> None:
    file = options.json or RESULTS / f"peers-{time.strftime('%Y%m%d-%H%M%S')}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    document = {
        "at": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "cores": os.cpu_count(),
        "fsync_ms": round(disk, 4),
        "quick": options.quick,
        "dbos": theirs,
        "runtara": ours,
    }
    file.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n")
    sys.stderr.write(f"written to {file}\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description="The same work on DBOS.")
    parser.add_argument("--python", type=Path, default=Path(".venv-peers/bin/python"), help="an interpreter with DBOS")
    parser.add_argument("--only", action="append", choices=list(CASES), help="only this case; may be repeated")
    parser.add_argument("--with-ours", action="store_true", help="measure Runtara now, not its last `make bench`")
    parser.add_argument("--quick", action="store_true", help="small counts: to see that it works")
    parser.add_argument("--runs", type=int, default=3, help="runs of each case (default 3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the figures")
    return parser


if __name__ == "__main__":
    sys.exit(main())
