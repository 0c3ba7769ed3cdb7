"""What capabilities take and give: the base classes of inputs and outputs, and `Data`, the many forms of a file.

Invariants: inputs are checked when they are made and cannot be changed afterwards; an error about them names the field
and never shows its value, which may be a secret or ten megabytes; a text is read as base64 only where the reader says
so, since no one can tell `abcd` from its decoding.
"""

import base64
import binascii
import re
from typing import Annotated, Final

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, WithJsonSchema

from .encoding import marked
from .errors import AgentError

INVALID_DATA: Final = "AGENT_INVALID_DATA"
DEFAULT_ENCODING: Final = "utf-8"
_DATA_URL: Final = re.compile(r"data:[^,]{0,255};base64,", re.ASCII)
_BASE64: Final = re.compile(r"[A-Za-z0-9+/]+={0,2}(?:\r?\n)?", re.ASCII)
_LEAST_BASE64: Final = 16  # characters: what is shorter is a word
_MODEL: Final = ConfigDict(
    frozen=True, extra="forbid", populate_by_name=True, hide_input_in_errors=True, coerce_numbers_to_str=True
)


class Inputs(BaseModel):
    """Base of a capability's inputs. A field's description, default and examples become its metadata."""

    model_config = _MODEL


class Outputs(BaseModel):
    """Base of what a capability returns, where it is a record."""

    model_config = _MODEL


class FileObject(BaseModel):
    """A file as JSON carries it."""

    model_config = _MODEL

    content: str = Field(description="The file's bytes in base64.", repr=False)
    filename: str | None = None
    mime_type: str | None = Field(
        default=None, validation_alias=AliasChoices("mimeType", "mime_type"), serialization_alias="mimeType"
    )

    @classmethod
    def of(cls, content: bytes, *, filename: str | None = None, mime_type: str | None = None) -> "FileObject":
        """A file object that holds `content`."""
        return cls(content=base64.b64encode(content).decode(), filename=filename, mime_type=mime_type)


_Byte = Annotated[int, Field(ge=0, le=255)]
_DATA_SCHEMA: Final = {
    "description": "Text, base64, an array of bytes, or a file object.",
    "anyOf": [
        {"type": "string"},
        {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 255}},
        {
            "type": "object",
            "properties": {
                "content": {"type": "string", "contentEncoding": "base64"},
                "filename": {"type": ["string", "null"]},
                "mimeType": {"type": ["string", "null"]},
            },
            "required": ["content"],
            "additionalProperties": False,
        },
    ],
}

Data = Annotated[str | bytes | list[_Byte] | FileObject, WithJsonSchema(_DATA_SCHEMA)]
"""Text, base64, a byte array or a file object; from Python also bytes. Read it by `read_bytes` or `read_text`."""


def read_bytes(data: Data, *, base64_text: bool = False) -> bytes:
    """The bytes of `data`; a text's are those of UTF-8, unless it is a `data:…;base64,` address.

    `base64_text`: a text that is one unbroken run of well-formed base64 is decoded. For readers of formats whose own
    text never looks so. Raises `AgentError` AGENT_INVALID_DATA.
    """
    match data:
        case bytes():
            return data
        case FileObject():
            return decode_base64(data.content, "the file object's content")
        case str():
            return _of_text(data, base64_text)
        case _:
            return bytes(data)


def read_text(data: Data, encoding: str | None = None, *, base64_text: bool = False) -> str:
    """The text of `data`: a text as it is, else its bytes in `encoding`, which is UTF-8 unless given or unless the
    bytes begin with the mark of another. A mark at the beginning is left out. Raises `AgentError` AGENT_INVALID_DATA.
    """
    if isinstance(data, str) and not _is_base64(data, base64_text):
        return data.removeprefix("\ufeff")
    content = read_bytes(data, base64_text=base64_text)
    name = encoding or marked(content) or DEFAULT_ENCODING
    try:
        return content.decode(name).removeprefix("\ufeff")
    except LookupError as exc:
        raise AgentError(INVALID_DATA, f"there is no encoding named {name!r}") from exc
    except UnicodeError as exc:
        raise AgentError(
            INVALID_DATA, f"the data is no {name} text; name its encoding", attributes={"encoding": name}
        ) from exc


def decode_base64(text: str, what: str) -> bytes:
    """Strict, but for white space. Raises `AgentError` AGENT_INVALID_DATA, which names `what`."""
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as exc:
        raise AgentError(INVALID_DATA, f"{what} is not base64") from exc


def _of_text(text: str, base64_text: bool) -> bytes:
    if not _is_base64(text, base64_text):
        return text.encode("utf-8", "surrogatepass")
    address = _DATA_URL.match(text)
    return decode_base64(text[address.end() :] if address else text, "the data")


def _is_base64(text: str, base64_text: bool) -> bool:
    if _DATA_URL.match(text):
        return True
    if not base64_text or len(text) < _LEAST_BASE64 or not _BASE64.fullmatch(text):
        return False
    return len(text.rstrip("\r\n")) % 4 == 0
