"""`ros2 launch wm_nodes arm_mpc.launch.py`: the graph of wm_nodes/graphs/arm_mpc.py."""

from launch import LaunchDescription

from wm_nodes.graphs.arm_mpc import GRAPH
from wm_nodes.graphs.launch.ros_launch import launch_description


def generate_launch_description() -> LaunchDescription:
    """Return the launch actions of the graph."""
    return launch_description(GRAPH)
