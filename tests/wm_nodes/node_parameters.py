"""Parameters that nodes are started with, compared with those that the nodes declare."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from importlib import import_module

from wm_nodes.ros.parameters import checked


def assert_declared(name: str, parameters: Mapping[str, object]) -> None:
    """Each parameter is one of node `name`, with a value of its type and range."""
    module = import_module(f"wm_nodes.nodes.{name}")
    (kind,) = {
        value.PARAMS
        for key, value in vars(module).items()
        if key.endswith("Node") and value.__module__ == module.__name__
    }
    declared = {field.name: field for field in fields(kind)}
    for key, value in parameters.items():
        assert key in declared, f"{name} has no parameter {key}"
        checked(declared[key], value, name)


def read_as_ros(parameters: Mapping[str, object]) -> dict[str, object]:
    """Values as ROS reads them from `-p name:=value`."""
    import yaml

    return {name: yaml.safe_load(str(value)) for name, value in parameters.items()}
