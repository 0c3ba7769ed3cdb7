"""A record that decodes, is decided, and cannot be committed: it is rejected alone, the rest of its batch goes in.

`at` is the sender's clock, kept as it came: one that is no 64-bit number gets as far as Postgres and no further.
"""

from typing import Any, Final

import msgspec
import pytest

from runtara.protocol.frames import encode_record, join_frame
from runtara.protocol.records import Completed, Record, Start
from tests.support.peer import Peer
from tests.support.platform import running

TOO_LATE: Final = 2**70


def encoded(record: Record, **changes: Any) -> bytes:
    """A record as JSON; the poison is more than our own encoder writes."""
    text = encode_record(record)
    for name, value in changes.items():
        text = text[:-1] + f',"{name}":{value}}}'.encode()
    return text


def start(instance: str, **changes: Any) -> bytes:
    return encoded(Start(instance=instance, id=f"s-{instance}", workflow="wf"), **changes)


async def say(peer: Peer, *records: bytes) -> int:
    return await peer.raw(peer.subjects.commands(0, "default", "c1"), join_frame(records))


async def report(peer: Peer, *records: bytes) -> int:
    return await peer.raw(peer.subjects.worker_reports(0, "default", "w1"), join_frame(records))


async def test_a_poison_record_is_rejected_alone_and_its_frame_neighbours_commit(platform: Peer) -> None:
    await platform.folded(await say(platform, start("a"), start("b", at=TOO_LATE), start("c")))
    assert [await platform.status(id) for id in "abc"] == ["queued", None, "queued"]
    (row,) = await platform.rejected()
    assert "could not be committed" in row["reason"]
    assert b'"b"' in row["payload"]
    await platform.is_sound()


@pytest.mark.parametrize("at", [2**63, 2**64 - 1, TOO_LATE, -(2**70)])
async def test_a_poison_frame_alone_is_rejected_and_the_loop_goes_on(platform: Peer, at: int) -> None:
    await say(platform, start("a", at=at))
    assert (await platform.start("b")).status == "queued"
    assert await platform.status("a") is None
    assert len(await platform.rejected()) == 1


async def test_poison_among_many_frames_of_one_batch_costs_only_itself(peer: Peer) -> None:
    """All of it waits in the journal before there is an engine, so that it is one batch."""
    await peer.engine_says(0, peer.registered("wf"))
    for n in range(60):
        await say(peer, start(f"i-{n}", **({"at": TOO_LATE} if n in (7, 8, 41) else {})))
    last = await peer.cursor() + 61
    async with running(peer.settings):
        await peer.folded(last)
        missing = [n for n in range(60) if await peer.status(f"i-{n}") is None]
    assert missing == [7, 8, 41]
    assert len(await peer.rejected()) == 3
    await peer.is_sound()


async def test_a_poison_report_ends_its_attempt_because_its_worker_goes_on_without_it(platform: Peer) -> None:
    held = await platform.started("i-1")
    await platform.folded(await report(platform, encoded(held.step("a"), at=TOO_LATE)))
    assert (await platform.types("i-1"))[-2:] == ["AttemptLost", "InstanceQueued"]
    again = await platform.claim("i-1", attempt=2)
    assert again.answer.memos == []
    await platform.is_sound()


async def refuse_keys_like_poison(peer: Peer) -> None:
    """Have Postgres refuse an event for what is in it alone, whatever its record says besides."""
    await peer.pool.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'poison'; END $$;"
        "CREATE TRIGGER refuse BEFORE INSERT ON events FOR EACH ROW WHEN (NEW.key LIKE 'poison%')"
        " EXECUTE FUNCTION refuse()"
    )


async def culprits(peer: Peer) -> list[dict[str, Any]]:
    """The records that Postgres refused; beside them `rejected` has what ended their attempts."""
    payloads = [row["payload"] for row in await peer.rejected() if b"poison" in row["payload"]]
    return [msgspec.json.decode(payload)[0] for payload in payloads]


async def test_poison_between_reports_of_the_same_claim_costs_only_itself_and_what_follows_it(platform: Peer) -> None:
    """A record is tried behind the ones before it: alone, it would be a gap, which can be committed."""
    held = await platform.started("i-1")
    await refuse_keys_like_poison(platform)
    records = [held.step(key) for key in ("a", "b", "poison", "c", "d")]
    await platform.folded(await held.publish(*records))
    assert (await platform.types("i-1"))[-4:] == ["CheckpointSaved", "CheckpointSaved", "AttemptLost", "InstanceQueued"]
    again = await platform.claim("i-1", attempt=2)
    assert [memo.key for memo in again.answer.memos] == ["a", "b"]
    await again.complete()
    assert [row["seq"] for row in await culprits(platform)] == [3]
    await platform.is_sound()


async def test_several_poison_records_in_one_full_frame_are_found_quickly(platform: Peer) -> None:
    claims = [await platform.started(f"i-{n}") for n in range(8)]
    await refuse_keys_like_poison(platform)
    records: list[Record] = []
    for n in range(60):
        records += [
            held.step(f"poison-{n}" if (at, n) in ((2, 17), (5, 40)) else f"k-{n}") for at, held in enumerate(claims)
        ]
    await platform.folded(await platform.report("w1", *records))
    saved = [(await platform.types(f"i-{n}")).count("CheckpointSaved") for n in range(8)]
    assert saved == [60, 60, 17, 60, 60, 40, 60, 60]
    assert [row["seq"] for row in await culprits(platform)] == [18, 41]
    await platform.is_sound()


async def test_a_poison_last_report_does_not_end_the_instance(platform: Peer) -> None:
    held = await platform.started("i-1")
    await platform.folded(await report(platform, encoded(held.step("a")), encoded(held.record(Completed), at=TOO_LATE)))
    assert await platform.status("i-1") == "queued"


@pytest.mark.parametrize("data", [b'"\\u0000"', b'{"a\\u0000b":1}', b"1e999999", b"-0.0", b'"\xef\xbf\xbf"'])
async def test_odd_values_that_json_allows_are_kept_byte_for_byte(platform: Peer, data: bytes) -> None:
    held = await platform.started("i-1")
    assert (await held.commit(held.step("k", data))).rejected == []
    assert (await platform.events("i-1"))[-1]["data"] == b'{"kind":"step","value":%s}' % data
    await platform.is_sound()


async def test_the_longest_key_in_the_widest_characters_is_stored(platform: Peer) -> None:
    key = "".join(chr(0x20000 + n) for n in range(1_024))
    held = await platform.started("i-1")
    assert (await held.commit(held.step(key))).rejected == []
    assert (await platform.events("i-1"))[-1]["key"] == key
