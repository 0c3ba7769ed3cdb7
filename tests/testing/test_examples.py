"""The examples that wait are crash safe, and take no time under the test clock."""

import importlib.util
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from runtara.sdk.client import Handle
from runtara.sdk.testing import MemoryPlatform, assert_crash_safe

EXAMPLES = Path(__file__).parents[2] / "examples"


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


async def test_onboarding_sleeps_for_three_days_and_waits_for_three_more_in_no_time() -> None:
    onboarding = example("onboarding")
    async with MemoryPlatform() as platform:
        handle = await platform.start(onboarding.onboarding, email="ada@example.com")
        assert await handle.result() == ["Welcome!", "Your profile is still empty"]
        assert platform.now == datetime(2026, 1, 7, tzinfo=UTC)


async def test_a_profile_that_is_completed_in_time_is_thanked_for() -> None:
    onboarding = example("onboarding")
    async with MemoryPlatform() as platform:
        handle = await platform.start(onboarding.onboarding, email="ada@example.com", id="ada")
        await platform.signal("ada", "profile-completed")
        assert await handle.result() == ["Welcome!", "Thank you for your profile"]


@pytest.mark.parametrize("is_signalled", [False, True])
async def test_onboarding_is_crash_safe(*, is_signalled: bool) -> None:
    onboarding = example("onboarding")

    async def drive(platform: MemoryPlatform, handle: Handle[Any]) -> None:
        if is_signalled:
            await platform.signal(handle.id, "profile-completed")

    await assert_crash_safe(onboarding.onboarding, email="a@b.c", effects=[onboarding.send], drive=drive)


async def test_an_approval_is_crash_safe() -> None:
    approval = example("approval")

    async def drive(platform: MemoryPlatform, handle: Handle[Any]) -> None:
        await platform.signal(handle.id, "decision", {"approved": True, "by": "ann"})

    report = await assert_crash_safe(
        approval.approval, amount=12.5, effects=[approval.ask, approval.pay_out], drive=drive
    )
    assert report.result == "paid 12.5, approved by ann"


async def test_children_are_crash_safe() -> None:
    children = example("children")
    report = await assert_crash_safe(
        children.report, regions=["north", "atlantis"], effects=[children.count], hosts=[children.region]
    )
    assert report.result["north"] == 500
    assert "there is no such region" in report.result["atlantis"]
