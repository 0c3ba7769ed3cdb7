"""A client's commands and waits."""

import asyncio
from contextvars import copy_context
from types import SimpleNamespace
from typing import Any

import pytest

from runtara.protocol.errors import IllegalTransition, NotConfirmed, PlatformUnreachable
from runtara.protocol.messages import CommandAnswer, Done, Ended, Status
from runtara.protocol.records import Pause
from runtara.sdk import commands as commands_module
from runtara.sdk import results as results_module
from runtara.sdk.commands import Commands
from runtara.sdk.connection import Connection
from runtara.sdk.results import Results
from runtara.sdk.scope import FRAME
from runtara.sdk.tasks import track_tasks
from tests.support.polling import eventually

from .conftest import Platform


def pause(id: str = "c-1", instance: str = "a") -> Pause:
    return Pause(id=id, instance=instance)


async def test_a_command_is_sent_again_with_its_id_until_it_is_answered(
    connection: Connection, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands_module, "RESEND_SECONDS", 0.0)
    monkeypatch.setattr(commands_module, "SWEEP_SECONDS", 0.01)
    async with Commands(connection) as commands:
        answer = asyncio.create_task(commands.send(pause()))
        await eventually(lambda: len(platform.records) >= 3)
        assert {record["id"] for record in platform.records} == {"c-1"}
        await platform.answer(commands.subject, CommandAnswer(id="another", instance="a"))
        await platform.answer(commands.subject, CommandAnswer(id="c-1", instance="a", status="paused"))
        assert (await answer).status == "paused"


async def test_a_refusal_is_raised_as_what_it_is(connection: Connection, platform: Platform) -> None:
    error = IllegalTransition(command="pause", instance="a", status="completed").to_wire()
    async with Commands(connection) as commands:
        answer = asyncio.create_task(commands.send(pause()))
        await eventually(lambda: len(platform.records) == 1)
        await platform.answer(commands.subject, CommandAnswer(id="c-1", instance="a", error=error))
        with pytest.raises(IllegalTransition, match="it is completed"):
            await answer


async def test_no_answer_is_told_apart_from_no_journal(connection: Connection, platform: Platform) -> None:
    async with Commands(connection) as commands:
        with pytest.raises(NotConfirmed):
            await commands.send(pause(), timeout=0.3)
        connection.subjects = type(connection.subjects)("nowhere")
    async with Commands(connection) as commands:
        with pytest.raises(PlatformUnreachable, match="may still be carried out"):
            await commands.send(pause(), timeout=0.3)


async def test_what_was_just_started_is_told_to_its_starter_without_a_question(
    connection: Connection, platform: Platform
) -> None:
    async with Results(connection) as results:
        watches = [results.watch(f"i-{n}", starting=True) for n in range(50)]
        waits = [asyncio.create_task(results.wait(watch)) for watch in watches]
        await connection.bus.flush()
        ends = [Ended(instance=f"i-{n}", done=Done(status=Status.COMPLETED, version=n)) for n in range(50)]
        await platform.answer(results.inbox, *ends)
        assert [done.version for done in await asyncio.gather(*waits)] == list(range(50))
        assert all(watch.subscription is None for watch in watches)
    assert platform.questions == []


async def test_whoever_waits_longer_listens_and_asks_though_the_engine_forgot_who_started_it(
    connection: Connection, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results_module, "FIRST_ASK_SECONDS", 0.0)
    async with Results(connection) as results:
        watch = results.watch("i-1", starting=True)
        waiting = asyncio.create_task(results.wait(watch))
        await eventually(lambda: watch.subscription is not None)
        await connection.bus.flush()
        await platform.tell(platform.subjects.done("default", "i-1"), Done(status=Status.FAILED, version=3))
        assert (await waiting).version == 3
    assert watch.subscription is None


async def test_what_is_used_first_inside_a_workflow_does_not_end_with_it(
    connection: Connection, platform: Platform
) -> None:
    adopted: list[Any] = []
    track_tasks(asyncio.get_running_loop())
    async with Commands(connection) as commands, Results(connection) as results:
        inside = copy_context()
        inside.run(FRAME.set, SimpleNamespace(host=SimpleNamespace(adopt=adopted.append)))  # type: ignore[arg-type]

        async def user_code() -> None:
            watch = results.watch("a")
            waiting = [asyncio.create_task(results.wait(watch)), asyncio.create_task(commands.send(pause()))]
            await eventually(lambda: len(platform.records) == 1)
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

        await asyncio.get_running_loop().create_task(user_code(), context=inside)
        assert len(adopted) == 3  # the code itself and its two tasks
        assert all(task.done() for task in adopted)
