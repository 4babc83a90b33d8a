"""Graphs of nodes, declared once; see `declaration.py`."""

from __future__ import annotations

from importlib import import_module

from wm_nodes.graphs.declaration import Graph, GraphError, unknown
from wm_nodes.own_code import CodeError, is_file, load_file

NAMES = ("sim_metaworld", "offline_train", "replay", "arm_mpc")


def find_graph(name: str) -> Graph:
    """Return the graph of that name, or GRAPH of a Python file; GraphError names the closest."""
    if is_file(name):
        return _own(name)
    if name not in NAMES:
        raise GraphError(f"{unknown('graph', name, NAMES)} Or a file of your own, FILE.py.")
    graph: Graph = import_module(f"wm_nodes.graphs.{name}").GRAPH
    return graph


def _own(name: str) -> Graph:
    try:
        graph = getattr(load_file(name), "GRAPH", None)
    except CodeError as error:
        raise GraphError(f"graph: {error}") from None
    if not isinstance(graph, Graph):
        raise GraphError(f"graph: {name} has no GRAPH. Right: GRAPH = simulator_graph(...).")
    return graph
