"""Logs: events with fields, to stderr, JSON unless a terminal reads them.

Code asks `logger("engine")` for a structlog logger and calls `log.info("partition_taken", partition=3)`: event
names are fixed snake_case words, everything variable is a field. Underneath is always the standard library's
`logging.getLogger("runtara.…")`, whether or not anyone configured anything: as a library we print nothing of
our own and never touch stdout, and an application's handlers show `partition_taken partition=3`.

`configure` is called once, by the command line and by `runtara.sdk.run`, never by a library.
"""

import logging
import sys
import traceback
from collections.abc import MutableMapping
from datetime import UTC, datetime
from typing import Any, Final, TextIO

import orjson
import structlog

from .settings import LogFormat, LogLevel

ROOT: Final = "runtara"
Logger = structlog.stdlib.BoundLogger


class Event:
    """An event's name and fields; as text, the line that an application's own handlers print."""

    __slots__ = ("fields", "name")

    def __init__(self, name: str, fields: dict[str, Any]) -> None:
        self.name = name
        self.fields = fields

    def __str__(self) -> str:
        return " ".join([self.name, *(f"{key}={value}" for key, value in self.fields.items())])


def logger(part: str, **fields: object) -> Logger:
    """The logger of one part of the system, with `fields` bound to it once."""
    bound: Logger = structlog.wrap_logger(
        logging.getLogger(f"{ROOT}.{part}"),
        processors=[structlog.stdlib.filter_by_level, _to_logging],
        wrapper_class=structlog.stdlib.BoundLogger,
        context_class=dict,
        cache_logger_on_first_use=True,
    )
    return bound.bind(**fields)


def configure(level: LogLevel = "info", log_format: LogFormat | None = None, *, stream: TextIO | None = None) -> None:
    """Send this process's logs to stderr (or `stream`). Others' libraries are heard from `warning` on."""
    stream = sys.stderr if stream is None else stream
    chosen: LogFormat = log_format or ("console" if stream.isatty() else "json")
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_JsonFormatter() if chosen == "json" else _ConsoleFormatter(colours=stream.isatty()))
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger(ROOT).setLevel(level.upper())


def _to_logging(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    passed = {name: event.pop(name) for name in ("exc_info", "stack_info", "stacklevel") if name in event}
    name = str(event.pop("event", ""))
    return {"msg": Event(name, dict(event)), **passed}


def _event_dict(record: logging.LogRecord) -> dict[str, Any]:
    message = record.msg
    fields = message.fields if isinstance(message, Event) else {}
    return {
        "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": record.levelname.lower(),
        "event": message.name if isinstance(message, Event) else record.getMessage(),
        "logger": record.name,
        **fields,
    }


def _traceback(record: logging.LogRecord) -> str | None:
    if not record.exc_info or record.exc_info[1] is None:
        return None
    return "".join(traceback.format_exception(record.exc_info[1])).rstrip()


class _JsonFormatter(logging.Formatter):
    """One JSON document a line; a value that JSON has no word for is written as its text."""

    def format(self, record: logging.LogRecord) -> str:
        event = _event_dict(record)
        exception = _traceback(record)
        if exception is not None:
            event["exception"] = exception
        return orjson.dumps(event, default=str, option=orjson.OPT_NON_STR_KEYS).decode()


class _ConsoleFormatter(logging.Formatter):
    """A line for people: time of day, level, event, fields."""

    def __init__(self, *, colours: bool) -> None:
        super().__init__()
        self._renderer = structlog.dev.ConsoleRenderer(
            colors=colours, pad_event_to=28, exception_formatter=structlog.dev.plain_traceback
        )

    def format(self, record: logging.LogRecord) -> str:
        event = _event_dict(record)
        event["timestamp"] = datetime.fromtimestamp(record.created, UTC).astimezone().strftime("%H:%M:%S.%f")[:-3]
        del event["at"]
        exception = _traceback(record)
        if exception is not None:
            event["exception"] = exception
        return str(self._renderer(None, record.levelname.lower(), event))
