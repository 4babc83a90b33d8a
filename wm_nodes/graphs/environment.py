"""Environment variables that every node process gets, however it is launched."""

from __future__ import annotations

import os

from wm_nodes.graphs.declaration import NodeSpec, Values

# Before Iron there was no discovery range, only this switch; later releases warn about it.
OLD_ROS = ("foxy", "galactic", "humble")
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def graph_environment(values: Values) -> dict[str, str]:
    """Return what all nodes of the graph share: discovery range, GL, unbuffered output."""
    local = values.get("network", "local") == "local"
    changes = {
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST" if local else "SUBNET",
        "PYTHONUNBUFFERED": "1",
        "RCUTILS_LOGGING_BUFFERED_STREAM": "1",
    }
    if local and os.environ.get("ROS_DISTRO") in OLD_ROS:
        changes["ROS_LOCALHOST_ONLY"] = "1"
    if not os.environ.get("MUJOCO_GL") and not os.environ.get("DISPLAY"):
        changes["MUJOCO_GL"] = "egl"
    return changes


def node_environment(node: NodeSpec, values: Values) -> dict[str, str]:
    """Return the variables of one node: the graph's, and how many threads it may use."""
    threads = str(max(1, node.threads(os.cpu_count() or 1)))
    return {**graph_environment(values), **dict.fromkeys(THREAD_VARIABLES, threads)}
