"""An instance of `tally`, what it has left in its file, and what the platform says of it."""

import json
from pathlib import Path

from tests.support.polling import eventually
from tests.support.stack import UP_SECONDS, Stack

MORE = 20  # steps that are seen to be done after a fault


class Tally:
    def __init__(self, stack: Stack, id: str) -> None:
        self._stack = stack
        self.id = id
        self.file = stack.folder / f"{id}.txt"

    def start(self) -> bool:
        given = json.dumps({"file": str(self.file)})
        return self._stack.run("start", "tally", "--id", self.id, "--input", given).returncode == 0

    def lines(self) -> list[str]:
        return self.file.read_text().splitlines() if self.file.exists() else []

    def done(self) -> int:
        return len(self.lines())

    async def finish(self, *, repeated: int) -> list[str]:
        """Until it has gone on and completed; its result: for each step what doing it has returned.

        `repeated`: how many may have been done once more.
        """
        before = self.done()
        await eventually(lambda: self.done() >= before + repeated + MORE, within=UP_SECONDS, what="more steps")
        Path(f"{self.file}.enough").touch()

        def completed() -> str:
            return self._stack.run("result", self.id, "--timeout", "20", "--json").stdout

        result: list[str] = json.loads(await eventually(completed, within=UP_SECONDS))["result"]
        lines = self.lines()
        assert [int(token.split()[0]) for token in result] == list(range(len(result)))
        assert set(result) <= set(lines)
        assert len(lines) - len(result) <= repeated
        return result
