"""The warm parent: a process that has imported the targets, and forks a child for each attempt.

`python -m runtara.runner.warm --link FD TARGET…`. A child begins where an interpreter would be after a second of
importing; it gets its limits, a session of its own and a pipe for its output, and becomes `sdk/single.py`.

Invariants: this process has no event loop, no connection and no thread of its own, so there is nothing that a fork
could tear apart; children are waited for, by pid, and signalled only until then; when the runner is gone they are asked
to hand over, and ended; when this process is killed, the kernel ends them.
"""

import argparse
import contextlib
import ctypes
import gc
import os
import resource
import select
import signal
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final, NoReturn

from runtara.infra.logs import logger
from runtara.infra.settings import Settings
from runtara.sdk.discovery import Code
from runtara.sdk.run import EXIT_USAGE, host, prepare

from .forks import Ended, Fork, Limits, NotForked, Ready, Signal, decode_to_warm, encode_line

log = logger("warm")

KIND: Final = "process"
READ_BYTES: Final = 64 * 1024
MAX_DESCRIPTORS: Final = 64  # in one read
LOOK_SECONDS: Final = 0.05  # while the last children are ended
GRACE_MARGIN_SECONDS: Final = 5.0
RSS_UNIT: Final = 1 if sys.platform == "darwin" else 1024
_PR_SET_PDEATHSIG: Final = 1
_HANDLED: Final = (signal.SIGCHLD, signal.SIGTERM)


class Warm:
    """Serves one runner, over `link`."""

    def __init__(self, settings: Settings, code: Code, link: socket.socket) -> None:
        self._settings = settings
        self._code = code
        self._link = link
        self._pid = os.getpid()
        self._children: dict[int, int] = {}  # pid → the runner's number for it
        self._pipes: deque[int] = deque()
        self._rest = b""
        self._stop = False

    def serve(self) -> None:
        """Until the runner is gone, or SIGTERM."""
        with _wake_up() as woken:
            version = self._code.version
            registrations = [w.registration(code_version=version, kind=KIND) for w in self._code.workflows]
            self._link.sendall(encode_line(Ready(registrations=registrations)))
            while not self._stop:
                ready, _, _ = select.select([self._link, woken], [], [])
                if woken in ready:
                    self._stop = signal.SIGTERM in woken.recv(READ_BYTES)
                    self._reap()
                if self._link in ready:
                    self._read()
            self._end_children()

    def _read(self) -> None:
        data, pipes, _, _ = socket.recv_fds(self._link, READ_BYTES, MAX_DESCRIPTORS)
        self._pipes.extend(pipes)
        if not data:
            self._stop = True
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            message = decode_to_warm(line)
            if isinstance(message, Signal):
                self._signal(message.id, message.number)
            else:
                self._fork(message, self._pipes.popleft())

    def _fork(self, order: Fork, pipe: int) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        try:
            pid = os.fork()
        except OSError as exc:
            os.close(pipe)
            self._say(NotForked(id=order.id, reason=f"the system has no room for another process ({exc.strerror})"))
            return
        if pid == 0:
            self._be_child(order, pipe)
        os.close(pipe)
        self._children[pid] = order.id

    def _be_child(self, order: Fork, pipe: int) -> NoReturn:
        code = 1
        try:
            self._prepare_child(order.limits, pipe)
            settings = replace(
                self._settings, instance=order.instance, attempt=order.attempt, token=order.token, worker=order.worker
            )
            code = host(settings, self._code, kind=KIND)
        except SystemExit as exc:
            code = exc.code if isinstance(exc.code, int) else 1
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def _prepare_child(self, limits: Limits, pipe: int) -> None:
        """Nothing of the parent's is the child's."""
        os.setsid()
        _die_with(self._pid)
        signal.set_wakeup_fd(-1)
        for number in (*_HANDLED, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        self._link.close()
        os.dup2(pipe, 1)
        os.dup2(pipe, 2)
        os.close(pipe)
        _limit(limits)

    def _reap(self) -> None:
        for pid in list(self._children):  # by name: targets may have children of their own
            ended, status, usage = os.wait4(pid, os.WNOHANG)
            if ended:
                ending = Ended(
                    id=self._children.pop(pid),
                    code=os.waitstatus_to_exitcode(status),
                    memory_bytes=usage.ru_maxrss * RSS_UNIT,
                    cpu_us=int((usage.ru_utime + usage.ru_stime) * 1e6),
                )
                self._say(ending)

    def _signal(self, id: int, number: int) -> None:
        for pid, known in self._children.items():
            if known == id:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, number) if number == signal.SIGKILL else os.kill(pid, number)

    def _end_children(self) -> None:
        for number, seconds in (
            (signal.SIGTERM, self._settings.drain_seconds + GRACE_MARGIN_SECONDS),
            (signal.SIGKILL, GRACE_MARGIN_SECONDS),
        ):
            deadline = time.monotonic() + seconds
            for id in list(self._children.values()):
                self._signal(id, number)
            while self._children and time.monotonic() < deadline:
                self._reap()
                time.sleep(LOOK_SECONDS)

    def _say(self, message: Ended | NotForked) -> None:
        with contextlib.suppress(OSError):  # the runner is gone: the next read says so
            self._link.sendall(encode_line(message))


@contextlib.contextmanager
def _wake_up() -> Iterator[socket.socket]:
    """A socket that gets a byte for each signal."""
    reader, writer = socket.socketpair()
    reader.setblocking(False)
    writer.setblocking(False)
    signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    for number in _HANDLED:
        signal.signal(number, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # from a terminal it is for the runner
    with reader, writer:
        yield reader


def _die_with(parent: int) -> None:
    """Where the kernel can see to it; elsewhere the lease ends what a child does after its parent's death."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


def _limit(limits: Limits) -> None:
    wanted = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_AS: limits.memory_bytes,
        resource.RLIMIT_CPU: limits.cpu_seconds,
        resource.RLIMIT_NPROC: limits.pids,
    }
    for kind, value in wanted.items():
        if value is not None:
            _, hard = resource.getrlimit(kind)
            soft = value if hard == resource.RLIM_INFINITY else min(value, hard)
            above = soft + 1 if kind == resource.RLIMIT_CPU and soft != hard else soft  # SIGXCPU first: it tells why
            resource.setrlimit(kind, (soft, above))


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until the runner is gone; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m runtara.runner.warm", description="Fork for a runner.")
    parser.add_argument("targets", metavar="TARGET", nargs="+")
    parser.add_argument("--link", type=int, metavar="FD", required=True)
    options = parser.parse_args(arguments)
    prepared = prepare(options.targets)
    if prepared is None:
        return EXIT_USAGE
    if threading.active_count() > 1:
        names = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
        log.warning("targets_start_threads", threads=names[:5], advice="a forked process has none of them")
    gc.collect()
    gc.freeze()  # so that a child's collector does not touch, and so copy, every page
    Warm(*prepared, socket.socket(fileno=options.link)).serve()
    return 0


if __name__ == "__main__":
    sys.exit(main())
