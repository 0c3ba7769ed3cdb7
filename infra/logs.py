"""Logs: events with fields, to stderr, JSON unless a terminal reads them.

Code asks `logger("engine")` for a logger in structlog's manner and calls `log.info("partition_taken", partition=3)`:
event names are fixed snake_case words, everything variable is a field. Underneath is always the standard library's
`logging.getLogger("runtara.…")`, whether or not anyone configured anything: as a library we print nothing of our own
and never touch stdout, and an application's handlers show `partition_taken partition=3`.

`configure` is called once, by the command line and by `runtara.sdk.run`, never by a library. structlog itself renders
the lines for terminals and is imported only then: it brings rich along, which costs every worker 50 ms of its start.
"""

import logging
import sys
import traceback
from datetime import UTC, datetime
from typing import Any, Final, TextIO

import orjson

from .settings import LogFormat, LogLevel

ROOT: Final = "runtara"


class Logger:
    """Says events with fields to a standard logger; `bind` makes one that adds fields to each."""

    __slots__ = ("_fields", "_logger")

    def __init__(self, logger: logging.Logger, fields: dict[str, object]) -> None:
        self._logger = logger
        self._fields = fields

    def bind(self, **fields: object) -> "Logger":
        return Logger(self._logger, {**self._fields, **fields})

    def debug(self, event: str, **fields: object) -> None:
        self._say(logging.DEBUG, event, fields)

    def info(self, event: str, **fields: object) -> None:
        self._say(logging.INFO, event, fields)

    def warning(self, event: str, **fields: object) -> None:
        self._say(logging.WARNING, event, fields)

    def error(self, event: str, **fields: object) -> None:
        self._say(logging.ERROR, event, fields)

    def critical(self, event: str, **fields: object) -> None:
        self._say(logging.CRITICAL, event, fields)

    def exception(self, event: str, **fields: object) -> None:
        self._say(logging.ERROR, event, {"exc_info": True, **fields})

    def _say(self, level: int, event: str, fields: dict[str, object]) -> None:
        if self._logger.isEnabledFor(level):
            exc_info: Any = fields.pop("exc_info", None)
            self._logger.log(level, Event(event, {**self._fields, **fields}), exc_info=exc_info, stacklevel=3)


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
    return Logger(logging.getLogger(f"{ROOT}.{part}"), fields)


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
        import structlog.dev

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
