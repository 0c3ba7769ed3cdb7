"""Heartbeats come from their own thread, whatever the main loop does."""

import time

import msgspec

from runtara.infra.settings import Settings
from runtara.protocol.messages import Heartbeat
from runtara.sdk.heartbeat import Heartbeats, Pulse
from tests.support.platform import connect
from tests.support.polling import eventually

from .conftest import Platform


def heartbeats(settings: Settings, pulse: Pulse) -> Heartbeats:
    return Heartbeats(
        lambda: connect(settings, user="w-1-h"),
        f"{settings.deployment}.heartbeat.default.w-1",
        pulse,
        Heartbeat(worker="w-1", capacity=5),
        on_failure=lambda error: None,
    )


def decoded(beats: Heartbeats, count: int) -> list[Heartbeat]:
    return [msgspec.json.decode(beats.next_payload(), type=Heartbeat) for _ in range(count)]


def test_the_first_and_every_fifth_say_what_is_hosted(settings: Settings) -> None:
    pulse = Pulse()
    pulse.beat([("a", 1, "n")])
    listed = [beat.hosted is not None for beat in decoded(heartbeats(settings, pulse), 11)]
    assert listed == [True, False, False, False, False] * 2 + [True]


def test_more_lists_come_when_something_was_given_up(settings: Settings) -> None:
    pulse = Pulse()
    beats = heartbeats(settings, pulse)
    decoded(beats, 1)
    pulse.want_lists(2)
    assert [beat.hosted is not None for beat in decoded(beats, 3)] == [True, True, False]


async def test_they_are_sent_while_the_main_loop_is_blocked(settings: Settings, platform: Platform) -> None:
    heard: list[Heartbeat] = []
    await platform.bus.subscribe(
        platform.subjects.heartbeats, lambda msg: heard.append(msgspec.json.decode(msg.data, type=Heartbeat))
    )
    await platform.bus.nats.flush()
    pulse = Pulse()
    pulse.beat([("a", 1, "n")])
    async with heartbeats(settings, pulse):
        blocked_until = time.monotonic() + 2.6
        while time.monotonic() < blocked_until:  # a step that computes
            sum(range(10_000))
        await eventually(lambda: len(heard) >= 2)
    assert heard[0].hosted is not None
    assert heard[0].hosted.instances == [("a", 1, "n")]
    assert heard[0].running == 1
    assert heard[1].loop_lag_ms > 1_000
