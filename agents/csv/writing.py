"""From JSON values to CSV, row by row.

Invariants: what is written reads back as the same texts; null is an empty field, an object or array inside a field is
its JSON; a value that has no column is an error, never left out.
"""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from pydantic import JsonValue

from ..encoding import AUTO, codec_named
from ..errors import AgentError
from .options import CsvOptions

if TYPE_CHECKING:
    from _csv import Writer

WRITE_ERROR: Final = "CSV_WRITE_ERROR"
MIXED_ROWS: Final = "CSV_MIXED_ROWS"
ENCODING_ERROR: Final = "CSV_ENCODING_ERROR"
PLAIN_COLUMN: Final = "value"  # the column of values that are neither objects nor arrays

Row = Mapping[str, JsonValue] | Sequence[JsonValue]


def lines(
    rows: Iterable[Row], options: CsvOptions | None = None, *, columns: Sequence[str] | None = None
) -> Iterator[str]:
    """The lines of a CSV text, each with its line end; the header first, if `options` say so.

    `columns` are by default the first row's: its keys, or "Column 1" and so on. Raises `AgentError` CSV_WRITE_ERROR,
    CSV_MIXED_ROWS or CSV_ENCODING_ERROR.
    """
    options = options or CsvOptions()
    written = _Written()
    writer = _writer(written, options)
    check = _encodable(options.encoding)
    named = None if columns is None else list(columns)
    try:
        for number, row in enumerate(rows, 1):
            if named is None:
                named = _columns_of_first(row)
            if number == 1 and options.use_header:
                writer.writerow(named)
                yield check(written.taken())
            if options.skip_empty_lines and not row:
                continue
            writer.writerow(_fields(row, named, number, options))
            yield check(written.taken())
    except csv.Error as exc:
        raise AgentError(WRITE_ERROR, f"it cannot be written with these options: {exc}") from None


def table(value: JsonValue) -> tuple[list[Row], list[str]]:
    """A JSON value as rows, and the columns of all of them in the order in which they first appear."""
    items = value if isinstance(value, list) else [value]
    found: list[Row] = [_row(item) for item in items]
    if all(isinstance(row, Mapping) for row in found):
        return found, list(dict.fromkeys(key for row in found if isinstance(row, Mapping) for key in row))
    if any(isinstance(row, Mapping) for row in found):
        raise _mixed()
    plain = not any(isinstance(item, list) for item in items)
    width = max((len(row) for row in found), default=0)
    return found, [PLAIN_COLUMN] if plain else [f"Column {index}" for index in range(1, width + 1)]


def _row(item: JsonValue) -> Row:
    return item if isinstance(item, dict | list) else [item]


def _columns_of_first(row: Row) -> list[str]:
    return list(row) if isinstance(row, Mapping) else [f"Column {index}" for index in range(1, len(row) + 1)]


def _fields(row: Row, columns: Sequence[str], number: int, options: CsvOptions) -> list[str]:
    if isinstance(row, Mapping):
        unknown = next((key for key in row if key not in columns), None)
        if unknown is not None:
            raise AgentError(WRITE_ERROR, f"row {number} has a value for {unknown!r}, which is none of the columns")
        values: Iterable[JsonValue] = (row.get(name) for name in columns)
    elif len(row) > len(columns):
        raise AgentError(WRITE_ERROR, f"row {number} has {len(row)} values for {len(columns)} columns")
    else:
        values = (*row, *[None] * (len(columns) - len(row)))
    texts = [_text(value) for value in values]
    return [text.strip() for text in texts] if options.trim_whitespace else texts


def _text(value: JsonValue) -> str:
    match value:
        case None:
            return ""
        case str():
            return value
        case _:
            return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _encodable(label: str) -> "_Check":
    return _Check("utf-8" if label.strip().lower() == AUTO else codec_named(label))


class _Check:
    """Lets a line through that can be stored in the encoding asked for."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, line: str) -> str:
        try:
            line.encode(self._name)
        except UnicodeEncodeError as exc:
            reason = f"{line[exc.start]!r} cannot be written in {self._name}; use UTF-8"
            raise AgentError(ENCODING_ERROR, reason, attributes={"encoding": self._name}) from None
        return line


class _Written:
    """Where csv.writer writes one line at a time.

    It ends them by \\r\\n, so that it quotes both in fields (before Python 3.13 it quotes only what ends lines); ours
    end by \\n.
    """

    def __init__(self) -> None:
        self._line = ""

    def write(self, line: str) -> None:
        self._line = line

    def taken(self) -> str:
        return self._line.removesuffix("\r\n") + "\n"


def _writer(written: _Written, options: CsvOptions) -> "Writer":
    return csv.writer(
        written,
        delimiter="," if options.delimiter == AUTO else options.delimiter,
        quotechar=options.quote_char or None,
        quoting=csv.QUOTE_MINIMAL if options.quote_char else csv.QUOTE_NONE,
        escapechar=options.escape_char or None,
        lineterminator="\r\n",
    )


def _mixed() -> AgentError:
    return AgentError(MIXED_ROWS, "its rows are objects and others; make them all objects, or all arrays")
