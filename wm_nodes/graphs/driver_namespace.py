"""The driver's namespace in a robot's YAML, for a launch that has not read the file otherwise."""

from __future__ import annotations

from pathlib import Path

import yaml

from wm_nodes.graphs.graph import GraphError
from wm_nodes.namespaces import ROOT, absolute, legal, refusal


def driver_namespace(path: Path, pushed: str) -> str:
    """Return the absolute namespace of `driver_ns` in the file; the root where there is none.

    A relative one is below `pushed`. What else is wrong with the file, the robot node reports.
    """
    base = pushed or ROOT
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, ValueError, yaml.YAMLError):
        return base
    given = content.get("driver_ns") if isinstance(content, dict) else None
    if given is None or given == "":
        return base
    if not isinstance(given, str) or not legal(given):
        raise GraphError(refusal(f"robot: driver_ns of {path}", str(given)))
    return absolute(given, base)
