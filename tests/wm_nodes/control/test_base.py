"""A control loop has every part that the robot node calls."""

from __future__ import annotations

import pytest

from wm_nodes.control.base import Control

PARTS = ("start", "stop", "tick", "accept", "request", "estop")


@pytest.mark.parametrize("missing", PARTS)
def test_a_loop_without_one_of_its_parts_cannot_be_made(missing) -> None:
    parts = {name: lambda self: None for name in PARTS}
    type("Whole", (Control,), parts)()
    del parts[missing]
    with pytest.raises(TypeError, match=missing):
        type("Part", (Control,), parts)()
