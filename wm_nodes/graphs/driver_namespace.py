"""The driver's namespace in a robot's YAML, read without the rest of the file."""

from __future__ import annotations

from pathlib import Path

import yaml

from wm_nodes.graphs.graph import GraphError
from wm_nodes.namespaces import ROOT, absolute, legal, refusal


def driver_namespace(path: Path, pushed: str) -> str:
    """Return the absolute namespace of `driver_ns` in the file; the root where there is none.

    A relative one is below `pushed`. Other errors in the file are reported by the robot node.
    """
    base = pushed or ROOT
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, ValueError, yaml.YAMLError):
        return base
    namespace = content.get("driver_ns") if isinstance(content, dict) else None
    if namespace is None or namespace == "":
        return base
    if not isinstance(namespace, str) or not legal(namespace):
        raise GraphError(refusal(f"robot: driver_ns of {path}", str(namespace)))
    return absolute(namespace, base)
