"""`audit archive`: what ended long ago goes into files, and the log around it stays provable."""

import gzip
import hashlib
from pathlib import Path

import asyncpg
import pytest

from runtara.engine import archive as archiving
from runtara.engine import log as event_log
from runtara.engine.archive import ENDED, Archived, Policy, archive, summary
from runtara.engine.fold import Fold
from runtara.projections.archives import ArchiveFile
from runtara.protocol.chain import canonical, event_hash
from runtara.protocol.errors import BadInput, WireError
from runtara.protocol.messages import Status, Superseded
from runtara.protocol.records import Cancel, Exited, Failed, Registered, Retry
from tests.support.archives import micros, read_archive
from tests.support.peer import Peer, connect_peer

ALL = Policy(before_us=2**62)


async def archived(peer: Peer, folder: Path, policy: Policy = ALL) -> Archived:
    return await archive(peer.pool, policy, folder)


@pytest.fixture
async def log(platform: Peer) -> Peer:
    """Two that completed, one that failed, one that runs; all of their events are interleaved."""
    held = [await platform.started(f"i-{n}") for n in range(4)]
    for n in range(3):
        for one in held:
            await one.commit(one.step(f"k-{n}"))
    for one in held[:2]:
        await one.complete(b'"done"')
    await held[2].commit(held[2].record(Failed, error=WireError(code="Boom", message="boom")))
    return platform


async def test_what_ended_is_in_the_file_and_no_longer_in_the_database(log: Peer, tmp_path: Path) -> None:
    before = {n: await log.events(f"i-{n}") for n in range(4)}
    done = await archived(log, tmp_path)
    assert (done.instances, done.events, done.findings) == (3, sum(len(before[n]) for n in range(3)), [])
    (name,) = done.files
    events, contents = read_archive(tmp_path / name)
    told = [(one.instance, one.status, one.version) for one in contents.retired]
    assert told == [("i-0", "completed", 7), ("i-1", "completed", 7), ("i-2", "failed", 7)]
    assert [(e.instance, e.version, e.hash) for e in events] == [
        (e["instance"], e["version"], e["hash"].hex()) for n in range(3) for e in before[n]
    ]
    assert [await log.events(f"i-{n}") for n in range(3)] == [[], [], []]
    assert await log.row("i-0") is None
    assert await log.events("i-3") == before[3]


async def test_the_log_and_its_heads_are_proved_as_before(log: Peer, tmp_path: Path) -> None:
    before = await log.verify()
    await archived(log, tmp_path)
    after = await log.verify()
    assert after.findings == []
    assert after.heads == before.heads
    assert (after.events + after.retired, after.instances) == (before.events, 1)
    more = await log.started("i-8")
    await more.complete()
    await log.is_sound()


async def test_an_archived_event_is_proved_by_the_hash_that_stays(log: Peer, tmp_path: Path) -> None:
    done = await archived(log, tmp_path)
    events, contents = read_archive(tmp_path / done.files[0])
    kept = await hashes_kept(log)
    chains: dict[str, bytes] = {}
    for e in events:
        chains[e.instance] = event_hash(
            chains.get(e.instance),
            canonical(
                e.partition, e.offset, e.tenant, e.instance, e.version, e.type, e.attempt, e.key, e.actor,
                micros(e.at), micros(e.recorded_at), bytes(e.data),
            ),
        )  # fmt: skip
        assert kept[e.offset] == chains[e.instance]
    assert {one.instance: one.hash for one in contents.retired} == {id: hash.hex() for id, hash in chains.items()}


async def hashes_kept(peer: Peer) -> dict[int, bytes]:
    """By offset."""
    rows = await peer.pool.fetch("SELECT first, hashes FROM retired_hashes")
    return {row["first"] + n: hash for row in rows for n, hash in enumerate(pieces(row["hashes"]))}


def pieces(hashes: bytes) -> list[bytes]:
    return [hashes[start : start + 32] for start in range(0, len(hashes), 32)]


async def test_a_file_is_on_the_disk_with_its_digest(log: Peer, tmp_path: Path) -> None:
    done = await archived(log, tmp_path)
    digest = hashlib.sha256((tmp_path / done.files[0]).read_bytes()).digest()
    retired = await log.pool.fetch("SELECT DISTINCT archive, archive_hash FROM retired")
    assert [(row["archive"], row["archive_hash"]) for row in retired] == [(done.files[0], digest)]
    assert (tmp_path / "SHA256SUMS").read_text() == f"{digest.hex()}  {done.files[0]}\n"


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("UPDATE retired_hashes SET hashes = set_byte(hashes, 3, 7)", "head hash"),
        ("DELETE FROM retired_hashes", "missing"),
        ("DELETE FROM retired WHERE instance = 'i-0'", "were retired"),
        ("UPDATE events SET actor = 'ghost' WHERE instance = 'i-3' AND version = 5", "content"),
        ("DELETE FROM events WHERE instance = 'i-3' AND version = 5", "missing"),
        ("INSERT INTO retired_hashes VALUES (0, 9, sha256('x'))", "the log has them"),
    ],
)
async def test_whoever_touches_what_is_left_is_found(log: Peer, tmp_path: Path, statement: str, problem: str) -> None:
    await archived(log, tmp_path)
    assert (await log.verify()).findings == []
    if "INSERT" in statement:
        statement = statement.replace("9", str((await log.events("i-3"))[3]["offset"]))
    await log.pool.execute(statement)
    assert problem in (await log.verify()).findings[0].problem


async def test_neighbours_become_one_row_when_all_between_them_is_gone(log: Peer, tmp_path: Path) -> None:
    await archived(log, tmp_path)
    assert await log.pool.fetchval("SELECT count(*) FROM retired_hashes") > 1
    assert (await log.ask(Cancel(instance="i-3", id="c"))).error is None
    await finish(log, "i-3")
    await archived(log, tmp_path)
    assert await log.pool.fetchval("SELECT count(*) FROM retired_hashes") == 1
    verdict = await log.verify()
    assert (verdict.findings, verdict.events) == ([], 0)
    assert len(await hashes_kept(log)) == verdict.retired


async def finish(peer: Peer, instance: str) -> None:
    """Its worker dies, and what was cancelled is over."""
    await peer.report_as_runner(Exited(instance=instance, attempt=1, worker="w1", reason="test"))
    assert await peer.status(instance) == "cancelled"


async def test_only_what_the_policy_names_goes(log: Peer, tmp_path: Path) -> None:
    failed = Policy(before_us=2**62, statuses=(Status.FAILED,))
    assert [(one.status, one.instances) for one in await summary(log.pool, ALL)] == [("completed", 2), ("failed", 1)]
    assert (await archived(log, tmp_path, Policy(before_us=1))).instances == 0
    assert (await archived(log, tmp_path, Policy(before_us=2**62, tenant="other"))).instances == 0
    assert list(tmp_path.iterdir()) == []
    assert (await archived(log, tmp_path, failed)).instances == 1
    assert [await log.status(f"i-{n}") for n in range(4)] == ["completed", "completed", None, "running"]
    with pytest.raises(BadInput, match="not running"):
        Policy(before_us=1, statuses=(Status.RUNNING,))
    assert set(ENDED) == {Status.COMPLETED, Status.FAILED, Status.CANCELLED}


async def test_an_id_that_was_archived_is_never_used_again(log: Peer, tmp_path: Path) -> None:
    done = await archived(log, tmp_path)
    answer = await log.start("i-0", id="again")
    assert answer.error is not None
    assert answer.error.code == "InstanceArchived"
    assert done.files[0] in answer.error.message
    inbox = log.inbox()
    script = Registered(instance="i-0", worker="w9", nonce="9" * 32, workflow="wf", reply=inbox.subject)
    await log.report("w9", script)
    told = await inbox.next(Superseded)
    assert "archive" in told.reason
    retry = await log.ask(Retry(instance="i-2", id="r"))
    assert (retry.error is not None, retry.error and retry.error.code) == (True, "InstanceNotFound")
    await log.is_sound()


async def test_an_instance_whose_events_do_not_hold_stays(log: Peer, tmp_path: Path) -> None:
    await log.pool.execute("UPDATE events SET actor = 'ghost' WHERE instance = 'i-0' AND version = 4")
    await log.pool.execute("UPDATE instances SET version = 99 WHERE instance = 'i-1'")
    done = await archived(log, tmp_path)
    assert {finding.instance: finding.version for finding in done.findings} == {"i-0": 4, "i-1": None}
    assert done.instances == 1
    assert len(await log.events("i-0")) == 7


async def test_many_go_in_chunks(log: Peer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archiving, "CHUNK_INSTANCES", 2)
    done = await archived(log, tmp_path)
    assert (done.instances, len(done.files)) == (3, 2)
    await log.is_sound()


async def test_a_crash_before_the_commit_leaves_a_file_too_many_and_no_event_too_few(
    log: Peer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def crash(*_: object) -> None:
        raise RuntimeError("crash")

    monkeypatch.setattr(archiving, "_retire", crash)
    with pytest.raises(RuntimeError):
        await archived(log, tmp_path)
    monkeypatch.undo()
    assert len(list(tmp_path.glob("*.ndjson.gz"))) == 1
    await log.is_sound()
    assert (await archived(log, tmp_path)).instances == 3


async def test_a_retry_that_meets_an_archive_is_decided_again(
    log: Peer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine has read the failed instance and decided the retry; before it commits, the instance is archived."""
    commit = event_log.commit

    async def late(connection: asyncpg.Connection, ownership: object, fold: Fold, **anchors: object) -> None:
        if fold.revived:
            async with connect_peer(log.settings) as other:
                await archived(other, tmp_path)
        await commit(connection, ownership, fold, **anchors)  # type: ignore[arg-type]

    monkeypatch.setattr(event_log, "commit", late)
    answer = await log.ask(Retry(instance="i-2", id="r"))
    assert (answer.error is not None, answer.error and answer.error.code) == (True, "InstanceNotFound")
    monkeypatch.undo()
    await log.is_sound()
    assert await log.events("i-2") == []


async def test_a_retry_that_comes_first_keeps_its_instance(log: Peer, tmp_path: Path) -> None:
    assert (await log.ask(Retry(instance="i-2", id="r"))).error is None
    assert (await archived(log, tmp_path)).instances == 2
    again = await log.claim("i-2", attempt=2)
    await again.complete()
    await log.is_sound()


@pytest.mark.parametrize("partitions", [3])
async def test_engines_go_on_while_it_runs(platform: Peer, tmp_path: Path) -> None:
    for n in range(30):
        await (await platform.started(f"old-{n}")).complete()
    held = [await platform.started(f"i-{n}") for n in range(6)]
    for round in range(5):
        for one in held:
            await one.commit(one.step(f"k-{round}", b'{"n":%d}' % round))
        if round % 2:
            await archived(platform, tmp_path)
    for one in held:
        await one.complete()
    assert (await archived(platform, tmp_path)).instances == 6
    verdict = await platform.verify()
    assert (verdict.findings, verdict.events) == ([], 0)
    assert sum(text.count(b"InstanceCompleted") for text in map(unzipped, tmp_path.glob("*.gz"))) == 36


def unzipped(file: Path) -> bytes:
    with gzip.open(file) as whole:
        return whole.read()


def test_a_folder_that_cannot_be_written_is_an_error_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="cannot write to"):
        ArchiveFile(tmp_path / "file", "x")
