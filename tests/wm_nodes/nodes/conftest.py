"""ROS for tests of nodes."""

from tests.nodes.conftest import graph

__all__ = ["graph"]
