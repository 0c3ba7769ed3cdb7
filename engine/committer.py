"""Writing what was folded, in order, and finding what cannot be written.

Invariants: a batch that cannot be committed for a reason of its own is halved until the culprit stands alone; that
record is rejected, its attempt ends, the rest goes in. An unknown outcome, a lost connection or another owner are no
such reasons: they are raised, and end the tenure.
"""

from collections.abc import Sequence

import msgspec

from runtara.infra.logs import logger
from runtara.infra.postgres import PgConnection, is_transient
from runtara.protocol.errors import PartitionLost
from runtara.protocol.frames import Rejection, encode_frame
from runtara.protocol.records import Report, Unreadable, WireRecord

from . import log as event_log
from .fold import Fold
from .folding import Batch, Folding
from .log import Ownership
from .outlets import Outlets
from .purge import Purger
from .quotas import Quotas
from .reader import Frame
from .streams import Anchor, fingerprint

log = logger("partition")

Records = list[WireRecord | Unreadable]


class Committer:
    """`anchor`: up to where the journal is committed."""

    def __init__(
        self,
        connection: PgConnection,
        ownership: Ownership,
        folding: Folding,
        outlets: Outlets,
        purger: Purger,
        quotas: Quotas,
    ) -> None:
        self._connection = connection
        self._ownership = ownership
        self._folding = folding
        self._outlets = outlets
        self._purger = purger
        self._quotas = quotas
        self._position = ownership.position
        self.anchor = ownership.anchor

    async def commit(self, batch: Batch) -> None:
        """Write a batch and let out what it owes. Raises what ends the tenure."""
        error = await self._write(batch.fold, batch.frames)
        if error is None:
            return
        async with self._folding.set_aside(batch.fold) as later:
            await self._commit_halves(batch.frames, error)
            if later:
                await self._commit_alone(later)
            self._folding.resume(self._position)

    async def _write(self, fold: Fold, frames: Sequence[Frame]) -> Exception | None:
        """Why the batch itself cannot be written, if so."""
        last, before = frames[-1], self.anchor
        mark = fingerprint(last.data, last.time_us)
        after = Anchor(created=before.created, cursor=last.sequence, fingerprint=mark)
        refused = fold.rejected
        fold.rejected = self._quotas.within(refused)
        try:
            await event_log.commit(self._connection, self._ownership, fold, before=before, after=after)
        except Exception as exc:
            return self._own_fault(exc)
        self.anchor, self._position = after, fold.position
        self._folding.committed(fold)
        self._outlets.let_out(fold, after)
        self._quotas.committed(frames, refused)
        self._purger.advanced(after.cursor, sum(len(frame.data) for frame in frames))
        return None

    def _own_fault(self, error: Exception) -> Exception:
        """`error`, if it is the batch's own fault; else raises it."""
        if isinstance(error, PartitionLost) or is_transient(error) or self._connection.is_closed():
            raise error
        return error

    async def _commit_alone(self, frames: Sequence[Frame]) -> None:
        fold = await self._folding.alone(frames, self._position)
        error = await self._write(fold, frames)
        if error is not None:
            self._folding.forget(fold)
            await self._commit_halves(frames, error)

    async def _commit_halves(self, frames: Sequence[Frame], error: Exception) -> None:
        if len(frames) > 1:
            middle = len(frames) // 2
            await self._commit_alone(frames[:middle])
            await self._commit_alone(frames[middle:])
            return
        [frame] = frames
        if not frame.records:
            raise error
        log.error("frame_not_committed", exc_info=error, sequence=frame.sequence)
        await self._commit_alone([await self._without_culprits(frame)])

    async def _without_culprits(self, frame: Frame) -> Frame:
        """The frame with each record that cannot be committed replaced by its rejection, and by what ends its attempt.

        A record is tried behind the ones before it: alone, a report would be a gap, which is another decision.
        """
        kept: Records = []
        rest, rejections = list(frame.records), list(frame.rejections)
        while (error := await self._trial(frame, kept + rest)) is not None:
            if not rest:  # without any of its records' own doing
                reason = f"it could not be committed: {error}"
                return msgspec.structs.replace(
                    frame, records=[], rejections=[Rejection(reason=reason, payload=frame.data)]
                )
            good, error = await self._first_culprit(frame, kept, rest, error)
            culprit = rest[good]
            reason = f"it could not be committed: {error}"
            rejections.append(Rejection(reason=reason, payload=encode_frame([culprit])))
            kept += rest[:good]
            if isinstance(culprit, Report):
                claim = {field: getattr(culprit, field) for field in ("instance", "attempt", "nonce", "seq")}
                kept.append(Unreadable(**claim, reason="its record could not be committed"))
            rest = rest[good + 1 :]
        return msgspec.structs.replace(frame, records=kept + rest, rejections=rejections)

    async def _first_culprit(
        self, frame: Frame, kept: Records, rest: Records, error: Exception
    ) -> tuple[int, Exception]:
        """How many of `rest` can be committed behind `kept`, and why one more cannot; found by halving."""
        good, bad = 0, len(rest)
        while bad - good > 1:
            middle = (good + bad) // 2
            found = await self._trial(frame, kept + rest[:middle])
            if found is None:
                good = middle
            else:
                bad, error = middle, found
        return good, error

    async def _trial(self, frame: Frame, records: Records) -> Exception | None:
        """Whether a frame of these records could be committed, found out by writing it and rolling back."""
        frames = [msgspec.structs.replace(frame, records=records, rejections=[])]
        fold = await self._folding.alone(frames, self._position)
        self._folding.forget(fold)
        try:
            await event_log.try_commit(self._connection, self._ownership, fold, before=self.anchor)
        except Exception as exc:
            return self._own_fault(exc)
        return None
