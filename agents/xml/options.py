"""What the capabilities of `xml` take, and the options of reading."""

from pydantic import Field, JsonValue, field_validator

from ..models import Data, Inputs


class XmlOptions(Inputs):
    """What of an XML document becomes JSON."""

    encoding: str | None = Field(
        default=None,
        description="Name of the character encoding. By default what the document says of itself, else UTF-8.",
        examples=["UTF-8", "ISO-8859-1"],
    )
    preserve_text: bool = Field(default=True, description="Whether texts are read.")
    include_attributes: bool = Field(default=True, description="Whether attributes are read, into `@attributes`.")
    trim_text: bool = Field(default=True, description="Whether white space around texts is left out.")


class FromXml(XmlOptions):
    """Inputs of `from-xml`."""

    data: Data = Field(description="XML as text, base64, a byte array or a file object.")


class ToXml(Inputs):
    """Inputs of `to-xml`."""

    value: JsonValue = Field(
        description="What becomes the document, as from-xml gives it.",
        examples=[{"order": {"@attributes": {"id": "1"}, "item": ["a", "b"]}}],
    )
    root: str | None = Field(
        default=None, description="Name of the root element. By default the only key of `value`, else `root`."
    )
    indent: int = Field(default=0, ge=0, le=8, description="Spaces a level; 0: all in one line.")
    declaration: bool = Field(default=True, description="Whether it begins with <?xml …?>.")

    @field_validator("indent", mode="before")
    @classmethod
    def _two_for_true(cls, value: object) -> object:
        return 2 if value is True else value
