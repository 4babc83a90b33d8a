"""Changes of a preset's settings: a YAML file, and their check before anything starts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from wm_nodes.errors import UserError

PRESET = "preset"  # entry of the file


@dataclass(frozen=True)
class ConfigFile:
    """What a file of --config says. preset: empty where it names none; settings by dotted name."""

    preset: str
    settings: Mapping[str, Any]


def read_config_file(path: Path) -> ConfigFile:
    """Read a YAML file: `preset: NAME`, and settings nested as in the preset. UserError."""
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        text = " ".join(str(error).split())
        raise UserError(f"--config: {path} cannot be read ({text}). Give a YAML file.") from None
    if not isinstance(content, dict) or not isinstance(content.get(PRESET, ""), str):
        raise UserError(
            f"--config: {path}: got {type(content).__name__}, expected `preset: NAME` and settings "
            "such as `learner: {train_every: 4}`."
        )
    preset = content.pop(PRESET, "")
    return ConfigFile(preset, dict(_flat(content, "")))


def checked_changes(model: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return changes of a preset's settings with their types. ModelError: one is wrong."""
    if not changes:
        return {}
    from wm_models.registry import preset  # imports torch

    return dict(preset(model).varied(changes).settings)


def _flat(tree: Mapping[Any, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            yield from _flat(value, f"{name}.")
        else:
            yield name, value
