"""A blocked event loop is given up only if what blocks it was told to end, and had its grace."""

import asyncio
import time

import msgspec
import pytest
from nats.aio.msg import Msg

from runtara.infra.settings import Settings
from runtara.protocol.messages import CancelControl, Control, Heartbeat, PauseControl, Superseded
from runtara.sdk import watchdog as watchdog_module
from runtara.sdk.heartbeat import Heartbeats, Pulse, Residence
from runtara.sdk.watchdog import SILENT_LOOKS, Attempt, Watchdog
from tests.support.platform import connect

from .conftest import Platform

GRACE_SECONDS = 0.05
CLAIM: Residence = ("a", 1, "n")


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog_module, "CANCEL_GRACE_SECONDS", GRACE_SECONDS)


class Scene:
    """A worker that hosts `a` and `b`, seen by its watchdog; its loop says nothing unless told."""

    def __init__(self, *, blocker: Attempt | None) -> None:
        self.pulse = Pulse()
        self.hosted: set[Residence] = {CLAIM, ("b", 4, "m")}
        self.said: list[str] = []
        self.dog = Watchdog(
            "control", self.pulse, hosts=self.hosted.__contains__, blocker=lambda: blocker, on_blocked=self.said.append
        )

    def tell(self, control: Control) -> None:
        self.dog.hear(Msg(None, data=msgspec.json.encode(control)))  # type: ignore[arg-type]  # nobody answers it

    def cancel(self, claim: Residence = CLAIM) -> None:
        self.tell(CancelControl(instance=claim[0], attempt=claim[1], nonce=claim[2]))

    def later(self) -> None:
        """The grace passes, in which the loop says nothing."""
        until = time.monotonic() + GRACE_SECONDS * 1.2
        while time.monotonic() < until:
            pass
        for _ in range(SILENT_LOOKS):
            self.dog.look()


@pytest.mark.parametrize("blocker", [("a", 1), None])
def test_code_that_was_cancelled_and_blocks_the_loop_is_told_once_after_the_grace(blocker: Attempt | None) -> None:
    scene = Scene(blocker=blocker)
    scene.cancel()
    scene.dog.look()
    assert scene.said == []
    scene.later()
    scene.later()
    assert scene.said == ["instance a blocks the event loop, and was told to cancel"]


def test_a_process_that_was_stopped_as_a_whole_is_given_the_time_to_go_on() -> None:
    scene = Scene(blocker=None)
    scene.cancel()
    until = time.monotonic() + GRACE_SECONDS * 1.2  # it was stopped, and its loop has not run yet
    while time.monotonic() < until:
        pass
    scene.dog.look()
    scene.pulse.beat([])
    scene.dog.look()
    assert scene.said == []


def test_a_long_step_of_an_instance_that_nobody_cancelled_is_left_alone() -> None:
    scene = Scene(blocker=("b", 4))
    scene.later()
    scene.cancel()  # of its neighbour
    scene.later()
    assert scene.said == []


def test_a_loop_that_is_heard_is_no_case_for_the_watchdog() -> None:
    scene = Scene(blocker=("a", 1))
    scene.cancel()
    scene.later()
    fresh = Scene(blocker=("a", 1))
    fresh.cancel()
    until = time.monotonic() + GRACE_SECONDS * 2
    while time.monotonic() < until:
        fresh.pulse.beat([])
        fresh.dog.look()
    assert (len(scene.said), fresh.said) == (1, [])


def test_what_is_not_here_or_was_only_told_something_else_does_not_count() -> None:
    scene = Scene(blocker=("a", 1))
    scene.cancel(("a", 1, "another nonce"))
    scene.tell(PauseControl(instance="a", attempt=1, nonce="n"))
    scene.tell(Superseded(instance="a", attempt=1, nonce="n", reason="r"))
    scene.dog.hear(Msg(None, data=b"no control"))  # type: ignore[arg-type]
    scene.later()
    assert scene.said == []


def test_an_instance_that_left_meanwhile_no_longer_counts() -> None:
    scene = Scene(blocker=None)
    scene.cancel()
    scene.hosted.discard(CLAIM)
    scene.later()
    assert scene.said == []


async def test_the_heartbeats_thread_hears_what_the_blocked_loop_does_not(
    settings: Settings, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtara.sdk.heartbeat.HEARTBEAT_SECONDS", 0.05)
    scene = Scene(blocker=("a", 1))
    scene.dog.subject = f"{settings.deployment}.control.default.w-1"
    beats = Heartbeats(
        lambda: connect(settings, user="w-1-h"),
        f"{settings.deployment}.heartbeat.default.w-1", scene.pulse, Heartbeat(worker="w-1"),
        on_failure=lambda error: None, ear=scene.dog,
    )  # fmt: skip
    heard = asyncio.Event()
    await platform.bus.subscribe(platform.subjects.heartbeats, lambda msg: heard.set())
    await platform.bus.nats.flush()
    async with beats:
        await asyncio.wait_for(heard.wait(), 5)  # so it listens
        told = CancelControl(instance="a", attempt=1, nonce="n")
        await platform.bus.publish(scene.dog.subject, msgspec.json.encode(told))
        await platform.bus.nats.flush()
        deadline = time.monotonic() + 5
        while not scene.said and time.monotonic() < deadline:
            pass  # the loop is blocked, and says nothing
    assert len(scene.said) == 1
