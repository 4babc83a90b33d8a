"""Parameters of a node as the YAML file that ROS reads, kept beside the logs of the run."""

from __future__ import annotations

from pathlib import Path

import yaml

from wm_nodes.graphs.declaration import NodeSpec, Values


def write_parameters(run: Path, node: NodeSpec, values: Values) -> Path:
    """Write logs/params/<node>.yaml, valid for every node of the process; return its path."""
    file = run / "logs" / "params" / f"{node.name}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    content = {"/**": {"ros__parameters": dict(node.parameters(values))}}
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    return file
