"""The agent `xml`: its capabilities, over `reading` and `writing`."""

from pydantic import JsonValue

from ..agent import agent, capability
from ..encoding import UNKNOWN_ENCODING
from ..models import INVALID_DATA, read_bytes
from .options import FromXml, ToXml, XmlOptions
from .reading import DOCTYPE_REFUSED, PARSE_ERROR, TOO_DEEP, TOO_LARGE, document
from .writing import INVALID_NAME, INVALID_TEXT, INVALID_VALUE, written

__all__ = ["FromXml", "ToXml", "Xml", "XmlOptions"]


@agent("xml", display_name="XML")
class Xml:
    """Reads and writes XML. Documents with a document type are refused, and with them entities and fetched files."""

    @capability(
        "from-xml",
        aliases=("parse-xml",),
        display_name="Parse XML",
        idempotent=True,
        errors=(PARSE_ERROR, DOCTYPE_REFUSED, TOO_DEEP, TOO_LARGE, INVALID_DATA, UNKNOWN_ENCODING),
    )
    def from_xml(self, inputs: FromXml) -> dict[str, JsonValue]:
        """Parse XML into an object whose one key is the root element.

        An element is an object of its `@attributes`, its `@text` and its children by local name, several of one name as
        an array. One with nothing but text is that text, an empty one an empty object.
        """
        content = read_bytes(inputs.data, base64_text=True)
        options: XmlOptions = inputs
        if isinstance(inputs.data, str) and content == inputs.data.encode("utf-8", "surrogatepass"):
            options = inputs.model_copy(update={"encoding": "utf-8"})  # a text says nothing true about its encoding
        return document(content, options)

    @capability(
        "to-xml",
        aliases=("generate-xml",),
        display_name="Generate XML",
        idempotent=True,
        errors=(INVALID_NAME, INVALID_TEXT, INVALID_VALUE, TOO_DEEP),
    )
    def to_xml(self, inputs: ToXml) -> str:
        """Write JSON as XML, the inverse of from-xml.

        `@attributes` and `@text` have their meaning; an array is an element for each of its items, null an empty
        element. Prefixes are written as they are and must be declared by an attribute `xmlns:…`.
        """
        return written(inputs.value, root=inputs.root, indent=inputs.indent, declaration=inputs.declaration)
