"""What is worked out once for each step function: its colour, parameters, key, and the type of its result.

Invariants: nothing here looks at a signature per call; annotations are resolved at the first use, when forward
references exist; an automatic key depends on the values of the arguments alone, however they were passed.
"""

import hashlib
import inspect
import string
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import cached_property, partial
from typing import Any, Final

from runtara.protocol.errors import KeyNeeded
from runtara.protocol.ids import escape_key_part

from .ports import Durability
from .retry import ONCE, Retry
from .values import Codec, canonical, to_plain

_FINGERPRINT_BYTES: Final = 12  # 4 of them in the key, 8 beside the record to tell collisions apart
_formatter: Final = string.Formatter()
Function = Callable[..., Any]


class StepSpec:
    """A step function and how it is to be run."""

    def __init__(
        self,
        fn: Function,
        *,
        key: str | None = None,
        retry: Retry | None = None,
        timeout: timedelta | None = None,
        raises: tuple[type[Exception], ...] = (),
        durability: Durability | None = None,
    ) -> None:
        self.fn = fn
        self.name = short_name(fn)
        self.identity = (getattr(fn, "__module__", ""), getattr(fn, "__qualname__", self.name))
        self.is_async = is_async(fn)
        self.template = None if key is None else KeyTemplate(key, fn)
        self.key = key
        self.retry = retry or ONCE
        self.timeout = timeout
        self.timeout_seconds = None if timeout is None else timeout.total_seconds()
        self.raises = {error.__name__: error for error in raises}
        self.durability = durability

    def altered(self, **changes: Any) -> "StepSpec":
        """The same function with some options changed."""
        options = {
            "key": self.key, "retry": self.retry, "timeout": self.timeout, "raises": tuple(self.raises.values()),
            "durability": self.durability,
        }  # fmt: skip
        return StepSpec(self.fn, **{**options, **changes})

    @cached_property
    def codec(self) -> Codec:
        """Reads a recorded result. Raises `TypeError` if the return annotation does not resolve."""
        return Codec(annotations_of(self.fn).get("return", Any))

    @cached_property
    def positional(self) -> tuple[str, ...]:
        """The parameters that may be passed by position or by name, in order."""
        return tuple(positional_parameters(self.fn))

    def fingerprint(self, args: tuple[object, ...], kwargs: dict[str, object]) -> str:
        """24 hex digits of the arguments. Raises `KeyNeeded` naming one that has no stable JSON text."""
        try:
            text = canonical(args, _plain_argument) if not kwargs else self._named(args, kwargs)
        except (TypeError, RecursionError) as exc:
            raise self._unstable(args, kwargs, exc) from exc
        return hashlib.blake2b(text, digest_size=_FINGERPRINT_BYTES).hexdigest()

    def _named(self, args: tuple[object, ...], kwargs: dict[str, object]) -> bytes:
        """Arguments passed by name count as if passed by position, as far as that goes without a gap."""
        values, rest = list(args), dict(kwargs)
        for name in self.positional[len(args) :]:
            if name not in rest:
                break
            values.append(rest.pop(name))
        return canonical((values, rest), _plain_argument) + b"K" if rest else canonical(values, _plain_argument)

    def _unstable(self, args: tuple[object, ...], kwargs: dict[str, object], cause: Exception) -> KeyNeeded:
        names = [*self.positional[: len(args)], *(f"#{n}" for n in range(len(self.positional) + 1, len(args) + 1))]
        for name, value in [*zip(names, args, strict=False), *kwargs.items()]:
            try:
                canonical(value, _plain_argument)
            except (TypeError, RecursionError) as exc:
                return KeyNeeded(argument=name, function=self.name, reason=str(exc))
        return KeyNeeded(argument="?", function=self.name, reason=str(cause))


class KeyTemplate:
    """`@step(key="{order_id}")`: a key from the arguments that the author names. `/` inside a value is escaped."""

    def __init__(self, text: str, fn: Function) -> None:
        self._parts = list(_formatter.parse(text))
        self._signature = inspect.signature(fn)
        for _, field, _, _ in self._parts:
            root = (field or "").replace("[", ".").split(".")[0]
            if field is not None and root not in self._signature.parameters:
                raise TypeError(
                    f"key {text!r} of step {short_name(fn)} names {root!r}, which is none of its parameters"
                )

    def render(self, args: tuple[object, ...], kwargs: dict[str, object]) -> str:
        """Raises `TypeError` if the arguments do not fit the function."""
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return "".join(self._pieces(bound.arguments))

    def _pieces(self, arguments: dict[str, object]) -> Iterator[str]:
        for literal, field, spec, conversion in self._parts:
            yield literal
            if field is not None:
                value, _ = _formatter.get_field(field, (), arguments)
                value = _formatter.convert_field(value, conversion)
                yield escape_key_part(format(value, spec or ""))


def short_name(fn: Function) -> str:
    """`charge`, `Gateway.charge`: the qualified name without the functions it was defined in."""
    name = getattr(fn, "__qualname__", None) or getattr(fn, "__name__", None) or type(fn).__name__
    return str(name).rsplit("<locals>.", 1)[-1]


def is_async(fn: Function) -> bool:
    while isinstance(fn, partial):
        fn = fn.func
    return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(getattr(fn, "__call__", None))  # noqa: B004


def positional_parameters(fn: Function) -> Iterator[str]:
    for parameter in inspect.signature(fn).parameters.values():
        if parameter.kind is not parameter.POSITIONAL_OR_KEYWORD:
            return
        yield parameter.name


def annotations_of(fn: Function, *, skip: tuple[str, ...] = ()) -> dict[str, object]:
    """The annotations of `fn`, with text resolved in its module and closure. Raises `TypeError` if that fails."""
    while isinstance(fn, partial):
        fn = fn.func
    plain = inspect.unwrap(getattr(fn, "__func__", fn))
    names: dict[str, object] = {}
    code, cells = getattr(plain, "__code__", None), getattr(plain, "__closure__", None)
    for name, cell in zip(code.co_freevars, cells, strict=True) if code and cells else ():
        names[name] = cell.cell_contents
    found: dict[str, object] = {}
    for name, annotation in getattr(plain, "__annotations__", {}).items():
        if name not in skip:
            found[name] = _resolve(annotation, getattr(plain, "__globals__", {}), names, plain, name)
    return found


def _resolve(annotation: object, known: dict[str, Any], names: dict[str, object], fn: Function, name: str) -> object:
    if not isinstance(annotation, str):
        return annotation
    try:
        return eval(annotation, known, names)  # as typing.get_type_hints does
    except NameError as exc:
        raise TypeError(
            f"the annotation {annotation!r} of {name!r} in {short_name(fn)} cannot be resolved ({exc}): values are "
            "converted into it, so it must exist at run time (not only under TYPE_CHECKING)"
        ) from exc


def _plain_argument(value: object) -> object:
    """A Context among the arguments is the same for every call; it says nothing about which call this is."""
    if getattr(type(value), "is_runtara_context", False):
        return "~context"
    return to_plain(value)
