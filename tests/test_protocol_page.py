"""docs/protocol.md names all that the wire has, field by field, and nothing that it has not."""

import dataclasses
import inspect
import re
from pathlib import Path
from typing import Final, get_args

import msgspec
import pytest

from runtara.engine import api, blob_verbs, schedule_verbs
from runtara.infra import schema
from runtara.infra.settings import Settings
from runtara.protocol import errors, limits, messages
from runtara.protocol.events import EVENT_TYPES, Event
from runtara.protocol.records import Command, Options, Record, Report, WireRecord
from runtara.protocol.subjects import Subjects

TEXT: Final = (Path(__file__).parent.parent / "docs" / "protocol.md").read_text()
SECTIONS: Final = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL))


def rows(section: str) -> list[list[str]]:
    """The cells of a section's table rows, without its header."""
    lines = [line for line in SECTIONS[section].splitlines() if line.startswith("|")]
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [cells for n, cells in enumerate(table) if not cells[0].startswith("---") and n != 0]


def names(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```$", "", cell, flags=re.MULTILINE | re.DOTALL))


def fields(cls: type[msgspec.Struct], common: type[msgspec.Struct] | None = None) -> set[str]:
    """A struct's fields as the page writes them: `name`, or `name?` if it may be left out."""
    shared = set(common.__struct_fields__) if common is not None else set()
    return {
        field.name + ("" if field.required else "?")
        for field in msgspec.structs.fields(cls)
        if field.name not in shared
    }


def common_of(record: type[msgspec.Struct]) -> type[msgspec.Struct]:
    return next(base for base in (Command, Report, Record) if issubclass(record, base))


def test_every_record_with_its_fields() -> None:
    wire = {str(record.__struct_config__.tag): fields(record, common_of(record)) for record in get_args(WireRecord)}
    told: dict[str, set[str]] = {}
    for row in rows("Frames and records"):
        for tag in names(row[0]):
            told[tag] = set(names(row[2]))
    assert told == wire


@pytest.mark.parametrize("common", [Record, Command, Report])
def test_what_all_records_of_a_kind_have(common: type[msgspec.Struct]) -> None:
    assert fields(common) - set(names(SECTIONS["Frames and records"])) == set()
    assert fields(Options) - set(names(SECTIONS["Frames and records"])) == set()


def test_every_event_with_its_fields() -> None:
    told = {names(row[0])[0]: set(names(row[1])) for row in rows("Events")}
    assert told == {name: fields(event, Event) for name, event in EVENT_TYPES.items()}


def test_every_message_of_the_wire_with_its_fields() -> None:
    told = {names(row[0])[0]: set(names(row[1])) for row in rows("Messages")}
    strict = {
        name: fields(cls)
        for name, cls in vars(messages).items()
        if inspect.isclass(cls) and issubclass(cls, messages._Strict) and cls is not messages._Strict
    }
    assert told == strict


def test_every_verb_and_the_status_words() -> None:
    verbs = {
        verb
        for module in (api, blob_verbs, schedule_verbs)
        for verb in re.findall(r'"(\w+)": self\._', inspect.getsource(module))
    }
    assert len(verbs) == 34
    assert {names(row[0])[0] for row in rows("API")} == verbs
    assert {status.value for status in messages.Status} - set(names(SECTIONS["Events"])) == set()


def test_every_error_under_its_base() -> None:
    told = {code: names(row[0])[0] for row in rows("Errors") for code in names(row[1])}
    classes = [cls for cls in vars(errors).values() if inspect.isclass(cls) and issubclass(cls, errors.RuntaraError)]
    assert told == {cls.__name__: cls.__mro__[1].__name__ for cls in classes if cls is not errors.RuntaraError}


def test_every_limit() -> None:
    told = {name for row in rows("Limits") for name in names(row[0])}
    assert told == {name for name in vars(limits) if name.isupper()}


def test_every_setting() -> None:
    told = [name for row in rows("Settings") for name in names(row[1])]
    assert sorted(told) == sorted(field.name for field in dataclasses.fields(Settings))


def test_every_table_and_the_columns_of_the_log() -> None:
    told = {name: row for row in rows("Postgres") for name in names(row[0])}
    assert set(told) == set(schema.metadata.tables)
    assert {column.name for column in schema.events.columns} - set(names(told["events"][1])) == set()


def test_every_subject() -> None:
    told = set(names(" ".join(row[0] for row in rows("Subjects"))))
    s, t = Subjects("D"), "<tenant>"
    assert told == {
        s.commands(0, t, "<client>").replace("0", "<p>"),
        s.worker_reports(0, t, "<worker>").replace("0", "<p>"),
        s.instance_reports(0, t, "<instance>").replace("0", "<p>"),
        s.runner(0, t, "<runner>").replace("0", "<p>"),
        s.engine(0).replace("0", "<p>"),
        s.run("<kind>", t, "<workflow>", "<instance>", 0).replace("0", "<attempt>"),
        s.control(t, "<worker>"),
        s.heartbeat(t, "<worker>"),
        s.committed(0).replace("0", "<p>"),
        s.done(t, "<instance>"),
        s.api(t, "<verb>"),
        s.api(t, "<verb>", "<instance>"),
    }


def test_values_of_limits_that_the_page_spells_out() -> None:
    """The numbers of its table, in its order, as far as they are plain."""
    for row in rows("Limits"):
        for name, number in zip(names(row[0]), re.findall(r"\d(?:[\d,]*\d)?(?: [KM]iB)?", row[1]), strict=False):
            value, _, unit = number.replace(",", "").partition(" ")
            assert float(value) * {"": 1, "KiB": 1024, "MiB": 1024**2}[unit] == getattr(limits, name), name
