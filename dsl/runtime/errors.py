"""What a step of a JSON workflow fails with, and what ends a graph from within a branch.

Invariants: a handler sees the same error in the first run and after a resume; what says that the platform or the code
is at odds with the log (a key that belongs to something else, say) is no failure of a step: no handler gets to see it.
"""

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final, Self

from runtara.agents import AgentError
from runtara.protocol.errors import (
    BadInput,
    ChildCancelled,
    ChildFailed,
    DuplicateKey,
    ExecutionFailed,
    InternalError,
    InvalidKey,
    KeyMismatch,
    RuntaraError,
    SignalTimeout,
    StepTimeout,
    Unavailable,
)

from ..schemas import SchemaMismatch
from ..templates import TemplateFailed
from ..values import CannotCoerce

INVALID_INPUT: Final = "STEP_INVALID_INPUT"
TIMEOUT: Final = "STEP_TIMEOUT"
CHILD_FAILED: Final = "CHILD_FAILED"
SCHEMA_MISMATCH: Final = "SCHEMA_MISMATCH"
_NOT_OF_A_STEP: Final = (DuplicateKey, KeyMismatch, InvalidKey, InternalError, Unavailable)
_OF_THE_INPUTS: Final = (CannotCoerce, TemplateFailed)
_WORD: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


class StepError(ExecutionFailed):
    """A step has failed, and its tries are used up. `details` are plain JSON values about it."""

    template = "step {step!r} failed: {code}: {message}"
    step: str
    code: str
    message: str
    category: str
    severity: str
    details: Mapping[str, object]

    def __init__(
        self, *, code: str, message: str, step: str = "", category: str = "permanent", severity: str = "error",
        details: Mapping[str, object] | None = None, retry_after: timedelta | None = None,
    ) -> None:  # fmt: skip
        super().__init__(
            step=step, code=code, message=message, category=category, severity=severity, details=dict(details or {})
        )
        self.retry_after = retry_after  # for the SDK's retries; it is no part of the record

    @property
    def permanent(self) -> bool:
        """The SDK's retries ask for it by this name."""
        return self.category == "permanent"

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        names = ("step", "code", "message", "category", "severity", "details")
        return cls(**{name: record[name] for name in names if name in record})

    def about(self, step: str, **details: object) -> Self:
        """The same failure, as that of `step`, with more details."""
        return type(self)(
            step=step, code=self.code, message=self.message, category=self.category, severity=self.severity,
            details={**self.details, **details},
        )  # fmt: skip

    def as_seen(self) -> dict[str, object]:
        """`steps.__error`, as a handler reads it."""
        return {
            "code": self.code, "message": self.message, "category": self.category, "severity": self.severity,
            "stepId": self.step, "attributes": dict(self.details),
        }  # fmt: skip


class Finished(Exception):
    """A Finish was reached in a parallel branch: the whole graph ends with its result."""

    def __init__(self, result: object) -> None:
        super().__init__("the graph has finished")
        self.result = result


def step_error(error: Exception, step: str) -> StepError | None:
    """What the failure of `step` is to its graph; None where it is nothing a step can fail with."""
    match error:
        case StepError() if error.step:
            return error if error.step == step else error.about(step, cause=error.step)
        case StepError():
            return error.about(step)
        case AgentError():
            return _failed(step, error.code, error.message, error.category, error.severity, error.attributes)
        case _ if isinstance(error, _NOT_OF_A_STEP):
            return None
        case StepTimeout():
            message = f"it did not end within {error.seconds:g} s"
            return _failed(step, TIMEOUT, message, "transient", "error", {"seconds": error.seconds})
        case ChildFailed() | ChildCancelled():
            return _child_error(error, step)
        case SignalTimeout():
            return _failed(step, "SIGNAL_TIMEOUT", str(error), "transient", "error", {"signal": error.name})
        case SchemaMismatch():
            return _failed(step, SCHEMA_MISMATCH, str(error), details={"mismatches": error.mismatches})
        case _ if isinstance(error, _OF_THE_INPUTS):
            return _failed(step, INVALID_INPUT, str(error), details=error.attributes)
        case RuntaraError():
            details = error.attributes if isinstance(error, BadInput) else {}
            return _failed(step, _WORD.sub("_", type(error).__name__).upper(), str(error), details=details)
        case _:
            return _failed(step, "STEP_FAILED", f"{type(error).__name__}: {error}")


def agent_error(error: AgentError) -> StepError:
    """An agent's error, for the record of a try."""
    return StepError(
        code=error.code, message=error.message, category=error.category, severity=error.severity,
        details=error.attributes, retry_after=error.retry_after,
    )  # fmt: skip


def _child_error(error: ChildFailed | ChildCancelled, step: str) -> StepError:
    """A JSON child's own error comes through with its code; of any other the type and text are kept."""
    if isinstance(error, ChildCancelled):
        return _failed(step, "CHILD_CANCELLED", str(error), details={"child": error.instance})
    own = error.attributes.get("details")
    details: dict[str, object] = {"child": error.instance, "type": error.type}
    if error.type == StepError.__name__ and isinstance(own, Mapping):
        inner = StepError.from_record(own)
        details = {**inner.details, "child": error.instance, "cause": inner.step}
        return _failed(step, inner.code, inner.message, inner.category, inner.severity, details)
    return _failed(step, CHILD_FAILED, error.message, details=details)


def _failed(
    step: str, code: str, message: str, category: str = "permanent", severity: str = "error",
    details: Mapping[str, object] | None = None,
) -> StepError:  # fmt: skip
    return StepError(step=step, code=code, message=message, category=category, severity=severity, details=details)
