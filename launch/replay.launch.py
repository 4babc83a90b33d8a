"""`ros2 launch wm_nodes replay.launch.py`: the graph of wm_nodes/graphs/replay.py."""

from launch import LaunchDescription

from wm_nodes.graphs.launch.ros_launch import launch_description
from wm_nodes.graphs.replay import GRAPH


def generate_launch_description() -> LaunchDescription:
    """Return the launch actions of the graph."""
    return launch_description(GRAPH)
