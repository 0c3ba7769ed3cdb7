"""Run requests: there when an attempt is due, once, repeated until there is evidence, never when it must not run."""

import msgspec
import pytest

from runtara.infra.pull import PulledMsg, PullLoop
from runtara.infra.settings import Settings
from runtara.protocol.messages import RunRequest
from runtara.protocol.records import Exited, Options, Start
from tests.support.peer import Peer
from tests.support.platform import deploy, running
from tests.support.polling import eventually


class Queue:
    """The run queue of a workflow, read as a worker does."""

    def __init__(self, peer: Peer, consumer: str) -> None:
        self._loop = PullLoop(
            peer.bus, stream=peer.subjects.run_stream, consumer=consumer, credit=lambda: 1, expires=1.0
        )

    async def __aenter__(self) -> "Queue":
        await self._loop.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._loop.close()

    async def take(self) -> tuple[RunRequest, PulledMsg]:
        (message,) = await self._loop.take(1)
        return msgspec.json.decode(message.data, type=RunRequest), message


async def requests(peer: Peer) -> list[tuple[str, int]]:
    """(instance, attempt) of what waits or is in flight."""
    return [(tokens[-2], int(tokens[-1])) for tokens in (s.split(".") for s in await peer.waiting_runs())]


async def until_requested(peer: Peer, *expected: tuple[str, int], within: float = 10.0) -> None:
    async def there() -> bool:
        return await requests(peer) == sorted(expected)

    await eventually(there, within=within, what=f"requests {expected}")


async def until_evident(peer: Peer, instance: str) -> None:
    """Until the log says that the queue has the request."""

    async def is_evident() -> bool:
        found = await peer.pool.fetchval("SELECT dispatched = attempt FROM instances WHERE instance = $1", instance)
        return bool(found)

    await eventually(is_evident)


async def test_a_request_says_all_that_an_attempt_needs(platform: Peer) -> None:
    reply = await platform.register("wf")
    start = Start(
        instance="i-1", id="s-1", workflow="wf", input=msgspec.Raw(b'{"n":1}'), options=Options(restarts=2),
        labels={"a": "b"},
    )  # fmt: skip
    await platform.ask(start)
    async with Queue(platform, reply.consumers["wf"]) as queue:
        request, message = await queue.take()
        assert request == RunRequest(
            tenant="default", instance="i-1", workflow="wf", attempt=1, first=True, input=msgspec.Raw(b'{"n":1}'),
            options=Options(restarts=2), labels={"a": "b"},
        )  # fmt: skip
        assert message.subject == platform.subjects.run("pool", "default", "wf", "i-1", 1)
        await message.ack()
    await until_requested(platform)


async def test_a_request_that_is_sent_twice_is_there_once(platform: Peer) -> None:
    await platform.start("i-1")
    await until_requested(platform, ("i-1", 1))
    subject = platform.subjects.run("pool", "default", "wf", "i-1", 1)
    with pytest.raises(Exception, match="maximum messages per subject"):
        await platform.raw(subject, b"again")
    await until_requested(platform, ("i-1", 1))


async def test_a_request_that_is_taken_by_two_workers_runs_in_one(platform: Peer) -> None:
    await platform.start("i-1")
    await platform.claim("i-1", worker="w1")
    answer = await platform.try_claim("i-1", worker="w2")
    assert type(answer).__name__ == "Superseded"


@pytest.mark.usefixtures("quick_watch")
async def test_what_the_queue_has_is_evidence(platform: Peer) -> None:
    await platform.start("i-1")
    await until_evident(platform, "i-1")


@pytest.mark.usefixtures("quick_watch")
async def test_a_lost_request_is_sent_again_and_does_not_say_that_it_is_the_first(platform: Peer) -> None:
    reply = await platform.register("wf")
    await platform.start("i-1")
    await until_evident(platform, "i-1")
    await platform.bus.jetstream(f"STREAM.PURGE.{platform.subjects.run_stream}")
    # as if nobody had confirmed it, six seconds ago
    await platform.pool.execute("UPDATE instances SET dispatched = 0, updated_at = updated_at - 6000000")
    await until_requested(platform, ("i-1", 1))
    async with Queue(platform, reply.consumers["wf"]) as queue:
        request, _ = await queue.take()
        assert request.first is False


@pytest.mark.usefixtures("quick_watch")
async def test_an_instance_that_is_queued_for_long_is_asked_for_again_whatever_the_evidence(platform: Peer) -> None:
    await platform.start("i-1")
    await until_requested(platform, ("i-1", 1))
    await platform.pool.execute("UPDATE instances SET dispatched = 1, updated_at = updated_at - 31000000")
    await platform.bus.jetstream(f"STREAM.PURGE.{platform.subjects.run_stream}")
    await until_requested(platform, ("i-1", 1))


@pytest.mark.usefixtures("quick_watch")
async def test_a_run_queue_that_was_made_anew_gets_everything_again(platform: Peer) -> None:
    for n in range(5):
        await platform.start(f"i-{n}")
    await platform.claim("i-0")
    for n in range(1, 5):
        await until_evident(platform, f"i-{n}")
    await platform.bus.jetstream(f"STREAM.DELETE.{platform.subjects.run_stream}")
    await deploy(platform.settings)
    await platform.pool.execute("UPDATE instances SET updated_at = updated_at - 6000000")

    async def all_again() -> bool:
        """Those that were queued; the claimed one is not (its silent worker may be given up meanwhile)."""
        there = await requests(platform)
        assert ("i-0", 1) not in there
        return {(f"i-{n}", 1) for n in range(1, 5)} <= set(there)

    await eventually(all_again, within=20)


async def test_requests_that_a_former_engine_owed_are_sent_by_the_next(deployed: Settings, peer: Peer) -> None:
    async with running(deployed):
        await peer.register("wf")
        await peer.start("i-1")
        await until_requested(peer, ("i-1", 1))
    await peer.bus.jetstream(f"STREAM.PURGE.{peer.subjects.run_stream}")
    await peer.pool.execute("UPDATE instances SET dispatched = 0, updated_at = updated_at - 6000000")
    async with running(deployed):
        await until_requested(peer, ("i-1", 1))


async def test_an_attempt_that_waits_for_its_restart_is_not_in_the_queue_before_its_time(
    platform: Peer,
) -> None:
    """Lost twice without progress: the third attempt waits for a second."""
    await platform.start("i-1")
    for attempt in (1, 2):
        held = await platform.claim("i-1", attempt=attempt)
        exited = Exited(instance="i-1", attempt=attempt, worker=held.worker, reason="test")
        await platform.folded(
            await platform.raw(platform.subjects.runner(0, "default", "r1"), msgspec.json.encode([exited]))
        )
    assert ("i-1", 3) not in await requests(platform)
    assert type(await platform.try_claim("i-1", attempt=3)).__name__ == "Superseded"
    await platform.until_type("i-1", "TimerFired")

    async def requested() -> bool:
        return ("i-1", 3) in await requests(platform)

    await eventually(requested)
    events = {event["type"]: event["recorded_at"] for event in await platform.events("i-1")}
    waited = events["TimerFired"] - events["InstanceQueued"]
    assert 1_000_000 <= waited < 2_000_000
