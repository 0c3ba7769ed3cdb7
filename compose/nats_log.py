"""Makes what the embedded NATS server writes about forbidden publishes and subscriptions visible in our own log.

The server tells it to nobody else: not to the system account, only to the client that tried. Each attempt is counted;
one line a second and user is logged. Reading starts at the end of the server's log, and begins anew with a new file.
"""

import asyncio
import os
import re
import time
from collections import Counter
from pathlib import Path
from typing import Final

from runtara.infra.logs import logger

log = logger("compose")

LOOK_SECONDS: Final = 0.5
EVERY_SECONDS: Final = 1.0
MAX_READ_BYTES: Final = 4 * 1024 * 1024  # of one look; what a flood writes beyond is skipped
MAX_REMEMBERED: Final = 10_000
_LINE: Final = re.compile(
    r'"(?P<account>[A-Z0-9]{56})/(?P<label>[^"]*?)(?:/jwt:(?P<user>U[A-Z0-9]{55}))?" - '
    r'(?P<what>Publish|Subscription) Violation - .*?Subject "(?P<subject>[^"]*)"'
)


class Violations:
    """Of the server whose log is `file`. `counts`: public key of the user → attempts."""

    def __init__(self, file: Path) -> None:
        self.counts: Counter[str] = Counter()
        self._file = file
        self._at = _size(file)
        self._rest = b""
        self._said: dict[str, float] = {}

    async def run(self) -> None:
        while True:
            self.look()
            await asyncio.sleep(LOOK_SECONDS)

    def look(self) -> None:
        """Take in what was written since the last look."""
        size = _size(self._file)
        if size < self._at:
            self._at, self._rest = 0, b""
        if size - self._at > MAX_READ_BYTES:
            log.warning("server_log_skipped", bytes=size - self._at - MAX_READ_BYTES)
            self._at, self._rest = size - MAX_READ_BYTES, b""
        if size == self._at:
            return
        with self._file.open("rb") as file:
            file.seek(self._at)
            data = self._rest + file.read(size - self._at)
        self._at = size
        *lines, self._rest = data.split(b"\n")
        for line in lines:
            found = _LINE.search(line.decode(errors="replace"))
            if found is not None:
                self._on_violation(found)

    def _on_violation(self, found: "re.Match[str]") -> None:
        user = found["user"] or found["account"]
        self.counts[user] += 1
        now = time.monotonic()
        if now - self._said.get(user, -EVERY_SECONDS) < EVERY_SECONDS:
            return
        if len(self._said) >= MAX_REMEMBERED:
            self._said.clear()
        self._said[user] = now
        log.warning(
            "permission_violation", what=found["what"].lower(), subject=found["subject"], account=found["label"],
            public_key=user, attempts=self.counts[user],
        )  # fmt: skip


def _size(file: Path) -> int:
    try:
        return os.stat(file).st_size
    except FileNotFoundError:
        return 0
