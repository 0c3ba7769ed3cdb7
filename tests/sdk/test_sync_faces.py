"""The blocking faces are what the generator makes of the async source, and work in threads."""

import inspect

import pytest

from runtara.protocol.errors import WrongColour
from runtara.sdk import Context, sync, workflow
from runtara.sdk.sync.generate import FACES, Source, generate, target
from tests.support.outlet import run


@pytest.mark.parametrize("source", FACES, ids=lambda source: source.module)
def test_the_committed_faces_are_what_the_generator_makes(source: Source) -> None:
    assert target(source).read_text() == generate(source), "run `python -m runtara.sdk.sync.generate`"


def test_every_public_name_of_the_context_has_a_blocking_twin() -> None:
    names = {name for name in vars(Context) if not name.startswith("_")}
    assert names <= {name for name in dir(sync.Context) if not name.startswith("_")}
    assert not any(inspect.iscoroutinefunction(getattr(sync.Context, name)) for name in names)


async def test_a_blocking_face_refuses_to_block_the_loop() -> None:
    @workflow
    async def wrong(ctx: Context) -> str:
        with pytest.raises(WrongColour):
            sync.current().checkpoint("a", 1)
        return await ctx.run_in_thread(lambda: sync.current().checkpoint("a", "b").state)

    outlet = await run(wrong)
    assert (outlet.result, outlet.keys) == ("b", ["a"])
