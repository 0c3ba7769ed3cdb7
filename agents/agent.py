"""The decorators that make a class an agent and its methods capabilities, and the records they are known by.

Invariants: everything a catalogue says is worked out once, from the signature and the models, when the class is
decorated; what does not fit is a `TypeError` at import, never at the first call; a decorated method stays the plain
function it was, so Python code calls it as such.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar, get_type_hints

from runtara.protocol.ids import check_id

from .errors import is_code
from .fields import alternatives
from .models import Inputs

C = TypeVar("C")
F = TypeVar("F", bound=Callable[..., Any])
_AGENT: Final = "__runtara_agent__"
_CAPABILITY: Final = "__runtara_capability__"


@dataclass(frozen=True, slots=True, kw_only=True)
class Capability:
    """One thing an agent can do. `function` is the undecorated method of `owner`, the agent's class."""

    agent: str
    id: str
    aliases: tuple[str, ...]
    display_name: str
    description: str
    inputs: type[Inputs]
    output: object
    side_effects: bool
    idempotent: bool
    rate_limited: bool
    errors: tuple[str, ...]
    connections: tuple[str, ...]
    connection_required: bool
    inline: bool
    is_async: bool
    function: Callable[..., Any]
    owner: type

    @property
    def name(self) -> str:
        return f"{self.agent} {self.id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """An agent: a class, and its capabilities by id, in the order of their definition."""

    id: str
    display_name: str
    description: str
    side_effects: bool
    connections: tuple[str, ...]
    capabilities: Mapping[str, Capability]
    cls: type

    def find(self, capability_id: str) -> Capability | None:
        """By id or alias."""
        found = self.capabilities.get(capability_id)
        return found or next((one for one in self.capabilities.values() if capability_id in one.aliases), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Marked:
    id: str
    aliases: tuple[str, ...]
    display_name: str | None
    side_effects: bool | None
    idempotent: bool
    rate_limited: bool
    errors: tuple[str, ...]
    inline: bool


def capability(
    id: str,
    *,
    aliases: tuple[str, ...] = (),
    display_name: str | None = None,
    side_effects: bool | None = None,
    idempotent: bool = False,
    rate_limited: bool = False,
    errors: tuple[str, ...] = (),
    inline: bool = False,
) -> Callable[[F], F]:
    """Make a method of an `@agent` class a capability.

    The method takes `(self, inputs: SomeInputs)` or `(self, inputs: SomeInputs, connection: SomeConnection | None =
    None)`; its return annotation is the output's type, its docstring the description. A plain `def` runs in a thread,
    unless `inline=True` says that it is quick and never waits. `errors` are the codes it is known to fail with.
    `side_effects` is the agent's unless given; `idempotent`: doing it twice is the same as once.
    """
    for name in (id, *aliases):
        check_id(name, "capability")
    wrong = [code for code in errors if not is_code(code)]
    if wrong:
        raise TypeError(f"capability {id}: {wrong[0]!r} is no code of an error; use capitals, digits and '_'")

    def mark(fn: F) -> F:
        marked = _Marked(
            id=id, aliases=aliases, display_name=display_name, side_effects=side_effects, idempotent=idempotent,
            rate_limited=rate_limited, errors=errors, inline=inline,
        )  # fmt: skip
        setattr(fn, _CAPABILITY, marked)
        return fn

    return mark


def agent(
    id: str, *, display_name: str | None = None, side_effects: bool = False, connections: tuple[str, ...] = ()
) -> Callable[[type[C]], type[C]]:
    """Make a class an agent: it needs no arguments to be made, and one object of it serves the whole process.

    `connections` are the types of connection that its capabilities may be given.
    """
    check_id(id, "agent")

    def make(cls: type[C]) -> type[C]:
        head = Agent(
            id=id, display_name=display_name or _title(id), description=_text_of(cls), side_effects=side_effects,
            connections=connections, capabilities={}, cls=cls,
        )  # fmt: skip
        found: dict[str, Capability] = {}
        taken: set[str] = set()
        for one in _capabilities(cls, head):
            for name in (one.id, *one.aliases):
                if name in taken:
                    raise TypeError(f"agent {id} has two capabilities named {name!r}")
                taken.add(name)
            found[one.id] = one
        if not found:
            raise TypeError(f"agent {id} has no capability; decorate its methods with @capability")
        setattr(cls, _AGENT, replace(head, capabilities=found))
        return cls

    return make


def agent_of(cls: type) -> Agent:
    """The record of a decorated class. Raises `TypeError` for any other."""
    found = vars(cls).get(_AGENT)
    if not isinstance(found, Agent):
        raise TypeError(f"{cls.__qualname__} is no agent; decorate it with @agent")
    return found


def _capabilities(cls: type, head: Agent) -> list[Capability]:
    methods = {name: method for base in reversed(cls.__mro__) for name, method in vars(base).items()}
    marked = [(method, getattr(method, _CAPABILITY, None)) for method in methods.values()]
    return [_capability(method, mark, head) for method, mark in marked if isinstance(mark, _Marked)]


def _capability(fn: Callable[..., Any], marked: _Marked, head: Agent) -> Capability:
    where = f"capability {marked.id} of agent {head.id}"
    try:
        hints = get_type_hints(fn, include_extras=True)
    except NameError as exc:
        raise TypeError(
            f"{where}: an annotation cannot be resolved ({exc}); define its models at module level"
        ) from exc
    parameters = list(inspect.signature(fn).parameters.values())[1:]
    if not 1 <= len(parameters) <= 2:
        raise TypeError(f"{where}: it takes (self, inputs) or (self, inputs, connection)")
    inputs = hints.get(parameters[0].name)
    if not (isinstance(inputs, type) and issubclass(inputs, Inputs)):
        raise TypeError(f"{where}: annotate {parameters[0].name!r} with a subclass of Inputs")
    if "return" not in hints:
        raise TypeError(f"{where}: annotate what it returns")
    takes_connection = len(parameters) == 2
    if takes_connection and not head.connections:
        raise TypeError(f"{where}: it takes a connection, and @agent({head.id!r}, connections=…) names no type of one")
    return Capability(
        agent=head.id,
        id=marked.id,
        aliases=marked.aliases,
        display_name=marked.display_name or _title(marked.id),
        description=_text_of(fn),
        inputs=inputs,
        output=hints["return"],
        side_effects=head.side_effects if marked.side_effects is None else marked.side_effects,
        idempotent=marked.idempotent,
        rate_limited=marked.rate_limited,
        errors=marked.errors,
        connections=head.connections if takes_connection else (),
        connection_required=takes_connection and type(None) not in alternatives(hints.get(parameters[1].name)),
        inline=marked.inline,
        is_async=inspect.iscoroutinefunction(fn),
        function=fn,
        owner=head.cls,
    )


def _title(id: str) -> str:
    return id.replace("-", " ").replace("_", " ").capitalize()


def _text_of(thing: object) -> str:
    return inspect.cleandoc(getattr(thing, "__doc__", None) or "")
