"""Environment variables that every node process gets, however it is launched."""

from __future__ import annotations

import os

from wm_nodes.assets import shared
from wm_nodes.graphs.graph import NodeSpec, Values

# Before Iron there was no discovery range, only this switch; later releases warn about it.
OLD_ROS = ("foxy", "galactic", "humble")
# Fast DDS reads its settings from the file that this variable names; its version 2 had another.
FAST_DDS_2 = (*OLD_ROS, "iron", "jazzy")
PROFILE_VARIABLES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def network_environment(network: str) -> dict[str, str]:
    """Return the variables that limit ROS to this computer (`local`) or not (`subnet`), and set the
    size of shared memory.

    A profile that the user has set stays.
    """
    local = network == "local"
    changes = {"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST" if local else "SUBNET"}
    distro = os.environ.get("ROS_DISTRO")
    if local and distro in OLD_ROS:
        changes["ROS_LOCALHOST_ONLY"] = "1"
    if not any(os.environ.get(name) for name in PROFILE_VARIABLES):
        variable = PROFILE_VARIABLES[distro in FAST_DDS_2]
        changes[variable] = str(shared(f"config/fastdds/{network}.xml"))
    return changes


def graph_environment(values: Values) -> dict[str, str]:
    """Return what all nodes of the graph share: network, GL, unbuffered output."""
    changes = {
        **network_environment(str(values.get("network", "local"))),
        "PYTHONUNBUFFERED": "1",
        "RCUTILS_LOGGING_BUFFERED_STREAM": "1",
    }
    if not os.environ.get("MUJOCO_GL") and not os.environ.get("DISPLAY"):
        changes["MUJOCO_GL"] = "egl"
    return changes


def node_environment(node: NodeSpec, values: Values) -> dict[str, str]:
    """Return the variables of one node: the graph's, and how many threads it may use."""
    threads = str(max(1, node.threads(os.cpu_count() or 1)))
    return {**graph_environment(values), **dict.fromkeys(THREAD_VARIABLES, threads)}
