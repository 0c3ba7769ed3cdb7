"""One source must not stop everyone: who fills a journal, or floods `rejected`, is reported, and cut off if it can be.

A journal that is full refuses everybody. What is committed is purged, so what counts is what a source has in it behind
the cursor: more than a quarter of the journal's size is too much. How many messages that are the server says exactly;
their size is that of the source's frames as they were seen so far, else of all that is in the journal.

Of what a source has rejected, more than 1,000 records a minute are too much; beyond that they are counted only.

Invariants: nothing here decides what becomes of a record, nor waits in the way of a commit; memory is bounded whatever
subjects there are.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import msgspec

from runtara.infra.bus import Bus
from runtara.infra.logs import logger
from runtara.protocol.errors import Malformed, RuntaraError
from runtara.protocol.subjects import Channel, Source, Subjects

from .fold_values import RejectedRow
from .reader import Frame
from .streams import StreamInfo, stream_info, subjects_of, waiting_for

log = logger("quotas")

SHARE: Final = 4  # of a journal's bytes: a quarter, as much as the purge keeps of what is committed
MAX_REJECTED: Final = 1_000  # records of a source in a minute
WINDOW_SECONDS: Final = 60.0  # of that count; and how often a source is reported
LOOK_SECONDS: Final = 5.0
MAX_SOURCES: Final = 10_000  # counted at once; without accounts a flood may come under any number of names


class Offence(msgspec.Struct, frozen=True, kw_only=True):
    """`source` did too much of something, in the words for the operator."""

    source: Source
    reason: str


class _Size(msgspec.Struct):
    frames: int = 0
    bytes: int = 0


class Offences(Protocol):
    """Who acts on them. Never waits."""

    def offended(self, offence: Offence) -> None: ...


class Quotas:
    """Of one partition. `cursor`: up to where it is committed."""

    def __init__(
        self, bus: Bus, subjects: Subjects, partition: int, offences: Offences | None, *, cursor: Callable[[], int]
    ) -> None:
        self._bus = bus
        self._subjects = subjects
        self._stream = subjects.journal_stream(partition)
        self._offences = offences
        self._cursor = cursor
        self._sizes: dict[str, _Size] = {}
        self._rejected: Counter[str] = Counter()
        self._window = time.monotonic()
        self._reported: dict[str, float] = {}

    def within(self, rows: list[RejectedRow]) -> list[RejectedRow]:
        """Those of a batch that are kept, if it is committed."""
        counts: Counter[str] = Counter()
        kept = []
        for row in rows:
            counts[row.subject] += 1
            if self._rejected[row.subject] + counts[row.subject] <= MAX_REJECTED:
                kept.append(row)
        return kept

    def committed(self, frames: Sequence[Frame], rejected: Sequence[RejectedRow]) -> None:
        """A batch: its frames, and all that was refused of it, kept or not."""
        for frame in frames:
            size = self._sizes.get(frame.subject)
            if size is None:
                if len(self._sizes) >= MAX_SOURCES:
                    self._sizes.clear()
                size = self._sizes[frame.subject] = _Size()
            size.frames += 1
            size.bytes += len(frame.data)
        if rejected:
            self._count(rejected)

    async def run(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                info = await stream_info(self._bus, self._stream)
                if info is not None and info.state.bytes > info.config.max_bytes // SHARE > 0:
                    await self._look(info)
            except RuntaraError as exc:
                log.debug("quotas_not_looked_at", stream=self._stream, reason=str(exc))

    async def _look(self, info: StreamInfo) -> None:
        """Who has that much in the journal: at most three can."""
        allowed = info.config.max_bytes // SHARE
        mean = info.state.bytes / max(1, info.state.messages)
        for subject, count in (await subjects_of(self._bus, self._stream)).items():
            size = self._sizes.get(subject)
            each = size.bytes / size.frames if size is not None else mean
            if count * each <= allowed:
                continue
            behind = await waiting_for(self._bus, self._stream, subject, after=self._cursor())
            if behind * each > allowed:
                percent = 100 * behind * each / info.config.max_bytes
                self._report(subject, f"about {percent:.0f} % of the journal {self._stream} is its own")

    def _count(self, rejected: Sequence[RejectedRow]) -> None:
        now = time.monotonic()
        if now - self._window >= WINDOW_SECONDS or len(self._rejected) >= MAX_SOURCES:
            self._rejected.clear()
            self._window = now
        self._rejected.update(row.subject for row in rejected)
        for subject in {row.subject for row in rejected}:
            if self._rejected[subject] > MAX_REJECTED:
                self._report(subject, f"more than {MAX_REJECTED:,} of its records were rejected within a minute")

    def _report(self, subject: str, reason: str) -> None:
        now = time.monotonic()
        if now - self._reported.get(subject, -WINDOW_SECONDS) < WINDOW_SECONDS:
            return
        if len(self._reported) >= MAX_SOURCES:
            self._reported.clear()
        try:
            source = self._subjects.parse_journal(subject)
        except Malformed:
            return
        if source.channel is Channel.ENGINE:
            return  # ours; it is as much as there is to do
        self._reported[subject] = now
        log.error("source_over_quota", subject=subject, reason=reason)
        if self._offences is not None:
            self._offences.offended(Offence(source=source, reason=reason))
