"""Meta-World in, a learning agent out."""

from __future__ import annotations

from wm_nodes.graphs.sim import Simulator, simulator_graph
from wm_nodes.robots.sims.metaworld_tasks import CAMERAS, TASKS

_FIRST = "drawer-close"

GRAPH = simulator_graph(
    "sim_metaworld",
    "Meta-World in, a learning agent out, over ROS 2.",
    Simulator(
        adapter="metaworld",
        tasks=tuple(f"{task}-v3" for task in (_FIRST, *(t for t in TASKS if t != _FIRST))),
        cameras=CAMERAS,
        period_ms=12.5,
        action_repeat=2,
        time_limit=250,
        demonstrated=True,
    ),
)
