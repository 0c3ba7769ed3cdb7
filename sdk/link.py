"""A worker's line to the supervisor that started it: what it hosts, so that an exit is answered at once.

A socket inherited at start. The worker writes lines: `ready <worker> <workflow>…`, `+<instance> <attempt>`
before user code of that attempt runs, `-<instance> <attempt>` after its last record is acknowledged, `replace` when
code in it does not end and the process has to. The supervisor writes nothing: the end of the stream tells the worker
that its supervisor is gone.

Invariant: a line is written before the loop runs anything that was scheduled after it, so code that kills its
process at its first statement is known to have run. Lines are written whole, from whatever thread.
"""

import asyncio
import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

MAX_BUFFER_BYTES: Final = 4 * 1024 * 1024  # a supervisor that does not read loses lines; leases cover for them
READY: Final = "ready"
REPLACE: Final = "replace"


class Link:
    """The worker's end. Without a supervisor (`fd` is None) all of it does nothing."""

    def __init__(self, fd: int | None, *, on_lost: Callable[[], None] | None = None) -> None:
        self._fd = fd
        self._on_lost = on_lost
        self._lines: deque[str] = deque()
        self._unsent = b""
        self._loop = asyncio.get_running_loop()
        self._scheduled = False
        self._writing = threading.Lock()
        if fd is not None:
            os.set_blocking(fd, False)
            self._loop.add_reader(fd, self._on_readable)

    def ready(self, worker: str, workflows: Iterable[str]) -> None:
        self._write(" ".join([READY, worker, *workflows]))

    def hosts(self, instance: str, attempt: int) -> None:
        self._write(f"+{instance} {attempt}")

    def left(self, instance: str, attempt: int) -> None:
        if self._fd is not None:
            self._lines.append(f"-{instance} {attempt}")  # goes with the next batch: nobody waits for it
            if len(self._lines) >= 64:
                self._schedule()

    def replace(self) -> bool:
        """Ask for another process in the place of this one; False if nobody is there to ask. From any thread."""
        if self._fd is None:
            return False
        self._lines.append(REPLACE)
        return self._send()

    def flush(self) -> None:
        """Write what is buffered, as far as the supervisor reads."""
        self._scheduled = False
        if self._fd is not None and (self._lines or self._unsent) and not self._send():
            self._lose()

    def _send(self) -> bool:
        """False if nobody is at the other end."""
        with self._writing:
            lines = [self._lines.popleft() for _ in range(len(self._lines))]
            data = self._unsent + "".join(f"{line}\n" for line in lines).encode()
            try:
                sent = os.write(self._fd, data) if self._fd is not None else len(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                return False
            self._unsent = data[sent:] if len(data) - sent <= MAX_BUFFER_BYTES else b""
            return True

    def close(self) -> None:
        if self._fd is None:
            return
        self.flush()
        self._loop.remove_reader(self._fd)
        with contextlib.suppress(OSError):
            os.close(self._fd)
        self._fd = None

    def _write(self, line: str) -> None:
        if self._fd is not None:
            self._lines.append(line)
            self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self.flush)

    def _on_readable(self) -> None:
        if self._fd is None:
            return
        try:
            data = os.read(self._fd, 4_096)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._lose()

    def _lose(self) -> None:
        if self._fd is None:
            return
        fd, self._fd = self._fd, None
        self._loop.remove_reader(fd)
        with contextlib.suppress(OSError):
            os.close(fd)
        if self._on_lost is not None:
            self._on_lost()
