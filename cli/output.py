"""What commands print: tables and colours for people at a terminal, one JSON document a line for programs."""

import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Final

import msgspec
from msgspec import Raw
from rich.console import Console
from rich.table import Table
from rich.text import Text

from runtara.protocol.api import EventView, InstanceView, WorkflowView
from runtara.protocol.blobs import Blob
from runtara.protocol.events import InstanceForked, MemoCopied, blob_named, decode_event
from runtara.protocol.messages import Status

WIDE: Final = 200  # columns where no terminal says how many it has
_COLOURS: Final = {
    Status.QUEUED: "cyan", Status.RUNNING: "blue", Status.SLEEPING: "magenta", Status.WAITING: "magenta",
    Status.PAUSED: "yellow", Status.COMPLETED: "green", Status.FAILED: "red", Status.CANCELLED: "yellow",
}  # fmt: skip
MAX_CELL: Final = 100
_TYPE_WIDTH: Final = 21  # of the longest name
_NAMED: Final = b'"blob"'
_TOLD: Final = (InstanceForked.__name__, MemoCopied.__name__)


def console() -> Console:
    return Console(width=None if sys.stdout.isatty() else WIDE, highlight=False, soft_wrap=not sys.stdout.isatty())


def error_console() -> Console:
    """For progress and questions: stdout is for results."""
    return Console(stderr=True, highlight=False)


def rfc3339(at_us: int | None) -> str | None:
    if at_us is None:
        return None
    return datetime.fromtimestamp(at_us / 1e6, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def for_people(at_us: int | None) -> str:
    """In the zone of this machine; the year only where it is another one."""
    if at_us is None:
        return ""
    at, today = datetime.fromtimestamp(at_us / 1e6, UTC).astimezone(), datetime.now(UTC).astimezone()
    return at.strftime("%d %b %H:%M:%S" if at.year == today.year else "%d %b %Y %H:%M:%S")


def print_json(document: object) -> None:
    sys.stdout.write(msgspec.json.encode(document).decode() + "\n")
    sys.stdout.flush()


def instance_json(view: InstanceView) -> dict[str, object]:
    """The fields of `show --json`; scripts rely on their names."""
    return {
        "id": view.id,
        "tenant": view.tenant,
        "workflow": view.workflow,
        "status": view.status.value,
        "attempt": view.attempt,
        "restarts": view.restarts,
        "version": view.version,
        "input": view.input,
        "input_blob": view.input_blob,
        "result": view.result,
        "result_blob": view.result_blob,
        "error": view.error,
        "labels": view.labels,
        "progress": view.progress,
        "worker": view.worker,
        "created_at": rfc3339(view.created_at),
        "updated_at": rfc3339(view.updated_at),
        "wake_at": rfc3339(view.wake_at),
        "note": view.note,
        "forked_from": view.forked_from,
        "definition": view.definition,
    }


def event_json(event: EventView) -> dict[str, object]:
    return {
        "instance": event.instance,
        "version": event.version,
        "type": event.type,
        "at": rfc3339(event.at),
        "attempt": event.attempt,
        "key": event.key,
        "actor": event.actor,
        "data": event.data,
    }


def status_text(status: Status) -> Text:
    return Text(status.value, style=_COLOURS[status])


def print_status(id: str, status: Status, *, as_json: bool) -> None:
    """What a command left an instance in."""
    if as_json:
        print_json({"id": id, "status": status})
    else:
        console().print(f"{id}  ", status_text(status), sep="")


def print_table(titles: Sequence[str], rows: Iterable[Sequence[str | Text]]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in titles:
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(*row)
    console().print(table)


def print_instances(views: Sequence[InstanceView]) -> None:
    print_table(
        ("ID", "WORKFLOW", "STATUS", "ATTEMPT", "RESTARTS", "UPDATED", "LABELS"),
        [
            (
                view.id,
                view.workflow,
                status_text(view.status),
                str(view.attempt),
                str(view.restarts),
                for_people(view.updated_at),
                " ".join(f"{key}={value}" for key, value in sorted(view.labels.items())),
            )
            for view in views
        ],
    )


def print_instance(view: InstanceView, hosted: str | None = None) -> None:
    rows: list[tuple[str, str | Text]] = [
        ("id", view.id),
        ("tenant", view.tenant),
        ("workflow", view.workflow if view.definition is None else f"{view.workflow}@{view.definition}"),
        ("status", status_text(view.status)),
        ("attempt", f"{view.attempt} ({view.restarts} restarts)"),
        ("created", for_people(view.created_at)),
        ("updated", for_people(view.updated_at)),
    ]
    if view.forked_from is not None:
        rows.insert(3, ("forked from", f"{view.forked_from.id} at version {view.forked_from.version}"))
    if view.wake_at is not None:
        rows.append(("wakes", for_people(view.wake_at)))
    if view.progress is not None:
        rows.append(("progress", f"{view.progress[0]} of {view.progress[1] or '?'}"))
    if view.labels:
        rows.append(("labels", " ".join(f"{k}={v}" for k, v in sorted(view.labels.items()))))
    rows.append(("input", value(view.input, view.input_blob)))
    if view.status is Status.COMPLETED:
        rows.append(("result", value(view.result, view.result_blob)))
    if view.error is not None:
        rows.append(("error", view.error.message))
    rows += [("note", note) for note in (view.note, hosted) if note]
    print_fields(rows)


def value(text: Raw, blob: Blob | None) -> str:
    """A value in a cell."""
    return short(bytes(text)) if blob is None else aside(blob)


def aside(blob: Blob) -> str:
    """A value that is too long to be shown, and to be kept where others are."""
    return f"{blob.size:,} bytes, stored aside (SHA-256 {blob.hash[:12]}…)"


def print_fields(rows: Sequence[tuple[str, str | Text]]) -> None:
    """One thing: the name of a field and its value a line."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, value)
    console().print(table)


def event_line(event: EventView, *, with_instance: bool = False) -> Text:
    """One event as one line."""
    at = datetime.fromtimestamp(event.at / 1e6, UTC).astimezone().strftime("%H:%M:%S.%f")[:-3]
    line = Text(f"{at}  ")
    if with_instance:
        line.append(f"{event.instance}  ", style="bold")
    line.append(f"{event.version:>5}  ", style="dim")
    line.append(f"{event.type:<{_TYPE_WIDTH}} ", style="cyan")
    line.append(f"#{event.attempt} ", style="dim")
    if event.key is not None:
        line.append(f"{event.key}  ", style="bold")
    line.append(short(_told(event)), style="dim")
    return line


def _told(event: EventView) -> bytes:
    """What an event says besides its key: of a copy what was copied, of a fork where it comes from, of a long value how
    long it is."""
    data = bytes(event.data)
    decoded = decode_event(event.type, None, data) if event.type in _TOLD or _NAMED in data else None
    blob = blob_named(decoded) if decoded is not None else None
    if blob is not None:
        return aside(blob).encode()
    match decoded:
        case InstanceForked():
            parts = [f"from {decoded.source} at version {decoded.version}"]
            parts += [f"before {decoded.at_key}"] if decoded.at_key is not None else []
            parts += [f"set by hand: {', '.join(decoded.edits)}"] if decoded.edits else []
            parts += ["with another input"] if decoded.input_replaced else []
            return ", ".join(parts).encode()
        case MemoCopied():
            return f"{decoded.type} ".encode() + bytes(decoded.data)
        case _:
            return data


def print_workflows(views: Sequence[WorkflowView]) -> None:
    print_table(
        ("WORKFLOW", "KIND", "CODE", "WORKERS", "REGISTERED"),
        [
            (view.id, _kind(view), view.code_version[:12], hosting(view), for_people(view.registered_at))
            for view in views
        ],
    )


def _kind(view: WorkflowView) -> str:
    image, definition = view.options.image, view.options.definition
    if definition is not None:
        return f"{view.kind} version {definition}"
    return view.kind if image is None else f"{view.kind} {image.name}@{image.version}"


def hosting(view: WorkflowView) -> str:
    if view.workers:
        return str(len(view.workers))
    return f"none since {for_people(view.hosted_until)}" if view.hosted_until else "none"


def short(data: bytes) -> str:
    text = data.decode()
    return text if len(text) <= MAX_CELL else f"{text[: MAX_CELL - 1]}…"


def counted(count: int, noun: str) -> str:
    """`1 event`, `1,200 events`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
