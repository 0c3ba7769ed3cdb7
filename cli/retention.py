"""`runtara audit export` and `runtara audit archive`: events as files, and out of the database."""

import os
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, Final

import msgspec
import typer

from runtara.protocol.errors import BadInput, ExtraMissing
from runtara.protocol.ids import check_id
from runtara.protocol.messages import Status

from . import exits, output
from .audit import database, print_findings, progress
from .completion import complete_instance
from .options import AsJson, parse_age, parse_moment

if TYPE_CHECKING:
    from runtara.projections.export import Selection
    from runtara.projections.verdict import Heads

STDOUT: Final = "-"
ENDED: Final = "completed,failed,cancelled"


class Format(StrEnum):
    NDJSON = "ndjson"
    PARQUET = "parquet"


File = Annotated[str, typer.Argument(metavar="FILE", help="Where to; - is standard output.")]
OfTenant = Annotated[str | None, typer.Option("--tenant", metavar="ID", help="Only this tenant (default: all).")]
OfInstances = Annotated[
    list[str] | None,
    typer.Option("--instance", metavar="ID", help="Only this one; may be repeated.", autocompletion=complete_instance),
]
Since = Annotated[str | None, typer.Option("--since", metavar="TIME", help="Recorded then or later (RFC 3339).")]
Until = Annotated[str | None, typer.Option("--until", metavar="TIME", help="Recorded before then (RFC 3339).")]
Kind = Annotated[Format | None, typer.Option("--format", help="Parquet where FILE ends in .parquet, else NDJSON.")]


def export(
    file: File = STDOUT,
    tenant: OfTenant = None,
    instance: OfInstances = None,
    since: Since = None,
    until: Until = None,
    format: Kind = None,
    as_json: AsJson = False,
) -> None:
    """Write events as NDJSON or Parquet. The last line (Parquet: the metadata) has the partitions' heads.

    Keep a file elsewhere: `audit verify --heads FILE` then proves that nothing it stands for was replaced since.
    """
    kind = format or (Format.PARQUET if file.endswith(".parquet") else Format.NDJSON)
    if kind is Format.PARQUET and file == STDOUT:
        raise typer.BadParameter("Parquet needs a FILE", param_hint="--format")

    async def go() -> None:
        selection = _selection(tenant, instance or [], since, until)
        count, heads = await _export(file, kind, selection)
        if file == STDOUT:
            return
        if as_json:
            output.print_json({"file": file, "events": count, "deployment": heads.deployment, "heads": heads.heads})
        else:
            output.console().print(f"{count:,} events in {file}")

    exits.run(go(), as_json=as_json)


def _selection(tenant: str | None, instances: list[str], since: str | None, until: str | None) -> "Selection":
    from runtara.projections.export import Selection

    return Selection(
        tenant=check_id(tenant, "tenant") if tenant is not None else None,
        instances=tuple(check_id(id, "instance") for id in instances),
        since=parse_moment(since, "--since"),
        until=parse_moment(until, "--until"),
    )


async def _export(file: str, kind: Format, selection: "Selection") -> "tuple[int, Heads]":
    from runtara.projections.audit import heads_now
    from runtara.projections.export import pages

    count = 0
    async with database() as pool, pool.acquire() as connection, progress("export") as advance:

        async def counted() -> AsyncIterator[list[Any]]:
            nonlocal count
            async for page in pages(connection, selection):
                yield page
                count += len(page)
                advance(len(page))

        async with connection.transaction(isolation="repeatable_read", readonly=True):
            heads = await heads_now(connection)
            with _opened(file) as target:
                await _write(target, kind, counted(), heads)
    return count, heads


async def _write(target: BinaryIO, kind: Format, pages: AsyncIterator[list[Any]], heads: "Heads") -> None:
    if kind is Format.PARQUET:
        try:
            from runtara.projections import parquet
        except ImportError as exc:
            raise ExtraMissing(extra="parquet") from exc
        await parquet.write(target, pages, heads)
        return
    from runtara.projections.export import heads_line, lines

    async for page in pages:
        target.write(lines(page))
    target.write(heads_line(heads))


@contextmanager
def _opened(file: str) -> Iterator[BinaryIO]:
    """A file that appears under its name when it is whole and synced."""
    if file == STDOUT:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    part = Path(f"{file}.part")
    try:
        with part.open("wb") as target:
            yield target
            target.flush()
            os.fsync(target.fileno())
        part.rename(file)
    except ConnectionError:  # the database's
        raise
    except OSError as exc:
        raise BadInput(reason=f"cannot write {file}: {exc.strerror or exc}") from exc
    finally:
        part.unlink(missing_ok=True)


def archive(
    older_than: Annotated[str, typer.Option("--older-than", metavar="AGE", help="Ended so long ago: 30d, 12h, 8w.")],
    to: Annotated[Path | None, typer.Option("--to", metavar="DIR", help="The folder that gets the files.")] = None,
    status: Annotated[str, typer.Option("--status", metavar="S,S…", help="How they ended.")] = ENDED,
    tenant: OfTenant = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would go.")] = False,
    as_json: AsJson = False,
) -> None:
    """Move instances that ended long ago into gzipped NDJSON files, and delete them from the database.

    Each file is synced before anything is deleted. The log stays provable: `audit verify` goes on over the hashes of
    what was archived. Ids of archived instances are never used again. Engines may go on running.
    """
    age = parse_age(older_than, "--older-than")
    if to is None and not dry_run:
        raise typer.BadParameter("give the folder that gets the files, or --dry-run", param_hint="--to")

    async def go() -> None:
        from runtara.engine.archive import Policy, archive, summary

        before = time.time_ns() // 1_000 - int(age.total_seconds()) * 1_000_000
        policy = Policy(before_us=before, statuses=_statuses(status), tenant=tenant)
        async with database(size=2) as pool:
            if dry_run or to is None:
                _print_summary(await summary(pool, policy), as_json=as_json)
                return
            async with progress("archive") as advance:
                done = await archive(pool, policy, to, advance)
        if as_json:
            output.print_json(done)
        else:
            values = f", and {output.counted(done.values, 'long value')} in {to / 'blobs'}" if done.values else ""
            told = f"{done.instances:,} instances with {done.events:,} events are in {len(done.files)} files in {to}"
            output.console().print(told + values)
            print_findings(done.findings)
        if not done.is_clean:
            raise typer.Exit(exits.FAILED)

    exits.run(go(), as_json=as_json)


def _statuses(text: str) -> tuple[Status, ...]:
    try:
        return tuple(Status(word.strip()) for word in text.split(","))
    except ValueError as exc:
        raise BadInput(reason=f"--status: {exc}; use some of {ENDED}") from exc


def _print_summary(portions: list[Any], *, as_json: bool) -> None:
    if as_json:
        for one in portions:
            output.print_json({**msgspec.structs.asdict(one), "oldest": output.rfc3339(one.oldest)})
        return
    if not portions:
        output.console().print("nothing would be archived")
        return
    output.print_table(
        ("TENANT", "STATUS", "INSTANCES", "EVENTS", "OLDEST"),
        [
            (one.tenant, one.status, f"{one.instances:,}", f"{one.events:,}", output.for_people(one.oldest))
            for one in portions
        ],
    )
