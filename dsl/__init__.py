"""JSON workflows: the language, its validator, and the compiler to ordinary Python workflows."""

from runtara.protocol.errors import ExtraMissing

try:
    import jinja2 as _jinja2  # noqa: F401
    import pydantic as _pydantic  # noqa: F401
except ImportError as exc:
    raise ExtraMissing(extra="agents") from exc
