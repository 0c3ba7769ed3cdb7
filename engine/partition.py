"""One partition's loop: take over, do what an owner does, step down when somebody else owns it, and again.

Invariants: nothing is folded before the journal was found to be the one that Postgres was built from; an unknown
outcome of a commit, a lost connection or a gap ends the tenure, and the next one begins with an empty cache.
"""

import asyncio
import secrets
from typing import Final

import asyncpg

from runtara.infra.logs import logger
from runtara.infra.postgres import PgConnection, is_transient
from runtara.protocol.errors import JournalLost, JournalMismatch, PartitionLost, RuntaraError, Unavailable, UnfitServer

from . import log as event_log
from .log import Ownership
from .nats_server import check_server
from .platform import Platform
from .streams import check_anchor, check_config
from .tenure import Tenure

log = logger("partition")

RETRY_SECONDS: Final = 0.5
FATAL: Final = (JournalMismatch, JournalLost, UnfitServer)  # somebody has to look


class PartitionLoop:
    """Runs for ever; stops with `JournalMismatch` when going on would lose records silently, with
    `UnfitServer` when it would let tenants reach JetStream."""

    def __init__(self, platform: Platform, partition: int) -> None:
        self._platform = platform
        self._partition = partition
        self._stream = platform.subjects.journal_stream(partition)

    async def run(self) -> None:
        token = secrets.token_hex(16)
        while True:
            try:
                token = await self._tenure(token)
            except BaseExceptionGroup as group:
                token = self._after(_first(group), token)
            except (RuntaraError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as exc:
                token = self._after(exc, token)
            await asyncio.sleep(RETRY_SECONDS)

    def _after(self, error: BaseException, token: str) -> str:
        """Go on after a tenure that ended with `error`, as the same owner unless another one took over; or raise it."""
        if isinstance(error, FATAL) or not isinstance(error, Exception):
            raise error
        if isinstance(error, PartitionLost):
            log.warning("partition_lost", partition=self._partition)
            return secrets.token_hex(16)
        if not isinstance(error, Unavailable) and not is_transient(error):
            log.error("tenure_failed", exc_info=error, partition=self._partition)
        else:
            log.info("tenure_ended", partition=self._partition, reason=str(error))
        return token

    async def _tenure(self, token: str) -> str:
        """From one take-over until something ends it; returns at once if another engine owns the partition.

        Returns the token to go on with: a new one after the partition was given back.
        """
        sharing = self._platform.sharing
        await self._platform.bus.wait_connected()
        async with self._platform.pool.acquire() as connection:
            if sharing.is_leaving:
                return token
            ownership = await event_log.take_over(connection, self._partition, token, patience=sharing.patience)
            if ownership is None:
                return token
            with sharing.owning(self._partition) as asked:
                await self._own(ownership, connection, asked)
            return secrets.token_hex(16)

    async def _own(self, ownership: Ownership, connection: PgConnection, asked: asyncio.Event) -> None:
        """Until we are `asked` to give the partition back, and have."""
        try:
            await check_server(self._platform.bus)
            info = await check_anchor(self._platform.bus, self._stream, ownership.anchor)
            check_config(info, self._platform.journal_config(self._partition))
            log.info("partition_taken", partition=self._partition, cursor=ownership.anchor.cursor)
            async with event_log.bound_transactions(connection):
                await Tenure(self._platform, ownership, connection, info.state.last_seq).run(asked)
            log.info("partition_given_back", partition=self._partition)
            await event_log.release(connection, self._partition, ownership.token)
        except (
            asyncio.CancelledError,
            JournalMismatch,
            UnfitServer,
        ):  # this engine ends: nobody need wait for its lease
            await asyncio.shield(event_log.release(connection, self._partition, ownership.token))
            raise


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error of a task group that decides: what must stop the engine goes before what must not."""
    leaves: list[BaseException] = []
    for error in group.exceptions:
        leaves.append(_first(error) if isinstance(error, BaseExceptionGroup) else error)
    fatal = [e for e in leaves if isinstance(e, FATAL)]
    lost = [e for e in leaves if isinstance(e, PartitionLost)]
    return (fatal or lost or leaves)[0]
