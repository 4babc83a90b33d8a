"""A task of your own: a Meta-World task that is paid at the goal only.

wm launch docs/examples/sparse_reach.py
"""

from __future__ import annotations

from dataclasses import replace

import numpy.typing as npt

from wm_nodes.graphs.sim_metaworld import CAMERAS
from wm_nodes.graphs.simulator import Simulator, simulator_graph
from wm_nodes.robots.base import Observation
from wm_nodes.robots.metaworld import MetaWorld


class SparseReach(MetaWorld):
    """The reward is 1 in each decision that ends at the goal, else 0."""

    def act(self, action: npt.ArrayLike) -> Observation:
        seen = super().act(action)
        self._newest = replace(seen, reward=float(seen.success))
        return self._newest


GRAPH = simulator_graph(
    "sparse_reach",
    "Meta-World's reach, paid at the goal only.",
    Simulator(
        adapter=f"{__file__}:SparseReach",
        tasks=("reach-v3",),
        cameras=CAMERAS,
        period_ms=12.5,
        action_repeat=2,
    ),
)
