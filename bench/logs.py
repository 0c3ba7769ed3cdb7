"""A long event log, made quickly: the real fold and the real commit, without a journal and without workers."""

import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Final

from msgspec import Raw

from runtara.engine import log as event_log
from runtara.engine.fold import Context, Fold, Position
from runtara.engine.reader import Frame
from runtara.engine.setup import NEW_PARTITION
from runtara.engine.streams import Anchor
from runtara.engine.workflows import Known
from runtara.infra.postgres import PgConnection, migrate, open_pool
from runtara.protocol.chain import GENESIS
from runtara.protocol.records import Checkpointed, Completed, Options, Record, Start, Started
from runtara.protocol.subjects import Subjects

AT_ONCE: Final = 100  # instances whose events are interleaved
STEPS: Final = 20
EVENTS_EACH: Final = STEPS + 4  # created, queued, started, completed
VALUE: Final = Raw(b'{"kind":"step","value":{"receipt":"%s"}}' % (b"r" * 60))
_BEGAN_US: Final = 1_790_000_000_000_000


@asynccontextmanager
async def long_log(database_url: str, deployment: str, events: int) -> AsyncIterator[PgConnection]:
    """A connection to a deployment of its own that has about so many events in its only partition."""
    await migrate(database_url, deployment)
    async with await open_pool(database_url, deployment, size=1) as pool, pool.acquire() as connection:
        await connection.execute(NEW_PARTITION, 0, "", GENESIS)
        await _fill(connection, Subjects(deployment), events)
        await connection.execute("ANALYZE")
        yield connection
        await connection.execute(f'DROP SCHEMA "{deployment}" CASCADE')


async def _fill(connection: PgConnection, subjects: Subjects, events: int) -> None:
    ownership = await event_log.take_over(connection, 0, secrets.token_hex(16))
    assert ownership is not None
    position, anchor = ownership.position, ownership.anchor
    for wave in range(max(1, events // (EVENTS_EACH * AT_ONCE))):
        fold = _folded(position, subjects, wave)
        after = Anchor(created="", cursor=anchor.cursor + 1, fingerprint=None)
        await event_log.commit(connection, ownership, fold, before=anchor, after=after)
        position, anchor = fold.position, after


def _folded(position: Position, subjects: Subjects, wave: int) -> Fold:
    known = {"default": {"bench": Known("pool", Options())}}
    context = Context(partition=0, partitions=1, subjects=subjects, repeated=frozenset(), workflows=known)
    fold = Fold(position, {}, context)
    for subject, records in _frames(subjects, wave):
        time_us = _BEGAN_US + position.head
        fold.frame(Frame(subject=subject, sequence=wave, time_us=time_us, data=b"", records=records, rejections=[]))
    return fold


def _frames(subjects: Subjects, wave: int) -> Iterator[tuple[str, list[Record]]]:
    """What clients and one worker say while `AT_ONCE` instances run side by side."""
    ids = [f"order-{wave:05d}-{n:03d}" for n in range(AT_ONCE)]
    claims = [{"instance": id, "attempt": 1, "nonce": secrets.token_hex(16)} for id in ids]
    commands, reports = subjects.commands(0, "default", "c1"), subjects.worker_reports(0, "default", "w1")
    yield commands, [Start(instance=id, id=f"start-{id}", workflow="bench", input=Raw(b"{}")) for id in ids]
    yield reports, [Started(worker="w1", **claim) for claim in claims]
    for seq in range(1, STEPS + 1):
        yield reports, [Checkpointed(seq=seq, key=f"{seq}/charge~3f9a2c1b", data=VALUE, **claim) for claim in claims]
    yield reports, [Completed(seq=STEPS + 1, result=Raw(b"20"), **claim) for claim in claims]
