"""A YAML file with a model preset and settings to change: `config:=FILE` and `--config FILE`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from wm_models.errors import ModelError
from wm_models.interface.overrides import read_changes, written
from wm_nodes.graphs.graph import GraphError, Value

PRESET = "preset"  # entry of the file


@dataclass(frozen=True)
class ConfigFile:
    """Content of a file. preset: empty where it names none; settings: by dotted name."""

    preset: str
    settings: Mapping[str, Any]


def read_config_file(path: Path) -> ConfigFile:
    """Read a YAML file: `preset: NAME`, and settings nested as in the preset. GraphError."""
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        text = " ".join(str(error).split())
        raise GraphError(
            f"config: got {path}, which cannot be read ({text}), expected a YAML file."
        ) from None
    if not isinstance(content, dict) or not isinstance(content.get(PRESET, ""), str):
        raise GraphError(
            f"config: {path}: got {type(content).__name__}, expected `preset: NAME` and settings "
            "such as `learner: {train_every: 4}`."
        )
    preset = content.pop(PRESET, "")
    return ConfigFile(preset, dict(_flat(content, "")))


def with_config(arguments: Mapping[str, Value]) -> dict[str, Value]:
    """Return the arguments with `config` replaced by the model and settings of its file.

    Settings of `set` come on top of those of the file. GraphError: the file cannot be read, or
    `model` contradicts it.
    """
    path = str(arguments.get("config", ""))
    if not path:
        return dict(arguments)
    file = read_config_file(Path(path).expanduser())
    if file.preset and arguments.get("model", file.preset) != file.preset:
        raise GraphError(
            f"model: got {arguments['model']!r}, but {path} has preset {file.preset!r}, expected "
            "the same. Leave one of them out."
        )
    try:
        changes = {**file.settings, **read_changes(str(arguments.get("set", "")))}
    except ModelError as error:
        raise GraphError(str(error)) from None
    model = {"model": file.preset} if file.preset else {}
    return {**arguments, **model, "config": "", "set": written(changes)}


def _flat(tree: Mapping[Any, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            yield from _flat(value, f"{name}.")
        else:
            yield name, value
