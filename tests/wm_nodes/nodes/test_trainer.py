"""The trainer node refuses demonstrations of another task than the run's own log."""

from __future__ import annotations

from dataclasses import replace

import pytest

pytest.importorskip("rclpy")

from tests.wm_nodes.tiny import TINY, LargeImagePoint, record
from wm_models.registry import PRESETS
from wm_nodes.episodes.collect import HeldRandom, collect
from wm_nodes.errors import UserError
from wm_nodes.nodes.trainer import TrainerNode


@pytest.fixture
def start(graph, tmp_path, monkeypatch):
    """Start the node on a run whose demonstrations are of another task."""
    monkeypatch.setitem(PRESETS, "tiny", TINY)
    record(tmp_path / "log", 5)
    with LargeImagePoint() as robot:
        robot.spec = replace(robot.spec, task="elsewhere")
        collect(robot, HeldRandom(robot.spec, 2.0, 0), tmp_path / "demos", 2, 0)

    def begin(**parameters):
        defaults = {"run": str(tmp_path), "model": "tiny", "device": "cpu", "pace": False}
        return graph.add(TrainerNode, demos=str(tmp_path / "demos"), **defaults, **parameters)

    return begin


def test_demonstrations_of_another_task_are_refused(graph, start, tmp_path):
    start()
    with pytest.raises(UserError, match=r"log and .*demos differ: task 'origin' and 'elsewhere'"):
        graph.spin(20)
    assert not (tmp_path / "weights").exists()


def test_they_are_learned_from_where_that_is_allowed(graph, start):
    node = start(allow_mixed=True, steps=3)
    graph.until(node.finished.done)
    assert node.exit_code == 0


def test_held_out_episodes_are_a_parameter(graph, start):
    node = start(allow_mixed=True, steps=3, hold_out=0.4)
    graph.until(node.finished.done)
    assert node._learning.config.hold_out == 0.4
