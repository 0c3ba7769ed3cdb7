"""Purging the journal behind the commit.

What is younger than `journal_keep` stays, up to a quarter of the stream's size: a Postgres that failed over, or was
restored, folds it again and gets the same events. The message at the cursor always stays: it is how the journal is
known again.
"""

import asyncio
import time
from collections import deque
from typing import Final

from runtara.infra.bus import Bus
from runtara.infra.logs import logger
from runtara.protocol.errors import RuntaraError

from .streams import purge, stream_info

log = logger("purge")

LOOK_EVERY_SECONDS: Final = 2.0
KEEP_FRACTION: Final = 4  # of max_bytes
MARKS_PER_KEEP: Final = 64


class Purger:
    """`advanced` is called with each committed cursor and the bytes that led there."""

    def __init__(self, bus: Bus, stream: str, *, keep_seconds: float, cursor: int) -> None:
        self._bus = bus
        self._stream = stream
        self._keep = keep_seconds
        self._cursor = cursor
        self._bytes = 0
        self._marks: deque[tuple[float, int, int]] = deque()  # when, cursor, bytes read so far

    def advanced(self, cursor: int, size: int) -> None:
        self._cursor = cursor
        self._bytes += size
        now = time.monotonic()
        if not self._marks or now - self._marks[-1][0] > max(self._keep / MARKS_PER_KEEP, 0.1):
            self._marks.append((now, cursor, self._bytes))

    async def run(self) -> None:
        purged = 0
        while True:
            await asyncio.sleep(LOOK_EVERY_SECONDS)
            try:
                before = await self._purge_before()
                if before > purged:
                    await purge(self._bus, self._stream, before=before)
                    purged = before
            except RuntaraError as exc:
                log.warning("purge_failed", stream=self._stream, reason=str(exc))

    async def _purge_before(self) -> int:
        """The lowest sequence that has to stay."""
        info = await stream_info(self._bus, self._stream)
        if info is None:
            return 0
        keep = self._old_enough()
        allowed = info.config.max_bytes // KEEP_FRACTION
        if info.config.max_bytes > 0 and info.state.bytes > allowed:
            keep = max(keep, self._small_enough(info.state.bytes - allowed))
        return min(keep, self._cursor)

    def _old_enough(self) -> int:
        limit = time.monotonic() - self._keep
        keep = 0
        while self._marks and self._marks[0][0] < limit:
            keep = self._marks.popleft()[1]
        return keep

    def _small_enough(self, excess: int) -> int:
        """A committed sequence with at least `excess` bytes before it; where no mark reaches so far, all committed."""
        base = self._marks[0][2] if self._marks else 0
        for _, cursor, size in self._marks:
            if size - base >= excess:
                return cursor
        return self._cursor
