"""From XML to JSON, however long the document is.

lxml's parser calls a target for each tag, so no tree is made: the JSON value of an element grows as it is read, and of
what nobody asked for only the depth is kept.

An element is an object of its attributes (`@attributes`), its text (`@text`) and its child elements by local name,
several of one name as an array; an element with nothing but text is that text, an empty one an empty object.

Invariants: a document type is refused as it is met, so there are no entities to expand, no files to fetch and no DTD;
nothing is read from the network; depth and the size of one element are bounded.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, BinaryIO, Final

import msgspec
from lxml import etree
from pydantic import JsonValue

from ..encoding import UNKNOWN_ENCODING, encoding_of, marked
from ..errors import AgentError
from .options import XmlOptions

if TYPE_CHECKING:
    from lxml.etree import ParserTarget
    from lxml.etree._parser import CustomTargetParser

    _Calls = ParserTarget[None]
else:
    _Calls = object

PARSE_ERROR: Final = "XML_PARSE_ERROR"
DOCTYPE_REFUSED: Final = "XML_DOCTYPE_REFUSED"
TOO_DEEP: Final = "XML_TOO_DEEP"
TOO_LARGE: Final = "XML_TOO_LARGE"
CHUNK_BYTES: Final = 64 * 1024
DEPTH: Final = 60  # of elements; each may be an object in an array, and the platform carries 128 levels of JSON
CHARACTERS: Final = 64 * 1024 * 1024  # of text within one element that is kept: the platform carries no more
NODES: Final = 2_000_000  # elements within one that is kept: some GB of memory, and no file of 64 MiB has so many


def elements(stream: BinaryIO, tag: str, options: XmlOptions | None = None) -> Iterator[JsonValue]:
    """The elements named `tag` (a local name) as JSON, one after the other; those inside another belong to it.

    Raises `AgentError` XML_PARSE_ERROR, XML_DOCTYPE_REFUSED, XML_TOO_DEEP or XML_TOO_LARGE.
    """
    options = options or XmlOptions()
    chunk = stream.read(CHUNK_BYTES)
    target = _Target(tag, options)
    parser = _parser(target, options.encoding, chunk)
    while chunk:
        _feed(parser, chunk)
        yield from target.take()
        chunk = stream.read(CHUNK_BYTES)
    _close(parser)
    yield from target.take()


def document(content: bytes, options: XmlOptions) -> dict[str, JsonValue]:
    """A whole document: an object with one key, the root's local name. Raises as `elements` does."""
    target = _Target(None, options)
    parser = _parser(target, options.encoding, content[:CHUNK_BYTES])
    for at in range(0, len(content), CHUNK_BYTES):
        _feed(parser, content[at : at + CHUNK_BYTES])
    _close(parser)
    return {target.root: target.take()[0]}


class _Node(msgspec.Struct):
    """An element that is being read. What it may have is made when it is met: most have nothing but a text."""

    name: str
    value: dict[str, JsonValue] | None = None
    texts: list[str] | None = None

    def add(self, name: str, child: JsonValue) -> None:
        if self.value is None:
            self.value = {name: child}
            return
        known = self.value.get(name)
        if known is None:
            self.value[name] = child
        elif isinstance(known, list):
            known.append(child)
        else:
            self.value[name] = [known, child]

    def add_text(self, text: str) -> None:
        if text:
            self.texts = self.texts or []
            self.texts.append(text)

    def done(self, between: str) -> JsonValue:
        """What it has become, its texts joined."""
        if self.texts is None:
            return self.value or {}
        text = between.join(self.texts)
        if self.value is None:
            return text
        attributes = self.value.pop("@attributes", None)  # first, then the text, then the children
        head: dict[str, JsonValue] = {} if attributes is None else {"@attributes": attributes}
        return {**head, "@text": text, **self.value}


class _Target(_Calls):
    """What lxml's parser calls. Keeps the elements named `wanted`, or the root if that is None.

    These calls are what reading costs, so they do as little as they can.
    """

    def __init__(self, wanted: str | None, options: XmlOptions) -> None:
        self._wanted = wanted
        self._trim = options.trim_text
        self._keeps_text = options.preserve_text
        self._keeps_attributes = options.include_attributes
        self._node: _Node | None = None  # the innermost of those that are kept
        self._outer: list[_Node] = []
        self._pieces: list[str] = []  # of the text that is being read: the parser gives it in as many as it likes
        self._depth = 0
        self._nodes = 0
        self._characters = 0
        self._done: list[JsonValue] = []
        self.root = ""

    def take(self) -> list[JsonValue]:
        """What has been finished since the last call."""
        done, self._done = self._done, []
        return done

    def doctype(self, name: str | None, public: str | None, system: str | None) -> None:
        reason = "the document has a DOCTYPE, which could define entities or fetch files; leave it out"
        raise AgentError(DOCTYPE_REFUSED, reason)

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        self._depth += 1
        if self._depth > DEPTH:
            raise AgentError(TOO_DEEP, f"its elements are nested more than {DEPTH} deep")
        name = tag if tag[0] != "{" else tag.rpartition("}")[2]
        outer = self._node
        if outer is None:
            if self._wanted is not None and name != self._wanted:
                return
            self._nodes = self._characters = 0
            self.root = self.root or name
        else:
            if self._pieces:
                outer.add_text(self._text())
            self._outer.append(outer)
        self._nodes += 1
        if self._nodes > NODES:
            raise AgentError(TOO_LARGE, f"an element has more than {NODES:,} others inside; read it by elements()")
        self._node = node = _Node(name)
        if attributes and self._keeps_attributes:
            node.value = {"@attributes": _attributes(attributes)}

    def end(self, tag: str) -> None:
        self._depth -= 1
        node = self._node
        if node is None:
            return
        text = self._text() if self._pieces else ""
        if node.value is None and node.texts is None:  # nothing but a text, as most elements are
            value: JsonValue = text or {}
        else:
            node.add_text(text)
            value = node.done(" " if self._trim else "")
        if self._outer:
            self._node = outer = self._outer.pop()
            outer.add(node.name, value)
        else:
            self._node = None
            self._done.append(value)

    def data(self, text: str) -> None:
        if self._node is not None and self._keeps_text:
            self._pieces.append(text)
            self._characters += len(text)
            if self._characters > CHARACTERS:
                raise AgentError(TOO_LARGE, f"an element has more than {CHARACTERS:,} characters inside")

    def close(self) -> None:
        """The parser asks for it."""

    def _text(self) -> str:
        """The text that has been read."""
        text = self._pieces[0] if len(self._pieces) == 1 else "".join(self._pieces)
        self._pieces.clear()
        return text.strip() if self._trim else text


def _attributes(given: Mapping[str, str]) -> dict[str, JsonValue]:
    """By local name; of two with the same one, the second keeps its namespace."""
    found: dict[str, JsonValue] = {}
    for key, value in given.items():
        name = key.rpartition("}")[2]
        found[key if name in found else name] = value
    return found


def _parser(target: _Target, encoding: str | None, head: bytes) -> "CustomTargetParser[None]":
    name = None if encoding is None else encoding_of(encoding, head)
    name = None if name is None or marked(head) == name else name  # the parser knows marks itself
    try:
        # Entities are refused with the document type that would define them. `resolve_entities=False` would leave
        # &amp; in attributes unread; "internal" never looks outside.
        return etree.XMLParser(
            target=target, encoding=name, resolve_entities="internal", no_network=True, load_dtd=False, huge_tree=False
        )
    except LookupError as exc:
        raise AgentError(UNKNOWN_ENCODING, f"XML cannot be read in the encoding {encoding!r}") from exc


def _feed(parser: "CustomTargetParser[None]", chunk: bytes) -> None:
    try:
        parser.feed(chunk)
    except etree.XMLSyntaxError as exc:
        raise _no_xml(exc) from None


def _close(parser: "CustomTargetParser[None]") -> None:
    try:
        parser.close()
    except etree.XMLSyntaxError as exc:
        raise _no_xml(exc) from None


def _no_xml(error: etree.XMLSyntaxError) -> AgentError:
    line = error.lineno or 1
    return AgentError(PARSE_ERROR, f"it is no well-formed XML: {error.msg}", attributes={"line": line})
