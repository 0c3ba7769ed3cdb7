"""`Stopped` is thrown into the code it is meant for, and into nothing that runs in the same thread after it."""

import _thread
import asyncio
import random
import sys
import threading
from collections.abc import Iterator
from functools import partial
from types import FrameType
from typing import Final

import pytest

from runtara.protocol.errors import Stopped
from runtara.sdk import interrupts as interrupts_module
from runtara.sdk import threads as threads_module
from runtara.sdk.threads import Call, Result, Threads
from tests.support.polling import eventually

ROUNDS: Final = 3_000


@pytest.fixture
def hasty() -> Iterator[None]:
    """Threads take turns as often as they can, so that an exception arrives at every place sooner or later."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def spin(turns: int) -> int:
    for _ in range(turns):
        pass
    return turns


async def test_an_endless_loop_ends() -> None:
    begun = threading.Event()

    def endless() -> None:
        begun.set()
        while True:
            pass

    call = Threads().submit(endless, asyncio.get_running_loop())
    begun.wait(5)
    assert call.interrupt()
    result = await asyncio.wait_for(call.finished, 5)
    assert isinstance(result.error, Stopped)
    assert not call.interrupt()


async def test_code_that_is_blocked_outside_of_python_ends_when_it_is_back() -> None:
    begun, go_on = threading.Event(), threading.Lock()
    went_on: list[bool] = []

    def blocked() -> None:
        begun.set()
        go_on.acquire()
        went_on.append(True)

    go_on.acquire()
    call = Threads().submit(blocked, asyncio.get_running_loop())
    begun.wait(5)
    assert call.interrupt()
    assert not call.finished.done()
    go_on.release()
    assert isinstance((await asyncio.wait_for(call.finished, 5)).error, Stopped)
    assert went_on == []


async def test_code_that_has_ended_is_not_interrupted() -> None:
    threads, loop = Threads(), asyncio.get_running_loop()
    first = threads.submit(threading.get_ident, loop)
    ident = (await first.finished).get()
    assert not first.interrupt()
    await eventually(lambda: threads._idle == 1)
    second = threads.submit(lambda: (threading.get_ident(), spin(10_000)), loop)
    assert (await second.finished).get() == (ident, 10_000)


async def test_code_may_clean_up_and_even_go_on_and_is_not_interrupted_twice() -> None:
    begun = threading.Event()

    def stubborn() -> str:
        begun.set()
        try:
            while True:
                pass
        except Stopped:
            spin(100_000)
        return "went on"

    call = Threads().submit(stubborn, asyncio.get_running_loop())
    begun.wait(5)
    assert call.interrupt()
    assert not call.interrupt()
    assert (await asyncio.wait_for(call.finished, 5)).get() == "went on"


async def test_no_other_code_in_the_pool_is_ever_hit(hasty: None) -> None:
    """Interrupts at any moment of a call; its thread is used again at once."""
    threads, loop, chance = Threads(), asyncio.get_running_loop(), random.Random(7)
    idents: set[int] = set()
    ends = {"hit": 0, "missed": 0}

    def victim(begun: list[bool], turns: int) -> int:
        idents.add(threading.get_ident())
        begun.append(True)
        return spin(turns)

    def bystander() -> int:
        idents.add(threading.get_ident())
        return spin(200) + spin(200)

    for _ in range(ROUNDS):
        begun: list[bool] = []
        call = threads.submit(partial(victim, begun, chance.randrange(20_000)), loop)
        while not begun:
            pass
        spin(chance.randrange(2_000))
        thrown = call.interrupt()
        others = [threads.submit(bystander, loop) for _ in range(2)]
        result: Result[int] = await asyncio.wait_for(call.finished, 10)
        for other in others:
            assert (await asyncio.wait_for(other.finished, 10)).get() == 400
        assert result.error is None or (thrown and isinstance(result.error, Stopped))
        ends["hit" if result.error is not None else "missed"] += 1
    assert min(ends.values()) > ROUNDS / 50, ends  # both happened, so the moments in between were met as well
    assert len(idents) < 10  # the same few threads all along: a death would have been followed by a new one


def two() -> int:
    return int("1") + int("1")


class AtInstruction:
    """Interrupts a call as its thread comes to the n-th instruction (in Python 3.12: line) from `Call.run` on."""

    def __init__(self, n: int, call: "Call[int]") -> None:
        self._left = n
        self._call = call
        self._files = {threads_module.__file__, interrupts_module.__file__, two.__code__.co_filename}
        self.thrown: bool | None = None

    def __call__(self, frame: FrameType, event: str, _: object) -> "AtInstruction | None":
        if frame.f_code.co_filename not in self._files:
            return None
        frame.f_trace_opcodes = True
        self._left -= 1
        if self._left == 0:
            self._interrupt()
        return self

    def _interrupt(self) -> None:
        """From another thread, one that is not traced."""
        done = threading.Lock()
        done.acquire()

        def elsewhere() -> None:
            self.thrown = self._call.interrupt()
            done.release()

        _thread.start_new_thread(elsewhere, ())
        done.acquire()


async def test_whichever_instruction_is_interrupted_the_call_ends_and_what_comes_after_it_is_not_hit() -> None:
    loop = asyncio.get_running_loop()
    thrown: list[bool] = []
    was_met = True
    while was_met:
        call = Call(two, loop)
        trace = AtInstruction(len(thrown) + 1, call)
        after: list[int] = []

        def run(call: Call[int] = call, trace: AtInstruction = trace, after: list[int] = after) -> None:
            sys.settrace(trace)
            call.run()
            sys.settrace(None)
            after.append(spin(1_000))

        thread = threading.Thread(target=run, name=f"instruction {len(thrown)}", daemon=True)
        thread.start()
        result = await asyncio.wait_for(call.finished, 5)
        thread.join(5)
        assert after == [1_000], len(thrown)
        assert result.value == 2 or isinstance(result.error, Stopped), len(thrown)
        thrown.append(trace.thrown is True)
        was_met = trace.thrown is not None
    first, last = thrown.index(True), len(thrown) - 1 - thrown[::-1].index(True)
    assert all(thrown[first : last + 1])
    assert last - first > 10
    assert 0 < first < last < len(thrown) - 5  # not before it was open, nor after it was closed
