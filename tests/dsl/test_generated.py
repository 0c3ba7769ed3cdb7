"""Made-up legal workflows: what validates compiles, runs, and comes to the same whenever its process dies."""

import asyncio
import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, assume, given, settings

from runtara.agents.registry import registry
from runtara.dsl.compiler import compile_workflow
from runtara.dsl.load import graph_of, load_workflow
from runtara.dsl.problems import errors
from runtara.dsl.validate import validate
from runtara.sdk.testing import assert_crash_safe
from runtara.sdk.testing.effects import Effects
from tests.support.documents import CHILDREN, inputs, workflows
from tests.support.shop_agent import shop_registry

EFFECTS: Final = Effects()
SLOWLY: Final = [HealthCheck.too_slow, HealthCheck.data_too_large]


@contextmanager
def noted_shop() -> Iterator[None]:
    """The shop in this process's registry; its calls are noted."""
    shop = shop_registry().agent("shop")
    noted = {
        id: dataclasses.replace(one, function=EFFECTS.at_least_once(one.function))
        for id, one in shop.capabilities.items()
    }
    registry()._loaded["shop"] = dataclasses.replace(shop, capabilities=noted)
    yield
    del registry()._loaded["shop"]


@pytest.fixture(autouse=True)
def _shop() -> Iterator[None]:
    with noted_shop():
        yield


@given(document=workflows(max_steps=30))
@settings(max_examples=60, deadline=None, suppress_health_check=SLOWLY)
def test_what_validates_compiles(document: dict[str, Any]) -> None:
    assume(not errors(validate(document, id="made-up", agents=registry())))
    source = compile_workflow(graph_of(document, id="made-up"), id="made-up")
    compile(source, "made-up", "exec")
    assert source == compile_workflow(graph_of(document, id="made-up"), id="made-up")
    assert max(map(len, source.splitlines())) <= 120


def crash(document: dict[str, Any], data: dict[str, Any]) -> None:
    assume(not errors(validate(document, id="made-up", agents=registry())))
    children = [load_workflow(child, id=id) for id, child in CHILDREN.items()]
    workflow = load_workflow(document, id="made-up")
    asyncio.run(assert_crash_safe(workflow, data, effects=EFFECTS, hosts=children))


@given(document=workflows(max_steps=6), data=inputs)
@settings(max_examples=12, deadline=None, suppress_health_check=SLOWLY)
def test_a_crash_at_any_record_changes_nothing(document: dict[str, Any], data: dict[str, Any]) -> None:
    crash(document, data)


@pytest.mark.slow
@given(document=workflows(max_steps=10), data=inputs)
@settings(max_examples=60, deadline=None, suppress_health_check=SLOWLY)
def test_a_crash_at_any_record_of_larger_ones_changes_nothing(document: dict[str, Any], data: dict[str, Any]) -> None:
    crash(document, data)
