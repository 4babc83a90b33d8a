"""`ros2 launch wm_nodes offline_train.launch.py`: the graph of wm_nodes/graphs/offline_train.py."""

from launch import LaunchDescription

from wm_nodes.graphs.launch.ros_launch import launch_description
from wm_nodes.graphs.offline_train import GRAPH


def generate_launch_description() -> LaunchDescription:
    """Return the launch actions of the graph."""
    return launch_description(GRAPH)
