"""From a target to an image that hosts its workflows, and what an image says of itself when it is started once.

Invariants: nothing is built from code that cannot be imported here; an image that was built has been started, as the
user and under the read-only root that its containers get, and hosts what its label says.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from runtara.protocol.api import Registration
from runtara.protocol.errors import ImageFailed, InvalidTarget
from runtara.protocol.images import WORKFLOWS_LABEL
from runtara.protocol.records import Image
from runtara.sdk import check

from .context import INDEX_ARGUMENTS, Recipe, context, included
from .docker_engine import DockerEngine, Found, Ran

IMPORT_SECONDS: Final = 120
START_SECONDS: Final = 120.0
DEFAULT_BASE: Final = f"python:{sys.version_info.major}.{sys.version_info.minor}-slim"
_LAST_WORDS: Final = 4_000  # of stderr, in a report
Told = Callable[[str], None]


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What to build: `include` are more files below the target's folder (data, modules that are imported late)."""

    target: str
    tag: str
    base: str = DEFAULT_BASE
    wheelhouse: Path | None = None
    requirements: Path | None = None
    include: list[Path] = []


class Tested(msgspec.Struct, frozen=True, kw_only=True):
    """What an image said when it was started once. `problems` keep it from hosting; `warnings` do not."""

    hosts: list[str]
    start_seconds: float
    size: int
    user: int | None
    python: str | None
    problems: list[str]
    warnings: list[str]


class Built(msgspec.Struct, frozen=True, kw_only=True):
    """`size` is the whole, `added` what it has more than its base, both in bytes."""

    tag: str
    id: str
    base: str
    workflows: list[Registration]
    size: int
    added: int
    context: int
    tested: Tested


def build(engine: DockerEngine, order: Order, told: Told) -> Built:
    """Raises `InvalidTarget`, `ImageNotFound` (the base), `ImageFailed`. `told`: what is being done."""
    base = engine.require(order.base, f"`docker pull {order.base}`, or name another with --base")
    told(f"importing {order.target}")
    checked = check_here(order.target)
    index = [name for name in INDEX_ARGUMENTS if os.environ.get(name)] if order.wheelhouse is None else []
    recipe = _recipe(order, checked, base, index)
    packed = context(recipe)
    told(f"building from {len(packed) / 1e6:.1f} MB: {len(recipe.files)} source files, and wheels")
    built = engine.build(
        packed,
        tag=order.tag,
        build_args={name: os.environ[name] for name in index},
        network=order.wheelhouse is None,
        told=told,
    )
    told("starting it once")
    tested = start_once(engine, order.tag, Image(name="build", version=0, reference=order.tag))
    if tested.problems:
        raise ImageFailed(image=order.tag, reason=f"was built, but does not run: {'; '.join(tested.problems)}")
    return Built(
        tag=order.tag,
        id=built.id,
        base=order.base,
        workflows=checked.workflows,
        size=built.size,
        added=built.size - base.size,
        context=len(packed),
        tested=tested,
    )


def check_here(target: str) -> check.Checked:
    """What a target hosts, asked in a process of its own. Raises `InvalidTarget`; a traceback goes to stderr."""
    command = [sys.executable, "-m", "runtara.sdk.run", target, check.FLAG]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=IMPORT_SECONDS, check=False)
    except subprocess.TimeoutExpired as exc:
        raise InvalidTarget(target=target, reason=f"importing it took more than {IMPORT_SECONDS} s") from exc
    checked = check.read(done.stdout) if done.returncode == 0 else None
    if checked is not None:
        return checked
    *above, last = done.stderr.strip().splitlines() or [f"it ended with exit code {done.returncode}"]
    if above:
        sys.stderr.write("\n".join([*above, ""]))
    raise InvalidTarget(target=target, reason=last.removeprefix(f"error: cannot load {target}: "))


def start_once(engine: DockerEngine, reference: str, limits: Image) -> Tested:
    """Start an image as its containers will be, and let it say what it hosts. Raises `ImageNotFound`."""
    found = engine.require(reference, "build or pull it on this machine")
    if not found.command:
        return _tested(found, None, None, ["it has no command that could be started"])
    try:
        ran = engine.run_once(reference, [*found.command, check.FLAG], limits, seconds=START_SECONDS)
    except ImageFailed as exc:
        return _tested(found, None, None, [str(exc.attributes["reason"])])
    checked = check.read(ran.stdout) if ran.code == 0 else None
    problem = None if checked is not None else _problem(found, ran)
    return _tested(found, ran, checked, [problem] if problem is not None else [])


def _problem(found: Found, ran: Ran) -> str:
    if ran.code is None:
        return f"it did not end within {START_SECONDS:g} s of being asked what it hosts"
    if ran.code != 0:
        return f"its command ended with exit code {ran.code}: {ran.stderr.strip()[-_LAST_WORDS:]}"
    command = " ".join(found.command)
    return f"it does not say what it hosts: let its command be `python -m runtara.sdk.run TARGET` (it is `{command}`)"


def registrations(found: Found) -> list[Registration] | None:
    """What an image says that it hosts, where `build` made it. Raises `ImageFailed` for a label that is broken."""
    label = found.labels.get(WORKFLOWS_LABEL)
    if label is None:
        return None
    try:
        return msgspec.json.decode(label, type=list[Registration])
    except msgspec.MsgspecError as exc:
        reason = f"its label {WORKFLOWS_LABEL} is not what `image build` writes: {exc}"
        raise ImageFailed(image=found.id, reason=reason) from exc


def _tested(found: Found, ran: Ran | None, checked: check.Checked | None, problems: list[str]) -> Tested:
    warnings: list[str] = []
    labelled = registrations(found)
    if checked is not None:
        if checked.user == 0:
            warnings.append("it runs as root: give it a USER")
        if labelled is None:
            warnings.append(f"it has no label {WORKFLOWS_LABEL}, so inputs are not checked before they reach it")
        elif [_identity(one) for one in labelled] != [_identity(one) for one in checked.workflows]:
            problems = [*problems, "what it hosts is not what its label says: build it again"]
    return Tested(
        hosts=[one.workflow for one in checked.workflows] if checked is not None else [],
        start_seconds=ran.seconds if ran is not None else 0.0,
        size=found.size,
        user=checked.user if checked is not None else None,
        python=checked.python if checked is not None else None,
        problems=problems,
        warnings=warnings,
    )


def _identity(registration: Registration) -> tuple[str, str]:
    return registration.workflow, registration.code_version


def _recipe(order: Order, checked: check.Checked, base: Found, index: list[str]) -> Recipe:
    root = Path(checked.roots[0])
    files = {Path(file) for file in checked.files} | set(included(root, order.include))
    path, colon, name = order.target.partition(":")
    is_file = path.endswith((".py", ".json"))
    inside = Path(path).resolve().relative_to(root).as_posix() if is_file else path
    return Recipe(
        target=f"{inside}{colon}{name}",
        root=root,
        files=sorted(files),
        workflows=checked.workflows,
        base=order.base,
        base_id=base.id,
        wheelhouse=order.wheelhouse,
        requirements=order.requirements,
        index_arguments=index,
        extras=checked.extras,
    )
