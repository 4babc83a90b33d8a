"""The file of parameters that a graph writes is read by ROS with the same values and types."""

from __future__ import annotations

import pytest

from wm_nodes.graphs.graph import NodeSpec
from wm_nodes.graphs.launch.parameters import write_parameters

rclpy = pytest.importorskip("rclpy")

TEXTS = [
    *("0483", "0123", "12E5", "1e3", "0x1F", "1.", ".5", "+1", "1_000", "1:30", "2026-01-01"),
    *("nan", ".nan", "inf", "-.inf", "true", "yes", "off", "y", "null", "~", "", " ", "-", "- a"),
    *("a: b", "#x", "a #b", "@", "%q", "!x", "&a", "*a", "'a'", '"a"', "a\\b", "ä", "x" * 300),
]
VALUES = {"whole": 3, "float": 3.0, "tiny": 1e-05, "huge": 1e22, "true": True, "texts": TEXTS}


def test_text_stays_text_and_numbers_keep_their_type(tmp_path) -> None:
    parameters = {**{f"text{i}": text for i, text in enumerate(TEXTS)}, **VALUES}
    file = write_parameters(tmp_path, NodeSpec("reader", "reader", lambda values: parameters), {})
    context = rclpy.Context()
    rclpy.init(args=["reader", "--ros-args", "--params-file", str(file)], context=context)
    node = rclpy.create_node("reader", context=context)
    loaded = {name: override.value for name, override in node._parameter_overrides.items()}
    node.destroy_node()
    rclpy.shutdown(context=context)
    assert loaded == parameters
    assert {name: type(loaded[name]) for name in parameters} == {
        k: type(v) for k, v in parameters.items()
    }
