"""What tests of containers stand on: whether a Docker Engine answers, and an image of this machine's own Python.

Nothing can be pulled where tests run, so the image is made of this interpreter, the libraries that it loads, the SDK
with what it needs, and a file of workflows. It is tagged by its content: made once, used until something changes.
"""

import compileall
import hashlib
import io
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

import docker
import docker.errors

ROOT: Final = Path(__file__).parents[2]
OURS: Final = ("protocol", "infra", "sdk")
PACKAGES: Final = ("nats", "nkeys", "nacl", "cffi", "msgspec", "orjson", "structlog")
_VERSION: Final = f"{sys.version_info.major}.{sys.version_info.minor}"
_SKIPPED: Final = shutil.ignore_patterns(
    "test", "tests", "idlelib", "tkinter", "_tkinter*", "turtledemo", "ensurepip", "lib2to3", "site-packages", "*.a",
    "__pycache__", "pydoc_data", "*.whl", "testing", "migrations",
)  # fmt: skip


@cache
def engine() -> Any:
    """A client of the Docker Engine; None where none answers."""
    try:
        client = docker.from_env(timeout=60)
        client.ping()
    except docker.errors.DockerException:
        return None
    return client.api


def build_image(flows: Path) -> str:
    """The tag of an image that hosts `flows`."""
    api = engine()
    tag = f"runtara-test-flows:{_digest(flows)}"
    try:
        api.inspect_image(tag)
    except docker.errors.ImageNotFound:
        with tempfile.TemporaryDirectory() as folder:
            _fill(Path(folder), flows)
            api.import_image_from_data(
                _tar(Path(folder)), repository=tag, changes=[
                    'ENTRYPOINT ["/usr/local/bin/python3", "-m", "runtara.sdk.run", "/app/flows.py"]',
                    "ENV LD_LIBRARY_PATH=/usr/local/lib", "ENV PATH=/usr/local/bin:/usr/bin:/bin",
                ]
            )  # fmt: skip
    return tag


def _digest(flows: Path) -> str:
    digest = hashlib.sha256(sys.version.encode())
    sources = [path for top in OURS for path in sorted((ROOT / top).rglob("*.py"))]
    for path in [Path(__file__), flows, *sources]:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _fill(root: Path, flows: Path) -> None:
    library = root / f"usr/local/lib/python{_VERSION}"
    shutil.copytree(sysconfig.get_path("stdlib"), library, ignore=_SKIPPED)
    binary = root / "usr/local/bin/python3"
    binary.parent.mkdir()
    shutil.copy(Path(sys.base_prefix, "bin", f"python{_VERSION}"), binary)
    site = library / "site-packages"
    installed = Path(sysconfig.get_path("purelib"))
    for name in PACKAGES:
        for found in [*installed.glob(f"{name}*"), *installed.glob(f"_{name}*")]:
            (shutil.copytree if found.is_dir() else shutil.copy)(found, site / found.name)
    for name in OURS:
        shutil.copytree(ROOT / name, site / "runtara" / name, ignore=_SKIPPED)
    (root / "app").mkdir()
    shutil.copy(flows, root / "app/flows.py")
    (root / "tmp").mkdir()
    (root / "etc").mkdir()
    (root / "etc/passwd").write_text("nonroot:x:65532:65532::/tmp:/bin/false\n")
    _add_libraries(root)
    compileall.compile_dir(root, quiet=2, stripdir=str(root))


def _add_libraries(root: Path) -> None:
    binaries = [root / "usr/local/bin/python3", *root.rglob("*.so")]
    for library in {found for binary in binaries for found in _libraries_of(binary)}:
        is_loader = "ld-linux" in library.name
        target = root / (str(library).lstrip("/") if is_loader else f"usr/local/lib/{library.name}")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library.resolve(), target)


def _libraries_of(binary: Path) -> Iterator[Path]:
    listed = subprocess.run(["ldd", str(binary)], capture_output=True, text=True, check=False).stdout
    for found in re.findall(r"(?:=> )?(/\S+) \(0x", listed):
        yield Path(found)


def _tar(root: Path) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.add(root, arcname=".", filter=_of_root)
    return buffer.getvalue()


def _of_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    if member.isdir():
        member.mode = 0o1777 if member.name == "./tmp" else 0o755
    return member
