"""What an image can be built from."""

from typing import Any

import pytest

from runtara.protocol.errors import InvalidTarget
from runtara.runner.images.build import Order, build


def test_a_json_workflow_is_no_target_of_an_image() -> None:
    engine: Any = None  # it is not asked
    with pytest.raises(InvalidTarget, match="an image holds Python only"):
        build(engine, Order(target="flow.json", tag="flow:1"), print)
