"""The file of parameters that a graph writes is read by ROS as it was meant."""

from __future__ import annotations

import pytest

from wm_nodes.graphs.graph import NodeSpec
from wm_nodes.graphs.launch.parameters import write_parameters

rclpy = pytest.importorskip("rclpy")

WORDS = [
    *("0483", "0123", "12E5", "1e3", "0x1F", "1.", ".5", "+1", "1_000", "1:30", "2026-01-01"),
    *("nan", ".nan", "inf", "-.inf", "true", "yes", "off", "y", "null", "~", "", " ", "-", "- a"),
    *("a: b", "#x", "a #b", "@", "%q", "!x", "&a", "*a", "'a'", '"a"', "a\\b", "ä", "x" * 300),
]
VALUES = {"whole": 3, "float": 3.0, "tiny": 1e-05, "huge": 1e22, "true": True, "words": WORDS}


def test_text_stays_text_and_numbers_keep_their_type(tmp_path) -> None:
    given = {**{f"word{i}": word for i, word in enumerate(WORDS)}, **VALUES}
    file = write_parameters(tmp_path, NodeSpec("reader", "reader", lambda values: given), {})
    context = rclpy.Context()
    rclpy.init(args=["reader", "--ros-args", "--params-file", str(file)], context=context)
    node = rclpy.create_node("reader", context=context)
    read = {name: found.value for name, found in node._parameter_overrides.items()}
    node.destroy_node()
    rclpy.shutdown(context=context)
    assert read == given
    assert {name: type(read[name]) for name in given} == {k: type(v) for k, v in given.items()}
