"""The API: what clients, workers and the console ask, as a NATS micro service.

Invariants: handlers only start a task in a bounded group, since the micro framework runs them one after another;
answers are in our own envelope, over the connection that may publish nothing but answers and hints; an unexpected error
becomes `InternalError` with an id, and its text stays in our log; the tenant is the subject's.
"""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import asyncpg
import msgspec
import nats.micro
from msgspec import Raw
from nats.micro.request import Request
from nats.micro.service import EndpointConfig, Service, ServiceConfig

from runtara.infra.logs import logger
from runtara.infra.postgres import CONNECTION_ERRORS
from runtara.protocol.api import (
    ConsumersRequest,
    EventsRequest,
    ForkRequest,
    Info,
    ListRequest,
    MemosRequest,
    PositionRequest,
    RegisterReply,
    RegisterRequest,
    Reply,
    TailRequest,
)
from runtara.protocol.configuration import (
    DefinitionRequest,
    DefinitionsRequest,
    ForgetImage,
    HostDefinitions,
    ImagesRequest,
    OpenConnection,
    RegisterDefinition,
    RegisterImage,
    SetConnection,
)
from runtara.protocol.connections import check_names
from runtara.protocol.definitions import EVERY, KIND
from runtara.protocol.errors import (
    CredentialRefused,
    InternalError,
    Malformed,
    PlatformUnreachable,
    RuntaraError,
    UnknownWorkflow,
)
from runtara.protocol.ids import check_id

from . import queries
from .blob_verbs import PARTS_AT_ONCE, Attached, BlobVerbs
from .forks import Forks
from .platform import Platform
from .schedule_verbs import ScheduleVerbs

log = logger("api")

VERSION: Final = "0.1.0"
MAX_REQUESTS: Final = 64

_T = TypeVar("_T")
_encode = msgspec.json.Encoder().encode
Handler = Callable[[str, str | None, bytes], Awaitable[object]]


class Api:
    """Answers verbs of `D.api.<tenant>.<verb>` and `D.api.<tenant>.<instance>.<verb>`. An async context manager."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._forks = Forks(platform)
        self._blobs = BlobVerbs(platform.blobs).verbs()
        self._free = asyncio.Semaphore(MAX_REQUESTS)
        self._free_for_blobs = asyncio.Semaphore(PARTS_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()
        self._service: Service | None = None

    async def __aenter__(self) -> "Api":
        name = self._platform.subjects.deployment
        config = ServiceConfig(name=f"{name}-api", version=VERSION, description="Runtara platform API")
        self._service = await nats.micro.add_service(self._platform.bus.nats, config)
        for verb, handler in self._tenant_verbs().items():
            await self._add(verb, f"{name}.api.*.{verb}", handler)
        for verb, handler in self._instance_verbs().items():
            await self._add(f"instance-{verb}", f"{name}.api.*.*.{verb}", handler)
        for verb, handler in self._blobs.items():
            await self._add(verb, f"{name}.api.*.{verb}", handler, free=self._free_for_blobs)
            await self._add(f"instance-{verb}", f"{name}.api.*.*.{verb}", handler, free=self._free_for_blobs)
        await self._platform.bus.flush()  # from now on the server knows us
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._service is not None and not self._platform.bus.nats.is_closed and self._platform.bus.is_connected:
            await self._service.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _tenant_verbs(self) -> dict[str, Handler]:
        return {
            "info": self._info,
            "register": self._register,
            "consumers": self._consumers,
            "list": self._list,
            "tail": self._tail,
            "workflows": self._workflows,
            "forget": self._forget,
            **ScheduleVerbs(self._platform).verbs(),
            "images": self._images,
            "register_image": self._register_image,
            "forget_image": self._forget_image,
            "definitions": self._definitions,
            "definition": self._definition,
            "register_definition": self._register_definition,
            "forget_definition": self._forget_definition,
            "host_definitions": self._host_definitions,
            "connections": self._connections,
            "set_connection": self._set_connection,
            "forget_connection": self._forget_connection,
            "credential": self._credential,
        }

    def _instance_verbs(self) -> dict[str, Handler]:
        return {
            "get": self._get,
            "events": self._events,
            "memos": self._memos,
            "position": self._position,
            "fork": self._fork,
            "connection": self._connection,
            "credential": self._credential,
        }

    async def _add(self, name: str, subject: str, handler: Handler, *, free: asyncio.Semaphore | None = None) -> None:
        assert self._service is not None
        free = free or self._free

        async def start(request: Request) -> None:
            await free.acquire()
            task = asyncio.create_task(self._answer(request, handler, free), name=f"api {name}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        await self._service.add_endpoint(EndpointConfig(name=name, subject=subject, handler=start))

    async def _answer(self, request: Request, handler: Handler, free: asyncio.Semaphore) -> None:
        try:
            answer = await self._reply(request, handler)
            payload = _encode(Reply()) + b"\n" + answer.data if isinstance(answer, Attached) else _encode(answer)
            if request._msg.reply:
                await self._platform.voice.publish(request._msg.reply, payload)
        finally:
            free.release()

    async def _reply(self, request: Request, handler: Handler) -> Reply | Attached:
        try:
            tenant, instance = self._address(request.subject)
            answer = await handler(tenant, instance, request.data)
            return answer if isinstance(answer, Attached) else Reply(data=Raw(_encode(answer)))
        except RuntaraError as exc:
            return Reply(error=exc.to_wire())
        except msgspec.MsgspecError as exc:
            return Reply(error=Malformed(reason=str(exc)).to_wire())
        except asyncpg.DataError:  # a number, or a character, that no row can hold
            return Reply(error=Malformed(reason="a value is out of range").to_wire())
        except CONNECTION_ERRORS as exc:
            log.warning("api_without_postgres", reason=repr(exc))
            return Reply(error=PlatformUnreachable(reason="the engine cannot reach its database").to_wire())
        except Exception:
            id = secrets.token_hex(8)
            log.exception("api_failed", id=id, subject=request.subject)
            return Reply(error=InternalError(id=id).to_wire())

    def _address(self, subject: str) -> tuple[str, str | None]:
        tokens = subject.split(".")
        tenant = check_id(tokens[2], "tenant")
        return tenant, check_id(tokens[3], "instance") if len(tokens) == 5 else None

    async def _info(self, tenant: str, instance: str | None, data: bytes) -> Info:
        platform = self._platform
        return Info(
            deployment=platform.deployment_id,
            partitions=platform.partitions,
            version=VERSION,
            now_us=time.time_ns() // 1_000,
        )

    async def _register(self, tenant: str, instance: str | None, data: bytes) -> RegisterReply:
        request = _decode(data, RegisterRequest)
        check_id(request.worker, "worker")
        for registration in request.workflows:
            check_id(registration.workflow, "workflow")
            check_id(registration.kind, "kind")
            options = registration.options
            if options.image is not None or options.definition is not None or registration.kind == KIND:
                reason = "an image comes from the registry of images, a definition from that of definitions"
                raise Malformed(reason=f"{reason}, and not from a worker")
            check_names(options.connections)
        consumers = await self._platform.registry.register(tenant, request.worker, request.workflows)
        return RegisterReply(consumers=consumers, stream=self._platform.subjects.run_stream)

    async def _credential(self, tenant: str, instance: str | None, data: bytes) -> object:
        """Who asks is read off the request, so a container may come by its own instance's subject."""
        credentials = self._platform.credentials
        if credentials is None:
            raise CredentialRefused(reason="this deployment's NATS server is not in operator mode")
        return await credentials.answer(tenant, data)

    async def _consumers(self, tenant: str, instance: str | None, data: bytes) -> RegisterReply:
        request = _decode(data, ConsumersRequest)
        check_id(request.runner, "runner")
        if check_id(request.kind, "kind") == KIND:
            raise Malformed(reason=f"kind {KIND} is of registered definitions, which workers host")
        consumers, images = await self._platform.registry.consumers(tenant, request.runner, request.kind)
        return RegisterReply(consumers=consumers, stream=self._platform.subjects.run_stream, images=images)

    async def _list(self, tenant: str, instance: str | None, data: bytes) -> object:
        async with self._platform.pool.acquire() as connection:
            return await queries.list_instances(connection, tenant, _decode(data, ListRequest))

    async def _tail(self, tenant: str, instance: str | None, data: bytes) -> object:
        async with self._platform.pool.acquire() as connection:
            return await queries.tail(connection, tenant, _decode(data, TailRequest))

    async def _workflows(self, tenant: str, instance: str | None, data: bytes) -> object:
        return await self._platform.registry.views(tenant)

    async def _forget(self, tenant: str, instance: str | None, data: bytes) -> object:
        name = _decode(data, str)
        if not await self._platform.registry.forget(tenant, check_id(name, "workflow")):
            raise UnknownWorkflow(workflow=name, hint="")
        return True

    async def _images(self, tenant: str, instance: str | None, data: bytes) -> object:
        return await self._platform.images.views(tenant, _decode(data, ImagesRequest).name)

    async def _register_image(self, tenant: str, instance: str | None, data: bytes) -> object:
        request = _decode(data, RegisterImage)
        return await self._platform.images.register(tenant, request.image, request.workflows)

    async def _forget_image(self, tenant: str, instance: str | None, data: bytes) -> object:
        request = _decode(data, ForgetImage)
        return await self._platform.images.forget(tenant, request.name, request.version)

    async def _definitions(self, tenant: str, instance: str | None, data: bytes) -> object:
        return await self._platform.definitions.views(tenant, _decode(data, DefinitionsRequest).workflow)

    async def _definition(self, tenant: str, instance: str | None, data: bytes) -> object:
        request = _decode(data, DefinitionRequest)
        return await self._platform.definitions.get(tenant, request.workflow, request.version)

    async def _register_definition(self, tenant: str, instance: str | None, data: bytes) -> object:
        return await self._platform.definitions.register(tenant, _decode(data, RegisterDefinition))

    async def _forget_definition(self, tenant: str, instance: str | None, data: bytes) -> object:
        request = _decode(data, DefinitionRequest)
        return await self._platform.definitions.forget(tenant, request.workflow, request.version)

    async def _host_definitions(self, tenant: str, instance: str | None, data: bytes) -> RegisterReply:
        request = _decode(data, HostDefinitions)
        check_id(request.worker, "worker")
        for name in request.workflows:
            check_id(name, "workflow")
        consumer = await self._platform.registry.host_definitions(tenant, request.worker, request.workflows)
        return RegisterReply(consumers={EVERY: consumer}, stream=self._platform.subjects.run_stream)

    async def _connections(self, tenant: str, instance: str | None, data: bytes) -> object:
        return await self._platform.connections.views(tenant)

    async def _set_connection(self, tenant: str, instance: str | None, data: bytes) -> object:
        return await self._platform.connections.set(tenant, _decode(data, SetConnection))

    async def _forget_connection(self, tenant: str, instance: str | None, data: bytes) -> object:
        await self._platform.connections.forget(tenant, _decode(data, str))
        return True

    async def _connection(self, tenant: str, instance: str | None, data: bytes) -> object:
        await self._platform.connections.open(tenant, instance or "", _decode(data, OpenConnection))
        return True

    async def _get(self, tenant: str, instance: str | None, data: bytes) -> object:
        async with self._platform.pool.acquire() as connection:
            view = await queries.get(connection, tenant, instance or "")
            if view is None:
                raise await queries.not_found(connection, tenant, instance or "")
            return view

    async def _events(self, tenant: str, instance: str | None, data: bytes) -> object:
        async with self._platform.pool.acquire() as connection:
            reply = await queries.events(connection, tenant, instance or "", _decode(data, EventsRequest))
            if not reply.events and await queries.get(connection, tenant, instance or "") is None:
                raise await queries.not_found(connection, tenant, instance or "")
            return reply

    async def _memos(self, tenant: str, instance: str | None, data: bytes) -> object:
        async with self._platform.pool.acquire() as connection:
            after = _decode(data, MemosRequest).after
            found = await queries.memos(connection, tenant, instance or "", after)
            if found is None:
                raise await queries.not_found(connection, tenant, instance or "")
            return found

    async def _position(self, tenant: str, instance: str | None, data: bytes) -> object:
        async with self._platform.pool.acquire() as connection:
            return await queries.position(connection, tenant, instance or "", _decode(data, PositionRequest))

    async def _fork(self, tenant: str, instance: str | None, data: bytes) -> object:
        await self._forks.fork(tenant, instance or "", _decode(data, ForkRequest))
        return True


def _decode(data: bytes, type: type[_T]) -> _T:
    return msgspec.json.decode(data or b"{}", type=type)
