"""Registered definitions as a worker hosts them: loaded when an instance needs one, in the version that it has.

Invariants: a version is loaded once, however many wait for it, and off the event loop; a bounded number is kept, those
used last; one that cannot be loaded gives a workflow that fails with the reason, so its instances end with a clear
error; an error that may pass is raised, and nothing is kept of it.
"""

import asyncio
import importlib
import importlib.util
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

import msgspec
from msgspec import Raw

from runtara.infra.logs import logger
from runtara.protocol.configuration import DefinitionReply, DefinitionRequest
from runtara.protocol.errors import ExtraMissing, Unavailable
from runtara.protocol.messages import RunRequest

from .connection import Connection
from .context import Context
from .workflow import Workflow

log = logger("worker")

MAX_LOADED: Final = 256  # versions; a compiled workflow has some hundred KiB
LANGUAGE: Final = "runtara.dsl.load"  # by name: whoever hosts code alone need not have it
_NEEDED: Final = ("pydantic", "jinja2")  # of the extra
AnyWorkflow = Workflow[..., Any]
Version = tuple[str, int]


class Library:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._loaded: OrderedDict[Version, AnyWorkflow] = OrderedDict()
        self._loading: dict[Version, asyncio.Lock] = {}

    def known(self, request: RunRequest) -> AnyWorkflow | None:
        """The workflow, if it is loaded."""
        found = self._loaded.get(_version(request))
        if found is not None:
            self._loaded.move_to_end(_version(request))
        return found

    async def get(self, request: RunRequest) -> AnyWorkflow:
        """The workflow, in the version that the instance has. Raises `Unavailable`."""
        version = _version(request)
        async with self._loading.setdefault(version, asyncio.Lock()):
            try:
                return self.known(request) or await self._fetch(*version)
            finally:
                self._loading.pop(version, None)

    async def _fetch(self, name: str, version: int) -> AnyWorkflow:
        question = DefinitionRequest(workflow=name, version=version)
        try:
            reply = await self._connection.call("definition", question, DefinitionReply)
            loaded = await asyncio.to_thread(_load, reply.document, name)
        except Unavailable as exc:
            log.warning("definition_delayed", workflow=name, version=version, reason=str(exc))
            raise
        except Exception as exc:  # whatever a document makes of our compiler: its instances fail, the others go on
            log.error("definition_not_loaded", workflow=name, version=version, reason=f"{type(exc).__name__}: {exc}")
            return _failing(name, exc)
        self._loaded[name, version] = loaded
        while len(self._loaded) > MAX_LOADED:
            _, oldest = self._loaded.popitem(last=False)
            importlib.import_module(LANGUAGE).unload(oldest)
        log.info("definition_loaded", workflow=name, version=version)
        return loaded


def check_language() -> None:
    """Whether definitions can be loaded here; nothing of it is imported before one is. Raises `ExtraMissing`."""
    if not all(map(importlib.util.find_spec, (LANGUAGE, *_NEEDED))):
        raise ExtraMissing(extra="agents")


def _version(request: RunRequest) -> Version:
    return request.workflow, request.options.definition or 0


def _load(document: Raw, name: str) -> AnyWorkflow:
    load: Callable[..., AnyWorkflow] = importlib.import_module(LANGUAGE).load_workflow
    return load(msgspec.json.decode(document), id=name)


def _failing(name: str, error: Exception) -> AnyWorkflow:
    async def failing(ctx: Context, data: Any = None, variables: Any = None) -> None:
        raise error

    return Workflow(failing, name=name)
