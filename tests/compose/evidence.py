"""An instance of `tally`, what it has left in its file, and what the platform says of it."""

import json

from tests.support.polling import eventually
from tests.support.stack import UP_SECONDS, Stack

STEPS = 400  # some 25 seconds


class Tally:
    def __init__(self, stack: Stack, id: str) -> None:
        self._stack = stack
        self.id = id
        self.file = stack.folder / f"{id}.txt"

    def start(self) -> bool:
        given = json.dumps({"file": str(self.file), "steps": STEPS})
        return self._stack.run("start", "tally", "--id", self.id, "--input", given).returncode == 0

    def lines(self) -> list[str]:
        return self.file.read_text().splitlines() if self.file.exists() else []

    def done(self) -> int:
        return len(self.lines())

    async def finish(self, *, attempts: int, repeated: int | None = None) -> list[str]:
        """Until it has completed: each step has one result, which is what a step that was done has returned.

        Only a step in flight may have been done again, one for each attempt after the first, or `repeated`.
        """
        before = self.lines()
        assert len(before) < STEPS, "it was over before the fault"

        def completed() -> str:
            return self._stack.run("result", self.id, "--timeout", "20", "--json").stdout

        result: list[str] = json.loads(await eventually(completed, within=UP_SECONDS))["result"]
        lines = self.lines()
        assert [int(token.split()[0]) for token in result] == list(range(STEPS))
        assert set(result) <= set(lines)
        assert len(lines) - STEPS <= (attempts - 1 if repeated is None else repeated)
        return result
