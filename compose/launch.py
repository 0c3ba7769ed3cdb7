"""Becomes another program, as another user, that ends with its parent.

Run as a script of its own, `python -I -S launch.py ORDER PROGRAM ARGUMENT…`, and not as code between fork and
exec, because our processes have threads. Uses the standard library only. The order of the steps matters: the
kernel forgets the death signal whenever the user changes, so it is asked for last.

ORDER is a JSON object: `parent` (pid), `death_signal`, `folder` (to run in), `environment` (the program's; ours is
what this Python may need to run at all), and for another user either `uid` and `gid`, or `map_uid`: a user namespace
of our own in which we are that user, for when no other user can reach the folder.
"""

import ctypes
import json
import os
import sys
from typing import Any, Final

_PR_SET_PDEATHSIG: Final = 1
_CLONE_NEWUSER: Final = 0x10000000


def main() -> None:
    order: dict[str, Any] = json.loads(sys.argv[1])
    program = sys.argv[2:]
    _become(order)
    os.chdir(order["folder"])
    os.umask(0o077)
    _end_with(parent=order["parent"], death_signal=order["death_signal"])
    os.execve(program[0], program, order["environment"])


def _become(order: dict[str, Any]) -> None:
    if "uid" in order:
        os.setgroups([])
        os.setgid(order["gid"])
        os.setuid(order["uid"])
    elif "map_uid" in order:
        _become_inside(order["map_uid"])


def _become_inside(inside: int) -> None:
    uid, gid = os.geteuid(), os.getegid()
    _libc("unshare", _CLONE_NEWUSER)
    _write("/proc/self/setgroups", "deny")
    _write("/proc/self/uid_map", f"{inside} {uid} 1")
    _write("/proc/self/gid_map", f"{inside} {gid} 1")


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def _end_with(*, parent: int, death_signal: int) -> None:
    if sys.platform != "linux":
        return  # what a crash leaves behind elsewhere is ended by the next start
    _libc("prctl", _PR_SET_PDEATHSIG, death_signal)
    if os.getppid() != parent:
        sys.exit("the parent died before its child had started")


def _libc(function: str, *arguments: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, function)(*(ctypes.c_ulong(argument) for argument in arguments)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{function}: {os.strerror(number)}")


if __name__ == "__main__":
    main()
