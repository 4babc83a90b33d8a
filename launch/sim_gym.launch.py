"""`ros2 launch wm_nodes sim_gym.launch.py`: the graph of wm_nodes/graphs/sim_gym.py."""

from launch import LaunchDescription

from wm_nodes.graphs.launch.ros_launch import launch_description
from wm_nodes.graphs.sim_gym import GRAPH


def generate_launch_description() -> LaunchDescription:
    """Return the launch actions of the graph."""
    return launch_description(GRAPH)
