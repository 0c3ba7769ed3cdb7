"""A root file system made of this machine's own programs, for an image where none can be pulled.

Invariants: a program comes with all that it loads; the same inputs make the same bytes (sorted, one owner, the files'
own times), and `digest` says whether they changed without reading them.
"""

import hashlib
import io
import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

_MERGED: Final = ("bin", "sbin", "lib", "lib64", "lib32")  # each a link into usr
_SYSTEM_LIBRARIES: Final = ("/lib/", "/lib64/", "/usr/lib/", "/usr/lib64/")
LOCAL_LIBRARIES: Final = "/usr/local/lib"
_ACCOUNTS: Final = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}
_CERTIFICATES: Final = Path("/etc/ssl/certs/ca-certificates.crt")


class RootFs:
    """What goes into the image, by its path there."""

    def __init__(self) -> None:
        self._files: dict[str, Path] = {}
        self._links: dict[str, str] = {name: f"usr/{name}" for name in _MERGED}
        self._texts: dict[str, str] = dict(_ACCOUNTS)
        self._folders: dict[str, int] = {"tmp": 0o1777, "root": 0o700, "run": 0o755, "var/tmp": 0o1777}
        self.has_local_libraries = False
        if _CERTIFICATES.exists():
            self.file(_CERTIFICATES, str(_CERTIFICATES))

    def file(self, source: Path, target: str) -> None:
        self._files[_merged(target)] = source.resolve()

    def folder(self, target: str, mode: int) -> None:
        self._folders[target] = mode

    def link(self, target: str, to: str) -> None:
        self._links[_merged(target)] = to

    def tree(self, source: Path, target: str, *, without: tuple[str, ...] = ()) -> None:
        """A folder, without what is named like one of these."""
        for folder, names, files in os.walk(source):
            names[:] = sorted(name for name in names if name not in without)
            for name in sorted(files):
                inside = Path(folder, name).relative_to(source)
                if name not in without and Path(folder, name).exists():
                    self.file(Path(folder, name), f"{target}/{inside}")

    def program(self, source: Path, target: str) -> None:
        """A program, and every library that it loads."""
        self.file(source, target)
        self.libraries_of(source)

    def tools(self, *names: str) -> None:
        """Programs of this machine, if it has them."""
        for name in names:
            found = shutil.which(name)
            if found is not None:
                self.program(Path(found), f"/usr/bin/{name}")

    def libraries_of(self, *binaries: Path) -> None:
        """Where a loader looks for them; what lies elsewhere here goes to `LOCAL_LIBRARIES`."""
        for library in sorted({found for binary in binaries for found in _loaded_by(binary)}):
            if library.startswith(_SYSTEM_LIBRARIES):
                self.file(Path(library), library)
            else:
                self.file(Path(library), f"{LOCAL_LIBRARIES}/{Path(library).name}")
                self.has_local_libraries = True

    def digest(self, *more: str) -> str:
        """Of names, sizes and times of all files."""
        stats = ((target, source.stat()) for target, source in sorted(self._files.items()))
        known = [(target, stat.st_size, stat.st_mtime_ns, stat.st_mode) for target, stat in stats]
        text = repr((known, sorted(self._links.items()), sorted(self._texts.items()), more))
        return hashlib.sha256(text.encode()).hexdigest()

    def tar(self) -> bytes:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            for target, mode in sorted(self._folders.items()):
                archive.addfile(_entry(target, tarfile.DIRTYPE, mode))
            for target, to in sorted(self._links.items()):
                entry = _entry(target, tarfile.SYMTYPE, 0o777)
                entry.linkname = to
                archive.addfile(entry)
            for target, text in sorted(self._texts.items()):
                entry = _entry(target, tarfile.REGTYPE, 0o644)
                entry.size = len(text)
                archive.addfile(entry, io.BytesIO(text.encode()))
            for target, source in sorted(self._files.items()):
                _add_file(archive, source, target)
        return buffer.getvalue()


def _add_file(archive: tarfile.TarFile, source: Path, target: str) -> None:
    stat = source.stat()
    entry = _entry(target, tarfile.REGTYPE, 0o755 if stat.st_mode & 0o111 else 0o644)
    entry.size, entry.mtime = stat.st_size, int(stat.st_mtime)
    with source.open("rb") as file:
        archive.addfile(entry, file)


def _entry(target: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(target)
    entry.type, entry.mode = kind, mode
    entry.uname = entry.gname = "root"
    return entry


def _merged(target: str) -> str:
    """Where a path lies when `/lib` and its like are links into `/usr`."""
    parts = PurePosixPath(target).relative_to("/").parts
    return "/".join(("usr", *parts) if parts[0] in _MERGED else parts)


def _loaded_by(binary: Path) -> Iterator[str]:
    done = subprocess.run(["ldd", str(binary)], capture_output=True, text=True, check=False)
    for line in done.stdout.splitlines():
        found = re.search(r"(?:=> )?(/\S+) \(0x", line)
        if found:
            yield found[1]
