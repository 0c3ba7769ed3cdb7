"""`audit export`: all that the log has of what was asked for, provable from the file itself."""

import io
from pathlib import Path

import arro3.io
import msgspec
import pytest

from runtara.projections import parquet
from runtara.projections.audit import heads_now
from runtara.projections.export import EventLine, Selection, heads_line, lines, pages
from runtara.projections.heads import read_heads
from runtara.projections.verdict import Heads
from runtara.protocol.chain import canonical, event_hash, next_head
from runtara.protocol.errors import BadInput
from tests.support.archives import micros
from tests.support.peer import Peer

SPREAD = b'{"kind":"step",\n "value":"two lines"}'


@pytest.fixture
async def log(platform: Peer) -> Peer:
    """Two instances, interleaved, one of them at its end."""
    held = [await platform.started(f"i-{n}") for n in range(2)]
    for n in range(3):
        for one in held:
            await one.commit(one.step(f"k-{n}", b'"a\\u00e4"' if n else b'"two"'))
    await held[1].complete()
    return platform


async def exported(peer: Peer, **selection: object) -> tuple[list[EventLine], Heads]:
    text = b""
    async with peer.pool.acquire() as connection, connection.transaction():
        heads = await heads_now(connection)
        async for page in pages(connection, Selection(**selection)):  # type: ignore[arg-type]
            text += lines(page)
    text += heads_line(heads)
    *events, last = text.splitlines()
    return [msgspec.json.decode(event, type=EventLine) for event in events], msgspec.json.decode(last, type=Heads)


async def test_hashes_and_head_can_be_computed_from_the_file_alone(log: Peer) -> None:
    events, heads = await exported(log)
    head, chains = bytes(32), dict[str, bytes]()
    for event in events:
        text = canonical(
            event.partition, event.offset, event.tenant, event.instance, event.version, event.type, event.attempt,
            event.key, event.actor, micros(event.at), micros(event.recorded_at), data_of(event),
        )  # fmt: skip
        chains[event.instance] = event_hash(chains.get(event.instance), text)
        assert chains[event.instance].hex() == event.hash
        head = next_head(head, chains[event.instance])
    assert [(one.partition, one.offset, one.hash) for one in heads.heads] == [(0, len(events), head.hex())]


def data_of(event: EventLine) -> bytes:
    return event.text.encode() if event.text is not None else bytes(event.data)


async def test_data_with_line_breaks_stays_one_line_and_keeps_its_bytes(log: Peer) -> None:
    await log.pool.execute("UPDATE events SET data = $1 WHERE key = 'k-0' AND instance = 'i-0'", SPREAD)
    events, _ = await exported(log)
    (event,) = [one for one in events if one.key == "k-0" and one.instance == "i-0"]
    assert bytes(event.data) == SPREAD.replace(b"\n", b" ")
    assert data_of(event) == SPREAD


async def test_a_selection_holds_what_was_asked_for_and_the_heads_of_everything(log: Peer) -> None:
    everything, heads = await exported(log)
    at = [micros(event.recorded_at) for event in everything]
    one, heads_of_one = await exported(log, tenant="default", instances=("i-1",))
    assert one == [event for event in everything if event.instance == "i-1"]
    assert heads_of_one == heads
    assert (await exported(log, since=at[5]))[0] == everything[5:]
    assert (await exported(log, until=at[5]))[0] == everything[:5]
    assert (await exported(log, tenant="other"))[0] == []


async def test_parquet_has_the_same_events_and_heads(log: Peer, tmp_path: Path) -> None:
    events, heads = await exported(log)
    file = tmp_path / "log.parquet"
    async with log.pool.acquire() as connection, connection.transaction():
        with file.open("wb") as target:
            await parquet.write(target, pages(connection, Selection()), await heads_now(connection))
    table = arro3.io.read_parquet(file).read_all()
    columns = {name: table.column(name).to_pylist() for name in ("offset", "key", "data", "hash", "recorded_at")}
    assert columns["offset"] == [event.offset for event in events]
    assert columns["key"] == [event.key for event in events]
    assert [text.encode() for text in columns["data"]] == [data_of(event) for event in events]
    assert [hash.hex() for hash in columns["hash"]] == [event.hash for event in events]
    assert [round(at.timestamp() * 1e6) for at in columns["recorded_at"]] == [micros(e.recorded_at) for e in events]
    assert read_heads(file) == heads


async def test_heads_are_read_from_the_end_of_whatever_has_them(log: Peer, tmp_path: Path) -> None:
    _, heads = await exported(log)
    verdict = await log.verify()
    file = tmp_path / "kept.json"
    for text in (b'{"x":1}\n' + heads_line(heads), msgspec.json.encode(verdict), heads_line(heads) + b"\n"):
        file.write_bytes(text)
        assert read_heads(file) == heads


@pytest.mark.parametrize("text", [b"", b"no json", b'{"events": []}\n', b"PAR1 but nothing else"])
def test_a_file_without_heads_is_an_error_that_says_which_have_them(tmp_path: Path, text: bytes) -> None:
    file = tmp_path / "other"
    file.write_bytes(text)
    with pytest.raises(BadInput, match="audit export"):
        read_heads(file)
    with pytest.raises(BadInput, match="No such file"):
        read_heads(tmp_path / "nothing")


async def test_an_export_is_of_one_moment(log: Peer) -> None:
    text = io.BytesIO()
    async with log.pool.acquire() as connection, connection.transaction(isolation="repeatable_read"):
        heads = await heads_now(connection)
        await log.started("i-5")
        async for page in pages(connection, Selection()):
            text.write(lines(page))
    assert len(text.getvalue().splitlines()) == heads.heads[0].offset
