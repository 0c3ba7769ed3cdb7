"""Values that went aside: who may read them, what is said when one is damaged, what proofs say, who collects."""

import os
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from msgspec import Raw

from runtara.engine import collector as collecting
from runtara.engine.archive import Policy, archive
from runtara.engine.rebuild import rebuild
from runtara.engine.service import Engine
from runtara.infra.packing import pack
from runtara.infra.settings import Settings
from runtara.projections.blob_files import blob_file
from runtara.projections.proofs import prove
from runtara.protocol.blobs import Blob, Part, PartRequest, blob_of, encode_part
from runtara.protocol.errors import BlobCorrupt, BlobMissing, Malformed, WorkflowFailed
from runtara.protocol.limits import PART_BYTES
from runtara.protocol.records import Checkpointed
from runtara.sdk import Client, Context, step, workflow
from runtara.sdk.blobs import ApiDoor
from runtara.sdk.connection import Connection
from runtara.sdk.discovery import Code
from runtara.sdk.worker import Worker
from runtara.sdk.workflow import Workflow
from tests.support.peer import Peer, connect_peer
from tests.support.platform import connect, deploy, running

pytestmark = pytest.mark.timeout(60)
AT_ONCE = timedelta(0)
LONG = 2_500_000
BREAK = "UPDATE blob_parts SET data = set_byte(data, 20, 255 - get_byte(data, 20)) WHERE n = 1"
REPLACE = "UPDATE blob_parts SET data = $1 WHERE n = 1"


@step(key="big")
async def big(size: int) -> str:
    return os.urandom(size // 2).hex()


@workflow(linger=AT_ONCE)
async def resumed(ctx: Context) -> str:
    """Leaves memory after a long step, whose value the next attempt has to read."""
    value = await big(LONG)
    await ctx.wait_signal("go")
    return f"{len(value)} characters"


@workflow
async def long_result(ctx: Context, size: int) -> str:
    return await big(size)


@workflow
async def sized(ctx: Context, value: str) -> int:
    return len(value)


class Stage(NamedTuple):
    settings: Settings
    engine: Engine
    client: Client
    peer: Peer


@pytest.fixture
async def stage(settings: Settings) -> AsyncIterator[Stage]:
    workflows: tuple[Workflow[..., Any], ...] = (resumed, long_result, sized)
    await deploy(settings)
    async with (
        running(settings) as engine,
        Worker(settings, Code(workflows=workflows, version="v1", files=())),
        Client(settings) as client,
        connect_peer(settings) as peer,
    ):
        yield Stage(settings, engine, client, peer)


async def only_hash(peer: Peer) -> str:
    hash: str = await peer.pool.fetchval("SELECT hash FROM blobs")
    return hash


async def problems(peer: Peer) -> list[tuple[str | None, str]]:
    return [(finding.instance, finding.problem) for finding in (await peer.verify()).findings]


DAMAGES = {
    "row": ("DELETE FROM blobs", BlobMissing, "is missing"),
    "part": ("DELETE FROM blob_parts WHERE n = 1", BlobMissing, "lacks part 1"),
    "byte": (BREAK, BlobCorrupt, "cannot be read in part 1"),
    "value": (REPLACE, BlobCorrupt, "is not what its hash says"),
}


async def damage(peer: Peer, statement: str) -> None:
    await peer.pool.execute(statement, *([pack(b"x" * PART_BYTES)] if "$1" in statement else []))


@pytest.mark.parametrize("what", DAMAGES)
async def test_a_damaged_result_is_an_error_that_names_instance_key_and_hash_and_verify_finds_it(
    stage: Stage, what: str
) -> None:
    statement, error, problem = DAMAGES[what]
    handle = await stage.client.start(long_result, size=LONG, id="i-1")
    value = await handle.result(timeout=30)
    assert await problems(stage.peer) == []
    hash = await only_hash(stage.peer)
    await damage(stage.peer, statement)
    with pytest.raises(error) as caught:
        await stage.client.handle("i-1").result(timeout=30)
    assert (caught.value.instance, caught.value.key, caught.value.hash) == ("i-1", "result", hash)  # type: ignore[attr-defined]
    assert value not in str(caught.value)
    ((instance, found),) = await problems(stage.peer)
    assert (instance, found.startswith(f"the value of key 'big/big' {problem}")) == ("i-1", True), found
    assert hash in found


@pytest.mark.parametrize("what", ["row", "value"])
async def test_a_damaged_step_fails_the_next_attempt_and_a_retry_goes_on_once_it_is_restored(
    stage: Stage, what: str
) -> None:
    statement, error, _ = DAMAGES[what]
    handle = await stage.client.start(resumed, id="i-1")
    await stage.peer.until_status("i-1", "waiting")
    kept = await stage.peer.pool.fetch("SELECT * FROM blobs"), await stage.peer.pool.fetch("SELECT * FROM blob_parts")
    await damage(stage.peer, statement)
    await handle.signal("go")
    with pytest.raises(WorkflowFailed, match=f"{error.__name__}.*'big/big' of i-1"):
        await handle.result(timeout=30)
    for table, rows in zip(("blobs", "blob_parts"), kept, strict=True):
        await stage.peer.pool.execute(f"DELETE FROM {table}")
        await stage.peer.pool.copy_records_to_table(table, records=[tuple(row) for row in rows])
    await handle.retry()
    assert await handle.result(timeout=30) == f"{LONG} characters"
    await stage.peer.is_sound()


async def test_who_speaks_for_an_instance_reads_what_its_events_name_and_nothing_else(stage: Stage) -> None:
    await (await stage.client.start(long_result, size=LONG, id="i-1")).result(timeout=30)
    hash = await only_hash(stage.peer)
    async with await connect(stage.settings, user="door") as bus:
        connection = Connection(bus, stage.settings, None, "door", 1)
        own, other, client = ApiDoor(connection, "i-1"), ApiDoor(connection, "i-2"), ApiDoor(connection)
        assert await own.get(PartRequest(hash=hash)) == await client.get(PartRequest(hash=hash))
        with pytest.raises(BlobMissing, match="that this instance has recorded"):
            await other.get(PartRequest(hash=hash))
        blob = blob_of(b"y" * 70_000)
        await other.put(encode_part(Part(blob=blob, upload="u", n=0), b"y" * 70_000))
        with pytest.raises(BlobMissing):  # it is stored, but no event of the instance names it yet
            await other.get(PartRequest(hash=blob.hash))


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"", "not a part"),
        (b"{}\n", "not a part"),
        (b"x" * 2_000_000, "not a part"),
        (encode_part(Part(blob=Blob(hash="0" * 64, size=5), upload="u", n=0), b"1234"), "cannot have 4"),
        (encode_part(Part(blob=Blob(hash="0" * 64, size=5), upload="u", n=1), b""), "part 1 of a blob of 5 bytes"),
        (encode_part(Part(blob=Blob(hash="0" * 64, size=5), upload="u", n=0), b"12345"), "not what its hash says"),
        (b'{"blob":{"hash":"x","size":1},"upload":"u","n":0}\n1', "not a part"),
        (b'{"blob":{"hash":"%b","size":99999999999},"upload":"u","n":0}\n1' % (b"0" * 64), "not a part"),
        (b'{"blob":{"hash":"%b","size":1},"upload":"u.>","n":0}\n1' % (b"0" * 64), "not a part"),
    ],
)
async def test_what_is_no_part_of_a_value_is_refused_with_the_reason(stage: Stage, message: bytes, reason: str) -> None:
    async with await connect(stage.settings, user="door") as bus:
        door = ApiDoor(Connection(bus, stage.settings, None, "door", 1), "i-1")
        with pytest.raises(Malformed, match=reason):
            await door.put(message)
    assert await stage.peer.pool.fetchval("SELECT count(*) FROM blob_parts") == 0


async def test_a_value_of_a_users_that_looks_like_a_reference_is_none(stage: Stage) -> None:
    looks = {"blob": {"hash": "0" * 64, "size": 100}}

    @workflow
    async def cheeky(ctx: Context) -> object:
        return await ctx.step("k", lambda: looks)

    settings = stage.settings
    async with Worker(settings, Code(workflows=(cheeky,), version="v1", files=())):
        assert await (await stage.client.start(cheeky, id="i-1")).result(timeout=30) == looks
    assert await stage.peer.pool.fetchval("SELECT count(*) FROM blob_uses") == 0
    assert await problems(stage.peer) == []


async def test_a_report_that_names_a_value_nobody_has_stored_is_an_error_for_whoever_asks(platform: Peer) -> None:
    held = await platform.started("i-1")
    named = Raw(b'{"kind":"step","blob":{"hash":"%b","size":70000}}' % (b"0" * 64))
    assert (await held.commit(held.record(Checkpointed, key="k", data=named))).rejected == []
    ((instance, problem),) = await problems(platform)
    assert (instance, problem) == ("i-1", f"the value of key 'k' is missing (SHA-256 {'0' * 64})")


async def test_which_values_an_instance_uses_is_replayed_and_rebuilt(stage: Stage) -> None:
    await (await stage.client.start(long_result, size=LONG, id="i-1")).result(timeout=30)
    await stage.peer.is_sound()
    await stage.peer.pool.execute("UPDATE blob_uses SET instance = 'stranger'")
    findings = (await stage.peer.replay()).findings
    assert {(finding.instance, finding.problem) for finding in findings} == {
        ("i-1", "the projection differs from the log in the values it uses"),
        ("stranger", "the log does not know this instance"),
    }
    async with stage.peer.pool.acquire() as connection:
        assert (await rebuild(connection)).differed == 2
    await stage.peer.is_sound()
    assert await stage.peer.pool.fetchval("SELECT instance FROM blob_uses") == "i-1"


async def test_what_is_archived_takes_its_values_along_and_they_go_once_nobody_uses_them(
    stage: Stage, tmp_path: Path
) -> None:
    first = await stage.client.start(long_result, size=LONG, id="i-1")
    value = await first.result(timeout=30)
    second = await stage.client.start(resumed, id="i-2")  # goes on, and has a value of its own
    await stage.peer.until_status("i-2", "waiting")
    hash = blob_of(b'"%b"' % value.encode()).hash
    done = await archive(stage.peer.pool, Policy(before_us=2**62), tmp_path)
    assert (done.instances, done.values, done.findings) == (1, 1, [])
    async with stage.peer.pool.acquire() as connection:
        assert await prove(connection, tmp_path) == []
        blob_file(tmp_path, "default", hash).write_bytes(pack(b"something else"))
        ((instance, problem),) = [(f.instance, f.problem) for f in await prove(connection, tmp_path)]
    assert instance == "i-1"
    assert f"the value of key 'big/big' is not what its hash says (SHA-256 {hash})" in problem
    await stage.peer.is_sound()

    collector = stage.engine.collector
    assert await collector.collect(older_than=timedelta(days=1)) == 0
    assert await collector.collect(older_than=timedelta(0)) == 1
    assert await stage.peer.pool.fetchval("SELECT count(*) FROM blobs WHERE hash = $1", hash) == 0
    await second.signal("go")
    assert await second.result(timeout=30) == f"{LONG} characters"
    await stage.peer.is_sound()


async def test_an_instance_whose_value_is_damaged_stays_out_of_the_archive(stage: Stage, tmp_path: Path) -> None:
    await (await stage.client.start(long_result, size=LONG, id="i-1")).result(timeout=30)
    await damage(stage.peer, BREAK)
    done = await archive(stage.peer.pool, Policy(before_us=2**62), tmp_path)
    ((instance, problem),) = [(finding.instance, finding.problem) for finding in done.findings]
    assert (done.instances, instance) == (0, "i-1")
    assert "cannot be read in part 1" in problem
    assert await stage.peer.row("i-1") is not None


async def test_nothing_is_collected_while_a_journal_is_not_folded(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collecting, "CATCH_UP_SECONDS", 0.5)
    await (await stage.client.start(long_result, size=LONG, id="i-1")).result(timeout=30)
    await stage.peer.pool.execute("DELETE FROM blob_uses")
    collector = stage.engine.collector
    async with stage.peer.pool.acquire() as connection, connection.transaction():
        await connection.execute("SELECT id FROM partitions FOR UPDATE")  # nothing can be committed
        await stage.peer.raw(stage.peer.subjects.commands(0, "default", "c"), b"[]")
        assert await collector.collect(older_than=timedelta(0)) == 0
    assert await collector.collect(older_than=timedelta(0)) == 1


async def test_a_schedule_keeps_its_long_input_and_lets_it_go(stage: Stage, tmp_path: Path) -> None:
    schedules, given = stage.client.schedules, {"value": "x" * 100_000}
    created = await schedules.create("nightly", "sized", given, every=timedelta(days=1))
    assert created.schedule.blob is not None
    assert await schedules.create("nightly", "sized", given, every=timedelta(days=1)) == created
    assert await stage.engine.collector.collect(older_than=timedelta(0)) == 0
    id = await schedules.trigger("nightly")
    assert await stage.client.handle(id).result(timeout=30) == 100_000
    await archive(stage.peer.pool, Policy(before_us=2**62), tmp_path)
    assert await stage.engine.collector.collect(older_than=timedelta(0)) == 0
    await schedules.create("nightly", "sized", {"value": "y" * 100_000}, every=timedelta(days=1), replace=True)
    assert await stage.engine.collector.collect(older_than=timedelta(0)) == 1
    await schedules.delete("nightly")
    assert await stage.engine.collector.collect(older_than=timedelta(0)) == 1
