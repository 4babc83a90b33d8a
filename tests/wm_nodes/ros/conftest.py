"""ROS for tests of what every node shares."""

from tests.nodes.conftest import graph

__all__ = ["graph"]
