"""The client: starts workflows, waits for results, sends commands, reads what the platform knows.

    async with Client() as client:
        handle = await client.start(fulfil, order_ids=["a", "b"], id="o-1")
        receipt = await handle.result()

Invariants: a command that raised `NotConfirmed` is in the journal and will be carried out; waiting for a result
ends when the instance has ended, whatever was lost on the way; lists come in pages, streams of events one by one.
"""

import asyncio
import builtins
import time
from collections.abc import AsyncIterator, Generator, Mapping
from contextlib import AsyncExitStack, suppress
from typing import Any, Final, Generic, ParamSpec, TypeVar, overload

import msgspec
import orjson
from msgspec import Raw

from runtara.infra.settings import Settings
from runtara.protocol.api import (
    EventsReply,
    EventsRequest,
    EventView,
    Info,
    InstanceView,
    ListReply,
    ListRequest,
    TailReply,
    TailRequest,
    WorkflowView,
)
from runtara.protocol.blobs import Carried
from runtara.protocol.credentials import Kind
from runtara.protocol.errors import (
    ResultTimeout,
    RuntaraError,
    StartConflict,
    WireError,
    WorkflowCancelled,
    WorkflowFailed,
    WorkflowTimeout,
)
from runtara.protocol.ids import check_id, new_token
from runtara.protocol.messages import Done, Status
from runtara.protocol.records import AnyCommand, Cancel, Pause, Resume, Retry, Signal, Start

from . import ports
from .blobs import ApiDoor, Blobs
from .commands import ANSWER_SECONDS, Commands
from .connection import Connection
from .connections import Connections
from .definitions import Definitions
from .forks import fork_request
from .hints import CommitHints
from .images import Images
from .ports import Api, Hints
from .results import Ends, Results, Watch
from .schedules import Schedules
from .starts import checked_labels, named_input
from .values import encode
from .workflow import Workflow

P = ParamSpec("P")
R = TypeVar("R")

CONNECT_SECONDS: Final = 5.0
_NAME_PART: Final = 100  # a made-up id keeps this much of its workflow's name


class Client:
    """A tenant's door to the platform. Use as an async context manager, or `await` it and `close` it.

    Without `settings` they are those of `RUNTARA_*`, or of the `runtara dev` of the current directory. `actor` is
    who the log says has sent the commands.
    """

    def __init__(self, settings: Settings | None = None, *, actor: str | None = None) -> None:
        self._settings = settings or Settings.load()
        self._actor = actor if actor is None else check_id(actor, "actor")
        self._id = f"c-{new_token()}"
        self._stack = AsyncExitStack()

    @classmethod
    def connect(cls, settings: Settings | None = None, *, actor: str | None = None) -> "Client":
        """The same as `Client(settings)`: `client = await Client.connect(…)`, or with `async with`."""
        return cls(settings, actor=actor)

    async def __aenter__(self) -> "Client":
        try:
            connection = await Connection.open(
                self._settings,
                kind=Kind.CLIENT,
                user=self._id,
                name=f"runtara {self._id}",
                patience=CONNECT_SECONDS,
            )
            self._connection = await self._stack.enter_async_context(connection)
            self._api: Api = connection
            self._blobs = Blobs(ApiDoor(connection), patient=False)
            self._commands: ports.Commands = await self._stack.enter_async_context(Commands(connection))
            results = await self._stack.enter_async_context(Results(connection))
            self._results: Ends = results
        except BaseException:
            await self.close()
            raise
        return self

    def __await__(self) -> Generator[Any, None, "Client"]:
        return self.__aenter__().__await__()

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection. Waits under way end with `PlatformUnreachable`."""
        await self._stack.aclose()

    @property
    def tenant(self) -> str:
        return self._settings.tenant

    @property
    def schedules(self) -> Schedules:
        """Starts by the clock: `client.schedules.create("nightly", fulfil, cron="0 3 * * *")`."""
        return Schedules(self._api, self._blobs, self._actor)

    @property
    def images(self) -> Images:
        """The images that this tenant's containers are made of."""
        return Images(self._api, self.tenant)

    @property
    def definitions(self) -> Definitions:
        """JSON workflows that the platform keeps, in versions."""
        return Definitions(self._api, self._actor)

    @property
    def connections(self) -> Connections:
        """Named secrets for the code of workflows: `client.connections.set("crm", "http_bearer", {"token": …})`."""
        return Connections(self._api, self._actor)

    # starting

    @overload
    async def start(self, workflow: Workflow[P, R], *args: P.args, **kwargs: P.kwargs) -> "Handle[R]": ...
    @overload
    async def start(
        self, workflow: Workflow[..., R], *args: Any, id: str | None, labels: Mapping[str, str] = ..., **kwargs: Any
    ) -> "Handle[R]": ...
    @overload
    async def start(
        self, workflow: Workflow[..., R], *args: Any, labels: Mapping[str, str], **kwargs: Any
    ) -> "Handle[R]": ...
    @overload
    async def start(
        self,
        workflow: str,
        input: Mapping[str, object] | None = None,
        *,
        id: str | None = None,
        labels: Mapping[str, str] | None = None,
        version: int | None = None,
    ) -> "Handle[Any]": ...
    async def start(self, workflow: Workflow[..., Any] | str, *args: Any, **kwargs: Any) -> "Handle[Any]":
        """Start an instance: a `Workflow` with its arguments, or a workflow's name with its input by parameter.

        `id` is made up unless given, `labels` are for lists; a workflow with parameters of these names is started by
        its own name. `version` of a registered JSON workflow is the last one unless given. The same start again (same
        id, workflow and input) gives the same instance.
        Raises `StartConflict`, `UnknownWorkflow`, `DefinitionNotFound`, `InvalidInput`, `NotConfirmed`.
        """
        id, labels = kwargs.pop("id", None), kwargs.pop("labels", None)
        version = kwargs.pop("version", None) if isinstance(workflow, str) else None
        name, text = named_input(workflow, args, kwargs)
        input = await self._blobs.carried(text, key="input")
        instance = f"{name[:_NAME_PART]}-{new_token()}" if id is None else check_id(id, "instance")
        command = Start(
            **self._command(instance),
            workflow=name,
            input=input.text,
            blob=input.blob,
            labels=checked_labels(labels),
            done=self._results.inbox,
            version=version,
        )
        watch = self._results.watch(instance, starting=True)
        answer = await self._commands.send(command)
        watch.will_be_told &= not Status(answer.status).is_terminal  # the same start again, of one that has ended
        return Handle(self, instance, workflow if isinstance(workflow, Workflow) else None, watch)

    @overload
    async def start_or_signal(
        self, workflow: Workflow[..., R], *args: Any, id: str, signal: str, data: object = ...,
        labels: Mapping[str, str] | None = ..., **kwargs: Any,
    ) -> "Handle[R]": ...  # fmt: skip
    @overload
    async def start_or_signal(
        self, workflow: str, input: Mapping[str, object] | None = None, *, id: str, signal: str, data: object = ...,
        labels: Mapping[str, str] | None = ...,
    ) -> "Handle[Any]": ...  # fmt: skip
    async def start_or_signal(
        self, workflow: Workflow[..., Any] | str, *args: Any, id: str, signal: str, data: object = None,
        labels: Mapping[str, str] | None = None, **kwargs: Any,
    ) -> "Handle[Any]":  # fmt: skip
        """Signal the instance `id`, which is started first unless it exists, with whatever input.

        Raises `UnknownWorkflow`, `InvalidInput`, `IllegalTransition` (it has ended), `NotConfirmed`.
        """
        name, text = named_input(workflow, args, kwargs)
        input = await self._blobs.carried(text, key="input")
        start = Start(
            **self._command(id), workflow=name, input=input.text, blob=input.blob, labels=checked_labels(labels)
        )  # fmt: skip
        told = await self._signal(id, signal, data)
        started, signalled = await asyncio.gather(  # in one frame, hence in this order
            self._commands.send(start), self._commands.send(told), return_exceptions=True
        )
        for failed in (started, signalled):
            if isinstance(failed, BaseException) and not isinstance(failed, StartConflict):
                raise failed
        return Handle(self, id, workflow if isinstance(workflow, Workflow) else None)

    def handle(self, id: str, workflow: Workflow[..., R] | None = None) -> "Handle[R]":
        """The handle of an instance that exists; with `workflow` its result is read as what that returns."""
        return Handle(self, check_id(id, "instance"), workflow)

    # commands

    async def pause(self, id: str, *, reason: str | None = None, timeout: float = ANSWER_SECONDS) -> Status:
        """Stop after the steps in flight, until `resume`. Returns the status after the command."""
        return await self._send(Pause(**self._command(id), reason=reason), timeout)

    async def resume(self, id: str, *, timeout: float = ANSWER_SECONDS) -> Status:
        """Go on after a pause."""
        return await self._send(Resume(**self._command(id)), timeout)

    async def cancel(self, id: str, *, reason: str | None = None, timeout: float = ANSWER_SECONDS) -> Status:
        """End it: what was registered for it is undone."""
        return await self._send(Cancel(**self._command(id), reason=reason), timeout)

    async def signal(self, id: str, name: str, data: object = None, *, timeout: float = ANSWER_SECONDS) -> Status:
        """Hand `data` to the wait for `name`, now or when it comes to that."""
        return await self._send(await self._signal(id, name, data), timeout)

    async def retry(self, id: str, *, timeout: float = ANSWER_SECONDS) -> Status:
        """Run a failed or cancelled instance again: what succeeded is kept, what failed is tried again."""
        status = await self._send(Retry(**self._command(id)), timeout)
        self._results.forget(id)
        return status

    async def fork(
        self, id: str, *, at: str | None = None, set: Mapping[str, object] | None = None,
        input: Mapping[str, object] | None = None, new_id: str | None = None,
        labels: Mapping[str, str] | None = None, latest: bool = False, timeout: float = ANSWER_SECONDS,
    ) -> "Handle[Any]":  # fmt: skip
        """A new instance that begins where `id` stands, or just before the operation with the key `at`.

        What `id` recorded before is answered, but for failures and for what it still waits for. `set` gives answers by
        hand, by key, also to steps that failed or lie behind `at`; `input` replaces the input, `labels` the labels.
        `latest` takes the last version of a registered JSON workflow, not that of `id`. `new_id` is made up unless
        given. What `id` is to undo stays its own: cancelling the fork undoes only what the
        fork itself has done.
        Raises `InstanceNotFound`, `UnknownKey`, `UnknownWorkflow`, `StartConflict`, `HistoryTooLarge`, `NotConfirmed`.
        """
        request = await fork_request(
            self._blobs, id, at=at, answers=set or {}, input=input, id=new_id, labels=labels, latest=latest,
            actor=self._actor,
        )  # fmt: skip
        await self._commands.fork(id, request, timeout=timeout)
        return Handle(self, request.instance, None)

    # reading

    async def get(self, id: str) -> InstanceView:
        """What is known of an instance. Raises `InstanceNotFound`."""
        return await self._api.call("get", {}, InstanceView, instance=check_id(id, "instance"))

    async def with_values(self, view: InstanceView) -> InstanceView:
        """`view` with input and result in it, however long they are. Raises `BlobMissing`, `BlobCorrupt`."""
        input, result = Carried(view.input, view.input_blob), Carried(view.result, view.result_blob)
        return msgspec.structs.replace(
            view,
            input=Raw(await self._blobs.text(input, instance=view.id, key="input")),
            result=Raw(await self._blobs.text(result, instance=view.id, key="result")),
        )

    async def list(
        self,
        *,
        status: Status | str | None = None,
        workflow: str | None = None,
        labels: Mapping[str, str] | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> ListReply:
        """A page of instances, newest first; `next` of the page is the `cursor` of the following one."""
        question = ListRequest(
            status=Status(status) if status is not None else None,
            workflow=workflow,
            labels=dict(labels or {}),
            limit=limit,
            cursor=cursor,
        )
        return await self._api.call("list", question, ListReply)

    async def info(self) -> Info:
        """The platform that answers: its version, its partitions, its time."""
        return await self._api.call("info", {}, Info)

    async def workflows(self) -> builtins.list[WorkflowView]:
        """The workflows that were ever registered, and who hosts them."""
        return await self._api.call("workflows", {}, builtins.list[WorkflowView])

    async def forget_workflow(self, name: str) -> None:
        """Take a workflow off the list of those that can be started. Raises `UnknownWorkflow`."""
        await self._api.call("forget", check_id(name, "workflow"), bool)

    async def history(self, id: str, *, after: int = 0) -> AsyncIterator[EventView]:
        """The events of an instance so far, after version `after`."""
        more = True
        while more:
            page = await self._events(id, after)
            for event in page.events:
                yield event
                after = event.version
            more = page.more

    async def events(self, id: str, *, after: int = 0) -> AsyncIterator[EventView]:
        """The events of an instance as they come, until it has ended."""
        async with self._hints(id) as hints:
            while True:
                page = await self._events(id, after)
                for event in page.events:
                    yield event
                    after = event.version
                if page.more:
                    continue
                if not page.events and (await self.get(id)).status.is_terminal:
                    if not (await self._events(id, after)).events:
                        return
                    continue
                await hints.wait()

    async def tail(self, *, after: Mapping[str, int] | None = None) -> AsyncIterator[EventView]:
        """The events of all the tenant's instances as they come, from now on or from `after` (partition → offset)."""
        position = dict(after) if after is not None else None
        async with self._hints(None) as hints:
            while True:
                reply = await self._api.call("tail", TailRequest(after=position), TailReply)
                position = reply.after
                for event in reply.events:
                    yield event
                if not reply.events:
                    await hints.wait()

    async def _events(self, id: str, after: int) -> EventsReply:
        question = EventsRequest(after=after)
        return await self._api.call("events", question, EventsReply, instance=check_id(id, "instance"))

    def _hints(self, instance: str | None) -> Hints:
        """Of the commits that may be about `instance`, or of all."""
        subjects = self._connection.subjects
        if instance is None:
            return CommitHints(self._connection, subjects.committed_all)
        return CommitHints(self._connection, subjects.committed(self._connection.partition(instance)))

    def _command(self, instance: str) -> dict[str, Any]:
        """What every command says."""
        check_id(instance, "instance")
        return {"id": new_token(), "instance": instance, "at": time.time_ns() // 1_000, "actor": self._actor}

    async def _signal(self, id: str, name: str, data: object) -> Signal:
        text = encode(data, key=check_id(name, "signal"))
        carried = await self._blobs.carried(text, key=name)
        return Signal(**self._command(id), name=name, data=carried.text, blob=carried.blob)

    async def _send(self, command: AnyCommand, timeout: float) -> Status:
        return Status((await self._commands.send(command, timeout=timeout)).status)

    async def _wait(self, watch: Watch, timeout: float | None) -> Done:
        try:
            async with asyncio.timeout(timeout):
                return await self._results.wait(watch)
        except TimeoutError as exc:
            status = "not known"
            with suppress(RuntaraError):
                status = str((await self.get(watch.instance)).status)
            raise ResultTimeout(instance=watch.instance, status=status, seconds=timeout or 0.0) from exc


class Handle(Generic[R]):
    """An instance, from outside. `R` is what its workflow returns."""

    def __init__(self, client: Client, id: str, workflow: Workflow[..., R] | None, watch: Watch | None = None) -> None:
        self._id = id
        self._client = client
        self._workflow = workflow
        self._watch = watch

    def __repr__(self) -> str:
        return f"Handle({self.id!r})"

    @property
    def id(self) -> str:
        """The instance's id."""
        return self._id

    async def result(self, *, timeout: float | None = None) -> R:
        """Wait for the end; at most `timeout` seconds.

        Raises `WorkflowFailed`, `WorkflowTimeout`, `WorkflowCancelled`, `ResultTimeout`, `InstanceNotFound`, and for a
        long result that is damaged `BlobMissing`, `BlobCorrupt`.
        """
        if self._watch is None:
            self._watch = self._client._results.watch(self.id)
        done = await self._client._wait(self._watch, timeout)
        if done.status is Status.COMPLETED:
            result = Carried(done.result, done.blob)
            text = await self._client._blobs.text(result, instance=self.id, key="result")
            if self._workflow is not None:
                return self._workflow.decode_result(text)
            plain: R = orjson.loads(text)
            return plain
        raise outcome_error(self.id, done.status, done.error)

    async def get(self) -> InstanceView:
        return await self._client.get(self.id)

    async def pause(self, *, reason: str | None = None) -> Status:
        return await self._client.pause(self.id, reason=reason)

    async def resume(self) -> Status:
        return await self._client.resume(self.id)

    async def cancel(self, *, reason: str | None = None) -> Status:
        return await self._client.cancel(self.id, reason=reason)

    async def signal(self, name: str, data: object = None) -> Status:
        return await self._client.signal(self.id, name, data)

    async def retry(self) -> Status:
        self._watch = None
        return await self._client.retry(self.id)

    async def fork(
        self, *, at: str | None = None, set: Mapping[str, object] | None = None,
        input: Mapping[str, object] | None = None, new_id: str | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> "Handle[R]":  # fmt: skip
        """As `Client.fork`."""
        forked = await self._client.fork(self.id, at=at, set=set, input=input, new_id=new_id, labels=labels)
        return self._client.handle(forked.id, self._workflow)

    def history(self, *, after: int = 0) -> AsyncIterator[EventView]:
        return self._client.history(self.id, after=after)

    def events(self, *, after: int = 0) -> AsyncIterator[EventView]:
        return self._client.events(self.id, after=after)


def outcome_error(instance: str, status: Status, error: WireError | None) -> RuntaraError:
    """The error that stands for an instance that did not complete."""
    if status is Status.CANCELLED:
        return WorkflowCancelled(instance=instance, reason=error.attributes.get("reason", "") if error else "")
    if error is None:
        return WorkflowFailed(instance=instance, type="unknown", message=f"it is {status}")
    if error.code == WorkflowTimeout.__name__:
        return WorkflowTimeout(**{**error.attributes, "instance": instance})
    return WorkflowFailed(instance=instance, type=error.code, message=error.message, details=dict(error.attributes))
