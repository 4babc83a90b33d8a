"""`ros2 launch wm_nodes sim_dmc.launch.py`: the graph of wm_nodes/graphs/sim_dmc.py."""

from launch import LaunchDescription

from wm_nodes.graphs.launch.ros_launch import launch_description
from wm_nodes.graphs.sim_dmc import GRAPH


def generate_launch_description() -> LaunchDescription:
    """Return the launch actions of the graph."""
    return launch_description(GRAPH)
