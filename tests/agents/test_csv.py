"""The agent `csv`, by JSON and as streams."""

import base64
import csv
import io
import tracemalloc
from collections.abc import Iterator
from typing import BinaryIO, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue, ValidationError

from runtara.agents import AgentError
from runtara.agents.csv import CsvOptions, FromCsv, lines, records, rows
from tests.support.perform import code_of, perform, refused

PEOPLE: list[JsonValue] = [{"name": "Ann", "age": "30"}, {"name": "Zoë, Dr.", "age": ""}]
TEXT = 'name,age\nAnn,30\n"Zoë, Dr.",\n'


def parse(data: object, **options: object) -> JsonValue:
    return perform("csv", "from-csv", {"data": data, **options})


@pytest.mark.parametrize(
    ("data", "options"),
    [
        (TEXT, {}),
        (TEXT.replace("\n", "\r\n"), {}),
        (TEXT.replace("\n", "\r"), {}),
        (TEXT.rstrip("\n"), {}),
        ("\ufeff" + TEXT, {}),
        (TEXT.encode(), {}),
        (TEXT.encode("utf-8-sig"), {}),
        (TEXT.encode("utf-16"), {}),
        (TEXT.encode("utf-16"), {"encoding": "utf-16"}),
        (TEXT.encode("utf-32"), {"encoding": "auto"}),
        (TEXT.encode("utf-16-le"), {"encoding": "UTF-16LE"}),
        (TEXT.encode("latin-1"), {"encoding": "ISO-8859-1"}),
        (TEXT.encode("cp1252"), {"encoding": "windows-1252"}),
        (TEXT.encode("latin-1"), {"encoding": "auto"}),
        (TEXT.encode(), {"encoding": "auto"}),
        (list(TEXT.encode()), {}),
        (base64.b64encode(TEXT.encode()).decode(), {}),
        ({"content": base64.b64encode(TEXT.encode()).decode(), "filename": "people.csv"}, {}),
        ('name;age\nAnn;30\n"Zoë, Dr.";\n', {"delimiter": ";"}),
        ('name;age\nAnn;30\n"Zoë, Dr.";\n', {"delimiter": "auto"}),
        ("name\tage\nAnn\t30\nZoë, Dr.\t\n", {"delimiter": "tab"}),
        ("name\tage\nAnn\t30\nZoë, Dr.\t\n", {"delimiter": "auto"}),
        ("name|age\nAnn|30\nZoë, Dr.|\n", {"delimiter": "auto"}),
        ("name,age\nAnn,30\n'Zoë, Dr.',\n", {"quote_char": "'"}),
        ("name,age\nAnn,30\nZoë\\, Dr.,\n", {"quote_char": "", "escape_char": "\\"}),
        ("name,age\n\nAnn,30\n   \n\n" + '"Zoë, Dr.",\n', {}),
        ('name , age\n Ann,30 \n"Zoë, Dr. ",  \n', {"trim_whitespace": True}),
    ],
)
def test_whatever_form_a_table_has_it_reads_the_same(data: object, options: dict[str, object]) -> None:
    assert parse(data, **options) == PEOPLE


@pytest.mark.parametrize(
    ("data", "options", "expected"),
    [
        ("", {}, []),
        ("a,b\n", {}, []),
        ("a,b\n1,2\n", {"use_header": False}, [["a", "b"], ["1", "2"]]),
        ("a\n\n1\n", {"skip_empty_lines": False}, [{"a": ""}, {"a": "1"}]),
        ("a,b\n\n", {"skip_empty_lines": False}, [{"a": "", "b": ""}]),
        ('a\n""\n', {}, [{"a": ""}]),
        ("a,\n1,2\n", {}, [{"a": "1", "1": "2"}]),
        ('a,b\n"x\ny",2\n', {}, [{"a": "x\ny", "b": "2"}]),
        ('a,b\n"x""y",2\n', {}, [{"a": 'x"y', "b": "2"}]),
        ("a\n\\x\n", {"escape_char": ""}, [{"a": "\\x"}]),
        ("a,b\nx\u2028y,\x0b\n", {}, [{"a": "x\u2028y", "b": "\x0b"}]),
        ("名前,😀\n太郎,1\n", {}, [{"名前": "太郎", "😀": "1"}]),
        ("a,b\n1,2\n3\n", {"use_header": False}, [["a", "b"], ["1", "2"], ["3"]]),
    ],
)
def test_corners_of_the_format(data: str, options: dict[str, object], expected: JsonValue) -> None:
    assert parse(data, **options) == expected


@pytest.mark.parametrize(
    ("data", "options", "code", "word"),
    [
        ("a,b\n1\n", {}, "CSV_PARSE_ERROR", "line 2 has 1 fields and the header 2"),
        ("a,b\n1,2\n1,2,3\n", {}, "CSV_PARSE_ERROR", "line 3"),
        ('a,b\n"1,2\n', {}, "CSV_PARSE_ERROR", "inside quotes"),
        ('a,b\n"1"x,2\n', {}, "CSV_PARSE_ERROR", "line 2"),
        ("a,a\n1,2\n", {}, "CSV_DUPLICATE_COLUMN", "'a'"),
        ("a\n" + "x" * 200_000, {}, "CSV_PARSE_ERROR", "131,072"),
        (b"a\n\xff\n", {}, "AGENT_WRONG_ENCODING", "utf-8"),
        (b"a\nb\n", {"encoding": "klingon"}, "AGENT_UNKNOWN_ENCODING", "klingon"),
        (b"a\nb\n", {"encoding": "base64"}, "AGENT_UNKNOWN_ENCODING", "base64"),
        (b"a\nb\n", {"encoding": "unicode_escape"}, "AGENT_UNKNOWN_ENCODING", "unicode_escape"),
        ({"content": "no base64!"}, {}, "AGENT_INVALID_DATA", "base64"),
        ("a\n", {"delimiter": "ab"}, "STEP_INVALID_INPUT", "delimiter"),
        ("a\n", {"delimiter": "\n"}, "STEP_INVALID_INPUT", "delimiter"),
        ("a\n", {"delimiter": '"'}, "STEP_INVALID_INPUT", "different"),
        ("a\n", {"quote_char": "\r"}, "STEP_INVALID_INPUT", "line end"),
        (None, {}, "STEP_REQUIRED_INPUT_NULL", "data"),
        ([300], {}, "STEP_INVALID_INPUT", "data"),
    ],
)
def test_what_is_no_table_is_refused_and_says_where(
    data: object, options: dict[str, object], code: str, word: str
) -> None:
    error = refused("csv", "from-csv", {"data": data, **options})
    assert error.code == code
    assert word in str(error)


@pytest.mark.parametrize(
    ("value", "options", "expected"),
    [
        (PEOPLE, {}, TEXT),
        ([{"a": 1, "b": None}, {"c": [1, {"x": "ü"}]}], {}, 'a,b,c\n1,,\n,,"[1,{""x"":""ü""}]"\n'),
        ({"a": True, "b": 1.5}, {}, "a,b\ntrue,1.5\n"),
        ([["x", 1], ["y"]], {}, "Column 1,Column 2\nx,1\ny,\n"),
        ([["x", 1]], {"use_header": False}, "x,1\n"),
        ([1, "b"], {}, "value\n1\nb\n"),
        ([], {}, ""),
        ([{}, {"a": 1}, {}], {}, "a\n1\n"),
        ([{"a": " x "}], {"trim_whitespace": True}, "a\nx\n"),
        ([{"a": "x;y"}], {"delimiter": ";"}, 'a\n"x;y"\n'),
        ([{"a": "x,y"}], {"quote_char": "", "escape_char": "\\"}, "a\nx\\,y\n"),
        ([{"a": "x\ry"}], {}, 'a\n"x\ry"\n'),
        ([{"a": ""}], {}, 'a\n""\n'),
        ([{"a": "\\x"}], {"escape_char": ""}, "a\n\\x\n"),
    ],
)
def test_values_become_a_table(value: JsonValue, options: dict[str, object], expected: str) -> None:
    assert perform("csv", "to-csv", {"value": value, **options}) == expected


@pytest.mark.parametrize(
    ("value", "options", "code"),
    [
        ([{"a": 1}, [2]], {}, "CSV_MIXED_ROWS"),
        ([{"a": 1}, 2], {}, "CSV_MIXED_ROWS"),
        ([{"a": "x,y"}], {"quote_char": ""}, "CSV_WRITE_ERROR"),
        ([{"a": "日"}], {"encoding": "latin-1"}, "CSV_ENCODING_ERROR"),
        ([{"a": 1}], {"encoding": "klingon"}, "AGENT_UNKNOWN_ENCODING"),
    ],
)
def test_what_has_no_table_is_refused(value: JsonValue, options: dict[str, object], code: str) -> None:
    assert refused("csv", "to-csv", {"value": value, **options}).code == code


cells = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@given(
    columns=st.lists(cells.filter(str.strip), min_size=1, max_size=4, unique=True),
    data=st.data(),
    delimiter=st.sampled_from([",", ";", "tab", "|"]),
    escape=st.sampled_from([None, "\\"]),
)
def test_what_is_written_reads_back(
    columns: list[str], data: st.DataObject, delimiter: str, escape: str | None
) -> None:
    columns = [column.replace("\ufeff", "") or "x" for column in columns]
    columns = list(dict.fromkeys(columns))
    value = [
        dict(zip(columns, row, strict=True))
        for row in data.draw(st.lists(st.lists(cells, min_size=len(columns), max_size=len(columns)), max_size=4))
        if len(columns) > 1 or not row[0].isspace()  # one blank field is a blank line
    ]
    options = {"delimiter": delimiter, "escape_char": escape}
    text = perform("csv", "to-csv", {"value": cast("JsonValue", value), **options})
    assert parse(str(text).encode(), **options) == value


@given(st.binary(max_size=200), st.sampled_from(["UTF-8", "auto", "utf-16", "latin-1"]), st.booleans())
def test_no_bytes_do_anything_but_parse_or_be_refused(content: bytes, encoding: str, header: bool) -> None:
    inputs = {"data": content, "encoding": encoding, "delimiter": "auto", "use_header": header}
    assert code_of("csv", "from-csv", inputs) in {
        None,
        "CSV_PARSE_ERROR",
        "CSV_DUPLICATE_COLUMN",
        "AGENT_WRONG_ENCODING",
    }


@pytest.mark.parametrize(
    ("data", "options", "expected"),
    [
        (
            "a,b,c,d,e\n1,1.5,true,x,007\n2,3,false,,1\n",
            {},
            {"a": "Integer", "b": "Double", "c": "Boolean", "d": "String", "e": "String"},
        ),
        ("a,b\n", {}, {"a": "String", "b": "String"}),
        ("1,x\n", {"use_header": False}, {"Column 1": "Integer", "Column 2": "String"}),
        ("a\n12345678901234567890\n", {}, {"a": "String"}),
        ("a\n-1e5\n0\n", {}, {"a": "Double"}),
        ("", {}, {}),
    ],
)
def test_a_header_has_types(data: str, options: dict[str, object], expected: JsonValue) -> None:
    assert perform("csv", "get-header", {"data": data, **options}) == expected


class Endless(io.RawIOBase):
    """A stream made while it is read, in pieces of odd sizes."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = b""

    def read(self, size: int = -1) -> bytes:
        while len(self._rest) < size and (piece := next(self._pieces, b"")):
            self._rest += piece
        found, self._rest = self._rest[:size], self._rest[size:]
        return found


def test_a_stream_is_read_in_bounded_memory() -> None:
    count = 100_000
    stream = Endless(b"id,name\n" if index < 0 else b"%d,name %d\n" % (index, index) for index in range(-1, count))
    tracemalloc.start()
    try:
        total = sum(int(row["id"]) for row in rows(cast("BinaryIO", stream)))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert total == count * (count - 1) // 2
    assert peak < 8 * 1024 * 1024


def test_a_text_without_line_ends_does_not_fill_the_memory() -> None:
    stream = Endless(b"x" * 65_536 for _ in range(10_000))
    with pytest.raises(AgentError, match=r"CSV_PARSE_ERROR.*characters"):
        list(records(cast("BinaryIO", stream)))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-8-sig"])
def test_a_stream_may_break_anywhere(encoding: str) -> None:
    content = 'ä,b\r\n"1\r\n😀",2\r\n'.encode(encoding)
    stream = Endless(content[at : at + 1] for at in range(len(content)))
    assert list(rows(cast("BinaryIO", stream), CsvOptions(encoding="auto"))) == [{"ä": "1\r\n😀", "b": "2"}]


def test_lines_are_written_one_by_one_and_know_their_columns_from_the_first_row() -> None:
    written = lines(({"n": index, "sq": index * index} for index in range(3)), CsvOptions(delimiter=";"))
    assert next(written) == "n;sq\n"
    assert list(written) == ["0;0\n", "1;1\n", "2;4\n"]
    with pytest.raises(AgentError, match="row 2 has a value for 'c'"):
        list(lines([{"a": 1}, {"c": 2}]))
    with pytest.raises(AgentError, match="row 2 has 2 values for 1 columns"):
        list(lines([[1], [1, 2]]))


def test_a_users_limit_of_fields_counts() -> None:
    before = csv.field_size_limit(300_000)
    try:
        assert parse("a\n" + "x" * 200_000) == [{"a": "x" * 200_000}]
    finally:
        csv.field_size_limit(before)


def test_options_are_checked_when_they_are_made() -> None:
    with pytest.raises(ValidationError):
        FromCsv(data="a", delimiter="")
