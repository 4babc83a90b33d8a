"""Nodes for tests of the arm, as tests/nodes has them."""

from tests.nodes.conftest import graph

__all__ = ["graph"]
