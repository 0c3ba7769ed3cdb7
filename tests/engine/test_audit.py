"""The audit: a clean log is clean, and whoever touches it is found at the first event that shows it."""

from collections.abc import Awaitable, Callable

import asyncpg
import pytest

from runtara.projections.verdict import Finding, Head, Heads, Verdict
from runtara.protocol.chain import GENESIS, HASHED, canonical, event_hash, next_head
from runtara.protocol.errors import BadInput
from runtara.protocol.records import Exited, Signal
from tests.support.peer import Peer

Tamper = Callable[[Peer], Awaitable[object]]


@pytest.fixture
async def log(platform: Peer) -> Peer:
    """A log of three instances, one of them restarted, one failed by its worker's end, interleaved."""
    held = [await platform.started(f"i-{n}") for n in range(3)]
    for n in range(4):
        for one in held:
            await one.commit(one.step(f"k-{n}", b'{"n":%d}' % n))
    await platform.ask(Signal(instance="i-1", id="g-1", name="go"))
    exited = Exited(instance="i-1", attempt=1, worker="w1", reason="test", stderr="ouch")
    await platform.report_as_runner(exited)
    again = await platform.claim("i-1", attempt=2, worker="w2")
    await again.complete(b'"done"')
    await held[0].complete()
    return platform


def sql(statement: str) -> Tamper:
    return lambda peer: peer.pool.execute(statement)


def at(kind: str, instance: str, nth: int = 1) -> str:
    """A condition for one event."""
    return (
        f'(partition, "offset") = (SELECT partition, "offset" FROM events WHERE type = \'{kind}\' AND instance ='
        f" '{instance}' ORDER BY version OFFSET {nth - 1} LIMIT 1)"
    )


SWAP = """
WITH two AS (SELECT "offset", lead("offset") OVER (ORDER BY "offset") AS other FROM events
             WHERE instance = 'i-2' AND type = 'CheckpointSaved' ORDER BY "offset" LIMIT 1),
     was AS (SELECT e."offset", e.data FROM events e, two WHERE e."offset" IN (two."offset", two.other))
UPDATE events SET data = was.data FROM was, two
WHERE (events."offset" = two."offset" AND was."offset" = two.other)
   OR (events."offset" = two.other AND was."offset" = two."offset")
"""


async def swap_rows(peer: Peer) -> None:
    """Two events of one instance, whole, each at the other's offset."""
    one, other = [event["offset"] for event in (await peer.events("i-2"))[3:5]]
    for old, new in ((one, -1), (other, one), (-1, other)):
        await peer.pool.execute('UPDATE events SET "offset" = $2 WHERE "offset" = $1', old, new)


async def test_a_log_that_nobody_touched_is_clean_and_gives_the_projections(log: Peer) -> None:
    verdict = await log.verify()
    assert verdict.findings == []
    assert (verdict.events, verdict.instances) == (await log.pool.fetchval("SELECT count(*) FROM events"), 3)
    row = await log.pool.fetchrow("SELECT head, head_hash FROM partitions")
    assert row is not None
    assert verdict.heads == [Head(partition=0, offset=row["head"], hash=row["head_hash"].hex())]
    assert verdict.deployment == await log.pool.fetchval("SELECT id FROM deployment")
    assert (await log.replay()).findings == []


@pytest.mark.parametrize(
    ("tamper", "instance", "version", "problem"),
    [
        (sql(f"UPDATE events SET data = '{{\"kind\":\"step\",\"value\":2}}' WHERE {at('CheckpointSaved', 'i-1', 2)}"),
         "i-1", 5, "content"),
        (sql(f"UPDATE events SET data = (data::text || ' ')::json WHERE {at('InstanceCreated', 'i-0')}"),
         "i-0", 1, "content"),
        (sql(f"UPDATE events SET key = 'other' WHERE {at('CheckpointSaved', 'i-2')}"), "i-2", 4, "content"),
        (sql(f"UPDATE events SET actor = 'ghost' WHERE {at('SignalReceived', 'i-1')}"), "i-1", 8, "content"),
        (sql(f"UPDATE events SET recorded_at = recorded_at + 1 WHERE {at('AttemptStarted', 'i-2')}"),
         "i-2", 3, "content"),
        (sql(f"UPDATE events SET hash = sha256(hash) WHERE {at('CheckpointSaved', 'i-0')}"), "i-0", 4, "content"),
        (sql(SWAP), "i-2", 4, "content"),
        (swap_rows, "i-2", 4, "version"),
    ],
    ids=["data", "a blank", "key", "actor", "time", "hash", "swapped data", "swapped rows"],
)  # fmt: skip
async def test_the_first_event_that_was_touched_is_named(
    log: Peer, tamper: Tamper, instance: str, version: int, problem: str
) -> None:
    whole = {event["version"]: event["offset"] for event in await log.events(instance)}
    await tamper(log)
    first = (await log.verify()).findings[0]
    assert problem in first.problem
    assert (first.partition, first.offset, first.instance) == (0, whole[version], instance)
    if "version" not in problem:
        assert first.version == version


async def test_a_deleted_event_is_named_although_it_is_not_there(log: Peer) -> None:
    gone = (await log.events("i-1"))[5]
    await log.pool.execute('DELETE FROM events WHERE "offset" = $1', gone["offset"])
    first = (await log.verify()).findings[0]
    assert first == Finding(
        problem=f"event {gone['offset']} is missing",
        partition=0, offset=gone["offset"], tenant="default", instance="i-1", version=6,
    )  # fmt: skip


async def test_a_deleted_instance_shows_where_its_first_event_was(log: Peer) -> None:
    gone = (await log.events("i-0"))[0]
    await log.pool.execute("DELETE FROM events WHERE instance = 'i-0'")
    first = (await log.verify()).findings[0]
    assert "missing" in first.problem
    assert (first.partition, first.offset) == (0, gone["offset"])


async def test_a_missing_end_shows_although_no_event_behind_it_breaks(log: Peer) -> None:
    last = await log.pool.fetchval('DELETE FROM events WHERE "offset" = (SELECT max("offset") FROM events) RETURNING 0')
    head = await log.pool.fetchval("SELECT head FROM partitions")
    (finding,) = (await log.verify()).findings
    assert (last, finding.offset) == (0, head - 1)
    assert f"the log ends at offset {head - 1}, but {head} events were written" in finding.problem


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("head_hash = sha256(head_hash)", "head hash does not match"),
        ("head = head + 1", "events were written"),
        ("head = head - 1", "events were written"),
    ],
)
async def test_a_changed_head_of_a_partition_shows(log: Peer, change: str, problem: str) -> None:
    await log.pool.execute(f"UPDATE partitions SET {change}")
    (finding,) = (await log.verify()).findings
    assert problem in finding.problem
    assert finding.partition == 0


async def test_an_instance_whose_events_were_all_rewritten_shows_in_the_partitions_head(log: Peer) -> None:
    """Whoever can write may make a new chain for an instance; the partition's own gives it away."""
    await forge(log, "i-2", "CheckpointSaved", b'{"kind":"step","value":"forged"}')
    (finding,) = (await log.verify()).findings
    assert "head" in finding.problem


async def test_a_log_that_was_rewritten_whole_shows_in_heads_that_were_kept(log: Peer) -> None:
    kept = heads_of(await log.verify())
    more = await log.started("i-3")
    await more.commit(more.step("k-0"))
    assert (await log.verify(kept)).findings == []  # the log has grown, which is what logs do
    await rewrite(log)
    assert (await log.verify()).findings == []
    (finding,) = (await log.verify(kept)).findings
    assert (finding.partition, finding.offset) == (0, kept.heads[0].offset - 1)
    assert "head was kept" in finding.problem


async def test_a_forks_source_that_was_rewritten_or_cut_shows_in_the_fork(log: Peer) -> None:
    """However well it is chained again: the fork's own chain holds what it was forked from."""
    await log.fork("i-2", "f-2")
    await log.fork("i-0", "f-0")
    assert (await log.verify()).findings == []
    version = (await log.events("i-2"))[-1]["version"]
    await rewrite(log)
    (finding,) = (await log.verify()).findings
    assert (finding.instance, finding.version) == ("f-2", 2)
    assert f"forked from version {version} of i-2, which is another event now" in finding.problem
    await log.pool.execute("UPDATE events SET version = version + 100 WHERE instance = 'i-0' AND version > 1")
    (gone,) = [finding for finding in (await log.verify()).findings if finding.instance == "f-0"]
    assert "is not in the log any more" in gone.problem


async def test_a_log_that_was_cut_whole_shows_in_heads_that_were_kept(log: Peer) -> None:
    kept = heads_of(await log.verify())
    await log.pool.execute('DELETE FROM events WHERE "offset" >= 10')
    head = GENESIS
    for event in await log.pool.fetch('SELECT hash FROM events ORDER BY "offset"'):
        head = next_head(head, event["hash"])
    await log.pool.execute("UPDATE partitions SET head = 10, head_hash = $1", head)
    assert (await log.verify()).findings == []
    (finding,) = (await log.verify(kept)).findings
    assert f"the log ends here, but {kept.heads[0].offset} events were kept" in finding.problem


async def test_heads_of_another_deployment_are_refused(log: Peer) -> None:
    with pytest.raises(BadInput, match="deployment elsewhere"):
        await log.verify(Heads(deployment="elsewhere", heads=[]))


def heads_of(verdict: Verdict) -> Heads:
    return Heads(deployment=verdict.deployment, heads=verdict.heads)


async def rewrite(peer: Peer) -> None:
    """Change one event, and compute every hash behind it anew, the partition's too."""
    await forge(peer, "i-2", "CheckpointSaved", b'{"kind":"step","value":"forged"}')
    head = GENESIS
    for event in await peer.pool.fetch('SELECT hash FROM events ORDER BY "offset"'):
        head = next_head(head, event["hash"])
    await peer.pool.execute("UPDATE partitions SET head_hash = $1", head)


async def forge(peer: Peer, instance: str, type: str, data: bytes) -> None:
    """Change the first event of that type, and hash everything behind it anew."""
    previous: bytes | None = None
    changed = False
    for event in await peer.events(instance):
        fields = {name: event[name] for name in HASHED}
        if event["type"] == type and not changed:
            fields["data"], changed = data, True
        previous = event_hash(previous, canonical(**fields))
        await peer.pool.execute(
            'UPDATE events SET data = $1, hash = $2 WHERE partition = $3 AND "offset" = $4',
            fields["data"], previous, event["partition"], event["offset"],
        )  # fmt: skip


async def test_a_key_with_two_outcomes_is_found_however_well_it_is_chained(log: Peer) -> None:
    """As a bug of ours would leave it: appended in order, with right hashes."""
    last = (await log.events("i-2"))[-1]
    where = await log.pool.fetchrow("SELECT head, head_hash FROM partitions")
    assert where is not None
    await append(log, last, where, key="k-0")
    findings = (await log.verify()).findings
    assert [(finding.instance, finding.version) for finding in findings] == [("i-2", last["version"] + 1)]
    assert "'k-0'" in findings[0].problem


async def append(peer: Peer, last: asyncpg.Record, where: asyncpg.Record, *, key: str) -> None:
    fields = {name: last[name] for name in HASHED}
    fields |= {"offset": where["head"], "version": last["version"] + 1, "key": key, "type": "CheckpointSaved"}
    hash = event_hash(last["hash"], canonical(**fields))
    columns = ", ".join(f'"{name}"' for name in [*fields, "hash"])
    places = ", ".join(f"${n}" for n in range(1, len(fields) + 2))
    await peer.pool.execute(f"INSERT INTO events ({columns}) VALUES ({places})", *fields.values(), hash)
    await peer.pool.execute(
        "UPDATE partitions SET head = head + 1, head_hash = $1", next_head(where["head_hash"], hash)
    )


@pytest.mark.parametrize(
    ("tamper", "instance", "problem"),
    [
        (sql("UPDATE instances SET status = 'failed' WHERE instance = 'i-0'"), "i-0", "status"),
        (sql("UPDATE instances SET result = '\"other\"' WHERE instance = 'i-1'"), "i-1", "result"),
        (sql("UPDATE instances SET labels = '{\"a\":\"b\"}' WHERE instance = 'i-2'"), "i-2", "labels"),
        (sql("DELETE FROM instances WHERE instance = 'i-1'"), "i-1", "no row"),
        (sql("UPDATE instances SET instance = 'i-9' WHERE instance = 'i-1'"), "i-9", "does not know"),
        (sql("INSERT INTO timers VALUES ('default', 'i-2', 3, 0, 17)"), "i-2", "timers"),
        (sql("INSERT INTO timers VALUES ('default', 'i-7', 3, 0, 17)"), "i-7", "does not know"),
    ],
)
async def test_a_projection_that_drifted_from_the_log_is_named(
    log: Peer, tamper: Tamper, instance: str, problem: str
) -> None:
    await tamper(log)
    found = {finding.instance: finding for finding in (await log.replay()).findings}
    assert problem in found[instance].problem
    assert (await log.verify()).findings == []  # the log itself is whole


async def test_an_event_that_cannot_be_folded_is_named(log: Peer) -> None:
    await log.pool.execute(f"UPDATE events SET type = 'FromTheFuture' WHERE {at('SignalReceived', 'i-1')}")
    findings: list[Finding] = (await log.replay()).findings
    assert (findings[0].instance, findings[0].version) == ("i-1", 8)
    assert "cannot be folded" in findings[0].problem
