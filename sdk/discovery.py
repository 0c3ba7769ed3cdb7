"""Finding workflows: a TARGET (`module`, `module:name`, `file.py`, `flow.json`) becomes the `Workflow`s it holds.

There is no global registry: a target hosts what it has as attributes, its own or imported. JSON workflows are read by
`runtara.dsl`, which is an extra, and imported by its name when a target needs it. Invariants: two
different workflows of one id are an error; the code version is a hash of the sources that were loaded from the
same place as the target (its folder, or the folder on the import path that its package is in), whatever their
order and wherever that place is.
"""

import hashlib
import importlib
import importlib.util
import os
import sys
import sysconfig
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Final

import msgspec

from runtara.protocol.errors import ExtraMissing, InvalidTarget, RuntaraError

from .workflow import Workflow

AnyWorkflow = Workflow[..., object]

VERSION_LENGTH: Final = 16
_JSON: Final = ".json"
_LOADER: Final = ("runtara.dsl.load", "load_file")
_FOREIGN: Final = frozenset({"site-packages", "dist-packages", ".venv", "venv"})


class Code(msgspec.Struct, frozen=True):
    """What the targets of a worker hold, and from which sources (`files`, below `roots`) at which `version`."""

    workflows: tuple[AnyWorkflow, ...]
    version: str
    files: tuple[Path, ...]
    roots: tuple[Path, ...] = ()


class _Target(msgspec.Struct, frozen=True):
    text: str
    module: str
    name: str | None
    file: Path | None

    @property
    def is_json(self) -> bool:
        return self.file is not None and self.file.suffix == _JSON


def load(targets: Sequence[str]) -> Code:
    """Import `targets`. Raises `InvalidTarget`; an error in the code itself is its `__cause__`."""
    workflows: dict[str, tuple[AnyWorkflow, str]] = {}
    roots: set[Path] = set()
    documents: set[Path] = set()
    for target in map(_parse, targets):
        if target.is_json and target.file is not None:
            documents.add(target.file)
            found = [_read_json(target, target.file)]
        else:
            module = _import(target)
            roots.add(_root(target, module))
            found = _workflows_of(target, module)
        for workflow in found:
            known, where = workflows.setdefault(workflow.name, (workflow, target.text))
            if known is not workflow:
                raise InvalidTarget(
                    target=target.text,
                    reason=f"two different workflows have the id {workflow.name!r} (the other is in {where}); "
                    f"give one of them another: @workflow(name=…)",
                )
    files = tuple(sorted(_sources(roots) | documents))
    roots |= {document.parent for document in documents}
    hosted = tuple(workflow for workflow, _ in workflows.values())
    return Code(hosted, _version(files, roots), files, tuple(sorted(roots)))


def watched_folders(targets: Iterable[str]) -> list[Path]:
    """The folders whose sources a reload should look at; nothing is imported."""
    folders = {target.file.parent if target.file else Path.cwd() for target in map(_parse, targets)}
    return sorted(folders)


def _parse(text: str) -> _Target:
    path, colon, name = text.rpartition(":") if ":" in text else (text, "", "")
    if colon and not name.isidentifier():
        raise InvalidTarget(target=text, reason=f"{name!r} behind the colon is no name")
    if path.endswith(_JSON):
        if name:
            raise InvalidTarget(target=text, reason="a JSON file is one workflow; its id is the file's name")
        return _Target(text, "", None, Path(path).resolve())
    if path.endswith(".py") or os.sep in path:
        return _Target(text, _module_name(Path(path)), name or None, Path(path).resolve())
    if not path or not all(part.isidentifier() for part in path.split(".")):
        raise InvalidTarget(target=text, reason="use a module, module:name, file.py or flow.json")
    return _Target(text, path, name or None, None)


def _module_name(path: Path) -> str:
    """The name under which a file is imported: its stem, unless that would hide something else."""
    stem = path.stem
    loaded = sys.modules.get(stem)
    taken = stem in sys.stdlib_module_names or (
        loaded is not None and getattr(loaded, "__file__", None) != str(path.resolve())
    )
    return stem if stem.isidentifier() and not taken else f"runtara_target_{stem}"


def _read_json(target: _Target, file: Path) -> AnyWorkflow:
    if not file.is_file():
        raise InvalidTarget(target=target.text, reason="there is no such file")
    module, name = _LOADER
    try:
        load_file = getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as exc:
        raise InvalidTarget(target=target.text, reason=str(ExtraMissing(extra="agents"))) from exc
    try:
        workflow = load_file(file)
    except RuntaraError as exc:
        raise InvalidTarget(target=target.text, reason=str(exc)) from exc
    assert isinstance(workflow, Workflow)
    return workflow


def _import(target: _Target) -> ModuleType:
    if target.file is not None:
        return _import_file(target, target.file)
    _put_on_path(Path.cwd())
    try:
        return importlib.import_module(target.module)
    except ModuleNotFoundError as exc:
        if exc.name is not None and (target.module == exc.name or target.module.startswith(f"{exc.name}.")):
            raise InvalidTarget(target=target.text, reason=f"there is no module {exc.name!r}") from None
        raise _broken(target, exc) from exc
    except Exception as exc:
        raise _broken(target, exc) from exc


def _import_file(target: _Target, file: Path) -> ModuleType:
    if not file.is_file():
        raise InvalidTarget(target=target.text, reason="there is no such file")
    _put_on_path(file.parent)
    loaded = sys.modules.get(target.module)
    if loaded is not None and getattr(loaded, "__file__", None) == str(file):
        return loaded
    spec = importlib.util.spec_from_file_location(target.module, file)
    if spec is None or spec.loader is None:
        raise InvalidTarget(target=target.text, reason="it is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[target.module] = module
    try:
        spec.loader.exec_module(module)
    except Exception as exc:
        del sys.modules[target.module]
        raise _broken(target, exc) from exc
    return module


def _put_on_path(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def _broken(target: _Target, error: Exception) -> InvalidTarget:
    return InvalidTarget(target=target.text, reason=f"{type(error).__name__}: {error}")


def _workflows_of(target: _Target, module: ModuleType) -> list[AnyWorkflow]:
    if target.name is not None:
        found = getattr(module, target.name, None)
        if not isinstance(found, Workflow):
            reason = "it has no such name" if found is None else f"{target.name} is no workflow; decorate it: @workflow"
            raise InvalidTarget(target=target.text, reason=reason)
        return [found]
    workflows = [value for value in vars(module).values() if isinstance(value, Workflow)]
    if not workflows:
        raise InvalidTarget(target=target.text, reason="it has no workflow; decorate a function with @workflow")
    return workflows


def _root(target: _Target, module: ModuleType) -> Path:
    """Where the target's own sources live."""
    if target.file is not None:
        return target.file.parent
    origin = getattr(module, "__file__", None)
    if origin is None:
        return Path.cwd()
    file = Path(origin).resolve()
    depth = target.module.count(".") + (file.name == "__init__.py")
    return file.parents[depth]


def _sources(roots: set[Path]) -> set[Path]:
    """Files of the modules loaded from `roots`, installed packages left out (unless a target itself is one)."""
    standard = Path(sysconfig.get_paths()["stdlib"])
    files = set()
    for module in list(sys.modules.values()):
        origin = getattr(module, "__file__", None)
        if not isinstance(origin, str) or not origin.endswith(".py"):
            continue
        file = Path(origin).resolve()
        for root in roots:
            if file.is_relative_to(root) and not file.is_relative_to(standard) and not _is_foreign(file, root):
                files.add(file)
    return files


def _is_foreign(file: Path, root: Path) -> bool:
    return not _FOREIGN.isdisjoint(file.relative_to(root).parts)


def _version(files: Iterable[Path], roots: set[Path]) -> str:
    digest = hashlib.sha256()
    for name, data in sorted((_relative(file, roots), file.read_bytes()) for file in files):
        for part in (name.encode(), data):
            digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()[:VERSION_LENGTH]


def _relative(file: Path, roots: set[Path]) -> str:
    root = max((root for root in roots if file.is_relative_to(root)), key=lambda root: len(root.parts))
    return file.relative_to(root).as_posix()
