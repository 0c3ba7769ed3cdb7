"""What a template reads, as far as it can be told without rendering it: paths such as `data.customer.name`.

Invariant: names that the template makes itself (`{% set %}`, `{% for %}`, macros) and Jinja2's own are no paths.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from jinja2 import nodes
from jinja2.defaults import DEFAULT_NAMESPACE

from .paths import Path
from .templates import syntax

_CACHED: Final = 1024
_IN_LOOPS: Final = "loop"  # within {% for %} it is Jinja2's own


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateReads:
    """`dynamic`: it also chooses at run time what to read."""

    paths: tuple[Path, ...]
    dynamic: bool


@lru_cache(maxsize=_CACHED)
def template_reads(text: str) -> TemplateReads:
    """Raises `jinja2.TemplateError`, also for filters and tests that do not exist."""
    tree = syntax(text)
    reader = _Reader(_own_names(tree))
    reader.visit(tree)
    return TemplateReads(paths=tuple(dict.fromkeys(reader.paths)), dynamic=reader.dynamic)


def _own_names(tree: nodes.Template) -> frozenset[str]:
    names = {name.name for name in tree.find_all(nodes.Name) if name.ctx in ("store", "param")}
    names |= {macro.name for macro in tree.find_all(nodes.Macro)} | set(DEFAULT_NAMESPACE)
    if any(tree.find_all(nodes.For)):
        names.add(_IN_LOOPS)
    return frozenset(names)


class _Reader:
    def __init__(self, own_names: frozenset[str]) -> None:
        self._own = own_names
        self.paths: list[Path] = []
        self.dynamic = False

    def visit(self, node: nodes.Node) -> None:
        match node:
            case nodes.Name() | nodes.Getattr() | nodes.Getitem():
                self._read(node)
            case nodes.Call(node=nodes.Getattr() as method):
                self.visit(method.node)  # the method of a value: `.upper()` is no part of the path
                for argument in self._arguments(node):
                    self.visit(argument)
            case _:
                for child in node.iter_child_nodes():
                    self.visit(child)

    def _arguments(self, call: nodes.Call) -> Iterator[nodes.Node]:
        yield from call.args
        yield from call.kwargs
        yield from (node for node in (call.dyn_args, call.dyn_kwargs) if node is not None)

    def _read(self, node: nodes.Node) -> None:
        parts: list[str | int] = []
        while True:
            match node:
                case nodes.Getattr():
                    parts.append(node.attr)
                    node = node.node
                case nodes.Getitem(arg=nodes.Const(value=str() | int() as key)):
                    parts.append(key)
                    node = node.node
                case nodes.Getitem():
                    self.visit(node.arg)  # what is read depends on it
                    self.dynamic = True
                    parts.clear()
                    node = node.node
                case nodes.Name():
                    if node.ctx == "load" and node.name not in self._own:
                        self.paths.append(Path(root=node.name, parts=tuple(reversed(parts))))
                    return
                case _:
                    self.visit(node)
                    return
