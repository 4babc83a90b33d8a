"""A task of your own: Meta-World's reach with a reward at the goal only.

    wm launch docs/examples/sparse_reach.py demos:=20

It has its own name, so that logs and weights of reach-v3 are not used for it by mistake. The robot
node and the demonstrator open the same class, so demonstrations have the same reward.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy.typing as npt

from wm_nodes.graphs.sim import GraphRobot, simulator_graph
from wm_nodes.robots.robot import Observation
from wm_nodes.robots.sims.metaworld import MetaWorld
from wm_nodes.robots.sims.metaworld_tasks import CAMERAS

TASK = "reach-sparse"


class SparseReach(MetaWorld):
    """The reward is 1 in each agent step that ends at the goal, else 0."""

    def __init__(self, task: str = TASK, **settings: Any) -> None:
        super().__init__("reach-v3", **settings)
        self.spec = replace(self.spec, task=task)

    def act(self, action: npt.ArrayLike) -> Observation:
        observation = super().act(action)
        self._newest = replace(observation, reward=float(observation.success))
        return self._newest


GRAPH = simulator_graph(
    "sparse_reach",
    "Meta-World's reach with a reward at the goal only.",
    GraphRobot(
        adapter=f"{__file__}:SparseReach",
        tasks=(TASK,),
        cameras=CAMERAS,
        period_ms=12.5,
        action_repeat=2,
        demonstrated=True,
    ),
)
