"""From CSV to records, however long the text is.

Prior art: Python's own `csv`, which does the parsing; what it leaves to its callers is here: to split a text into lines
without holding all of it, to say where it went wrong, and to lose nothing.

Invariants: memory is bounded by the longest record; a row that is longer or shorter than the header, two columns of
one name and a quote that never ends are errors with their line, never silently different data.
"""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import TYPE_CHECKING, BinaryIO, Final

from ..encoding import AUTO, text_of, wrong_encoding
from ..errors import AgentError
from .options import CsvOptions

if TYPE_CHECKING:
    from _csv import Reader

PARSE_ERROR: Final = "CSV_PARSE_ERROR"
DUPLICATE_COLUMN: Final = "CSV_DUPLICATE_COLUMN"
CHUNK_CHARACTERS: Final = 256 * 1024  # read at once; larger is not faster
LINE_CHARACTERS: Final = 16 * 1024 * 1024  # of one line: a text without line ends shall not fill the memory
SAMPLE_LINES: Final = 100  # that "auto" looks at
DELIMITERS: Final = (",", ";", "\t", "|")  # that "auto" knows; the first wins where all fit alike


def rows(stream: BinaryIO, options: CsvOptions | None = None) -> Iterator[dict[str, str]]:
    """The rows of a CSV stream as objects; its first line names the columns.

    A column without a name gets its number, from 0. Raises `AgentError` CSV_PARSE_ERROR or CSV_DUPLICATE_COLUMN, or for
    the encoding.
    """
    options = options or CsvOptions()
    return read_rows(text_of(stream, options.encoding), options)


def records(stream: BinaryIO, options: CsvOptions | None = None) -> Iterator[list[str]]:
    """The records of a CSV stream as lists, a header being one of them. Raises as `rows` does."""
    options = options or CsvOptions()
    return iter(Records(text_of(stream, options.encoding), options))


def read_rows(text: io.TextIOBase, options: CsvOptions) -> Iterator[dict[str, str]]:
    """As `rows`, from decoded text."""
    found = Records(text, options)
    each = iter(found)
    header = next(each, None)
    if header is None:
        return
    columns = columns_of(header)
    width = len(columns)
    for record in each:
        if len(record) != width:
            if record:
                raise _uneven(found.line, width, len(record))
            record = [""] * width  # an empty line, where they count
        yield dict(zip(columns, record, strict=True))


def columns_of(header: Sequence[str]) -> list[str]:
    """The columns' names. Raises `AgentError` CSV_DUPLICATE_COLUMN."""
    columns = [name or str(index) for index, name in enumerate(header)]
    twice = next((name for index, name in enumerate(columns) if name in columns[:index]), None)
    if twice is not None:
        reason = f"two columns are named {twice!r}; read it with use_header false, or rename one"
        raise AgentError(DUPLICATE_COLUMN, reason, attributes={"column": twice})
    return columns


class Records:
    """The records of a CSV text, one after the other. `line` is the number of the last line that was read."""

    def __init__(self, text: io.TextIOBase, options: CsvOptions) -> None:
        lines = _lines(text)
        delimiter = options.delimiter
        if delimiter == AUTO:
            sample = list(islice(lines, SAMPLE_LINES))
            delimiter = _likely_delimiter(sample, options)
            lines = chain(sample, lines)
        self._options = options
        self._reader = _reader(lines, delimiter, options, strict=True)

    @property
    def line(self) -> int:
        return self._reader.line_num

    def __iter__(self) -> Iterator[list[str]]:
        skip, trim = self._options.skip_empty_lines, self._options.trim_whitespace
        try:
            for record in self._reader:
                if skip and (not record or (len(record) == 1 and record[0].isspace())):
                    continue
                yield [field.strip() for field in record] if trim else record
        except csv.Error as exc:
            raise self._refused(exc) from None

    def _refused(self, error: csv.Error) -> AgentError:
        reason = f"line {self.line} is no CSV: {error}"
        if "field larger" in str(error):
            reason = (
                f"a field at line {self.line} has more than {csv.field_size_limit():,} characters; is a quote open?"
            )
        elif "unexpected end" in str(error):
            reason = "the text ends inside quotes"
        return AgentError(PARSE_ERROR, reason, attributes={"line": self.line})


def _lines(text: io.TextIOBase) -> Iterator[str]:
    """Lines with their ends, split at \\n, \\r and \\r\\n only, as CSV knows no others."""
    rest = ""
    while chunk := _read(text):
        lines = io.StringIO(rest + chunk, newline="").readlines()
        rest = lines.pop()  # it may go on, or its \r be half of a \r\n
        if len(rest) > LINE_CHARACTERS:
            raise AgentError(PARSE_ERROR, f"a line has more than {LINE_CHARACTERS:,} characters; is it CSV?")
        yield from lines
    if rest:
        yield rest


def _read(text: io.TextIOBase) -> str:
    try:
        return text.read(CHUNK_CHARACTERS)
    except UnicodeError as exc:
        raise wrong_encoding(getattr(text, "encoding", None) or "text", exc) from None


def _reader(lines: Iterable[str], delimiter: str, options: CsvOptions, *, strict: bool) -> "Reader":
    return csv.reader(
        lines,
        delimiter=delimiter,
        quotechar=options.quote_char or None,
        quoting=csv.QUOTE_MINIMAL if options.quote_char else csv.QUOTE_NONE,
        escapechar=options.escape_char or None,
        strict=strict,
    )


def _likely_delimiter(sample: Sequence[str], options: CsvOptions) -> str:
    """The one that gives most records the same number of fields, and many; a comma where none gives two."""
    return max(DELIMITERS, key=lambda one: _agreement(sample, one, options))


def _agreement(sample: Sequence[str], delimiter: str, options: CsvOptions) -> tuple[float, int]:
    if delimiter in (options.quote_char, options.escape_char):
        return 0.0, 0
    try:
        widths = [len(record) for record in _reader(sample, delimiter, options, strict=False) if record]
    except csv.Error:
        return 0.0, 0
    usual = max(set(widths), key=widths.count, default=0)
    return (widths.count(usual) / len(widths), usual) if usual > 1 else (0.0, 0)


def _uneven(line: int, expected: int, found: int) -> AgentError:
    reason = f"line {line} has {found} fields and the header {expected}; read it with use_header false to see them"
    return AgentError(PARSE_ERROR, reason, attributes={"line": line, "expected": expected, "found": found})
