"""What the capabilities of `csv` take, and the options that reading and writing share."""

from typing import Final

from pydantic import Field, JsonValue, field_validator, model_validator

from ..encoding import AUTO
from ..models import Data, Inputs

_SPELT: Final = {"tab": "\t", "\\t": "\t", "auto": AUTO, "comma": ",", "semicolon": ";", "pipe": "|"}


class CsvOptions(Inputs):
    """How a CSV text is written."""

    encoding: str = Field(
        default="UTF-8",
        description="Name of the character encoding, or auto. A byte order mark decides among the UTFs.",
        examples=["UTF-8", "UTF-16", "ISO-8859-1", "auto"],
    )
    delimiter: str = Field(
        default=",",
        description="Character between two fields, tab, or auto: found out from the first lines.",
        examples=[",", ";", "tab", "auto"],
    )
    quote_char: str = Field(
        default='"', max_length=1, description="Character around fields that need it; empty: there is none."
    )
    escape_char: str | None = Field(
        default=None, max_length=1, description="Character that takes its meaning from the next one."
    )
    use_header: bool = Field(default=True, description="Whether the first line names the columns.")
    skip_empty_lines: bool = Field(default=True, description="Whether empty lines are left out.")
    trim_whitespace: bool = Field(default=False, description="Whether white space around a field is left out.")

    @field_validator("delimiter")
    @classmethod
    def _one_delimiter(cls, value: str) -> str:
        found = _SPELT.get(value.lower(), value)
        if found != AUTO and (len(found) != 1 or found in "\r\n"):
            raise ValueError("it is one character and no line end, or tab, or auto")
        return found

    @field_validator("quote_char", "escape_char")
    @classmethod
    def _no_line_end(cls, value: str | None) -> str | None:
        if value and value in "\r\n":
            raise ValueError("it cannot be a line end")
        return value

    @model_validator(mode="after")
    def _all_different(self) -> "CsvOptions":
        used = [one for one in (self.delimiter, self.quote_char, self.escape_char) if one]
        if len(set(used)) < len(used):
            raise ValueError("delimiter, quote_char and escape_char must be different characters")
        return self


class FromCsv(CsvOptions):
    """Inputs of `from-csv`."""

    data: Data = Field(description="CSV as text, base64, a byte array or a file object.")


class GetHeader(CsvOptions):
    """Inputs of `get-header`."""

    data: Data = Field(description="CSV as text, base64, a byte array or a file object.")


class ToCsv(CsvOptions):
    """Inputs of `to-csv`."""

    value: JsonValue = Field(
        description="An array of objects, of arrays or of plain values; or one object.",
        examples=[[{"name": "Alice", "age": 30}]],
    )
