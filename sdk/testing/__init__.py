"""Testing workflows: the platform in memory, with time that is skipped, and proof that a crash does no harm.

async def test_an_order_is_fulfilled_and_survives_any_crash() -> None:
    async with MemoryPlatform() as platform:
        handle = await platform.start(fulfil, order_ids=["a"])
        assert await handle.result() == "done"
    await assert_crash_safe(fulfil, order_ids=["a"], effects=[charge])
"""

from .crash_safety import CrashReport, NotCrashSafe, assert_crash_safe
from .effects import Effects
from .outlet import MemoryOutlet
from .platform import MemoryPlatform, Stuck

__all__ = ["CrashReport", "Effects", "MemoryOutlet", "MemoryPlatform", "NotCrashSafe", "Stuck", "assert_crash_safe"]
