"""Back-up and restore of the compose stack by the very commands that docs/operations.md shows."""

import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtara.runner.images.docker_engine import DockerEngine
from tests.compose.evidence import Tally
from tests.compose.page import commands
from tests.support.images import docker_engine
from tests.support.polling import eventually
from tests.support.stack import UP_SECONDS, Stack, end, ensure_images

__all__ = ["docker_engine"]

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def stack(docker_engine: DockerEngine, tmp_path: Path) -> Iterator[Stack]:
    images = ensure_images(docker_engine)
    stack = Stack(tmp_path, images)
    shutil.copy(Path(__file__).with_name("tally.py"), stack.folder)
    try:
        stack.up()
        yield stack
    finally:
        stack.down()


def accept(stack: Stack, line: str) -> None:
    """Type the command, and Ctrl-C when it says that it is ready."""
    words = line.partition("#")[0].split()
    assert words[:2] == ["docker", "compose"]
    engine = subprocess.Popen(stack.command(*words[2:]), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert engine.stdout is not None
    while "ready engine" not in (said := engine.stdout.readline()):
        assert said, "it ended"
    engine.send_signal(signal.SIGINT)
    engine.communicate(timeout=60)


async def backed_up_and_destroyed(stack: Stack, tally: Tally) -> tuple[list[str], list[str]]:
    """What was done before Postgres was backed up, and before the journal was; both while work goes on."""
    await eventually(stack.has_credentials, within=UP_SECONDS)
    worker = stack.worker("tally.py")
    try:
        assert await eventually(tally.start, within=60)
        await eventually(lambda: tally.done() > 20, within=60, what="some steps")
        in_dump = tally.lines()
        stack.shell(commands("back up keys and database"))
        await eventually(lambda: tally.done() > len(in_dump) + 10, within=60, what="steps that the dump lacks")
        in_journal = tally.lines()
        stack.shell(commands("back up journal"))
    finally:
        end(worker)
    stack.down()
    return in_dump, in_journal


async def goes_on(stack: Stack, tally: Tally, kept: list[str]) -> None:
    """`kept` was recorded, but for the step in flight; credentials that were issued before are still good."""
    done_before = tally.done()
    worker = stack.worker("tally.py")
    try:
        result = await tally.finish(repeated=done_before - len(kept) + 1)
    finally:
        end(worker)
    assert result[: len(kept) - 1] == kept[:-1]
    for verdict in ("verify", "replay"):
        told = stack.operator("audit", verdict)
        assert told.returncode == 0, told.stdout + told.stderr


async def test_with_a_copy_of_the_journal_what_the_database_lacks_is_folded_again(stack: Stack) -> None:
    tally = Tally(stack, "o-1")
    _, in_journal = await backed_up_and_destroyed(stack, tally)
    stack.shell(commands("restore keys and database"))
    stack.shell(commands("restore journal"))
    stack.up()
    await eventually(lambda: stack.run("info").returncode == 0, within=UP_SECONDS)
    await goes_on(stack, tally, in_journal)


async def test_without_the_journal_its_loss_is_refused_until_it_is_accepted(stack: Stack) -> None:
    tally = Tally(stack, "o-1")
    in_dump, _ = await backed_up_and_destroyed(stack, tally)
    stack.shell(commands("restore keys and database"))
    *before, adopt, after = commands("accept the loss").splitlines()
    stack.shell("\n".join(before))

    def is_refused() -> bool:
        refused = stack.operator("migrate")
        return refused.returncode != 0 and "does not exist any more" in refused.stderr

    await eventually(is_refused, within=60)
    accept(stack, adopt)
    stack.shell(f"{after} --no-build")
    await eventually(lambda: stack.run("info").returncode == 0, within=UP_SECONDS)
    await goes_on(stack, tally, in_dump)
