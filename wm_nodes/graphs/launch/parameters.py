"""Parameters of a node as the YAML file that ROS reads, kept beside the logs of the run."""

from __future__ import annotations

from pathlib import Path

import yaml

from wm_nodes.graphs.graph import NodeSpec, Values


class _Quoted(yaml.SafeDumper):
    """Writes text in quotes: rcl reads a plain 12E5 as a number, PyYAML would leave it plain."""


_Quoted.add_representer(
    str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"')
)


def write_parameters(run: Path, node: NodeSpec, values: Values) -> Path:
    """Write logs/params/<node>.yaml, valid for every node of the process; return its path."""
    file = run / "logs" / "params" / f"{node.name}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    content = {"/**": {"ros__parameters": dict(node.parameters(values))}}
    text = yaml.dump(content, Dumper=_Quoted, sort_keys=False, allow_unicode=True, width=10**6)
    file.write_text(text)
    return file
