"""Publishers and subscribers of the ROS graph: identifiers, processes, names."""

from __future__ import annotations

from typing import Any

DISCOVERY_S = 3.5  # until all nodes are discovered: DDS announces each every 3 s
UNNAMED = "_UNKNOWN_"  # part of a node's name that is not discovered yet


def identifier(data: Any) -> bytes:
    """Return a publisher's identifier; the graph pads it with zeros in some releases."""
    return bytes(data or b"")[:16]


def process(info: Any) -> bytes:
    """Return what the identifiers of all endpoints of one process begin with (DDS: GUID prefix)."""
    return identifier(info.endpoint_gid)[:12]


def full_name(info: Any) -> str:
    """Return the name of an endpoint's node, with its namespace."""
    return f"{info.node_namespace.rstrip('/')}/{info.node_name}"


def full_names(infos: list[Any]) -> str:
    """Return the names of several endpoints' nodes as text, sorted."""
    return ", ".join(sorted(map(full_name, infos)))


def type_name(kind: type) -> str:
    """Return a message class as the graph names it: sensor_msgs/msg/JointState."""
    return f"{kind.__module__.partition('.')[0]}/msg/{kind.__name__}"
