"""`wm weights import dino_wm FOLDER`: convert a checkpoint of DINO-WM's own code into weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from wm_nodes.cli.arguments import parse
from wm_nodes.errors import UserError, user_errors
from wm_nodes.graphs.launch.run_folder import RUNS

if TYPE_CHECKING:
    from wm_models.interface.embodiment import Embodiment
    from wm_models.weights.released_dino_wm import ReleasedRun

PERIODS = {"point_maze": 0.05, "pusht": 0.1}  # s; unknown for the other tasks


@dataclass(frozen=True)
class Import:
    """Convert a checkpoint of DINO-WM's own code into a folder of weights.

    FOLDER is the folder of a training run there: hydra.yaml and checkpoints/model_latest.pth. No
    code in the checkpoint is executed. It holds no statistics of its data: they are computed from
    the dataset as that code does, and kept in the weights. PushT's are constants.
    """

    code: Annotated[Literal["dino_wm"], tyro.conf.Positional, tyro.conf.arg(metavar="CODE")]
    """The code that wrote the checkpoint: dino_wm."""
    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")]
    """Folder of the run."""
    out: Path | None = None
    """Folder of the weights; default: runs/dino_wm-TASK/weights."""
    data: Path | None = None
    """Folder of the dataset that it was trained on (states.pth, actions.pth); default: the one that
    hydra.yaml names."""
    encoder: Path | None = None
    """File of the frozen encoder's weights; default: searched on this computer."""
    epoch: str = "latest"
    """Epoch of the checkpoint: checkpoints/model_<epoch>.pth."""


def run_import(words: Sequence[str]) -> int:
    """Run `wm weights import WORDS`."""
    options = parse(Import, "weights import", words)
    if not options.folder.is_dir():
        raise UserError(f"FOLDER: got {options.folder}, expected the folder of a training run.")

    from wm_datasets import LogError
    from wm_models.errors import ModelError
    from wm_models.weights.manifest import WeightsError
    from wm_models.weights.released_dino_wm import ReleasedRun, import_released

    with user_errors(WeightsError, ModelError, LogError, OSError):
        released = ReleasedRun.read(options.folder)
        out = options.out or Path(RUNS) / f"dino_wm-{released.environment or 'import'}" / "weights"
        if out.exists():
            raise UserError(f"--out: got {out}, which exists, expected a new folder.")
        embodiment, source = _embodiment(released, options.data)
        manifest = import_released(
            released,
            embodiment,
            out,
            epoch=options.epoch,
            encoder=options.encoder,
            extra={"statistics": source},
        )
    for note in released.notes:
        print(f"note: {note}")
    changed = ", ".join(f"{name} {value}" for name, value in manifest.settings.items())
    epoch = manifest.extra["imported"]["epoch"]
    print(f"{manifest.preset}{f' with {changed}' if changed else ''}, epoch {epoch}; "
          f"statistics of {source}\nweights: {out}")  # fmt: skip
    return 0


def _embodiment(released: ReleasedRun, data_folder: Path | None) -> tuple[Embodiment, str]:
    """Return the statistics of a run's data, and their source."""
    from wm_datasets.formats.dino_wm_statistics import pusht_statistics, statistics
    from wm_models.interface.embodiment import Embodiment

    data = released.data
    normalised = bool(data.get("normalize_action", False))
    folder = data_folder or _named(data)
    if folder is not None:
        episodes = data.get("n_rollout")
        stats = statistics(
            folder, episodes if isinstance(episodes, int) else None, normalised=normalised
        )
        source = folder.name
    elif released.environment == "pusht":
        stats = pusht_statistics(bool(data.get("with_velocity", True)), normalised)
        source = "the constants in DINO-WM's code"
    else:
        raise UserError(
            f"--data: got none, and {data.get('data_path', 'the folder in hydra.yaml')} is not on "
            "this computer, expected the dataset of the training (states.pth, actions.pth), as the "
            "checkpoint holds no statistics of it. Give --data FOLDER."
        )
    period = PERIODS.get(released.environment, 0.0)
    return Embodiment(**asdict(stats), period_s=period), source


def _named(data: Mapping[str, Any]) -> Path | None:
    """Return the dataset's folder that hydra.yaml names; None where it is not on this computer."""
    if not isinstance(data.get("data_path"), str):
        return None
    folder = Path(data["data_path"])
    if isinstance(data.get("object_name"), str):  # rope, granular
        folder /= data["object_name"]
    return folder if folder.is_dir() else None
