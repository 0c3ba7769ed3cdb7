"""The agent `xml`, and `elements`, which reads repeated elements of a stream of any length in bounded memory."""

from .agent import FromXml, ToXml, Xml, XmlOptions
from .reading import elements

__all__ = ["FromXml", "ToXml", "Xml", "XmlOptions", "elements"]
