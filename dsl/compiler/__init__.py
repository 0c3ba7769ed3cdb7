"""From a checked model to the Python source of an ordinary workflow."""

from .module import compile_workflow, embedded

__all__ = ["compile_workflow", "embedded"]
