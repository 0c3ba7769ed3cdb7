"""What a build of a workflow image is made from: one tar with a Dockerfile, the sources and the wheels.

Two stages, so that wheels and pip leave nothing behind. The Dockerfile uses what both the classic builder and BuildKit
understand, and no shell. Code is compiled in the build, since the container's root will be read-only; Python's own
library too, as far as it is imported, since official images come without its compiled files (measured: 0.2 s of each
start).

Invariants: the same inputs make the same bytes; the code's user is nobody special and owns nothing.
"""

import hashlib
import io
import tarfile
from pathlib import Path
from typing import Final

import msgspec

from runtara.protocol.api import Registration
from runtara.protocol.errors import InvalidTarget
from runtara.protocol.images import WORKFLOWS_LABEL
from runtara.sdk import check

from .wheel import sdk_wheel

BASE_LABEL: Final = "dev.runtara.base"
USER: Final = 65532  # as "nonroot" elsewhere: neither root nor anybody of the host's
INDEX_ARGUMENTS: Final = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_TRUSTED_HOST")
_LIBRARY: Final = "/opt/runtara"
_PIP: Final = (
    "python3", "-m", "pip", "install", "--quiet", "--no-cache-dir", "--disable-pip-version-check",
    "--root-user-action=ignore", f"--target={_LIBRARY}",
)  # fmt: skip


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """`target` as the image calls it, `files` below `root`, with `wheelhouse` no index is asked; `base_id` is noted."""

    target: str
    root: Path
    files: list[Path]
    workflows: list[Registration]
    base: str
    base_id: str
    wheelhouse: Path | None = None
    requirements: Path | None = None
    index_arguments: list[str] = []
    extras: list[str] = []  # of this library, that the code needs


def context(recipe: Recipe) -> bytes:
    """The tar, sorted and without times of its own."""
    parts = {f"app/{path.relative_to(recipe.root).as_posix()}": path.read_bytes() for path in recipe.files}
    wheels = _wheels(recipe.wheelhouse, recipe.extras)
    parts |= {f"wheels/{name}": data for name, data in wheels.items()}
    parts["wheels/requirements.txt"] = _requirements(recipe.requirements, wheels, recipe.extras)
    parts["Dockerfile"] = dockerfile(recipe).encode()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in sorted(parts.items()):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o644
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def dockerfile(recipe: Recipe) -> str:
    offline = ["--no-index"] if recipe.wheelhouse is not None else []
    install = [*_PIP, *offline, "--find-links=/wheels", "-r", "/wheels/requirements.txt"]
    entry = ["python3", "-m", "runtara.sdk.run", recipe.target]
    compiled = ["python3", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", "/app"]
    return "\n".join(
        [
            f"FROM {recipe.base} AS build",
            *(f"ARG {name}" for name in recipe.index_arguments),
            "COPY wheels /wheels",
            f"RUN {_json(install)}",
            "COPY app /app",
            f"RUN {_json(compiled)}",
            f"FROM {recipe.base}",
            f"COPY --from=build {_LIBRARY} {_LIBRARY}",
            "COPY --from=build /app /app",
            f"ENV PYTHONPATH={_LIBRARY} PYTHONUNBUFFERED=1",
            "WORKDIR /app",
            f"RUN {_json([*entry, check.FLAG])}",
            "ENV PYTHONDONTWRITEBYTECODE=1",
            f"USER {USER}:{USER}",
            f"LABEL {' '.join(_labels(recipe))}",
            f"ENTRYPOINT {_json(entry)}",
            "",
        ]
    )


def included(root: Path, paths: list[Path]) -> list[Path]:
    """The files that `paths` name, below `root`. Raises `InvalidTarget` for what is not there or lies elsewhere."""
    files: list[Path] = []
    for path in paths:
        whole = path.resolve()
        if not whole.is_relative_to(root) or not whole.exists():
            raise InvalidTarget(target=str(path), reason=f"it is no file or folder below {root}")
        inside = sorted(whole.rglob("*")) if whole.is_dir() else [whole]
        files += [file for file in inside if file.is_file() and "__pycache__" not in file.parts]
    return files


def _wheels(wheelhouse: Path | None, extras: list[str]) -> dict[str, bytes]:
    """Those of the folder, and our own unless it has one."""
    found = sorted(wheelhouse.glob("*.whl")) if wheelhouse is not None else []
    wheels = {path.name: path.read_bytes() for path in found}
    if not any(name.startswith("runtara-") for name in wheels):
        name, data = sdk_wheel(extras)
        wheels[name] = data
    return wheels


def _requirements(file: Path | None, wheels: dict[str, bytes], extras: list[str]) -> bytes:
    """The user's, and our wheel: with its hash if the others have theirs, since pip wants all or none."""
    text = file.read_text() if file is not None else ""
    own = next(name for name in sorted(wheels) if name.startswith("runtara-"))
    pinned = f" --hash=sha256:{hashlib.sha256(wheels[own]).hexdigest()}" if "--hash=" in text else ""
    wanted = f"[{','.join(extras)}]" if extras else ""
    return f"{text.rstrip()}\n/wheels/{own}{wanted}{pinned}\n".lstrip().encode()


def _labels(recipe: Recipe) -> list[str]:
    labels = {
        BASE_LABEL: f"{recipe.base} {recipe.base_id}",
        WORKFLOWS_LABEL: msgspec.json.encode(recipe.workflows).decode(),
    }
    return [f"{_quoted(name)}={_quoted(value)}" for name, value in labels.items()]


def _json(words: list[str]) -> str:
    return msgspec.json.encode(words).decode()


def _quoted(text: str) -> str:
    """A word of a Dockerfile, which substitutes variables even in quotes."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$") + '"'
