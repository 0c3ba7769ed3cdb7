"""What a workflow author imports, and who starts workflows or speaks for an instance of its own."""

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

from .client import Client, Handle
from .context import Context, current
from .instance import Checkpoint, Instance
from .operations import Saved
from .retry import Permanent, Retry
from .step import step
from .workflow import Workflow, workflow

__all__ = [
    "Checkpoint",
    "Client",
    "Context",
    "DuplicateKey",
    "ExecutionFailed",
    "Handle",
    "Instance",
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
