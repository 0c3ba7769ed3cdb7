"""Postgres restored from an older copy, or away, under everything that runs: the journal tells it again."""

import asyncio
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from runtara.compose.embedded import EmbeddedServers
from runtara.infra.settings import Settings
from runtara.protocol.api import RegisterReply, RegisterRequest, Registration
from runtara.protocol.errors import PlatformUnreachable
from runtara.protocol.records import Options
from tests.support.peer import Peer, connect_peer
from tests.support.platform import running
from tests.support.polling import eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


@pytest.fixture
async def peer(site: Settings) -> AsyncIterator[Peer]:
    async with connect_peer(site) as peer:
        yield peer


def copy(source: Path, target: Path) -> None:
    """With owners and modes, which Postgres insists on."""
    subprocess.run(["cp", "-a", str(source), str(target)], check=True)


async def register(peer: Peer, restarts: int) -> None:
    workflow = Registration(workflow="wf", options=Options(restarts=restarts))
    await peer.api("register", RegisterRequest(worker="w1", workflows=[workflow]), RegisterReply)


async def log(site: Settings) -> list[tuple[object, ...]]:
    async with connect_peer(site) as peer:  # connections of its own: the old ones ended with the server
        return [tuple(row) for row in await peer.pool.fetch('SELECT * FROM events ORDER BY "offset"')]


async def test_what_was_registered_and_started_since_the_copy_is_folded_again_to_the_same_events(
    site: Settings, peer: Peer, own_servers: EmbeddedServers, data: Path
) -> None:
    """The engine runs all the time, and no worker registers again: only the journal can know."""
    postgres = own_servers.postgres
    folder, back_up = postgres.spec.folder, data.parent / "back-up"
    await postgres.stop()
    copy(folder, back_up)
    await postgres.start()
    async with running(site):
        await register(peer, restarts=3)
        held = await peer.started("i-1")
        await held.commit(held.step("a"))
        await register(peer, restarts=8)
        assert (await peer.start("i-2")).error is None
        assert (await peer.fork("i-1", "i-3")).error is None
        await held.commit(held.step("b"))  # which a fork that was made again would have, too
        before = await log(site)
        await postgres.stop()
        folder.rename(data.parent / "lost")
        copy(back_up, folder)
        await postgres.start()

        async def folded_again() -> bool:
            return len(await log(site)) >= len(before)

        await eventually(folded_again, within=40)
        assert await log(site) == before
        await held.complete()  # nobody noticed
    async with connect_peer(site) as again:
        await again.is_sound()


async def test_a_registration_while_postgres_is_away_is_refused_and_told_to_no_journal(
    site: Settings, peer: Peer, own_servers: EmbeddedServers
) -> None:
    async def last_sequence() -> int:
        stream = await peer.bus.jetstream(f"STREAM.INFO.{peer.subjects.journal_stream(0)}")
        return int(msgspec.json.decode(stream)["state"]["last_seq"])

    async with running(site):
        await register(peer, restarts=3)
        await peer.start("i-1")
        await peer.until_owner_is_not(None)  # the engine's own record is in the journal, too
        before = await last_sequence()
        await own_servers.postgres.stop()
        for _ in range(3):
            with pytest.raises(PlatformUnreachable, match="database"):
                await register(peer, restarts=4)
        assert await last_sequence() == before
        await own_servers.postgres.start()

        async def registered() -> bool:
            try:
                await register(peer, restarts=4)
            except PlatformUnreachable:
                return False
            return True

        async with asyncio.timeout(40):
            await eventually(registered, within=30)
        answer = await peer.start("i-2")
        assert answer.error is None
