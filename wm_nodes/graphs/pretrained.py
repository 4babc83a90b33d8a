"""Weights that a model of APV begins with: `pretrained:=RUN` and `wm train --pretrained RUN`."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from wm_models.registry import preset
from wm_models.weights.manifest import WeightsError, parse_manifest
from wm_nodes.graphs.graph import GraphError
from wm_nodes.graphs.launch.run_folder import RUNS
from wm_nodes.graphs.weights import read_facts

PRETRAINED = "learner.pretrained"  # the preset's setting


def pretrained_folder(word: str) -> Path:
    """Return the weights' folder of a run (its name or path), or of weights. GraphError: none."""
    named = Path(word).expanduser()
    for place in (named, Path(RUNS) / word):
        for folder in (place / "weights", place):
            if (folder / "latest").is_file() or (folder / "manifest.json").is_file():
                return folder.resolve()
    raise GraphError(
        f"pretrained: got {word!r}, which holds no weights, expected a run of wm pretrain, or a "
        "folder of weights."
    )


def check_pretrained(model: str, changes: Mapping[str, Any], folder: Path) -> None:
    """Refuse weights that a preset, with these settings changed, cannot begin with. GraphError.

    They are looked up where torch is, which the system Python of `ros2 launch` may lack: there the
    trainer refuses them.
    """
    if PRETRAINED in changes:
        raise GraphError(
            f"pretrained: got {folder}, but set has {PRETRAINED}={changes[PRETRAINED]}, expected "
            "one of them. Leave one of them out."
        )
    facts = read_facts(folder)
    if find_spec("torch") is None:
        return
    try:
        manifest = parse_manifest(facts.folder / "manifest.json")
        other = preset(manifest.preset).varied(manifest.settings)
        preset(model).varied(changes).check_pretrained(other, str(folder))
    except (ValueError, WeightsError, OSError) as error:
        raise GraphError(f"pretrained: {str(error).removeprefix('pretrained: ')}") from None
