"""What `runtara schedule` prints."""

import sys
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final
from zoneinfo import ZoneInfo

from rich.text import Text

from runtara.protocol.configuration import ScheduledInstance, ScheduleListReply, ScheduleView

from . import output

_UNITS: Final = (("w", 7 * 86_400), ("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1))
_SECOND_US: Final = 1_000_000


def schedule_json(view: ScheduleView) -> dict[str, object]:
    """The fields of `schedule show --json`; scripts rely on their names."""
    schedule = view.schedule
    return {
        "name": schedule.name,
        "workflow": schedule.workflow,
        "cron": schedule.cron,
        "every_seconds": schedule.every_us // _SECOND_US if schedule.every_us is not None else None,
        "timezone": schedule.timezone,
        "input": schedule.input,
        "input_blob": schedule.blob,
        "labels": schedule.labels,
        "overlap": schedule.overlap,
        "catch_up": schedule.catch_up,
        "paused": view.paused,
        "next_due": output.rfc3339(view.next_due_us),
        "upcoming": [output.rfc3339(due) for due in view.upcoming],
        "last": view.last,
        "problem": view.problem,
        "problem_at": output.rfc3339(view.problem_at),
        "created_at": output.rfc3339(view.created_at),
        "created_by": view.created_by,
        "updated_at": output.rfc3339(view.updated_at),
        "updated_by": view.updated_by,
    }


def print_next(view: ScheduleView, *, as_json: bool) -> None:
    """After a change: when it is due."""
    if as_json:
        output.print_json(schedule_json(view))
    else:
        output.console().print(f"{view.schedule.name}  ", _next(view), sep="")


def print_page(page: ScheduleListReply, *, as_json: bool) -> None:
    if as_json:
        for view in page.schedules:
            output.print_json(schedule_json(view))
    elif page.schedules:
        output.print_table(
            ("NAME", "WORKFLOW", "WHEN", "NEXT", "LAST INSTANCE", "STATUS"),
            [
                (
                    view.schedule.name,
                    view.schedule.workflow,
                    _when(view),
                    Text("paused", style="yellow") if view.next_due_us is None else _at(view, view.next_due_us),
                    view.last[0].id if view.last else "",
                    _status(view.last[0]) if view.last else "",
                )
                for view in page.schedules
            ],
        )
    else:
        sys.stderr.write("no schedules\n")
    if page.next is not None:
        sys.stderr.write(f"more: --cursor {page.next}\n")


def print_schedule(view: ScheduleView, *, as_json: bool) -> None:
    if as_json:
        output.print_json(schedule_json(view))
        return
    schedule = view.schedule
    rows: list[tuple[str, str | Text]] = [
        ("name", schedule.name),
        ("workflow", schedule.workflow),
        ("when", _when(view)),
        ("next", Text("\n").join([Text(_at(view, due)) for due in view.upcoming]) if view.upcoming else _next(view)),
        ("overlap", schedule.overlap),
        ("catch-up", schedule.catch_up),
        ("input", output.value(schedule.input, schedule.blob)),
    ]
    if schedule.labels:
        rows.append(("labels", " ".join(f"{k}={v}" for k, v in sorted(schedule.labels.items()))))
    rows.append(("last", Text("\n").join([Text(f"{i.id}  ").append(_status(i)) for i in view.last]) or "nothing yet"))
    if view.problem is not None:
        rows.append(("problem", f"{view.problem} ({output.for_people(view.problem_at)})"))
    rows.append(("created", _done(view.created_at, view.created_by)))
    if view.updated_at != view.created_at:
        rows.append(("changed", _done(view.updated_at, view.updated_by)))
    output.print_fields(rows)


def _done(at_us: int, by: str | None) -> str:
    return output.for_people(at_us) + (f" by {by}" if by else "")


def _when(view: ScheduleView) -> str:
    schedule = view.schedule
    if schedule.every_us is None:
        return f"{schedule.cron} {schedule.timezone}"
    seconds = schedule.every_us // _SECOND_US
    unit, size = next((unit, size) for unit, size in _UNITS if seconds % size == 0)
    return f"every {seconds // size}{unit}"


def _next(view: ScheduleView) -> Text:
    return Text("paused", style="yellow") if view.next_due_us is None else Text(f"next {_at(view, view.next_due_us)}")


def _at(view: ScheduleView, due_us: int) -> str:
    """In the schedule's zone; that of an interval is where the reader is."""
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=due_us)
    local = moment.astimezone(_zone(view.schedule.timezone) if view.schedule.cron is not None else None)
    return local.strftime("%a %d %b %Y %H:%M:%S %Z")


def _zone(name: str) -> tzinfo | None:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # no time zones are installed here: as the reader's clock shows it
        return None


def _status(instance: ScheduledInstance) -> Text:
    return output.status_text(instance.status) if instance.status is not None else Text("archived", style="dim")
