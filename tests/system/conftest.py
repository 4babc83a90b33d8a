"""Nodes and weights for tests of whole graphs, as tests of single nodes have them."""

from tests.wm_nodes.conftest import graph, store

__all__ = ["graph", "store"]
