"""Meta-World in, a learning agent out."""

from __future__ import annotations

from wm_nodes.graphs.sim import Simulator, simulator_graph

GRAPH = simulator_graph(
    "sim_metaworld",
    "Meta-World in, a learning agent out, over ROS 2.",
    Simulator.of("metaworld"),
)
