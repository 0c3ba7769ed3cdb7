"""The agent `csv`: its capabilities, over `reading` and `writing`."""

import io
import re
from collections import Counter
from collections.abc import Iterable
from itertools import islice
from typing import Final

from ..agent import agent, capability
from ..encoding import UNKNOWN_ENCODING, WRONG_ENCODING, decoded
from ..models import INVALID_DATA, Data, read_bytes
from .options import CsvOptions, FromCsv, GetHeader, ToCsv
from .reading import DUPLICATE_COLUMN, PARSE_ERROR, Records, columns_of, read_rows
from .writing import ENCODING_ERROR, MIXED_ROWS, WRITE_ERROR, lines, table

TYPED_ROWS: Final = 1_000  # that the types of columns are inferred from
_INTEGER: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,17})", re.ASCII)  # no codes such as 007, nothing above 64 bits
_DOUBLE: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?", re.ASCII)
_READING: Final = (PARSE_ERROR, DUPLICATE_COLUMN, INVALID_DATA, UNKNOWN_ENCODING, WRONG_ENCODING)


@agent("csv", display_name="CSV")
class Csv:
    """Reads and writes comma-separated values."""

    @capability("from-csv", aliases=("parse-csv",), display_name="Parse CSV", idempotent=True, errors=_READING)
    def from_csv(self, inputs: FromCsv) -> list[dict[str, str]] | list[list[str]]:
        """Parse CSV into an array of objects, or of arrays if it has no header.

        All values are texts. A row that is longer or shorter than the header is an error with its line.
        """
        text = _text(inputs.data, inputs)
        return list(read_rows(text, inputs)) if inputs.use_header else list(Records(text, inputs))

    @capability(
        "to-csv",
        aliases=("generate-csv",),
        display_name="Generate CSV",
        idempotent=True,
        errors=(WRITE_ERROR, MIXED_ROWS, ENCODING_ERROR, UNKNOWN_ENCODING),
    )
    def to_csv(self, inputs: ToCsv) -> str:
        """Write an array of objects, arrays or plain values as CSV text.

        The columns are those of all objects, in the order of their first appearance. Objects and arrays inside a field
        are written as JSON, null as an empty field. A character that `encoding` does not know is an error.
        """
        rows, columns = table(inputs.value)
        return "".join(lines(rows, inputs, columns=columns))

    @capability("get-header", display_name="Get CSV header", idempotent=True, errors=_READING)
    def get_header(self, inputs: GetHeader) -> dict[str, str]:
        """The columns and their types: Integer, Double, Boolean or String, as the first 1,000 rows have them.

        Without a header the columns are "Column 1" and so on.
        """
        each = iter(Records(_text(inputs.data, inputs), inputs))
        first = next(each, None)
        if first is None:
            return {}
        if inputs.use_header:
            columns, sample = columns_of(first), list(islice(each, TYPED_ROWS))
        else:
            columns = [f"Column {index}" for index in range(1, len(first) + 1)]
            sample = [first, *islice(each, TYPED_ROWS - 1)]
        return {name: _type_of(row[at] for row in sample if at < len(row)) for at, name in enumerate(columns)}


def _text(data: Data, options: CsvOptions) -> io.StringIO:
    """The text that `data` holds. A base64 text is read as such if it can be nothing else: CSV has line ends."""
    content = read_bytes(data, base64_text=True)
    label = "UTF-8" if isinstance(data, str) and content == data.encode("utf-8", "surrogatepass") else options.encoding
    return io.StringIO(decoded(content, label), newline="")


def _type_of(values: Iterable[str]) -> str:
    """The narrowest type that all values have that are not empty."""
    kinds = Counter(_kind(value) for value in values if value.strip())
    if len(kinds) == 1:
        return next(iter(kinds))
    return "Double" if kinds and set(kinds) == {"Integer", "Double"} else "String"


def _kind(value: str) -> str:
    if value in ("true", "false"):
        return "Boolean"
    if _INTEGER.fullmatch(value):
        return "Integer"
    return "Double" if _DOUBLE.fullmatch(value) and not value.lstrip("-").isdigit() else "String"
