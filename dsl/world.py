"""What a document may rely on outside itself: the agents, and the workflows that it embeds.

Invariant: what is not here is not known, and nothing is said of it; a child that is not a legal document is as good as
unknown, for its own validation tells why.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from runtara.agents.agent import Capability
from runtara.agents.catalogue import Field, fields, output_schema
from runtara.agents.registry import Registry
from runtara.protocol.errors import InvalidAgent, UnknownAgent, UnknownCapability

from .model import EmbedWorkflowStep, Graph
from .parse import parse
from .shapes import UNKNOWN, Shape, of_json_schema

_CACHED: Final = 1024  # capabilities


class World:
    """`children` are documents by workflow id; None stands for a workflow that exists and is not of JSON. Those not in
    it do not exist, if `complete`."""

    def __init__(
        self, *, agents: Registry | None = None, children: Mapping[str, object] | None = None, complete: bool = True
    ) -> None:
        self.agents = agents
        self.complete = complete and children is not None
        self._documents: Mapping[str, object] = children or {}
        self._graphs: dict[str, Graph | None] = {}

    def capability(self, agent_id: str, capability_id: str) -> Capability | None:
        if self.agents is None:
            return None
        try:
            return self.agents.capability(agent_id, capability_id)
        except (UnknownAgent, UnknownCapability, InvalidAgent):
            return None

    def exists(self, workflow: str) -> bool:
        return workflow in self._documents

    def child(self, step: EmbedWorkflowStep | str) -> Graph | None:
        """The graph of an embedded workflow, as far as it is known."""
        id = step if isinstance(step, str) else step.child_workflow_id
        if id not in self._graphs:
            document = self._documents.get(id)
            self._graphs[id] = None if document is None else parse(document, id=id).graph
        return self._graphs[id]


@lru_cache(maxsize=_CACHED)
def inputs_of(capability: Capability) -> tuple[Field, ...]:
    return fields(capability)


@lru_cache(maxsize=_CACHED)
def output_of(capability: Capability) -> Shape:
    schema = output_schema(capability)
    return of_json_schema(schema) if schema else UNKNOWN
