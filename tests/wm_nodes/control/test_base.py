"""A control loop has every method that the robot node calls."""

from __future__ import annotations

import pytest

from wm_nodes.control.base import Control

METHODS = ("start", "stop", "tick", "accept", "request", "estop")


@pytest.mark.parametrize("missing", METHODS)
def test_a_loop_without_one_of_its_methods_cannot_be_made(missing) -> None:
    methods = {name: lambda self: None for name in METHODS}
    type("Whole", (Control,), methods)()
    del methods[missing]
    with pytest.raises(TypeError, match=missing):
        type("Part", (Control,), methods)()
