"""What an agent fails with: one error class whose code and category say what becomes of the step.

Invariants: a permanent error is never tried again, a transient one may be; an error becomes the same error again from
its record (`from_record` of what `to_record` gave), so that a resumed workflow sees what the first run saw; whoever
raises one puts no secret into it, and `calls.call` takes those of the connection out all the same.
"""

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Final, Literal, Self, cast, get_args

from runtara.protocol.errors import ExecutionFailed, WireError
from runtara.sdk.retry import ONCE, asked_for

Category = Literal["permanent", "transient"]
Severity = Literal["debug", "info", "warning", "error", "critical"]

UNKNOWN_CODE: Final = "AGENT_FAILED"  # of an exception that is no AgentError
_CODE: Final = re.compile(r"[A-Z][A-Z0-9_]{0,99}")


def is_code(text: str) -> bool:
    """Whether `text` can be the code of an error."""
    return _CODE.fullmatch(text) is not None


class AgentError(ExecutionFailed):
    """A capability's failure.

    `code` is UPPER_SNAKE and stable: handlers branch on it. `category` says whether trying again can help.
    `retry_after`: when to come again; such a wait costs none of the step's tries. `attributes` are plain JSON values.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        category: Category = "permanent",
        severity: Severity = "error",
        retry_after: timedelta | None = None,
        attributes: Mapping[str, object] | None = None,
    ) -> None:
        if not is_code(code):
            raise ValueError(
                f"{code!r} is no code of an agent's error: use capitals, digits and '_', as in FILE_NOT_FOUND"
            )
        super().__init__(reason=f"{code}: {message}")
        self.code = code
        self.message = message
        self.category: Category = category
        self.severity: Severity = severity
        self.retry_after = retry_after
        self.attributes = dict(attributes or {})

    @property
    def permanent(self) -> bool:
        """The SDK's retries ask for it by this name."""
        return self.category == "permanent"

    def to_record(self) -> dict[str, object]:
        """What is recorded of it, and what `from_record` makes it of again."""
        record: dict[str, object] = {
            "code": self.code,
            "message": self.message,
            "category": self.category,
            "severity": self.severity,
            "attributes": self.attributes,
        }
        if self.retry_after is not None:
            record["retry_after"] = self.retry_after.total_seconds()
        return record

    @classmethod
    def from_record(cls, record: Mapping[str, object]) -> Self:
        """The error again; what an older or newer version recorded otherwise is read as far as it goes."""
        code, category, severity = (record.get(name) for name in ("code", "category", "severity"))
        after, attributes = record.get("retry_after"), record.get("attributes")
        return cls(
            code if isinstance(code, str) and is_code(code) else UNKNOWN_CODE,
            str(record.get("message", "")),
            category=cast(Category, category) if category in get_args(Category) else "permanent",
            severity=cast(Severity, severity) if severity in get_args(Severity) else "error",
            retry_after=timedelta(seconds=after) if isinstance(after, (int, float)) else None,
            attributes=attributes if isinstance(attributes, Mapping) else None,
        )

    def to_wire(self) -> WireError:
        return WireError(code=type(self).__name__, message=str(self), attributes=self.to_record())

    def __reduce__(self) -> tuple[object, ...]:
        return self.from_record, (self.to_record(),)


def from_exception(error: Exception) -> AgentError:
    """What a capability raised, as an `AgentError`. `Permanent`, `RetryAfter` and their kind keep their meaning."""
    if isinstance(error, AgentError):
        return error
    return AgentError(
        UNKNOWN_CODE,
        f"{type(error).__name__}: {error}",
        category="permanent" if ONCE.is_permanent(error) else "transient",
        retry_after=asked_for(error),
        attributes={"type": type(error).__name__},
    )
