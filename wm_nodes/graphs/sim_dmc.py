"""The graph `sim` with robot:=dmc."""

from __future__ import annotations

from wm_nodes.graphs.sim import GraphRobot, simulator_graph

GRAPH = simulator_graph(
    "sim_dmc",
    "An agent that acts in dm_control and learns from it.",
    GraphRobot.of("dmc"),
)
