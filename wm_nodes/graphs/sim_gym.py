"""The graph `sim` with robot:=gym."""

from __future__ import annotations

from wm_nodes.graphs.sim import GraphRobot, simulator_graph

GRAPH = simulator_graph(
    "sim_gym",
    "An agent that acts in a Gymnasium task and learns from it.",
    GraphRobot.of("gym"),
)
