"""Graphs of nodes, declared once; see `graph.py`."""

from __future__ import annotations

import traceback
from importlib import import_module

from wm_nodes.errors import unknown
from wm_nodes.graphs.graph import Graph, GraphError
from wm_nodes.own_code import CodeError, is_file, load_file

NAMES = ("sim", "sim_metaworld", "sim_dmc", "sim_gym", "offline_train", "replay", "arm_mpc")


def find_graph(name: str) -> Graph:
    """Return the graph of that name, or GRAPH of a Python file.

    GraphError: no such graph, or its file cannot be loaded.
    """
    if is_file(name):
        return _own(name)
    if name not in NAMES:
        raise GraphError(f"{unknown('graph', name, NAMES)} Or give a file of your own, FILE.py.")
    try:
        graph = import_module(f"wm_nodes.graphs.{name}").GRAPH
    except Exception as error:  # whatever a file of the user's own may raise
        raise GraphError(f"graph {name!r} cannot be read: {_where(error)}") from error
    if not isinstance(graph, Graph):
        raise GraphError(
            f"graph {name!r} cannot be read: got GRAPH of type {type(graph).__name__} in "
            f"wm_nodes/graphs/{name}.py, expected a Graph."
        )
    return graph


def _own(name: str) -> Graph:
    try:
        graph = getattr(load_file(name), "GRAPH", None)
    except CodeError as error:
        raise GraphError(f"graph: {error}") from None
    if not isinstance(graph, Graph):
        raise GraphError(
            f"graph: {name}: got no GRAPH, expected one, such as GRAPH = simulator_graph(...)."
        )
    return graph


def _where(error: Exception) -> str:
    """Return an error in one line, with its file and line."""
    if isinstance(error, SyntaxError):
        return f"{error.msg} ({error.filename}, line {error.lineno})."
    frames = traceback.extract_tb(error.__traceback__)
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text} ({frames[-1].filename}, line {frames[-1].lineno})."
