"""Graphs of nodes, declared once; see `declaration.py`."""

from __future__ import annotations

from importlib import import_module

from wm_nodes.graphs.declaration import Graph, GraphError, unknown

NAMES = ("sim_metaworld", "offline_train", "replay", "arm_mpc")


def find_graph(name: str) -> Graph:
    """Return the graph of that name, or refuse it naming the closest."""
    if name not in NAMES:
        raise GraphError(unknown("graph", name, NAMES))
    graph: Graph = import_module(f"wm_nodes.graphs.{name}").GRAPH
    return graph
