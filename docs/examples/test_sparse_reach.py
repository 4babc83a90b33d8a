"""The task has its own name and a reward at the goal only, and a graph runs it."""

from __future__ import annotations

import pytest

pytest.importorskip("metaworld", reason="needs the [sim] extra")

from docs.examples.sparse_reach import GRAPH, TASK, SparseReach


def test_the_reward_is_the_success_under_a_name_of_its_own() -> None:
    robot = SparseReach(render="none", time_limit=5)
    try:
        assert robot.spec.task == TASK == "reach-sparse"
        robot.reset(1)
        for _ in range(3):
            obs = robot.act([0.1, 0, 0, 0])
            assert obs.reward == robot.observe().reward == float(obs.success)
    finally:
        robot.close()


def test_the_graph_accepts_the_line_of_the_page() -> None:
    assert GRAPH.parse({"demos": "20"}) == {"demos": 20}
    (task,) = (argument for argument in GRAPH.arguments if argument.name == "task")
    assert task.default == TASK
