"""As whom a server runs. Postgres refuses to run as root, so root has to become somebody.

`nobody` is the first choice. Where `nobody` cannot reach the data or the programs (a home folder is 0700), a user
namespace in which root *appears* as `nobody` is the second. Which one works is found out by running the program,
not by reading modes. Invariant: ownership changes only below the folder given, which is ours; no mode is ever changed.
"""

import asyncio
import json
import os
import pwd
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from runtara.protocol.errors import ServerFailed

from . import launch

_NOBODY: Final = 65534
_ENVIRONMENT: Final = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}  # no PGDATA, no PGHOST, nothing of ours


@dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """A user to run as: our own (no numbers), another one, or one in a namespace of its own."""

    uid: int | None = None
    gid: int | None = None
    map_uid: int | None = None

    def command(
        self,
        program: Sequence[str | Path],
        *,
        folder: Path,
        death_signal: signal.Signals,
        environment: Mapping[str, str] = _ENVIRONMENT,
    ) -> list[str]:
        """The command line that runs `program` in `folder` as this user, ending with this process."""
        user = {name: getattr(self, name) for name in ("uid", "gid", "map_uid")}
        order = {
            "parent": os.getpid(),
            "death_signal": int(death_signal),
            "folder": str(folder),
            "environment": dict(environment),
            **{name: number for name, number in user.items() if number is not None},
        }
        return [sys.executable, "-I", "-S", launch.__file__, json.dumps(order), *map(str, program)]

    def give(self, folder: Path) -> None:
        """Make this user the owner of `folder` and of all that is in it."""
        if os.geteuid() != 0:
            return
        uid, gid = self.uid or 0, self.gid or 0
        if _owned(folder, uid) and all(_owned(child, uid) for child in folder.iterdir()):
            return
        for path, folders, files in os.walk(folder):
            for name in ("", *folders, *files):
                os.chown(Path(path, name), uid, gid, follow_symlinks=False)


OURSELVES: Final = Identity()


async def choose(program: Path, folder: Path) -> Identity:
    """An identity that may run `program` in `folder` and is not root; it then owns `folder`."""
    if os.geteuid() != 0:
        return OURSELVES
    said = []
    for identity in (_nobody(), Identity(map_uid=_NOBODY)):
        identity.give(folder)
        answer = await _try(identity, program, folder)
        if answer is None:
            return identity
        said.append(answer)
    raise ServerFailed(
        server=program.name,
        reason="it refuses to run as root, and neither `nobody` nor a user namespace can use "
        f"{folder} ({'; '.join(said)}); run as another user, or choose a folder with --data that others may enter",
    )


def _nobody() -> Identity:
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        return Identity(uid=_NOBODY, gid=_NOBODY)
    return Identity(uid=entry.pw_uid, gid=entry.pw_gid)


def _owned(path: Path, uid: int) -> bool:
    return path.lstat().st_uid == uid


async def _try(identity: Identity, program: Path, folder: Path) -> str | None:
    """None if this identity can start `program` in `folder`, else the last line of what it said."""
    process = await asyncio.create_subprocess_exec(
        *identity.command([program, "--version"], folder=folder, death_signal=signal.SIGKILL),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await process.communicate()
    if process.returncode == 0:
        return None
    lines = said.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"exit code {process.returncode}"
