"""Schedules, as a client sees them: `client.schedules`.

    await client.schedules.create("nightly", fulfil, {"order_ids": ["a"]}, cron="0 3 * * *", timezone="Europe/Zurich")

Invariant: everything is asked of the platform; nothing here knows when something is due.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Literal

from msgspec import Raw

from runtara.protocol.configuration import (
    ScheduleCreateRequest,
    ScheduleDefinition,
    ScheduleListReply,
    ScheduleListRequest,
    ScheduleRequest,
    ScheduleView,
)
from runtara.protocol.errors import InvalidSchedule
from runtara.protocol.ids import check_id

from .blobs import Blobs
from .ports import Api
from .starts import named_input
from .workflow import Workflow

_MICROSECOND = timedelta(microseconds=1)


class Schedules:
    """Starts by the clock. A schedule `nightly` that is due at 3 o'clock starts the instance
    `nightly-20261122T030000Z` (UTC), with the label `schedule=nightly`: one for each time, whatever crashes.
    """

    def __init__(self, api: Api, blobs: Blobs, actor: str | None) -> None:
        self._api = api
        self._blobs = blobs
        self._actor = actor

    async def create(
        self,
        name: str,
        workflow: Workflow[..., Any] | str,
        input: Mapping[str, object] | None = None,
        *,
        cron: str | None = None,
        every: timedelta | None = None,
        timezone: str = "UTC",
        labels: Mapping[str, str] | None = None,
        overlap: Literal["skip", "allow"] = "skip",
        catch_up: Literal["last", "all", "none"] = "last",
        paused: bool = False,
        replace: bool = False,
    ) -> ScheduleView:
        """Start `workflow` with `input` (by parameter) by a cron expression of five fields, or `every` so often.

        `timezone` is where the expression's times are read, changes of clocks included. An interval counts from now.
        `overlap`: while an instance that the schedule started has not ended, the next start is skipped, or allowed.
        `catch_up`: of the starts that were missed while no engine ran, the last one is made up for, or all (up to
        1,000), or none. The same again changes nothing; another definition of that name is a conflict unless `replace`.
        Raises `InvalidSchedule`, `UnknownWorkflow`, `ScheduleConflict`, `InvalidInput`.
        """
        text, encoded = _input(workflow, input)
        carried = await self._blobs.carried(encoded, key="input")
        definition = ScheduleDefinition(
            name=check_id(name, "schedule"), workflow=text, cron=cron, every_us=_interval(name, every),
            timezone=timezone, input=carried.text, blob=carried.blob, labels=dict(labels or {}), overlap=overlap,
            catch_up=catch_up,
        )  # fmt: skip
        question = ScheduleCreateRequest(schedule=definition, paused=paused, replace=replace, actor=self._actor)
        return await self._api.call("schedule_create", question, ScheduleView)

    async def get(self, name: str) -> ScheduleView:
        """What it is, when it is due, and what it started last. Raises `ScheduleNotFound`, as do all below."""
        return await self._api.call("schedule_get", self._of(name), ScheduleView)

    async def list(
        self,
        *,
        workflow: str | None = None,
        paused: bool | None = None,
        labels: Mapping[str, str] | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> ScheduleListReply:
        """A page of schedules, by name; `next` of the page is the `cursor` of the following one."""
        question = ScheduleListRequest(
            workflow=workflow, paused=paused, labels=dict(labels or {}), limit=limit, cursor=cursor
        )
        return await self._api.call("schedule_list", question, ScheduleListReply)

    async def pause(self, name: str) -> ScheduleView:
        """Nothing is due until `resume`."""
        return await self._api.call("schedule_pause", self._of(name), ScheduleView)

    async def resume(self, name: str) -> ScheduleView:
        """Go on with the next time that it is due; what was due while it was paused is not made up for."""
        return await self._api.call("schedule_resume", self._of(name), ScheduleView)

    async def trigger(self, name: str) -> str:
        """Start one now, also while it is paused or another one runs. The instance's id, once the log has it."""
        return await self._api.call("schedule_trigger", self._of(name), str)

    async def delete(self, name: str) -> None:
        """Start no more of it. What it has started goes on."""
        await self._api.call("schedule_delete", self._of(name), bool)

    def _of(self, name: str) -> ScheduleRequest:
        return ScheduleRequest(name=check_id(name, "schedule"), actor=self._actor)


def _input(workflow: Workflow[..., Any] | str, input: Mapping[str, object] | None) -> tuple[str, Raw]:
    if isinstance(workflow, str):
        return named_input(workflow, (input,), {})
    return named_input(workflow, (), dict(input or {}))


def _interval(name: str, every: timedelta | None) -> int | None:
    if every is None:
        return None
    if every <= timedelta(0):
        raise InvalidSchedule(schedule=name, reason=f"it cannot be due every {every}")
    return every // _MICROSECOND
