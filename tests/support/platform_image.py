"""The platform's image, built from this working tree by `compose/Dockerfile`, without a network.

python -m tests.support.platform_image [TAG]
"""

import io
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Final

from runtara.runner.images.docker_engine import DockerEngine, Found

from .base_images import PYTHON, ensure_python
from .turns import turn
from .wheelhouse import downloads

ROOT: Final = Path(__file__).parents[2]
TAG: Final = "runtara-test-platform:1"
DOCKERFILE: Final = "compose/Dockerfile"
_LEFT_OUT: Final = ("tests/", "bench/", "examples/", "docs/", ".")  # as .dockerignore does


def ensure_platform(engine: DockerEngine, tag: str = TAG) -> Found:
    """From the builder's cache, if nothing has changed."""
    ensure_python(engine)
    arguments = {"PYTHON_IMAGE": PYTHON, "PIP_NO_INDEX": "1"}
    with turn("platform-image"):
        return engine.build(_context(), tag=tag, build_args=arguments, network=False, told=lambda _: None)


def _context() -> bytes:
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    files = {name: ROOT / name for name in names if not name.startswith(_LEFT_OUT) and (ROOT / name).is_file()}
    wheels = downloads(ROOT / "compose" / "requirements.lock", "setuptools", "wheel")
    files |= {f"wheels/{path.name}": path for path in wheels.iterdir()}
    files["Dockerfile"] = ROOT / DOCKERFILE
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, path in sorted(files.items()):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = path.stat().st_size, 0o644
            with path.open("rb") as file:
                archive.addfile(entry, file)
    return buffer.getvalue()


def main() -> None:
    with DockerEngine.connect() as engine:
        found = ensure_platform(engine, *sys.argv[1:2])
        sys.stdout.write(f"{found.id} {found.size / 1e6:.1f} MB\n")


if __name__ == "__main__":
    main()
