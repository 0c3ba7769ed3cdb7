"""Checks of a step by itself: conditions, matches, destinations, written values, and numbers that look like a slip."""

from collections.abc import Iterator
from typing import Final

from .coercions import coerce
from .model import (
    AgentStep,
    DelayStep,
    EmbedWorkflowStep,
    GroupByStep,
    InputMapping,
    MatchType,
    Reference,
    SplitStep,
    Step,
    SwitchStep,
    Value,
    WaitForSignalStep,
    WhileStep,
)
from .model_conditions import arguments_of
from .model_steps import SwitchCase
from .paths import PathError, parse_destination, parse_path
from .places import Place
from .report import Report
from .shapes import NOT_CONSTANT, constant
from .walk import Use, conditions, leaves, mappings, uses

MANY_RETRIES: Final = 50
LONG_DELAY_MS: Final = 3_600_000
HIGH_PARALLELISM: Final = 100
MANY_ITERATIONS: Final = 10_000
LONG_TIMEOUT_MS: Final = 3_600_000

_BOUNDS: Final = frozenset({"gte", "gt", "lte", "lt"})


def check_step(id: str, step: Step, report: Report) -> None:
    at: Place = ("steps", id)
    for use in uses(step):
        use = use._replace(place=(*at, *use.place))
        check_condition(use, report, step=id)
        for leaf in leaves(use):
            if isinstance(leaf.value, Reference):
                _check_default(id, leaf.value, leaf.place, report)
    for mapping, place in mappings(step):
        _check_destinations(id, mapping, (*at, *place), report)
    _check_limits(id, step, report)
    match step:
        case SwitchStep():
            for index, case in enumerate(step.config.cases):
                _check_match(id, case, (*at, "config", "cases", index, "match"), report)
        case DelayStep():
            _check_duration(id, step.duration_ms, (*at, "durationMs"), report)
        case WaitForSignalStep(timeout_ms=duration) if duration is not None:
            _check_duration(id, duration, (*at, "timeoutMs"), report)
        case SplitStep():
            _check_split(id, step, report)
            _check_names(id, step.config.variables, (*at, "config", "variables"), report)
        case WhileStep():
            _check_names(id, step.config.variables, (*at, "config", "variables"), report)
        case GroupByStep():
            _check_key(id, step.config.key, (*at, "config", "key"), report)
        case _:
            pass


def check_condition(use: Use, report: Report, *, step: str) -> None:
    """Also of an edge that leaves the step."""
    for operation, place in conditions(use):
        least, most = arguments_of(operation.op)
        count = len(operation.arguments)
        if count < least or (most is not None and count > most):
            needs = f"at least {least}" if most is None else str(least)
            says = f"{operation.op} takes {needs} argument{'s' if least > 1 else ''}, not {count}"
            report.say("E025", says, (*place, "arguments"), step=step)


def _check_default(id: str, reference: Reference, at: Place, report: Report) -> None:
    if reference.type is None or reference.default is None:
        return
    try:
        coerce(reference.default, reference.type.value)
    except ValueError as exc:
        says = f"the default of {reference.value} cannot be read as {reference.type}: {exc}"
        report.say("E023", says, (*at, "default"), step=id)


def _check_destinations(id: str, mapping: InputMapping, at: Place, report: Report) -> None:
    taken: dict[tuple[str, ...], str] = {}
    for text in mapping:
        try:
            taken.setdefault(parse_destination(text), text)
        except PathError as exc:
            says = f"{text!r} is no destination: at character {exc.position}, {exc.reason}"
            report.say("E011", says, (*at, text), step=id)
            continue
        if text not in taken.values():
            report.say("E209", f"{text!r} and another name are the same destination", (*at, text), step=id)
    for keys, text in taken.items():
        above = next((taken[keys[:end]] for end in range(1, len(keys)) if keys[:end] in taken), None)
        if above is not None:
            says = f"{text!r} lies within {above!r}, which is mapped as a whole; map one of them"
            report.say("E209", says, (*at, text), step=id)


def _check_names(id: str, mapping: InputMapping, at: Place, report: Report) -> None:
    for name in mapping:
        if name.startswith("_"):
            report.say("E203", f"the variable {name!r}: names that begin with _ are built in", (*at, name), step=id)


def _check_limits(id: str, step: Step, report: Report) -> None:
    for place, code, number, limit, says in _numbers(step):
        if number is not None and number > limit:
            report.say(code, f"{number:,} {says}", ("steps", id, *place), step=id)


def _numbers(step: Step) -> Iterator[tuple[Place, str, int | None, int, str]]:
    retries, delay, timeout = (
        "retries are more than most failures are worth",
        "ms between retries",
        "ms of time allowed",
    )
    match step:
        case AgentStep() | EmbedWorkflowStep():
            yield ("maxRetries",), "W030", step.max_retries, MANY_RETRIES, retries
            yield ("retryDelay",), "W031", step.retry_delay, LONG_DELAY_MS, f"{delay}: over an hour"
            yield ("timeout",), "W034", step.timeout, LONG_TIMEOUT_MS, f"{timeout}: over an hour"
        case SplitStep(config=config):
            yield ("config", "maxRetries"), "W030", config.max_retries, MANY_RETRIES, retries
            yield ("config", "retryDelay"), "W031", config.retry_delay, LONG_DELAY_MS, f"{delay}: over an hour"
            yield ("config", "timeout"), "W034", config.timeout, LONG_TIMEOUT_MS, f"{timeout}: over an hour"
            yield ("config", "parallelism"), "W032", config.parallelism, HIGH_PARALLELISM, "bodies at once"
        case WhileStep(config=loop):
            yield ("config", "maxIterations"), "W033", loop.max_iterations, MANY_ITERATIONS, "iterations of one loop"
            yield ("config", "timeout"), "W034", loop.timeout, LONG_TIMEOUT_MS, f"{timeout}: over an hour"
        case _:
            return


def _check_match(id: str, case: SwitchCase, at: Place, report: Report) -> None:
    match case.match_type, case.match:
        case MatchType.BETWEEN, [left, right] if _is_bound(left) and _is_bound(right):
            pass
        case MatchType.BETWEEN, _:
            report.say("E025", "BETWEEN matches an array of two numbers or texts: [least, greatest]", at, step=id)
        case MatchType.RANGE, dict(bounds) if (
            bounds and bounds.keys() <= _BOUNDS and all(map(_is_bound, bounds.values()))
        ):
            pass
        case MatchType.RANGE, _:
            says = "RANGE matches an object of some of gte, gt, lte, lt with numbers or texts"
            report.say("E025", says, at, step=id)
        case MatchType.IN | MatchType.NOT_IN, other if not isinstance(other, list):
            report.say("E025", f"{case.match_type} matches an array", at, step=id)
        case _:
            pass


def _is_bound(value: object) -> bool:
    return isinstance(value, int | float | str) and not isinstance(value, bool)


def _check_duration(id: str, value: Value, at: Place, report: Report) -> None:
    given = constant(value)
    if given is NOT_CONSTANT:
        return
    try:
        number = float(given) if isinstance(given, int | float | str) and not isinstance(given, bool) else -1.0
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        report.say("E023", f"a duration is a number of milliseconds from 0, not {given!r}", at, step=id)


def _check_split(id: str, step: SplitStep, report: Report) -> None:
    given, config = constant(step.config.value), step.config
    if config.sequential and config.parallelism not in (None, 0, 1):
        says = "`parallelism` has no effect beside `sequential`"
        report.say("W200", says, ("steps", id, "config", "parallelism"), step=id)
    if given is NOT_CONSTANT or isinstance(given, list) or (given is None and config.allow_null):
        return
    if given is not None and config.convert_single_value:
        return
    hint = "`allowNull` takes null for an empty one" if given is None else "`convertSingleValue` makes one of it"
    report.say("E023", f"a Split needs an array, not {given!r}; {hint}", ("steps", id, "config", "value"), step=id)


def _check_key(id: str, key: str, at: Place, report: Report) -> None:
    try:
        parse_path(key)
    except PathError as exc:
        report.say("E011", f"{key!r} is not a path: at character {exc.position}, {exc.reason}", at, step=id)
