"""The graph `sim` with robot:=metaworld."""

from __future__ import annotations

from wm_nodes.graphs.sim import GraphRobot, simulator_graph

GRAPH = simulator_graph(
    "sim_metaworld",
    "An agent that acts in Meta-World and learns from it.",
    GraphRobot.of("metaworld"),
)
