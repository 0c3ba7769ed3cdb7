"""`@workflow`: what can be started, with a name, typed parameters and options.

A `Workflow` converts its input object both ways: from a client's typed arguments to JSON, and from JSON to
arguments of the annotated types. There is no registry: a worker hosts the Workflow objects it finds.

Invariants: parameters are looked at once; annotations are resolved at the first use; an input that does not fit
is `InvalidInput` naming what and where, before any user code runs.
"""

import inspect
from collections.abc import Callable, Collection, Coroutine
from datetime import timedelta
from functools import cached_property, partial
from typing import Any, Concatenate, Final, Generic, Literal, ParamSpec, Protocol, TypeVar, overload

import msgspec
import orjson
from msgspec import Raw

from runtara.protocol.api import Registration
from runtara.protocol.connections import check_names
from runtara.protocol.errors import InvalidInput
from runtara.protocol.ids import check_id
from runtara.protocol.limits import DEFAULT_RESTARTS
from runtara.protocol.records import Options

from .context import Context
from .ports import Durability
from .signature import annotations_of, is_async
from .values import Codec, encode, is_pydantic, read_plain

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S", bound="Blocking")
_MICROSECOND: Final = timedelta(microseconds=1)
_PLAIN: Final = (str, int, float, bool, type(None))  # defaults that the JSON Schema shows
_POSITIONAL: Final = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class Workflow(Generic[P, R]):
    """A workflow function and how it is to be run. Calling it calls the function itself."""

    def __init__(
        self,
        fn: Callable[..., Any],
        *,
        name: str | None = None,
        timeout: timedelta | None = None,
        durability: Durability | None = None,
        restarts: int = DEFAULT_RESTARTS,
        linger: timedelta | None = None,
        connections: Collection[str] = (),
    ) -> None:
        self.fn = fn
        self.name = check_id(name or fn.__name__, "workflow")
        self.colour: Literal["async", "blocking"] = "async" if is_async(fn) else "blocking"
        self.description = inspect.getdoc(fn) or ""
        self.options = Options(
            timeout_us=None if timeout is None else timeout // _MICROSECOND,
            durability=durability,
            restarts=restarts,
            linger_us=None if linger is None else linger // _MICROSECOND,
            connections=_names(connections),
        )
        self._context, self._parameters = _parameters(self.name, fn)
        self.__doc__ = fn.__doc__
        self.__name__ = fn.__name__
        self.__module__ = fn.__module__

    def __call__(self, ctx: Any, *args: P.args, **kwargs: P.kwargs) -> Any:
        return self.fn(ctx, *args, **kwargs)

    def __repr__(self) -> str:
        return f"<workflow {self.name} ({self.__module__})>"

    def encode_input(self, *args: P.args, **kwargs: P.kwargs) -> Raw:
        """The input object of a call, checked. Raises `InvalidInput`, `StateNotRepresentable`, `StateTooLarge`."""
        try:
            bound = self._call_signature.bind(*args, **kwargs)
        except TypeError as exc:
            raise InvalidInput(workflow=self.name, reason=str(exc)) from exc
        return self.check_input(bound.arguments)

    def check_input(self, input: object) -> Raw:
        """The JSON of an input object. Raises as `encode_input`."""
        text = encode(input, key="input")
        self.arguments(text)
        return Raw(text)

    def arguments(self, input: bytes | Raw) -> dict[str, Any]:
        """The arguments by name, in their annotated types. Raises `InvalidInput`."""
        decoder = self._input_decoder
        try:
            values = decoder.decode(input)
        except (ValueError, TypeError, RecursionError) as exc:
            raise InvalidInput(workflow=self.name, reason=str(exc)) from exc
        return {name: getattr(values, name) for name in self._input_type.__struct_fields__}

    def encode_result(self, value: R) -> bytes:
        return encode(value, key="result")

    def decode_result(self, result: bytes | Raw) -> R:
        """The result in the annotated type. Raises `StateNotRepresentable`."""
        return self._result.decode(bytes(result), key="result")  # type: ignore[no-any-return]  # that is R

    def registration(self, *, code_version: str, kind: str = "pool") -> Registration:
        """What a worker tells the platform about it."""
        return Registration(
            workflow=self.name, kind=kind, code_version=code_version, parameters=Raw(orjson.dumps(self.json_schema)),
            options=msgspec.structs.replace(self.options, runner=kind), description=self.description,
        )  # fmt: skip

    @cached_property
    def json_schema(self) -> dict[str, Any]:
        """The JSON Schema of the input object."""
        definitions: dict[str, Any] = {}
        (schema,), components = msgspec.json.schema_components(
            [self._input_type], schema_hook=lambda kind: _foreign_schema(kind, definitions)
        )
        if "$ref" in schema:
            schema = components.pop(self._input_type.__name__)
        definitions = {**components, **definitions}
        return {**schema, "$defs": definitions} if definitions else schema

    @cached_property
    def _call_signature(self) -> inspect.Signature:
        return inspect.Signature(self._parameters)

    @cached_property
    def _input_type(self) -> type[msgspec.Struct]:
        annotations = annotations_of(self.fn, skip=(self._context, "return"))
        fields: list[Any] = []
        for parameter in self._parameters:
            field: Any = (parameter.name, annotations.get(parameter.name, Any))
            if parameter.default is not parameter.empty:
                field = (*field, _default(parameter.default))
            fields.append(field)
        return msgspec.defstruct(self.name, fields, kw_only=True, forbid_unknown_fields=True)

    @cached_property
    def _input_decoder(self) -> msgspec.json.Decoder[Any]:
        return msgspec.json.Decoder(self._input_type, dec_hook=read_plain)

    @cached_property
    def _result(self) -> Codec:
        return Codec(annotations_of(self.fn, skip=(self._context,)).get("return", Any))


def _names(connections: Collection[str]) -> tuple[str, ...]:
    if isinstance(connections, str):
        raise TypeError(f"connections are a tuple of names: connections=({connections!r},)")
    return check_names(tuple(connections))


def _default(value: object) -> object:
    """A field that is `value` unless given; msgspec itself copies or refuses mutable defaults."""
    return value if isinstance(value, _PLAIN) else msgspec.field(default_factory=partial(_same, value))


def _same(value: object) -> object:
    return value


class Blocking(Protocol):
    """The context of a `def` workflow: `runtara.sdk.sync.Context`."""

    @property
    def is_blocking_face(self) -> Literal[True]: ...


AsyncFunction = Callable[Concatenate[Context, P], Coroutine[Any, Any, R]]
BlockingFunction = Callable[Concatenate[S, P], R]


class _Decorator(Protocol):
    """`@workflow(…)`, waiting for its function."""

    @overload
    def __call__(self, fn: AsyncFunction[P, R], /) -> Workflow[P, R]: ...
    @overload
    def __call__(self, fn: BlockingFunction[S, P, R], /) -> Workflow[P, R]: ...


@overload
def workflow(fn: AsyncFunction[P, R], /) -> Workflow[P, R]: ...
@overload
def workflow(fn: BlockingFunction[S, P, R], /) -> Workflow[P, R]: ...
@overload
def workflow(
    *,
    name: str | None = ...,
    timeout: timedelta | None = ...,
    durability: Durability | None = ...,
    restarts: int = ...,
    linger: timedelta | None = ...,
    connections: Collection[str] = ...,
) -> _Decorator: ...
def workflow(fn: Any = None, /, **options: Any) -> Any:
    """Make a function a workflow. Its first parameter is the context, the others are its input, by name.

    Args:
        name: its id; default: the function's name.
        timeout: from its first start; then it fails with `WorkflowTimeout`.
        durability: of its operations: `"journal"` or `"log"`; default: steps `"journal"`, checkpoints `"log"`.
        restarts: how many attempts in a row may be lost without a new key before it fails.
        linger: how long it stays in memory once it only waits.
        connections: names of those that its code opens with `connection(name)`; no others are given to it.
    """
    if fn is None:
        return lambda function: Workflow(function, **options)
    if not callable(fn):
        raise TypeError(
            f"@workflow is for functions, not for {type(fn).__name__}; options go by name, @workflow(name=…)"
        )
    return Workflow(fn)


def _parameters(name: str, fn: Callable[..., Any]) -> tuple[str, list[inspect.Parameter]]:
    """The context's name, and the parameters behind it."""
    parameters = list(inspect.signature(fn).parameters.values())
    if not parameters or parameters[0].kind not in _POSITIONAL:
        raise TypeError(
            f"workflow {name} takes no context: let its first parameter be one, `def {name}(ctx: Context, …)`"
        )
    for parameter in parameters[1:]:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise TypeError(f"workflow {name}: input comes by name, so {parameter} cannot be a parameter of it")
    return parameters[0].name, parameters[1:]


def _foreign_schema(kind: type, definitions: dict[str, Any]) -> dict[str, Any]:
    if not is_pydantic(kind):
        return {}
    schema: dict[str, Any] = kind.model_json_schema()  # type: ignore[attr-defined]  # see is_pydantic
    definitions.update(schema.pop("$defs", {}))
    return schema
