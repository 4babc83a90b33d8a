"""Parameters: typed, in range, and a wrong one is refused with the valid values."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

pytest.importorskip("rclpy")

from wm_nodes.ros.node import ManagedNode, NodeParams
from wm_nodes.ros.parameters import ParamError, param


@dataclass(frozen=True)
class SomeParams(NodeParams):
    rate_hz: float = param(20.0, "A rate.", low=1.0, high=200.0)
    count: int = param(3, "A count.", low=0)
    task: str = param("reach", "A task.")
    mode: str = param("a", "A mode.", choices=("a", "b"))
    fast: bool = param(False, "A switch.")
    source: str = param("", "A device.", digits=True)
    cameras: tuple[str, ...] = param((), "Cameras.")
    crop: tuple[float, ...] = param((0.0, 0.0), "Margins.", low=0.0, high=1.0)


class SomeNode(ManagedNode[SomeParams]):
    NAME = "some"


def read_params(graph, **values):
    return graph.add(SomeNode, begin=False, **values).params


def test_without_values_the_defaults_hold(graph) -> None:
    assert read_params(graph) == SomeParams()


def test_values_have_the_types_of_the_fields(graph) -> None:
    params = read_params(graph, rate_hz=5, count=2, source=7, fast=True, cameras=["a"], crop=[0, 1])
    assert params == SomeParams(
        rate_hz=5.0, count=2, source="7", fast=True, cameras=("a",), crop=(0.0, 1.0)
    )
    assert isinstance(params.rate_hz, float) and isinstance(params.crop[0], float)


def test_a_list_may_be_written_as_text(graph) -> None:
    assert read_params(graph, cameras="left,right").cameras == ("left", "right")


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("rate_hz", 0.5, "a number from 1.0 to 200.0"),
        ("rate_hz", "fast", "a number"),
        ("rate_hz", float("nan"), "a number"),
        ("count", -1, "a whole number from 0"),
        ("count", 1.5, "a whole number"),
        ("mode", "c", "one of a, b"),
        ("fast", 1, "true or false"),
        ("fast", "yes", "true or false"),
        ("task", True, "text"),
        (
            "task",
            483.0,
            """text (in quotes if it looks like a number or true: -p "task:='0483'")""",
        ),
        ("task", 83, "text"),
        ("source", 1.5, "text"),
        ("cameras", [1, 2], "text"),
        ("crop", [0.0, 2.0], "a number from 0.0 to 1.0"),
    ],
)
def test_a_wrong_value_is_refused(graph, name: str, value, expected: str) -> None:
    with pytest.raises(ParamError, match=name) as error:
        read_params(graph, **{name: value})
    assert expected in str(error.value) and "\n" not in str(error.value)


def test_an_unknown_name_is_refused_with_the_closest(graph) -> None:
    with pytest.raises(ParamError, match="Did you mean 'cameras'"):
        read_params(graph, camera="a")


def test_descriptors_have_description_and_range(graph) -> None:
    node = graph.add(SomeNode, begin=False)
    descriptor = node.describe_parameter("rate_hz")
    assert descriptor.description == "A rate." and descriptor.read_only
    assert descriptor.floating_point_range[0].to_value == 200.0
    assert node.describe_parameter("count").integer_range[0].from_value == 0
    assert "a, b" in node.describe_parameter("mode").additional_constraints
