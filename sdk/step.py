"""`@step`: a function whose result is recorded once and given back ever after.

A decorated function stays a function of the same type. Where it is called decides what it does: outside a workflow
and inside another step it is called plainly; in a workflow of its own colour it is a durable operation; across
colours, and in a thread of a worker that lost its context, it refuses.
"""

import asyncio
import functools
import inspect
from collections.abc import Callable, Hashable
from datetime import timedelta
from functools import lru_cache
from typing import Any, Final, TypeVar, overload

from runtara.protocol.errors import NoContext, WrongColour

from .ports import Durability
from .retry import Retry
from .scope import FRAME, in_worker
from .signature import Function, StepSpec

F = TypeVar("F", bound=Callable[..., Any])
_SPEC: Final = "__runtara_step__"
_ABSENT: Final[Any] = object()  # "not given", where None means something


@overload
def step(fn: F, /) -> F: ...
@overload
def step(
    *,
    key: str | None = ...,
    retry: Retry | None = ...,
    timeout: timedelta | None = ...,
    raises: tuple[type[Exception], ...] = ...,
    durability: Durability | None = ...,
) -> Callable[[F], F]: ...
def step(
    fn: Any = None,
    /,
    *,
    key: str | None = _ABSENT,
    retry: Retry | None = _ABSENT,
    timeout: timedelta | None = _ABSENT,
    raises: tuple[type[Exception], ...] = _ABSENT,
    durability: Durability | None = _ABSENT,
) -> Any:
    """Make a function (or method) a step.

    Args:
        key: a template over the arguments, `"{order_id}"`; without it the key is made from all arguments.
        retry: when to try again; without it a failure is final at once.
        timeout: for each try. A `def` function has a thread of its own, into which `Stopped` is thrown when its time is
            up. Blocked in a library it does not notice before it is back: its late result is thrown away, and a next
            try may begin while it still runs.
        raises: exceptions that come through as themselves, also after a resume; others become `StepFailed`.
        durability: `"journal"` (default) or `"log"`.

    On a function that is a step already, it changes the options given: `step(durability="log")(charge)`.
    """
    given = {"key": key, "retry": retry, "timeout": timeout, "raises": raises, "durability": durability}
    options = {name: value for name, value in given.items() if value is not _ABSENT}
    if fn is not None:
        return _decorate(fn, options)
    return lambda function: _decorate(function, options)


def spec_of(fn: Function) -> StepSpec:
    """The spec of a step, or one without options for any other function."""
    spec = getattr(fn, _SPEC, None)
    if spec is None:
        return _undecorated(fn) if isinstance(fn, Hashable) else StepSpec(fn)
    owner = getattr(fn, "__self__", None)
    return spec if owner is None else _bound(spec, fn)


def _bound(spec: StepSpec, method: Any) -> StepSpec:
    """The spec of a bound method, whose function wants its `self`."""
    bound = StepSpec.__new__(StepSpec)
    bound.__dict__.update(spec.__dict__)
    bound.fn = functools.partial(spec.fn, method.__self__)
    return bound


@lru_cache(maxsize=1024)
def _undecorated(fn: Function) -> StepSpec:
    return StepSpec(fn)


def _decorate(fn: Any, options: dict[str, Any]) -> Any:
    if not callable(fn):
        raise TypeError(f"@step is for functions, not for {type(fn).__name__}; options go by name: @step(retry=…)")
    check_raises(options.get("raises", ()))
    earlier: StepSpec | None = getattr(fn, _SPEC, None)
    spec = earlier.altered(**options) if earlier is not None else StepSpec(fn, **options)
    wrapper = functools.wraps(spec.fn)(_async_wrapper(spec) if spec.is_async else _blocking_wrapper(spec))
    setattr(wrapper, _SPEC, spec)
    return wrapper


def check_raises(raises: object) -> None:
    """Raise `TypeError` unless every class can be made again from its record."""
    if not isinstance(raises, tuple):
        raise TypeError("raises= takes a tuple of exception classes")
    names: set[str] = set()
    for cls in raises:
        if not (isinstance(cls, type) and issubclass(cls, Exception)):
            raise TypeError(f"raises= takes exception classes, not {cls!r}")
        if cls.__name__ in names:
            raise TypeError(f"raises= names two classes called {cls.__name__}; records tell them apart by name")
        names.add(cls.__name__)
        if not callable(getattr(cls, "from_record", None)) and not _takes_one_text(cls):
            raise TypeError(
                f"{cls.__name__} cannot be made again from its record: let it take one text, "
                f"or give it a class method from_record(attributes)"
            )


def _takes_one_text(cls: type[Exception]) -> bool:
    try:
        inspect.signature(cls).bind("text")
    except TypeError:
        return False
    except ValueError:  # a built-in class without a signature
        return True
    return True


def _async_wrapper(spec: StepSpec) -> Function:
    """A plain `def`, so that a call across colours is refused when it is made, not when it is awaited."""
    fn, frame_of, loop_of = spec.fn, FRAME.get, asyncio._get_running_loop

    def call(*args: Any, **kwargs: Any) -> Any:
        frame = frame_of(None)
        if frame is None:
            _refuse_in_worker(spec)
            return fn(*args, **kwargs)
        if frame.in_step:
            return fn(*args, **kwargs)
        if loop_of() is not frame.host.loop:
            raise WrongColour(function=spec.name, colour="async")
        return frame.host.call_step(spec, None, args, kwargs)

    return _marked_as_coroutine(call)


def _blocking_wrapper(spec: StepSpec) -> Function:
    fn = spec.fn

    def call(*args: Any, **kwargs: Any) -> Any:
        frame = FRAME.get(None)
        if frame is None:
            _refuse_in_worker(spec)
            return fn(*args, **kwargs)
        if frame.in_step:
            return fn(*args, **kwargs)
        if asyncio._get_running_loop() is not None:
            raise WrongColour(function=spec.name, colour="blocking (def)")
        return frame.host.call_blocking(lambda: frame.host.call_step(spec, None, args, kwargs))

    return call


def _refuse_in_worker(spec: StepSpec) -> None:
    if in_worker():
        raise NoContext(function=spec.name)


def _marked_as_coroutine(fn: Function) -> Function:
    """`iscoroutinefunction` says yes, as it does for the function that is wrapped."""
    mark = getattr(inspect, "markcoroutinefunction", None)
    if mark is not None:
        return mark(fn)  # type: ignore[no-any-return]
    fn._is_coroutine = asyncio.coroutines._is_coroutine  # type: ignore[attr-defined]  # Python 3.11
    return fn
