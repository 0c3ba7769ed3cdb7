"""Which agents there are: ours, and those that installed packages name under the entry-point group `runtara.agents`.

Invariants: an agent's module is imported when that agent is asked for, not before; an id of ours cannot be taken over
by another package; a package that cannot be imported is named, and disturbs no other agent.
"""

import importlib
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import Final

from runtara.protocol.errors import ExtraMissing, InvalidAgent, UnknownAgent, UnknownCapability

from .agent import Agent, Capability, agent_of

ENTRY_POINTS: Final = "runtara.agents"
BUILT_IN: Final[tuple[tuple[str, str], ...]] = (
    ("compression", "runtara.agents.compression:Compression"),
    ("crypto", "runtara.agents.crypto:Crypto"),
    ("csv", "runtara.agents.csv:Csv"),
    ("datetime", "runtara.agents.datetime:Datetime"),
    ("http", "runtara.agents.http:Http"),
    ("sftp", "runtara.agents.sftp:Sftp"),
    ("text", "runtara.agents.text:Text"),
    ("transform", "runtara.agents.transform:Transform"),
    ("utils", "runtara.agents.utils:Utils"),
    ("xml", "runtara.agents.xml:Xml"),
)
_NEAREST: Final = 3


class Registry:
    """Agents by id. `built_in` are (id, "module:Class"); `others` are entry points, their names the ids."""

    def __init__(self, built_in: Collection[tuple[str, str]], others: Collection[EntryPoint] = ()) -> None:
        self._built_in: Mapping[str, str] = dict(built_in)
        self._others = {point.name: point for point in others}
        self._loaded: dict[str, Agent] = {}

    def ids(self) -> tuple[str, ...]:
        """All ids, sorted; nothing is imported for it."""
        return tuple(sorted({*self._built_in, *self._others}))

    def agents(self) -> tuple[Agent, ...]:
        """All agents, by id. Raises `InvalidAgent` for one that cannot be loaded."""
        return tuple(self.agent(id) for id in self.ids())

    def agent(self, id: str) -> Agent:
        """Raises `UnknownAgent` with the nearest ids, or `InvalidAgent` if it cannot be loaded."""
        found = self._loaded.get(id)
        if found is None:
            found = self._loaded[id] = self._load(id)
        return found

    def capability(self, agent_id: str, capability_id: str) -> Capability:
        """By id or alias. Raises `UnknownAgent` or `UnknownCapability` with the nearest names."""
        agent = self.agent(agent_id)
        found = agent.find(capability_id)
        if found is None:
            names = [name for one in agent.capabilities.values() for name in (one.id, *one.aliases)]
            raise UnknownCapability(agent=agent_id, capability=capability_id, hint=nearest(capability_id, names))
        return found

    def _load(self, id: str) -> Agent:
        ours = self._built_in.get(id)
        if ours is not None:
            return _of_ours(ours)
        point = self._others.get(id)
        if point is None:
            raise UnknownAgent(agent=id, hint=nearest(id, self.ids()))
        return _of_entry_point(point)


@lru_cache(maxsize=1)
def registry() -> Registry:
    """The registry of this process."""
    return Registry(BUILT_IN, tuple(entry_points(group=ENTRY_POINTS)))


def _of_ours(target: str) -> Agent:
    module, _, name = target.partition(":")
    try:
        return agent_of(getattr(importlib.import_module(module), name))
    except ModuleNotFoundError as exc:
        raise ExtraMissing(extra="agents") from exc


def _of_entry_point(point: EntryPoint) -> Agent:
    where = f"{point.value} of package {point.dist.name}" if point.dist is not None else point.value
    try:
        found = agent_of(point.load())
    except Exception as exc:  # whatever a stranger's module does at import
        raise InvalidAgent(agent=point.name, reason=f"{where} cannot be loaded: {type(exc).__name__}: {exc}") from exc
    if found.id != point.name:
        raise InvalidAgent(agent=point.name, reason=f"{where} calls itself {found.id!r}; the two names must agree")
    return found


def nearest(name: str, known: Collection[str]) -> str:
    """A hint for whoever asked for a name that there is not; empty if none is near."""
    close = get_close_matches(name, sorted(known), n=_NEAREST)
    return f" (did you mean {', '.join(map(repr, close))}?)" if close else ""
