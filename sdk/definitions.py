"""A client's way to the registry of definitions: `client.definitions`."""

import builtins

from msgspec import Raw

from runtara.protocol.api import Registration
from runtara.protocol.configuration import (
    DefinitionReply,
    DefinitionRequest,
    DefinitionsRequest,
    DefinitionView,
    RegisterDefinition,
    RegisteredDefinition,
)
from runtara.protocol.definitions import check_definition
from runtara.protocol.ids import check_id

from .ports import Api


class Definitions:
    """The JSON workflows of this tenant that the platform keeps, in versions."""

    def __init__(self, api: Api, actor: str | None) -> None:
        self._api = api
        self._actor = actor

    async def register(self, registration: Registration, document: bytes) -> RegisteredDefinition:
        """Let a workflow be started with `document` from now on; instances that exist keep their version.

        `registration` is what `load_workflow(document, id=…).registration(…)` reads in it. The platform gives the
        version: the next one, or the last if nothing is new. Raises `InvalidDefinition`, `InvalidId`.
        """
        check_definition(registration.workflow, Raw(document))
        request = RegisterDefinition(registration=registration, document=Raw(document), actor=self._actor)
        return await self._api.call("register_definition", request, RegisteredDefinition)

    async def list(self, workflow: str | None = None) -> builtins.list[DefinitionView]:
        """All versions by workflow, the newest first; or those of one."""
        return await self._api.call("definitions", DefinitionsRequest(workflow=workflow), builtins.list[DefinitionView])

    async def get(self, workflow: str, *, version: int | None = None) -> DefinitionReply:
        """A version with its document, or the newest. Raises `DefinitionNotFound`."""
        request = DefinitionRequest(workflow=check_id(workflow, "workflow"), version=version)
        return await self._api.call("definition", request, DefinitionReply)

    async def delete(self, workflow: str, *, version: int | None = None) -> builtins.list[int]:
        """Delete a version, or all of them; returns which. Raises `DefinitionNotFound`, `DefinitionInUse`."""
        request = DefinitionRequest(workflow=check_id(workflow, "workflow"), version=version)
        return await self._api.call("forget_definition", request, builtins.list[int])
