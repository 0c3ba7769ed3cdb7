"""What a workflow author imports, and who starts workflows or speaks for an instance of its own."""

from runtara.protocol.errors import (
    BadInput,
    DuplicateKey,
    ExecutionFailed,
    IllegalTransition,
    InstanceNotFound,
    InvalidInput,
    KeyMismatch,
    KeyNeeded,
    NoContext,
    NotConfirmed,
    PlatformUnreachable,
    Refused,
    ResultTimeout,
    RuntaraError,
    StartConflict,
    StateNotRepresentable,
    StateTooLarge,
    StepFailed,
    StepTimeout,
    Stopped,
    Unavailable,
    UnknownWorkflow,
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
    "BadInput",
    "Checkpoint",
    "Client",
    "Context",
    "DuplicateKey",
    "ExecutionFailed",
    "Handle",
    "IllegalTransition",
    "Instance",
    "InstanceNotFound",
    "InvalidInput",
    "KeyMismatch",
    "KeyNeeded",
    "NoContext",
    "NotConfirmed",
    "Permanent",
    "PlatformUnreachable",
    "Refused",
    "ResultTimeout",
    "Retry",
    "RuntaraError",
    "Saved",
    "StartConflict",
    "StateNotRepresentable",
    "StateTooLarge",
    "StepFailed",
    "StepTimeout",
    "Stopped",
    "Unavailable",
    "UnknownWorkflow",
    "Workflow",
    "WorkflowCancelled",
    "WorkflowFailed",
    "WorkflowTimeout",
    "WrongColour",
    "current",
    "step",
    "workflow",
]
