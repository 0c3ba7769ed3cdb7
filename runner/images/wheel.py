"""The part of this library that runs workflows, as a wheel: made of what is installed here, so that an image gets the
very code that built it, and needs no index for it. With the extra `agents` these and the JSON language are in it, too.

Invariant: the same code makes the same bytes.
"""

import base64
import hashlib
import importlib
import importlib.metadata
import io
import zipfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

PACKAGES: Final = ("protocol", "infra", "sdk")  # all that `runtara.sdk` imports
_MORE: Final = {"agents": ("agents", "dsl")}  # by extra
_SUFFIXES: Final = (".py", ".typed")
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)
_WHEEL: Final = "Wheel-Version: 1.0\nGenerator: runtara\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def sdk_wheel(extras: Collection[str] = ()) -> tuple[str, bytes]:
    """Its file name and content."""
    distribution = importlib.metadata.distribution("runtara")
    info = f"runtara-{distribution.version}.dist-info"
    files = dict(_files((*PACKAGES, *(package for extra in extras for package in _MORE[extra]))))
    files[f"{info}/METADATA"] = (distribution.read_text("METADATA") or "").encode()
    files[f"{info}/WHEEL"] = _WHEEL.encode()
    record = [f"{name},sha256={_digest(data)},{len(data)}" for name, data in files.items()]
    files[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,", ""]).encode()
    return f"runtara-{distribution.version}-py3-none-any.whl", _zipped(files)


def _files(packages: Collection[str]) -> Iterator[tuple[str, bytes]]:
    for package in packages:
        (folder,) = importlib.import_module(f"runtara.{package}").__path__
        for path in sorted(Path(folder).rglob("*")):
            if path.suffix in _SUFFIXES and path.is_file():
                yield f"runtara/{package}/{path.relative_to(folder).as_posix()}", path.read_bytes()


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def _zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), data, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()
