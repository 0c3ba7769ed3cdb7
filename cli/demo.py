"""The story of `runtara demo`: a batch loses its process at half, goes on with the next order, and the proof.

The proof does not trust the engine: it counts the lines that the orders themselves left in a file, and checks the
hash chains of the event log.
"""

import asyncio
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from runtara.infra.settings import Settings
from runtara.sdk.client import Client, Handle

from . import exits, output
from .platform import LocalPlatform

INSTANCE: Final = "order-batch-001"
LOOK_SECONDS: Final = 0.05
CENTS: Final = 100


class Line(msgspec.Struct, frozen=True):
    """What one processed order left behind."""

    order: int
    pid: int
    at: float


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """`gap_ms`: from the last order of the process that was killed to the first one of the next."""

    orders: int
    processed: int
    twice: list[int]
    lost: list[int]
    processes: int
    died_after: int
    resumed_at: int
    gap_ms: float
    attempts: int
    total: int
    recorded: int
    log_is_whole: bool
    events: int

    @property
    def holds(self) -> bool:
        return (
            not self.twice
            and not self.lost
            and self.processes == 2
            and self.resumed_at == self.died_after + 1
            and self.recorded == self.orders
            and self.total == CENTS * self.orders * (self.orders + 1) // 2
            and self.log_is_whole
        )


async def tell(data: Path, orders: int, *, as_json: bool) -> None:
    """Raises `typer.Exit(1)` if the proof does not hold."""
    console = Console(stderr=True, quiet=True) if as_json else output.console()
    ledger = data.parent / "ledger.txt"
    for old in (ledger, Path(f"{ledger}.died")):
        old.unlink(missing_ok=True)
    console.print("[bold]Runtara demo[/bold]: a batch of orders whose process is killed in the middle.\n")
    console.print("starting NATS, Postgres, an engine and a worker …")
    platform = LocalPlatform(Settings(log_level="error"), data, ["runtara.cli.demo_workflow"])
    async with platform, Client(platform.settings, actor="demo") as client:
        die_after = orders // 2
        arguments = {"orders": orders, "die_after": die_after, "ledger": str(ledger)}
        id = await _free_id(client)
        console.print(
            f"started [bold]{id}[/bold]: {orders:,} orders, each a durable step; SIGKILL after {die_after:,}\n"
        )
        handle = await client.start("order-batch", arguments, id=id)
        total = await _watch(handle, ledger, orders, console)
        proof = await _prove(client, platform.settings, id, ledger, orders, die_after, total)
    if as_json:
        output.print_json({**msgspec.structs.asdict(proof), "holds": proof.holds})
    else:
        _print(proof, console)
    if not proof.holds:
        raise typer.Exit(exits.FAILED)


async def _free_id(client: Client) -> str:
    """A data folder that was used before has earlier batches."""
    taken = {view.id for view in (await client.list(workflow="order-batch", limit=1_000)).instances}
    return next(id for n in range(1, 1_002) if (id := f"{INSTANCE[:-3]}{n:03}") not in taken)


async def _watch(handle: Handle[int], ledger: Path, orders: int, console: Console) -> int:
    result = asyncio.ensure_future(handle.result())
    with _progress(console, orders) as show:
        told = False
        while not result.done():
            await asyncio.sleep(LOOK_SECONDS)
            lines = _read(ledger)
            if not told and lines and lines[-1].pid != lines[0].pid:
                show.console.print(f"[red]killed[/red]   process {lines[0].pid}")
                show.console.print(f"[green]resumed[/green]  in process {lines[-1].pid}")
                told = True
            show.update(show.task_ids[0], completed=len(lines))
        show.update(show.task_ids[0], completed=len(_read(ledger)))
    return await result


@contextmanager
def _progress(console: Console, orders: int) -> Iterator[Progress]:
    columns = (TextColumn("orders"), BarColumn(40), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not sys.stdout.isatty()) as progress:
        progress.add_task("orders", total=orders)
        yield progress


def _read(ledger: Path) -> list[Line]:
    if not ledger.exists():
        return []
    lines = []
    for text in ledger.read_text().splitlines():
        order, pid, at = text.split()
        lines.append(Line(int(order), int(pid), float(at)))
    return lines


async def _prove(
    client: Client, settings: Settings, id: str, ledger: Path, orders: int, die_after: int, total: int
) -> Proof:
    lines = _read(ledger)
    counts = Counter(line.order for line in lines)
    pids = list(dict.fromkeys(line.pid for line in lines))
    before = [line for line in lines if line.pid == pids[0]]
    after = [line for line in lines if line.pid != pids[0]]
    keys = {event.key async for event in client.history(id) if event.type == "CheckpointSaved"}
    whole, events = await _verify(settings)
    return Proof(
        orders=orders,
        processed=len(counts),
        twice=sorted(order for order, count in counts.items() if count > 1)[:10],
        lost=sorted(set(range(1, orders + 1)) - set(counts))[:10],
        processes=len(pids),
        died_after=before[-1].order if before else 0,
        resumed_at=after[0].order if after else 0,
        gap_ms=round((after[0].at - before[-1].at) * 1_000, 1) if before and after else 0.0,
        attempts=(await client.get(id)).attempt,
        total=total,
        recorded=len(keys),
        log_is_whole=whole,
        events=events,
    )


async def _verify(settings: Settings) -> tuple[bool, int]:
    from runtara.infra.login import tls_of
    from runtara.infra.postgres import open_pool
    from runtara.projections.audit import verify

    pool = await open_pool(settings.require_database_url(), settings.deployment, size=1, tls=tls_of(settings))
    async with pool, pool.acquire() as connection:
        verdict = await verify(connection)
    return verdict.is_clean, verdict.events


def _print(proof: Proof, console: Console) -> None:
    rows = (
        (not proof.lost, f"{proof.processed:,} of {proof.orders:,} orders were processed, none was lost"),
        (not proof.twice, "no order was processed twice (each left one synced line in a file)"),
        (
            proof.resumed_at == proof.died_after + 1,
            f"the process died after order {proof.died_after:,}; another one went on with {proof.resumed_at:,}",
        ),
        (proof.recorded == proof.orders, f"the event log has one result for each of {proof.recorded:,} orders"),
        (proof.log_is_whole, f"every hash of the log holds ({proof.events:,} events)"),
    )
    console.print()
    for holds, text in rows:
        console.print(f"{'[green]✓[/green]' if holds else '[red]✗[/red]'} {text}")
    console.print(f"\nfrom the last order before the kill to the next one: {proof.gap_ms:,.0f} ms")
    if not proof.holds:
        console.print(f"[red]the proof does not hold[/red]: twice {proof.twice}, lost {proof.lost}")
