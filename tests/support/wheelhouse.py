"""A folder with the wheels that images are built from, as `requirements.lock` pins them: no build asks an index.

    python -m tests.support.wheelhouse [EXTRA…]     makes it, prints where it is

Kept beside the environment's packages and made again when the lock or the extras change.
"""

import hashlib
import importlib.metadata
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from .turns import turn

LOCK: Final = Path(__file__).parents[2] / "requirements.lock"
_BLOCK: Final = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==.*(?:\n[ \t].*)*", re.MULTILINE)


def wheelhouse(*extras: str) -> Path:
    """With all that the project needs with these extras, the project itself left out."""
    names = set(_closure("runtara", frozenset(extras)))
    blocks = [block[0] for block in _BLOCK.finditer(LOCK.read_text()) if _plain(block["name"]) in names]
    text = "\n".join(blocks) + "\n"
    folder = Path(sys.prefix, f"wheelhouse-{hashlib.sha256(text.encode()).hexdigest()[:16]}")
    with turn("wheels"):
        if not folder.exists():
            _fill(folder, text)
    return folder


def downloads(lock: Path, *more: str) -> Path:
    """With exactly what a lock names, as its hashes want it, and some packages besides (what a build needs)."""
    digest = hashlib.sha256(lock.read_bytes() + repr(more).encode()).hexdigest()[:16]
    folder = Path(sys.prefix, f"downloads-{digest}")
    with turn("wheels"):
        if not folder.exists():
            _download(folder, lock, more)
    return folder


def _download(folder: Path, lock: Path, more: Sequence[str]) -> None:
    unfinished = folder.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(unfinished)]
    subprocess.run([*command, "--require-hashes", "-r", str(lock)], check=True)
    for package in more:
        subprocess.run([*command, package], check=True)
    unfinished.rename(folder)


def _fill(folder: Path, requirements: str) -> None:
    unfinished = folder.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    (unfinished / "requirements.txt").write_text(requirements)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--require-hashes", "--wheel-dir"]
    subprocess.run([*command, str(unfinished), "-r", str(unfinished / "requirements.txt")], check=True)
    unfinished.rename(folder)


def _closure(name: str, extras: frozenset[str]) -> Iterator[str]:
    """The names of everything that a package needs with these extras, as this environment has it."""
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting = [(name, extras)]
    while waiting:
        name, extras = waiting.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        yield name
        for line in importlib.metadata.requires(name) or ():
            requirement = re.match(r"([A-Za-z0-9._-]+)(?:\[([^\]]*)\])?", line)
            wanted = re.search(r"extra == ['\"]([^'\"]+)['\"]", line)
            if requirement is None or (wanted is not None and wanted[1] not in extras):
                continue
            if not _is_installed(requirement[1]):  # for another platform, say
                continue
            inner = frozenset((requirement[2] or "").replace(" ", "").split(",")) - {""}
            waiting.append((_plain(requirement[1]), inner))


def _is_installed(name: str) -> bool:
    try:
        importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def main() -> None:
    sys.stdout.write(f"{wheelhouse(*sys.argv[1:])}\n")


if __name__ == "__main__":
    main()
