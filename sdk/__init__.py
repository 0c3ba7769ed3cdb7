"""What a workflow author imports. (H4 adds Client and Instance.)"""

from runtara.protocol.errors import (
    DuplicateKey,
    ExecutionFailed,
    InvalidInput,
    KeyMismatch,
    KeyNeeded,
    NoContext,
    RuntaraError,
    StateNotRepresentable,
    StateTooLarge,
    StepFailed,
    StepTimeout,
    Stopped,
    WorkflowCancelled,
    WorkflowFailed,
    WorkflowTimeout,
    WrongColour,
)

from .context import Context, current
from .operations import Saved
from .retry import Permanent, Retry
from .step import step
from .workflow import Workflow, workflow

__all__ = [
    "Context",
    "DuplicateKey",
    "ExecutionFailed",
    "InvalidInput",
    "KeyMismatch",
    "KeyNeeded",
    "NoContext",
    "Permanent",
    "Retry",
    "RuntaraError",
    "Saved",
    "StateNotRepresentable",
    "StateTooLarge",
    "StepFailed",
    "StepTimeout",
    "Stopped",
    "Workflow",
    "WorkflowCancelled",
    "WorkflowFailed",
    "WorkflowTimeout",
    "WrongColour",
    "current",
    "step",
    "workflow",
]
