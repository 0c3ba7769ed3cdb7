"""A worker's line to its supervisor."""

import asyncio
import contextlib
import os
import socket
import threading
from collections.abc import Iterator

import pytest

from runtara.sdk import link as link_module
from runtara.sdk.link import Link
from tests.support.polling import eventually


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, int]]:
    """The supervisor's socket, and the worker's descriptor."""
    ours, theirs = socket.socketpair()
    descriptor = os.dup(theirs.fileno())
    theirs.close()
    with ours:
        yield ours, descriptor
    with contextlib.suppress(OSError):
        os.close(descriptor)


async def test_what_is_hosted_is_said_before_anything_scheduled_later_runs(ends: tuple[socket.socket, int]) -> None:
    ours, descriptor = ends
    link = Link(descriptor)
    heard: list[bytes] = []
    link.ready("w-1", ["greet", "part"])
    link.hosts("a", 1)
    link.left("b", 2)
    asyncio.get_running_loop().call_soon(lambda: heard.append(ours.recv(1_000)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert heard == [b"ready w-1 greet part\n+a 1\n-b 2\n"]
    link.close()


async def test_another_thread_can_ask_for_a_successor_while_the_loop_is_blocked(
    ends: tuple[socket.socket, int],
) -> None:
    ours, descriptor = ends
    link = Link(descriptor)
    link.hosts("a", 1)  # not written yet
    asked: list[bool] = []
    thread = threading.Thread(target=lambda: asked.append(link.replace()))
    thread.start()
    thread.join()
    assert (asked, ours.recv(1_000)) == ([True], b"+a 1\nreplace\n")
    link.close()
    assert not link.replace()


async def test_the_end_of_the_supervisor_is_noticed(ends: tuple[socket.socket, int]) -> None:
    ours, descriptor = ends
    lost: list[bool] = []
    link = Link(descriptor, on_lost=lambda: lost.append(True))
    ours.close()
    await eventually(lambda: lost == [True])
    link.hosts("a", 1)
    link.flush()
    link.close()
    assert lost == [True]


async def test_a_supervisor_that_does_not_read_blocks_nothing(
    ends: tuple[socket.socket, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_module, "MAX_BUFFER_BYTES", 100_000)
    _, descriptor = ends
    link = Link(descriptor)
    for n in range(200):
        for instance in range(500):
            link.hosts(f"instance-{n}-{instance}", 1)
        link.flush()
    assert len(link._unsent) <= 100_000
    link.close()


async def test_without_a_supervisor_nothing_happens() -> None:
    link = Link(None)
    link.ready("w-1", [])
    link.hosts("a", 1)
    link.left("a", 1)
    link.close()
