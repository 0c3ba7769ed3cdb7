"""What compiled JSON workflows import."""

from ..conditions import all_of, any_of, check, compare
from ..templates import template
from ..values import ref
from .definition import Definition, JsonWorkflow, json_workflow
from .errors import Finished, StepError
from .parallel import by_readiness, together
from .run import Run
from .selecting import case
from .split import SplitOptions

__all__ = [
    "Definition",
    "Finished",
    "JsonWorkflow",
    "Run",
    "SplitOptions",
    "StepError",
    "all_of",
    "any_of",
    "by_readiness",
    "case",
    "check",
    "compare",
    "json_workflow",
    "ref",
    "template",
    "together",
]
